"""Softmax, norms and reductions: whatever needs all elements of a row before it can write one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..machine import Machine
from ..views import Access
from .body import Body, Buffer, Expr
from .functions import exp_fast
from .spec import PLAIN, Epilogue

__all__ = ["LOWEST", "Fold", "Norm", "Reduction", "Softmax", "softmax_row"]

LOWEST = -3.0e38
"""Stands for minus infinity, whose difference from itself is no number."""

COST = 8
"""Multiply-adds that an element costs that is read two or three times."""

Combine = Callable[[Body, Expr, Expr], Expr]

COMBINE: dict[str, tuple[float, Combine]] = {
    "sum": (0.0, lambda body, a, b: a + b),
    "max": (-math.inf, lambda body, a, b: body.most(a, b)),
    "min": (math.inf, lambda body, a, b: body.least(a, b)),
}


class Fold:
    """A running combination of vectors and of single elements, each in a register."""

    def __init__(self, body: Body, how: str, lanes: int) -> None:
        """Start with the neutral element."""
        self.body, self.how, self.lanes = body, how, lanes
        self.registers = {n: body.registers(1, n) for n in sorted({1, lanes})}
        for n, register in self.registers.items():
            body.put(register, 0, body.number(COMBINE[how][0], n))

    def combined(self, a: Expr, b: Expr) -> Expr:
        """Two of them in one."""
        return COMBINE[self.how][1](self.body, a, b)

    def take(self, value: Expr, n: int) -> None:
        """Combine with `n` more elements."""
        self.body.put(self.registers[n], 0, self.combined(self.body.get(self.registers[n], 0), value))

    def result(self) -> Expr:
        """All of them in one scalar, kept in a register of its own."""
        body, (single, many) = self.body, (self.registers[1], self.registers[self.lanes])
        if self.lanes > 1:
            vector = body.total(body.get(many, 0), self.lanes, self.combined)
            body.put(single, 0, self.combined(body.get(single, 0), vector))
        return body.get(single, 0)


def softmax_row(body: Body, buffer: Buffer, start: Expr, size: int, lanes: int) -> Expr:
    """Replace a row by e**(x - max), in place; one over their sum. The row is whole vectors, its end at `LOWEST`."""
    greatest = Fold(body, "max", lanes)
    body.sweep(size, lanes, lambda at, n: greatest.take(body.load(buffer, start + at, n), n))
    top, total = greatest.result(), Fold(body, "sum", lanes)

    def visit(at: Expr, n: int) -> None:
        value = body.registers(1, n)
        body.put(value, 0, exp_fast(body, body.load(buffer, start + at, n) - body.spread(top, n), n))
        body.store(buffer, body.get(value, 0), start + at, n)
        total.take(body.get(value, 0), n)

    body.sweep(size, lanes, visit)
    return body.number(1.0) / total.result()


@dataclass(frozen=True)
class Softmax:
    """Over the last axis of (*outer, size), which lies as `source` says; the result is in order."""

    outer: tuple[int, ...]
    size: int
    source: Access

    @property
    def label(self) -> str:
        """See `Kernel`."""
        return f"softmax_{math.prod(self.outer)}x{self.size}"

    def emit(self, body: Body, operands: Sequence[Buffer], result: Buffer, machine: Machine) -> None:
        """See `Kernel`."""
        (x,), lanes = operands, machine.lanes
        whole = -(-self.size // lanes) * lanes
        with body.teams(self.outer, COST * math.prod(self.outer) * self.size) as share:
            row = body.scratch(whole)
            with share() as index:
                self._row(body, x, row, result, index, lanes)

    def _row(self, body: Body, x: Buffer, row: Buffer, result: Buffer, index: tuple[Expr, ...], lanes: int) -> None:
        """One row, in a copy that is whole vectors."""
        whole = -(-self.size // lanes) * lanes
        place: Expr = 0
        for extent, at in zip(self.outer, index, strict=True):
            place = place * extent + at
        copy = self.source
        body.sweep(
            self.size, lanes,
            lambda at, n: body.store(row, body.load(x, copy(*index, at), n, copy.strides[-1]), at, n),
        )  # fmt: skip
        body.sweep(whole - self.size, 1, lambda at, n: body.store(row, body.number(LOWEST), at + self.size))
        scale = softmax_row(body, row, 0, whole, lanes)
        factor = body.registers(1, 1)
        body.put(factor, 0, scale)

        def visit(at: Expr, n: int) -> None:
            value = body.load(row, at, n) * body.spread(body.get(factor, 0), n)
            body.store(result, value, place * self.size + at, n)

        body.sweep(self.size, lanes, visit)


@dataclass(frozen=True)
class Norm:
    """(x - mean) / sqrt(var + eps) over `channels` * `pixels` elements at a time; without `centred`, mean is 0.

    x holds `rows` such stretches in order. `epilogue` has an index (row, channel, pixel).
    """

    rows: int
    channels: int
    pixels: int
    eps: float
    centred: bool
    start: int = 0
    epilogue: Epilogue = PLAIN

    @property
    def label(self) -> str:
        """See `Kernel`."""
        kind = "layernorm" if self.centred else "rmsnorm"
        return f"{kind}_{self.rows}x{self.channels * self.pixels}"

    def emit(self, body: Body, operands: Sequence[Buffer], result: Buffer, machine: Machine) -> None:
        """See `Kernel`."""
        (x, *more), lanes = operands, machine.lanes
        size = self.channels * self.pixels
        with body.team(self.rows, COST * self.rows * size) as share, share() as row:
            first = self.start + row * size
            mean, factor = body.registers(1, 1), body.registers(1, 1)
            body.put(mean, 0, body.number(0.0))
            if self.centred:
                total = Fold(body, "sum", lanes)
                body.sweep(size, lanes, lambda at, n: total.take(body.load(x, first + at, n), n))
                body.put(mean, 0, total.result() * body.number(1 / size))
            squares = Fold(body, "sum", lanes)

            def square(at: Expr, n: int) -> None:
                value = body.load(x, first + at, n) - body.spread(body.get(mean, 0), n)
                squares.take(value * value, n)

            body.sweep(size, lanes, square)
            variance = squares.result() * body.number(1 / size) + body.number(self.eps)
            body.put(factor, 0, body.number(1.0) / body.tir.sqrt(variance))
            with body.loop(self.channels) as channel:

                def write(at: Expr, n: int) -> None:
                    place = row * size + channel * self.pixels + at
                    value = body.load(x, self.start + place, n) - body.spread(body.get(mean, 0), n)
                    value = value * body.spread(body.get(factor, 0), n)
                    body.store(result, self.epilogue(body, value, more, (row, channel, at), n), place, n)

                body.sweep(self.pixels, lanes, write)


@dataclass(frozen=True)
class Reduction:
    """Sum (times `factor`) or max over the axes `reduced` of a tensor that is read as (*kept, *reduced)."""

    how: str
    kept: tuple[int, ...]
    reduced: tuple[int, ...]
    source: Access
    factor: float = 1.0

    @property
    def label(self) -> str:
        """See `Kernel`."""
        return f"reduce_{self.how}_{math.prod(self.kept)}x{math.prod(self.reduced)}"

    def emit(self, body: Body, operands: Sequence[Buffer], result: Buffer, machine: Machine) -> None:
        """See `Kernel`."""
        (x,), lanes = operands, machine.lanes
        along = self.source.strides[-1] == 1
        *outer, inner = self.kept

        def one(index: tuple[Expr, ...], n: int) -> None:
            """Reduce for `n` neighbours of the last kept axis."""
            combined = Fold(body, self.how, lanes if along else n)
            *loops, last = self.reduced
            with body.loops(tuple(loops)) as rest:

                def visit(at: Expr, m: int) -> None:
                    place, stride = self.source(*index, *rest, at), self.source.strides[len(outer)]
                    if along:
                        combined.take(body.load(x, place, m), m)
                    else:
                        combined.take(body.load(x, place, n, stride), n)

                body.sweep(last, lanes if along else 1, visit)
            place: Expr = 0
            for extent, at in zip(self.kept, index, strict=True):
                place = place * extent + at
            value = combined.result() if along or n == 1 else body.get(combined.registers[n], 0)
            value = value if self.factor == 1.0 else value * body.number(self.factor, 1 if along else n)
            body.store(result, value, place, 1 if along else n)

        work = COST * math.prod(self.kept) * math.prod(self.reduced)
        with body.teams(tuple(outer), work) as share, share() as index:
            body.sweep(inner, 1 if along else lanes, lambda at, n: one((*index, at), n))
