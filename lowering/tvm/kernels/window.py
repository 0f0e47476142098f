"""How windows slide over images: sizes, borders, and the walk over planes that pooling and depthwise kernels share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .body import Body, Buffer, Expr

__all__ = ["Image", "Pair", "Walk", "Window"]

Pair = tuple[int, int]
Image = tuple[Buffer, Expr]
"""A buffer, and where in it an image begins."""


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

    def copy(self, body: Body, source: Image, plane: Image, lanes: int) -> None:
        """Copy one image from a place on into a plane, inside its border."""
        (image, first), (padded, start) = source, plane
        rows = min(self.image[0], self.padded[0] - self.pads[0])
        columns = min(self.image[1], self.padded[1] - self.pads[1])
        with body.loop(rows) as y:
            here = first + y * self.image[1]
            there = start + (y + self.pads[0]) * self.padded[1] + self.pads[1]
            body.sweep(columns, lanes, lambda x, n: body.store(padded, body.load(image, here + x, n), there + x, n))

    @contextmanager
    def walk(self, body: Body, images: Image, planes: int, border: float, work: int, lanes: int) -> Iterator[Walk]:
        """Share images [planes, height, width] among threads, each with a border of its own; `work` as in `team`."""
        buffer, start = images
        with body.team(planes, work) as share:
            plane = body.scratch(math.prod(self.padded)) if self.bordered else None
            if plane is not None:
                self.fill(body, plane, 1, border, lanes)
            with share() as at:
                first = start + at * math.prod(self.image)
                if plane is not None:
                    self.copy(body, (buffer, first), (plane, 0), lanes)
                yield Walk(body, self, at, (buffer, first) if plane is None else (plane, 0))


@dataclass(frozen=True)
class Walk:
    """Windows over one image: its number among all, and where it lies with its border."""

    body: Body
    window: Window
    number: Expr
    image: Image

    def tap(self, tap: int, y: Expr, x: Expr, lanes: int) -> Expr:
        """Pixel `tap` of the window at (y, x), and of its neighbours to the right."""
        (buffer, base), window = self.image, self.window
        i, j = divmod(tap, window.kernel[1])
        line = y * window.strides[0] + i * window.dilations[0]
        place = base + line * window.padded[1] + x * window.strides[1] + j * window.dilations[1]
        return self.body.load(buffer, place, lanes, window.strides[1])
