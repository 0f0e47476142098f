"""SiLU, hard sigmoid and hard swish from their arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from ...graph import Value
from ...op import Op
from ...ops.activation import Clip, HardSigmoid, HardSwish, Sigmoid, Silu
from ...ops.elementwise import Add, Mul
from ...rewrite import Any, Const, Match, P, Rule
from ..base import Pass
from .spellings import scaled, scaled_product

X = Any("x")
RAMP = P(Clip, P(Add, X, Const(3.0)), where=lambda op: (op.minimum, op.maximum) == (0, 6))
"""min(max(x + 3, 0), 6)."""

UNIT_RAMPS = tuple(
    P(Clip, P(Add, sixth, Const(0.5)), where=lambda op: (op.minimum, op.maximum) == (0, 1))
    for sixth in scaled(X, 1 / 6)
)


def _sixth(op: HardSigmoid) -> bool:
    """Whether it is torch's, slope 1/6 and offset 1/2 (files hold float32)."""
    return math.isclose(op.alpha, 1 / 6, rel_tol=1e-6) and op.beta == 0.5


def _makes(op: Op) -> Callable[[Match], Value]:
    def build(match: Match) -> Value:
        result: Value = match.add(op, match["x"])
        return result

    return build


def _hard_sigmoids() -> Iterator[P]:
    yield from scaled(RAMP, 1 / 6)
    yield from UNIT_RAMPS


@dataclass(frozen=True)
class RecogniseSilu(Pass):
    """x * sigmoid(x), and the piecewise linear pair."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("silu", P(Mul, X, P(Sigmoid, X)), _makes(Silu())),
        *(Rule("hard_swish", pattern, _makes(HardSwish())) for pattern in scaled_product(X, RAMP, 1 / 6)),
        *(Rule("hard_swish", P(Mul, X, ramp), _makes(HardSwish())) for ramp in UNIT_RAMPS),
        Rule("hard_swish", P(Mul, X, P(HardSigmoid, X, where=_sixth)), _makes(HardSwish())),
        *(Rule("hard_sigmoid", pattern, _makes(HardSigmoid(1 / 6, 0.5))) for pattern in _hard_sigmoids()),
    )
