"""Matrix products: a tile of the result stays in registers while panels of one operand stream by."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from ....ir.graph import Array
from ..machine import Machine
from ..views import Access
from .body import Body, Buffer, Expr
from .spec import PLAIN, Epilogue, Tile

__all__ = ["Product", "fitting", "pack_columns", "pack_rows", "starts", "tile_product"]

LATENCY = 8
"""Multiply-adds that must be under way at a time to hide their latency: four cycles, two a cycle."""


@cache
def candidates(most: int) -> tuple[Tile, ...]:
    """Tiles whose sums, one row of vectors and one spread number fit so many registers."""
    sizes = ((rows, vectors) for rows in range(1, most) for vectors in range(1, most))
    need = ((r, v, r * v + (v if r > 1 else 0) + 1) for r, v in sizes)
    return tuple(Tile(rows, vectors) for rows, vectors, registers in need if registers <= most)


def cost(tile: Tile, rows: int, vectors: int) -> float:
    """Cycles by the longer of the multiply-adds and the loads, for each step along the inner axis."""
    sums, loads = tile.rows * tile.vectors, tile.rows + tile.vectors
    return math.ceil(rows / tile.rows) * math.ceil(vectors / tile.vectors) * (max(sums, loads, LATENCY) / 2 + 0.25)


def fitting(machine: Machine, rows: int, columns: int) -> list[Tile]:
    """Candidates for a result of that size, the one that covers it soonest first."""
    most = max(1, columns // machine.lanes)
    found = [tile for tile in candidates(machine.registers) if tile.rows <= rows and tile.vectors <= most]
    vectors = -(-columns // machine.lanes)
    return sorted(found, key=lambda t: (cost(t, rows, vectors), -t.rows * t.vectors, -t.rows))


def starts(size: int, step: int) -> list[int]:
    """Where the parts of an axis begin, in order; the last one reaches back so that it ends with the axis."""
    return [max(0, min(at, size - step)) for at in range(0, size, step)]


def pack_columns(w: Array, width: int) -> Array:
    """w [N, K] as panels [.., K, width] of so many outputs; a panel wider than N ends in zeros."""
    padded = w if len(w) >= width else np.pad(w, ((0, width - len(w)), (0, 0)))
    panels = [padded[at : at + width].T for at in starts(len(padded), width)]
    return np.ascontiguousarray(np.stack(panels)).reshape(-1)


def pack_rows(w: Array, rows: int) -> Array:
    """w [O, K] as tiles [.., K, rows] of so many outputs."""
    return np.ascontiguousarray(np.stack([w[at : at + rows].T for at in starts(len(w), rows)])).reshape(-1)


def tile_product(
    body: Body, sums: Buffer, tile: Tile, lanes: int, depth: int,
    a: Callable[[int, Expr], Expr], b: Callable[[Expr, int], Expr], kind: str = "float32",
    term: Callable[[Expr, Expr], Expr] = operator.mul,
) -> None:  # fmt: skip
    """sums[i, j] = sum over k of a(i, k) (a scalar) times b(k, j) (a vector), or whatever `term` makes of the two."""
    for at in range(tile.rows * tile.vectors):
        body.put(sums, at, body.number(0, lanes, kind))
    with body.loop(depth) as k:
        for i in range(tile.rows):
            factor = body.spread(a(i, k), lanes)
            for j in range(tile.vectors):
                at = i * tile.vectors + j
                body.put(sums, at, body.get(sums, at) + term(factor, b(k, j)))


@dataclass(frozen=True)
class Product:
    """result[.., m, n] = sum over k of a[.., m, k] * b[.., k, n], then the epilogue.

    `a` has an index (*batch, m, k) and `b` (*batch, k, n); without `b` the second operand is `pack_columns` of a
    weight. The result is in order.
    """

    batch: tuple[int, ...]
    rows: int
    columns: int
    depth: int
    a: Access
    b: Access | None
    tile: Tile
    epilogue: Epilogue = PLAIN

    numbers: ClassVar[str] = "float32"
    """Type of the sums."""

    @property
    def label(self) -> str:
        """See `Kernel`."""
        kind = "linear" if self.b is None else "matmul"
        return f"{kind}_{self.rows}x{self.depth}x{self.columns}{self.epilogue.formula.label}"

    def emit(self, body: Body, operands: Sequence[Buffer], result: Buffer, machine: Machine) -> None:
        """See `Kernel`."""
        a, b, *more = operands
        width = self.tile.vectors * machine.lanes
        panels, steps = -(-self.columns // width), -(-self.rows // self.tile.rows)
        packed = b if self.b is None else body.scratch(panels * self.depth * width)
        with body.loops(self.batch) as batch:
            if self.b is not None:
                self._pack(body, (b, packed), self.b, batch, machine)
            with body.teams((panels, steps), self.rows * self.depth * self.columns) as share:
                sums = body.registers(self.tile.rows * self.tile.vectors, machine.lanes)
                with share() as (panel, at):
                    row, column = self._corner(body, panel, at, width)
                    self._sum(body, sums, a, (packed, panel * (self.depth * width)), (*batch, row), machine)
                    self._finish(body, sums, more, result, (*batch, row, column), machine)

    def _corner(self, body: Body, panel: Expr, at: Expr, width: int) -> tuple[Expr, Expr]:
        """Row and column of a tile's first element; the last tiles reach back."""
        row = body.least(at * self.tile.rows, self.rows - self.tile.rows)
        return row, body.least(panel * width, max(0, self.columns - width))

    def _sum(
        self, body: Body, sums: Buffer, a: Buffer, panel: tuple[Buffer, Expr], index: tuple[Expr, ...],
        machine: Machine,
    ) -> None:  # fmt: skip
        """The tile of which `index` is the first row, by the panel that begins at a place."""
        (*batch, row), (packed, first), lanes = index, panel, machine.lanes
        width = self.tile.vectors * lanes
        tile_product(
            body, sums, self.tile, lanes, self.depth,
            lambda i, k: body.load(a, self.a(*batch, row + i, k)),
            lambda k, j: body.load(packed, first + k * width + j * lanes, lanes),
        )  # fmt: skip

    def _pack(
        self, body: Body, buffers: tuple[Buffer, Buffer], access: Access, batch: tuple[Expr, ...], machine: Machine
    ) -> None:
        """Copy the second operand to panels; columns past the end repeat the last one."""
        source, packed = buffers
        width, narrow = self.tile.vectors * machine.lanes, self.columns < machine.lanes
        lanes = machine.lanes if access.strides[-1] == 1 and not narrow else 1
        with body.loop(-(-self.columns // width)) as panel, body.loop(self.depth) as k:
            first = 0 if narrow else body.least(panel * width, self.columns - width)

            def visit(at: Expr, n: int) -> None:
                column = body.least(at, self.columns - 1) if narrow else first + at
                place = (panel * self.depth + k) * width + at
                body.store(packed, body.load(source, access(*batch, k, column), n), place, n)

            body.sweep(width, lanes, visit)

    def _finish(
        self, body: Body, sums: Buffer, more: Sequence[Buffer], result: Buffer, index: tuple[Expr, ...],
        machine: Machine,
    ) -> None:  # fmt: skip
        """Store a tile whose first element has that index."""
        *batch, row, column = index
        place = 0
        for size, at in zip(self.batch, batch, strict=True):
            place = place * size + at
        for i in range(self.tile.rows):
            start = (place * self.rows + row + i) * self.columns
            for j in range(self.tile.vectors):
                value = body.get(sums, i * self.tile.vectors + j)
                if self.columns >= machine.lanes:
                    here = (*batch, row + i, column + j * machine.lanes)
                    value = self.epilogue(body, value, more, here, machine.lanes)
                    body.store(result, value, start + here[-1], machine.lanes)
                else:
                    self._store_part(body, value, more, result, (*batch, row + i), start, machine)

    def _store_part(
        self, body: Body, value: Expr, more: Sequence[Buffer], result: Buffer, index: tuple[Expr, ...], start: Expr,
        machine: Machine,
    ) -> None:  # fmt: skip
        """Store the lanes that a result narrower than a vector has."""
        room = body.scratch(machine.lanes, self.numbers)
        body.store(room, value, 0, machine.lanes)
        with body.loop(self.columns) as at:
            scalar = self.epilogue(body, body.load(room, at), more, (*index, at), 1)
            body.store(result, scalar, start + at)
