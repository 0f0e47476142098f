"""Dense convolutions: pixels are packed into panels and multiplied as matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..machine import CACHE, Machine
from ..views import Access
from .body import Body, Buffer, Expr
from .product import tile_product
from .spec import PLAIN, Epilogue, Tile
from .window import Image, Window

__all__ = ["Convolution", "Panels"]

BLOCK = 4 * CACHE
"""Bytes of packed pixels that are multiplied by all weights before the next ones are packed: half a small L2 cache."""


class Panels(NamedTuple):
    """How output pixels fall into panels: so many vectors of each row, or (`table`) pixel by pixel over all rows."""

    rows: int
    row: int
    per_row: int
    table: bool

    @classmethod
    def of(cls, window: Window, lanes: int) -> Panels:
        """Whole vectors along rows where rows are long enough."""
        pixels = window.out[0] * window.out[1]
        if window.pointwise:
            return cls(1, pixels, max(1, -(-pixels // lanes)), pixels < lanes)
        if window.out[1] >= lanes:
            return cls(window.out[0], window.out[1], -(-window.out[1] // lanes), False)
        return cls(1, pixels, max(1, -(-pixels // lanes)), True)

    @property
    def vectors(self) -> int:
        """Of all rows."""
        return self.rows * self.per_row

    def place(self, body: Body, vector: Expr, lanes: int) -> tuple[Expr, Expr]:
        """Row and first pixel of a vector; the last one of a row reaches back."""
        last = max(0, self.row - lanes)
        if self.rows == 1:
            return 0, body.least(vector * lanes, last)
        if self.per_row == 1:
            return vector, 0
        floordiv, floormod = body.tir.floordiv, body.tir.floormod
        return floordiv(vector, self.per_row), body.least(floormod(vector, self.per_row) * lanes, last)


@dataclass(frozen=True)
class Convolution:
    """result[b, g, o, y, x] over images [batch, groups, channels, H, W] in order; weights by `pack_rows`, each group.

    `epilogue` has an index (b * groups * outputs + ..., pixel).
    """

    batch: int
    groups: int
    channels: int
    outputs: int
    window: Window
    tile: Tile
    start: int = 0
    epilogue: Epilogue = PLAIN

    @property
    def label(self) -> str:
        """See `Kernel`."""
        kernel, out = self.window.kernel, self.window.out
        shape = f"{self.channels}x{kernel[0]}x{kernel[1]}x{self.outputs}_{out[0]}x{out[1]}"
        return f"conv_{shape}{self.epilogue.formula.label}"

    @property
    def depth(self) -> int:
        """Products in each sum."""
        return self.channels * self.window.kernel[0] * self.window.kernel[1]

    def emit(self, body: Body, operands: Sequence[Buffer], result: Buffer, machine: Machine) -> None:
        """See `Kernel`."""
        x, w, *more = operands
        lanes, tile, window = machine.lanes, self.tile, self.window
        width, form = tile.vectors * lanes, Panels.of(window, lanes)
        panels, tiles = -(-form.vectors // tile.vectors), -(-self.outputs // tile.rows)
        block = self._block(panels, width, body.threads)
        blocks = -(-panels // block)
        plane = self._plane(body, machine)
        with body.loop(self.batch) as b, body.loop(self.groups) as g:
            group = b * self.groups + g
            source = self._source(body, x, plane, group, machine)
            with body.team(blocks, panels * width * self.depth * self.outputs) as share:
                packed = body.scratch(block * self.depth * width)
                sums = body.registers(tile.rows * tile.vectors, lanes)
                with share() as part:
                    count = body.least(block, panels - part * block) if panels % block else block
                    with body.loop(count) as p:
                        self._pack(body, source, packed, form, (part * block + p, p), machine)
                    with body.loop(tiles) as at, body.loop(count) as p:
                        row = body.least(at * tile.rows, self.outputs - tile.rows)
                        tile_product(
                            body, sums, tile, lanes, self.depth,
                            lambda i, k: body.load(w, ((g * tiles + at) * self.depth + k) * tile.rows + i),
                            lambda k, j: body.load(packed, (p * self.depth + k) * width + j * lanes, lanes),
                        )  # fmt: skip
                        first = body.least((part * block + p) * tile.vectors, form.vectors - tile.vectors)
                        self._finish(body, sums, more, result, (group * self.outputs + row, first), form, machine)

    def _block(self, panels: int, width: int, threads: int) -> int:
        """Panels that are packed at a time: as many as the cache holds, and a block for each thread at least."""
        most = max(1, BLOCK // (self.depth * width * 4))
        blocks = -(-panels // most)
        return -(-panels // min(panels, -(-blocks // threads) * threads))

    def _plane(self, body: Body, machine: Machine) -> Buffer | None:
        """Room for the images of a group with their borders, where windows reach over them."""
        if not self.window.bordered:
            return None
        plane = body.scratch(self.channels * math.prod(self.window.padded))
        self.window.fill(body, plane, self.channels, 0.0, machine.lanes)
        return plane

    def _source(self, body: Body, x: Buffer, plane: Buffer | None, group: Expr, machine: Machine) -> Image:
        """Where the planes of a group lie, copied inside their borders."""
        size, padded = math.prod(self.window.image), math.prod(self.window.padded)
        first = self.start + group * self.channels * size
        if plane is None:
            return x, first
        with body.team(self.channels, self.channels * padded) as share, share() as c:
            self.window.copy(body, (x, first + c * size), (plane, c * padded), machine.lanes)
        return plane, 0

    def _pack(
        self, body: Body, source: Image, packed: Buffer, form: Panels, panel: tuple[Expr, Expr],
        machine: Machine,
    ) -> None:  # fmt: skip
        """Copy the pixels of one panel: number `panel[0]` of all, number `panel[1]` of its block."""
        (buffer, first), window, lanes = source, self.window, machine.lanes
        high, wide = window.padded
        width = self.tile.vectors * lanes
        place = Access(0, (high * wide, window.dilations[0] * wide, window.dilations[1]))

        def copy(base: Expr, lane: Expr, n: int) -> None:
            with body.loops((self.channels, *window.kernel)) as (c, i, j):
                k = (c * window.kernel[0] + i) * window.kernel[1] + j
                value = body.load(buffer, base + place(c, i, j), n, window.strides[1])
                body.store(packed, value, (panel[1] * self.depth + k) * width + lane, n)

        if form.table:
            start = body.least(panel[0] * width, max(0, form.row - width))
            with body.loop(width) as lane:
                pixel = body.least(start + lane, form.row - 1)
                y, x = body.tir.floordiv(pixel, window.out[1]), body.tir.floormod(pixel, window.out[1])
                copy(first + y * (window.strides[0] * wide) + x * window.strides[1], lane, 1)
            return
        start = body.least(panel[0] * self.tile.vectors, form.vectors - self.tile.vectors)
        for j in range(self.tile.vectors):
            y, x = form.place(body, start + j, lanes)
            copy(first + y * (window.strides[0] * wide) + x * window.strides[1], j * lanes, lanes)

    def _finish(
        self, body: Body, sums: Buffer, more: Sequence[Buffer], result: Buffer, index: tuple[Expr, Expr], form: Panels,
        machine: Machine,
    ) -> None:  # fmt: skip
        """Store a tile whose first element has that channel and that vector."""
        (row, first), lanes = index, machine.lanes
        pixels = self.window.out[0] * self.window.out[1]
        for j in range(self.tile.vectors):
            if form.table:
                pixel = body.least(first * lanes, max(0, pixels - self.tile.vectors * lanes)) + j * lanes
            else:
                y, x = form.place(body, first + j, lanes)
                pixel = y * form.row + x
            for i in range(self.tile.rows):
                value, start = body.get(sums, i * self.tile.vectors + j), (row + i) * pixels
                if pixels >= lanes:
                    value = self.epilogue(body, value, more, (row + i, pixel), lanes)
                    body.store(result, value, start + pixel, lanes)
                else:
                    self._store_part(body, value, more, result, (row + i, start), machine)

    def _store_part(
        self, body: Body, value: Expr, more: Sequence[Buffer], result: Buffer, at: tuple[Expr, Expr], machine: Machine
    ) -> None:
        """Store the lanes that an image smaller than a vector has."""
        room = body.scratch(machine.lanes)
        body.store(room, value, 0, machine.lanes)
        with body.loop(self.window.out[0] * self.window.out[1]) as pixel:
            scalar = self.epilogue(body, body.load(room, pixel), more, (at[0], pixel), 1)
            body.store(result, scalar, at[1] + pixel)
