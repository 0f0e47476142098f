"""Elements picked by tables: gathered rows, and images resized by neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..machine import Machine
from .body import Body, Buffer, Expr

__all__ = ["Gathering", "Interpolation"]


@dataclass(frozen=True)
class Gathering:
    """result[o, i, :] = x[o, index[i], :] for x [outer, size, inner] in order; the second operand holds the indices.

    Indices that are `computed` may count from the end; beyond the ends the outermost element is taken.
    """

    outer: int
    size: int
    count: int
    inner: int
    start: int = 0
    computed: bool = False
    first: int = 0
    """Where in the second operand the indices begin."""

    @property
    def label(self) -> str:
        """See `Kernel`."""
        return f"gather_{self.outer}x{self.count}x{self.inner}"

    def emit(self, body: Body, operands: Sequence[Buffer], result: Buffer, machine: Machine) -> None:
        """See `Kernel`."""
        x, table = operands
        with body.loop(self.outer) as o, body.loop(self.count) as i:
            index = body.load(table, self.first + i)
            index = self._inside(body, index) if self.computed else index
            source = self.start + (o * self.size + index) * self.inner
            out = (o * self.count + i) * self.inner
            body.sweep(
                self.inner, machine.lanes,
                lambda at, n: body.store(result, body.load(x, source + at, n), out + at, n),
            )  # fmt: skip

    def _inside(self, body: Body, index: Expr) -> Expr:
        """An index counted from the front, between the ends."""
        index = body.cast(index, "int32")
        index = body.choose(index < 0, index + self.size, index)
        return body.most(body.least(index, self.size - 1), 0)


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
        work = (16 if self.linear else 4) * self.planes * out_high * out_wide
        with body.team(self.planes, work) as share, share() as p, body.loop(out_high) as v, body.loop(out_wide) as u:
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
