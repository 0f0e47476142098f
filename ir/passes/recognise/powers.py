"""Powers that have a name: a square is a product with itself, a half power a root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph import Value
from ...op import Op
from ...ops.activation import Reciprocal, Sqrt
from ...ops.elementwise import Mul, Pow
from ...rewrite import Any, Const, Match, P, Rule
from ..base import Pass


def _named(op: Op, times: int) -> Rule:
    def build(match: Match) -> Value:
        result: Value = match.add(op, *[match["x"]] * times)
        return result

    exponent = {Mul: 2.0, Sqrt: 0.5, Reciprocal: -1.0}[type(op)]
    return Rule("named_power", P(Pow, Any("x"), Const(exponent)), build)


@dataclass(frozen=True)
class RecognisePowers(Pass):
    """x^2, x^1/2 and 1/x, where no norm or activation was made of them."""

    rules: ClassVar[tuple[Rule, ...]] = (_named(Mul(), 2), _named(Sqrt(), 1), _named(Reciprocal(), 1))
