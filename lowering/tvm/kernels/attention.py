"""Attention: scores of a few queries at a time stay in the first-level cache until their values are summed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ..machine import Machine
from ..views import Access
from .body import Body, Buffer, Expr
from .product import starts, tile_product
from .rows import LOWEST, softmax_row
from .spec import Tile

__all__ = ["Attend"]


def _weight_of(body: Body, table: Buffer, begin: int, over: int, i: int, key: Expr) -> Expr:
    """What the value of a key counts for query `i` of those that begin there."""
    return body.load(table, begin + i * over + key)


@dataclass(frozen=True)
class Attend:
    """softmax(scale * q k^T + bias) v; q, k and v have an index (batch, token, channel of all heads).

    `bias` has an index (batch, head, query, key). The result is [batch, queries, heads * width] in order.
    """

    batch: int
    heads: int
    queries: int
    keys: int
    depth: int
    width: int
    scale: float
    q: Access
    k: Access
    v: Access
    bias: Access | None
    scores: Tile
    values: Tile

    @property
    def label(self) -> str:
        """See `Kernel`."""
        return f"attention_{self.heads}x{self.queries}x{self.keys}x{self.depth}"

    def emit(self, body: Body, operands: Sequence[Buffer], result: Buffer, machine: Machine) -> None:
        """See `Kernel`."""
        lanes, rows = machine.lanes, self.scores.rows
        over, across = self._room(self.keys, self.scores, lanes), self._room(self.width, self.values, lanes)
        work = self.batch * self.heads * self.queries * self.keys * (self.depth + self.width)
        # Whole heads are most work with least waiting, where they can be shared evenly; queries of one head always can.
        even = max(self.batch, self.heads) % body.threads == 0
        with body.teams((self.batch, self.heads), work if even else 0) as heads:
            keys, values = body.scratch(self.depth * over), body.scratch(self.keys * across)
            with heads() as (b, h):
                self._pack(body, operands[1], keys, (b, h), lanes)
                self._pack_values(body, operands[2], values, (b, h), lanes)
                with body.team(-(-self.queries // rows), 0 if even else work // (self.batch * self.heads)) as share:
                    table, factors = body.scratch(rows * over), body.scratch(rows)
                    with share() as at:
                        row = body.least(at * rows, self.queries - rows)
                        self._score(body, operands, (keys, table), (b, h, row), lanes)
                        for i in range(rows):
                            self._mask(body, operands, table, (b, h, row, i), over, lanes)
                            body.store(factors, softmax_row(body, table, i * over, over, lanes), i)
                        self._weigh(body, (table, factors, values), result, (b, h, row), lanes)

    @staticmethod
    def _room(size: int, tile: Tile, lanes: int) -> int:
        """An axis rounded up to whole panels."""
        width = tile.vectors * lanes
        return -(-size // width) * width

    def _pack(self, body: Body, source: Buffer, packed: Buffer, head: tuple[Expr, Expr], lanes: int) -> None:
        """Keys as panels [.., depth, keys of a panel]; what lies past the last key repeats it."""
        width = self.scores.vectors * lanes
        with body.loop(self._room(self.keys, self.scores, lanes) // width) as panel, body.loop(width) as lane:
            key = body.least(panel * width + lane, self.keys - 1)
            with body.loop(self.depth) as c:
                value = body.load(source, self.k(head[0], key, head[1] * self.depth + c))
                body.store(packed, value, (panel * self.depth + c) * width + lane)

    def _pack_values(self, body: Body, source: Buffer, packed: Buffer, head: tuple[Expr, Expr], lanes: int) -> None:
        """Values as rows of whole panels."""
        across = self._room(self.width, self.values, lanes)
        with body.loop(self.keys) as key:

            def visit(at: Expr, n: int) -> None:
                place = self.v(head[0], key, head[1] * self.width + at)
                body.store(packed, body.load(source, place, n, self.v.strides[-1]), key * across + at, n)

            body.sweep(self.width, lanes, visit)
            rest = body.number(0.0)
            body.sweep(across - self.width, 1, lambda at, n: body.store(packed, rest, key * across + self.width + at))

    def _score(
        self, body: Body, operands: Sequence[Buffer], buffers: tuple[Buffer, Buffer], at: tuple[Expr, Expr, Expr],
        lanes: int,
    ) -> None:  # fmt: skip
        """Scores of a few queries with all keys."""
        (packed, table), (b, h, row), tile = buffers, at, self.scores
        width, over = tile.vectors * lanes, self._room(self.keys, tile, lanes)
        sums = body.registers(tile.rows * tile.vectors, lanes)
        with body.loop(over // width) as panel:
            tile_product(
                body, sums, tile, lanes, self.depth,
                lambda i, c: body.load(operands[0], self.q(b, row + i, h * self.depth + c)),
                lambda c, j: body.load(packed, (panel * self.depth + c) * width + j * lanes, lanes),
            )  # fmt: skip
            for i in range(tile.rows):
                for j in range(tile.vectors):
                    value = body.get(sums, i * tile.vectors + j) * body.number(self.scale, lanes)
                    body.store(table, value, i * over + panel * width + j * lanes, lanes)

    def _mask(
        self, body: Body, operands: Sequence[Buffer], table: Buffer, at: tuple[Expr, Expr, Expr, int], over: int,
        lanes: int,
    ) -> None:  # fmt: skip
        """Add the bias to one query's scores, and take out what is no key."""
        b, h, row, i = at
        if (access := self.bias) is not None:

            def add(key: Expr, n: int) -> None:
                assert access is not None
                place = i * over + key
                more = body.load(operands[3], access(b, h, row + i, key), n, access.strides[-1])
                body.store(table, body.load(table, place, n) + more, place, n)

            body.sweep(self.keys, lanes, add)
        nothing = body.number(LOWEST)
        body.sweep(over - self.keys, 1, lambda key, n: body.store(table, nothing, i * over + self.keys + key))

    def _weigh(
        self, body: Body, buffers: tuple[Buffer, Buffer, Buffer], result: Buffer, at: tuple[Expr, Expr, Expr],
        lanes: int,
    ) -> None:  # fmt: skip
        """Values summed with the scores' weights, for the same queries."""
        (table, factors, packed), (b, h, row), rows = buffers, at, self.scores.rows
        tile, over = self.values, self._room(self.keys, self.scores, lanes)
        width, across = tile.vectors * lanes, self._room(self.width, tile, lanes)
        sums = body.registers(tile.rows * tile.vectors, lanes)
        for first in starts(rows, tile.rows):
            with body.loop(across // width) as panel:
                begin = first * over
                tile_product(
                    body, sums, tile, lanes, self.keys,
                    partial(_weight_of, body, table, begin, over),
                    lambda key, j: body.load(packed, key * across + panel * width + j * lanes, lanes),
                )  # fmt: skip
                for i in range(tile.rows):
                    start = ((b * self.queries + row + first + i) * self.heads + h) * self.width
                    factor = body.load(factors, first + i)
                    for j in range(tile.vectors):
                        value = body.get(sums, i * tile.vectors + j) * body.spread(factor, lanes)
                        self._store(body, result, value, start, panel * width + j * lanes, lanes)

    def _store(self, body: Body, result: Buffer, value: Expr, start: Expr, channel: Expr, lanes: int) -> None:
        """Write a vector of channels, as far as the head has them."""
        if self.width % lanes == 0:
            body.store(result, value, start + channel, lanes)
            return
        room = body.scratch(lanes)
        body.store(room, value, 0, lanes)
        with body.loop(lanes) as lane, body.provided(channel + lane < self.width):
            body.store(result, body.load(room, lane), start + channel + lane)
