"""A factor per head on queries or keys, as cosine attention may have its temperature, is one on their scores.

    (t * q) k^T   becomes   t * (q k^T)

which is where most models write it, and from where attention takes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Value
from ...ops.activation import Softmax
from ...ops.elementwise import Add, Div, Mul
from ...ops.linear import MatMul
from ...ops.shape import Reshape
from ...rewrite import Any, Const, Match, Miss, P, Rule
from ..base import Pass

MOST_STEPS = 8


def _on_scores(match: Match, left: bool) -> Value:
    factor, scaled, shape = match.array("factor"), match["scaled"], match.root.output.shape
    full = (1,) * (len(shape) - factor.ndim) + factor.shape
    if factor.size == 1 or full[-2:] != (1, 1) or scaled.shape != match["x"].shape:
        raise Miss(f"{factor.shape} is no factor per head of {scaled.shape}")
    if np.broadcast_shapes(full, shape) != shape or not leads_to_softmax(match.root.output):
        raise Miss("the product is no scores")
    operands = (match["x"], match["other"]) if left else (match["other"], match["x"])
    scores = match.add(MatMul(), *operands)
    result: Value = match.graph.add(Mul(), scores, match["factor"], name=scaled.name, sources=match.sources)
    return result


def leads_to_softmax(value: Value) -> bool:
    """Whether scaling, biases and views of scores come before a softmax."""
    for _ in range(MOST_STEPS):
        readers = value.readers
        if len(readers) != 1:
            return False
        if isinstance(readers[0].op, Softmax):
            return True
        if not isinstance(readers[0].op, Add | Div | Mul | Reshape):
            return False
        value = readers[0].output
    return False


SCALED = P(Mul, Any("x"), Const(name="factor"), name="scaled")


@dataclass(frozen=True)
class RecogniseHeadFactors(Pass):
    """On either operand of the product."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("head_factor", P(MatMul, SCALED, Any("other")), lambda match: _on_scores(match, True)),
        Rule("head_factor", P(MatMul, Any("other"), SCALED), lambda match: _on_scores(match, False)),
    )
