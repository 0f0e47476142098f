"""Differences, however their signs are written: a sum with a negative, the negative of the other difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph import Value
from ...op import Op
from ...ops.activation import Neg
from ...ops.elementwise import Add, Mul, Sub
from ...rewrite import Any, Const, Match, Miss, P, Pattern, Rule
from ..base import Pass


def _negatives(x: Pattern) -> tuple[P, ...]:
    """-x in each form."""
    return P(Neg, x), P(Mul, x, Const(-1.0, tolerance=0.0)), P(Sub, Const(0.0), x)


def _as(op: Op, pattern: P) -> Rule:
    """What matches is `op` of a and b, unless a constant of more axes has made it larger."""

    def build(match: Match) -> Value:
        shape = match.root.output.shape
        result: Value = match.add(op, match["a"], match["b"])
        if result.shape != shape:
            raise Miss(f"without the constant the result is {result.shape}, not {shape}")
        return result

    return Rule("difference", pattern, build)


A, B = Any("a"), Any("b")


@dataclass(frozen=True)
class RecogniseDifferences(Pass):
    """a + (-b) and -(b - a) are a - b, and a - (-b) is a + b."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *(_as(Sub(), P(Add, A, negative)) for negative in _negatives(B)),
        *(_as(Add(), P(Sub, A, negative)) for negative in _negatives(B)),
        *(_as(Sub(), negative) for negative in _negatives(P(Sub, B, A))),
    )
