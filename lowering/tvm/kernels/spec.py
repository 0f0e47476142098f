"""What a kernel is: a value that says all about the code, so that equal ones are built once; and fused epilogues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..machine import Machine
from ..views import Access
from .body import Body, Buffer, Expr
from .functions import FUNCTIONS

__all__ = ["PLAIN", "Epilogue", "Formula", "Kernel", "Step", "Tile"]


class Kernel(Protocol):
    """A frozen dataclass; operands and result are flat buffers."""

    @property
    def label(self) -> str:
        """Begin of its name in the library: letters, digits, underscores."""

    def emit(self, body: Body, operands: Sequence[Buffer], result: Buffer, machine: Machine) -> None:
        """Write its code."""


@dataclass(frozen=True)
class Step:
    """One function of `FUNCTIONS`, applied to operands (0, 1, ...) and results of earlier steps (-1, -2, ...)."""

    function: str
    operands: tuple[int, ...]
    parameters: tuple[float, ...] = ()


@dataclass(frozen=True)
class Formula:
    """Steps on one element of each operand; the last one is the result, operand 0 where there is none."""

    steps: tuple[Step, ...] = ()

    def apply(self, body: Body, operands: Sequence[Expr], lanes: int) -> Expr:
        """The result for vectors."""
        done: list[Expr] = []
        for step in self.steps:
            given = [operands[at] if at >= 0 else done[-1 - at] for at in step.operands]
            done.append(FUNCTIONS[step.function](body, *given, lanes, *step.parameters))
        return done[-1] if done else operands[0]

    @property
    def label(self) -> str:
        """The functions in order."""
        return "".join(f"_{step.function}" for step in self.steps)


@dataclass(frozen=True)
class Epilogue:
    """What becomes of a result before it is stored: a formula of it and of more operands, read by `accesses`."""

    formula: Formula = Formula()
    accesses: tuple[Access, ...] = ()

    def __call__(self, body: Body, value: Expr, more: Sequence[Buffer], index: tuple[Expr, ...], lanes: int) -> Expr:
        """The value to store at an index, whose last axis runs over the lanes."""
        pairs = zip(more, self.accesses, strict=True)
        loaded = [body.real(buffer, access(*index), lanes, access.strides[-1]) for buffer, access in pairs]
        return self.formula.apply(body, [value, *loaded], lanes)


PLAIN = Epilogue()


@dataclass(frozen=True)
class Tile:
    """Rows and vectors of the part of a product that is held in registers."""

    rows: int
    vectors: int
