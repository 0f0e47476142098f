"""Formulas over tensors of any layout, and copies of pieces: what all element-wise and layout ops come down to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..machine import Machine
from ..views import Access
from .body import Body, Buffer, Expr
from .spec import Formula

__all__ = ["Assembly", "Elementwise", "Piece"]

COST = 4
"""Multiply-adds that an element on its way through memory costs."""


@dataclass(frozen=True)
class Elementwise:
    """result[i] = formula(operands[i]) over `shape`; results and operands lie as their accesses say."""

    shape: tuple[int, ...]
    formula: Formula
    accesses: tuple[Access, ...]
    out: Access

    @property
    def label(self) -> str:
        """See `Kernel`."""
        return f"each{self.formula.label}"

    def emit(self, body: Body, operands: Sequence[Buffer], result: Buffer, machine: Machine) -> None:
        """See `Kernel`."""
        *outer, inner = self.shape
        work = COST * math.prod(self.shape)
        with body.teams(tuple(outer), work) as share, share() as index:

            def visit(at: Expr, lanes: int) -> None:
                here = (*index, at)
                pairs = zip(operands, self.accesses, strict=True)
                load = body.real if self.formula.steps else body.load
                loaded = [load(buffer, access(*here), lanes, access.strides[-1]) for buffer, access in pairs]
                made = self.formula.apply(body, loaded, lanes)
                body.store(result, made, self.out(*here), lanes, self.out.strides[-1])

            body.sweep(inner, machine.lanes, visit, 0 if outer else work)


@dataclass(frozen=True)
class Piece:
    """A box of elements: where it comes from and where it goes."""

    shape: tuple[int, ...]
    source: Access
    out: Access


@dataclass(frozen=True)
class Assembly:
    """A buffer put together from pieces, one per operand; before that `size` elements are filled with `fill`."""

    pieces: tuple[Piece, ...]
    size: int = 0
    fill: float = 0.0

    @property
    def label(self) -> str:
        """See `Kernel`."""
        return "copy" if len(self.pieces) == 1 else "join"

    def emit(self, body: Body, operands: Sequence[Buffer], result: Buffer, machine: Machine) -> None:
        """See `Kernel`."""
        if self.size:
            body.sweep(self.size, machine.lanes, lambda at, n: body.store(result, body.number(self.fill, n), at, n))
        for buffer, piece in zip(operands, self.pieces, strict=True):
            whole = Elementwise(piece.shape, Formula(), (piece.source,), piece.out)
            whole.emit(body, [buffer], result, machine)
