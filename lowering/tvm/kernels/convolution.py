"""Convolutions: pixels are packed into panels and multiplied as matrices; depthwise ones slide over padded planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..machine import CACHE, Machine
from ..views import Access
from .body import Body, Buffer, Expr
from .product import tile_product
from .spec import PLAIN, Epilogue, Tile

__all__ = ["Convolution", "Depthwise", "Window"]

Pair = tuple[int, int]

BLOCK = 4 * CACHE
"""Bytes of packed pixels that are multiplied by all weights before the next ones are packed: half a small L2 cache."""


@dataclass(frozen=True)
class Window:
    """How a kernel slides over images [.., height, width]; pads are (top, left, bottom, right)."""

    image: Pair
    kernel: Pair
    strides: Pair
    pads: tuple[int, int, int, int]
    dilations: Pair
    out: Pair

    @property
    def pointwise(self) -> bool:
        """Whether output pixels are input pixels, so that rows need not be told apart."""
        return self.kernel == self.strides == (1, 1) and not any(self.pads)

    @property
    def padded(self) -> Pair:
        """Size of the plane that windows can reach."""
        reach = [
            (n - 1) * s + (k - 1) * d + 1
            for n, s, k, d in zip(self.out, self.strides, self.kernel, self.dilations, strict=True)
        ]
        borders = (self.pads[0] + self.pads[2], self.pads[1] + self.pads[3])
        high, wide = (max(r, n + p) for r, n, p in zip(reach, self.image, borders, strict=True))
        return high, wide

    @property
    def bordered(self) -> bool:
        """Whether windows reach outside of the image."""
        return self.padded != self.image or any(self.pads)

    def fill(self, body: Body, plane: Buffer, planes: int, value: float, lanes: int) -> None:
        """Set planes with their borders to one value."""
        size = planes * self.padded[0] * self.padded[1]
        body.sweep(size, lanes, lambda at, n: body.store(plane, body.number(value, n), at, n))

    def copy(self, body: Body, source: tuple[Buffer, Expr], plane: tuple[Buffer, Expr], lanes: int) -> None:
        """Copy one image from a place on into a plane, inside its border."""
        (image, first), (padded, start) = source, plane
        rows = min(self.image[0], self.padded[0] - self.pads[0])
        columns = min(self.image[1], self.padded[1] - self.pads[1])
        with body.loop(rows) as y:
            here = first + y * self.image[1]
            there = start + (y + self.pads[0]) * self.padded[1] + self.pads[1]
            body.sweep(columns, lanes, lambda x, n: body.store(padded, body.load(image, here + x, n), there + x, n))


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
        most = max(1, BLOCK // (self.depth * width * 4))
        blocks = -(-panels // most)
        block = -(-panels // blocks)
        sums = body.registers(tile.rows * tile.vectors, lanes)
        packed = body.scratch(block * self.depth * width)
        plane = self._plane(body, machine)
        with body.loop(self.batch) as b, body.loop(self.groups) as g, body.loop(blocks) as part:
            group = b * self.groups + g
            source = self._source(body, x, plane, group, part, machine)
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

    def _plane(self, body: Body, machine: Machine) -> Buffer | None:
        """Room for the images of a group with their borders, where windows reach over them."""
        if not self.window.bordered:
            return None
        plane = body.scratch(self.channels * self.window.padded[0] * self.window.padded[1])
        self.window.fill(body, plane, self.channels, 0.0, machine.lanes)
        return plane

    def _source(
        self, body: Body, x: Buffer, plane: Buffer | None, group: Expr, part: Expr, machine: Machine
    ) -> tuple[Buffer, Expr]:
        """Where the planes of a group lie; a padded copy is made with its first block."""
        size = self.window.image[0] * self.window.image[1]
        first = self.start + group * self.channels * size
        if plane is None:
            return x, first
        padded = self.window.padded[0] * self.window.padded[1]
        with body.when(part, 0), body.loop(self.channels) as c:
            self.window.copy(body, (x, first + c * size), (plane, c * padded), machine.lanes)
        return plane, 0

    def _pack(
        self, body: Body, source: tuple[Buffer, Expr], packed: Buffer, form: Panels, panel: tuple[Expr, Expr],
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


@dataclass(frozen=True)
class Depthwise:
    """A kernel per output channel over images [batch * channels, H, W] in order; each image has `multiplier` outputs.

    `epilogue` has an index (channel of the batch, y, x).
    """

    batch: int
    channels: int
    multiplier: int
    window: Window
    start: int = 0
    epilogue: Epilogue = PLAIN

    @property
    def label(self) -> str:
        """See `Kernel`."""
        kernel, out = self.window.kernel, self.window.out
        shape = f"{self.channels}x{kernel[0]}x{kernel[1]}_{out[0]}x{out[1]}"
        return f"depthwise_{shape}{self.epilogue.formula.label}"

    def emit(self, body: Body, operands: Sequence[Buffer], result: Buffer, machine: Machine) -> None:
        """See `Kernel`."""
        x, w, *more = operands
        window, lanes = self.window, machine.lanes
        size, high, wide = window.image[0] * window.image[1], *window.padded
        plane = body.scratch(high * wide) if window.bordered else None
        if plane is not None:
            window.fill(body, plane, 1, 0.0, lanes)
        taps = window.kernel[0] * window.kernel[1]
        with body.loop(self.batch) as b, body.loop(self.channels) as c:
            first = self.start + (b * self.channels + c) * size
            if plane is not None:
                window.copy(body, (x, first), (plane, 0), lanes)
            buffer, base = (x, first) if plane is None else (plane, 0)
            with body.loop(self.multiplier) as m, body.loop(window.out[0]) as y:
                channel = c * self.multiplier + m
                image = b * (self.channels * self.multiplier) + channel

                def visit(at: Expr, n: int) -> None:
                    total = body.number(0.0, n)
                    for tap in range(taps):
                        i, j = divmod(tap, window.kernel[1])
                        line = y * window.strides[0] + i * window.dilations[0]
                        place = base + line * wide + at * window.strides[1] + j * window.dilations[1]
                        factor = body.spread(body.load(w, channel * taps + tap), n)
                        total = total + factor * body.load(buffer, place, n, window.strides[1])
                    value = self.epilogue(body, total, more, (image, y, at), n)
                    body.store(result, value, (image * window.out[0] + y) * window.out[1] + at, n)

                body.strip(window.out[1], lanes, visit)
