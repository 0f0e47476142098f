"""Softmax by meaning: exponentials divided by their sum, whatever was taken off before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph import Value
from ...ops.activation import Exp, Reciprocal, Softmax
from ...ops.elementwise import Div, Mul, Sub
from ...ops.pool import Sum
from ...ops.shape import Reshape
from ...rewrite import Any, Match, Miss, P, Rule
from ..base import Pass


def _softmax(match: Match) -> Value:
    grown = match["grown"]
    total = match["total"].producer
    if total is not None and isinstance(total.op, Reshape):  # an axis that was dropped and put back
        total = total.input(0).producer
    if total is None or not isinstance(total.op, Sum) or total.input(0) is not grown:
        raise Miss("the divisor is not the sum of the exponentials")
    axes = [axis % grown.type.rank for axis in total.op.axes if grown.shape[axis] != 1]
    kept = tuple(1 if i in axes else n for i, n in enumerate(grown.shape))
    if len(axes) != 1 or match["total"].shape != kept:
        raise Miss(f"the sum is over the axes {total.op.axes} of {grown.shape}, not over one")
    others = [node.name for node in grown.readers if node not in (*match.nodes, total)]
    if others or any(grown is out for out in match.graph.outputs):
        raise Miss(f"'{grown.name}' is also read by {', '.join(others) or 'the graph output'}")
    match.nodes.append(total)
    result: Value = match.add(Softmax(axes[0] if axes[0] < len(kept) - 1 else -1), _unshifted(match["x"], axes[0]))
    return result


def _unshifted(x: Value, axis: int) -> Value:
    """x before something was taken off that is the same along the axis: it cancels."""
    while (node := x.producer) is not None and isinstance(node.op, Sub):
        source, shift = node.input(0), node.input(1)
        shape = (1,) * (x.type.rank - shift.type.rank) + shift.shape
        if source.shape != x.shape or shape[axis] != 1:
            break
        x = source
    return x


GROWN = P(Exp, Any("x"), name="grown", shared=True)


@dataclass(frozen=True)
class RecogniseSoftmax(Pass):
    """exp(x - m) / sum(exp(x - m)), or times the reciprocal; m is usually the greatest x, and cancels."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("softmax", P(Div, GROWN, Any("total")), _softmax),
        Rule("softmax", P(Mul, GROWN, P(Reciprocal, Any("total"))), _softmax),
    )
