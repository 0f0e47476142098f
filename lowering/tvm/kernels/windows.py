"""Pooling windows, and images resized by neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..machine import Machine
from .body import Body, Buffer, Expr
from .convolution import Window
from .spec import PLAIN, Epilogue

__all__ = ["Gathering", "Interpolation", "Pooling"]


@dataclass(frozen=True)
class Pooling:
    """Greatest element or sum of each window over `planes` images in order.

    A mean is the sum times the second operand, one factor per output pixel. `epilogue` has an index (plane, y, x).
    """

    mean: bool
    planes: int
    window: Window
    start: int = 0
    epilogue: Epilogue = PLAIN

    @property
    def label(self) -> str:
        """See `Kernel`."""
        kernel, out = self.window.kernel, self.window.out
        shape = f"{self.planes}x{kernel[0]}x{kernel[1]}_{out[0]}x{out[1]}"
        return f"{'average' if self.mean else 'max'}pool_{shape}{self.epilogue.formula.label}"

    def emit(self, body: Body, operands: Sequence[Buffer], result: Buffer, machine: Machine) -> None:
        """See `Kernel`."""
        window, lanes = self.window, machine.lanes
        x, more = operands[0], operands[2 if self.mean else 1 :]
        size, high, wide = window.image[0] * window.image[1], *window.padded
        plane = body.scratch(high * wide) if window.bordered else None
        if plane is not None:
            window.fill(body, plane, 1, 0.0 if self.mean else -math.inf, lanes)
        taps = [divmod(tap, window.kernel[1]) for tap in range(math.prod(window.kernel))]
        with body.loop(self.planes) as p:
            first = self.start + p * size
            if plane is not None:
                window.copy(body, (x, first), (plane, 0), lanes)
            buffer, base = (x, first) if plane is None else (plane, 0)
            with body.loop(window.out[0]) as y:

                def visit(at: Expr, n: int) -> None:
                    corner = base + y * (window.strides[0] * wide) + at * window.strides[1]
                    parts = [body.load(buffer, corner + i * wide + j, n, window.strides[1]) for i, j in taps]
                    value = parts[0]
                    for part in parts[1:]:
                        value = value + part if self.mean else body.most(value, part)
                    if self.mean:
                        value = value * body.load(operands[1], y * window.out[1] + at, n)
                    value = self.epilogue(body, value, more, (p, y, at), n)
                    body.store(result, value, (p * window.out[0] + y) * window.out[1] + at, n)

                body.strip(window.out[1], lanes, visit)


@dataclass(frozen=True)
class Gathering:
    """result[o, i, :] = x[o, index[i], :] for x [outer, size, inner] in order; the second operand holds the indices."""

    outer: int
    size: int
    count: int
    inner: int
    start: int = 0

    @property
    def label(self) -> str:
        """See `Kernel`."""
        return f"gather_{self.outer}x{self.count}x{self.inner}"

    def emit(self, body: Body, operands: Sequence[Buffer], result: Buffer, machine: Machine) -> None:
        """See `Kernel`."""
        x, table = operands
        with body.loop(self.outer) as o, body.loop(self.count) as i:
            source = self.start + (o * self.size + body.load(table, i)) * self.inner
            out = (o * self.count + i) * self.inner
            body.sweep(
                self.inner, machine.lanes,
                lambda at, n: body.store(result, body.load(x, source + at, n), out + at, n),
            )  # fmt: skip


@dataclass(frozen=True)
class Interpolation:
    """Each pixel of `planes` images in order from one or two neighbours along each axis.

    Operands after x: rows and columns (int32: first neighbours, then second ones), and where there are two, shares of
    the second row and column (float32).
    """

    planes: int
    image: tuple[int, int]
    out: tuple[int, int]
    linear: bool
    start: int = 0

    @property
    def label(self) -> str:
        """See `Kernel`."""
        return f"resize_{self.planes}x{self.out[0]}x{self.out[1]}"

    def emit(self, body: Body, operands: Sequence[Buffer], result: Buffer, machine: Machine) -> None:
        """See `Kernel`."""
        x, rows, columns, *shares = operands
        (high, wide), (out_high, out_wide) = self.image, self.out
        with body.loop(self.planes) as p, body.loop(out_high) as v, body.loop(out_wide) as u:
            first = self.start + p * (high * wide)

            def pixel(second_row: int, second_column: int) -> Expr:
                y = body.load(rows, second_row * out_high + v)
                return body.load(x, first + y * wide + body.load(columns, second_column * out_wide + u))

            value = pixel(0, 0)
            if self.linear:
                down, right = body.load(shares[0], v), body.load(shares[1], u)
                upper = value + (pixel(0, 1) - value) * right
                lower = pixel(1, 0) + (pixel(1, 1) - pixel(1, 0)) * right
                value = upper + (lower - upper) * down
            body.store(result, value, (p * out_high + v) * out_wide + u)
