"""Division by the Euclidean length, which exporters keep from being zero: an RMSNorm times 1 / sqrt(n).

    x / max(sqrt(sum(x^2)), c)   becomes   RMSNorm(x) {eps = c^2 / n} * n^-1/2

Both are x / |x| for every x much longer than c and 0 for 0; between, they differ in how they fade. With c as small as
exporters have it, that is where x has been lost in rounding before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Value
from ...ops.activation import Clip, Reciprocal, Sqrt
from ...ops.elementwise import Div, Maximum, Mul, Pow
from ...rewrite import Any, Match, Miss, P, Rule
from ..base import Pass
from .algebra import Algebra, Form, require_inner
from .layernorm import SQUARE, Found, normed, with_affine

LONGEST = 1e-6
"""The greatest lower bound of a length that only keeps it from being zero."""


def _bounded(value: Value) -> tuple[Value, float, list[Value]]:
    """(length, its lower bound, the values between) of a divisor."""
    least, passed = 0.0, []
    while (node := value.producer) is not None and isinstance(node.op, Clip | Maximum):
        if isinstance(node.op, Clip):
            bound, inner = node.op.minimum, node.input(0)
            if node.op.maximum != np.inf:
                raise Miss(f"'{value.name}' has an upper bound")
        else:
            number, inner = node.input(1), node.input(0)
            number, inner = (number, inner) if number.is_constant else (inner, number)
            if not number.is_constant or number.type.size != 1:
                raise Miss(f"'{value.name}' is the greater of two values")
            bound = float(number.array.reshape(()))
        least, value = max(least, bound), inner
        passed.append(node.output)
    if least > LONGEST:
        raise Miss(f"lengths below {least:g} are no rounding")
    return value, least, passed


def _length(algebra: Algebra, form: Form) -> tuple[tuple[int, ...], float]:
    """(axes, f) of f * mean(x^2)^1/2."""
    terms = list(form.items())
    if len(terms) == 1 and len(terms[0][0]) == 1 and terms[0][1].ndim == 0:
        ((atom, power),), factor = terms[0]
        axes, inside = algebra.means.get(atom, ((), ()))
        if inside == SQUARE and power == 0.5 and factor > 0:
            return axes, float(factor)
    raise Miss("the divisor is not the length of what is divided")


def _l2(match: Match) -> Value:
    x = match["x"]
    length, least, passed = _bounded(match["divisor"])
    algebra = Algebra(x)
    axes, factor = _length(algebra, algebra.form(length))
    inner = [value.producer for value in passed if value.producer is not None]
    match.nodes += [node for node in (*inner, *algebra.nodes(length)) if node not in match.nodes]
    require_inner(match.graph, match.root.output, match.nodes)
    found = Found(axes, False, (least / factor) ** 2, np.asarray(1 / factor), None)
    return with_affine(match, normed(match, x, found), found)


@dataclass(frozen=True)
class RecogniseL2norm(Pass):
    """Lengths by any sum and root, bounded by Clip or Max; divided by, or their reciprocal multiplied with."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("l2_norm", P(Div, Any("x"), P((Clip, Maximum, Pow, Sqrt), name="divisor", shared=True)), _l2),
        Rule("l2_norm", P(Mul, Any("x"), P(Reciprocal, P((Clip, Maximum, Pow, Sqrt), name="divisor"))), _l2),
    )
