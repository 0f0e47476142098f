"""PRepBN at inference: BatchNorm(x) + eta * x."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph import Value
from ...ops.elementwise import Add, Mul
from ...ops.norm import BatchNorm, RepNorm
from ...rewrite import Any, Const, Match, P, Rule
from ..base import Pass
from .spellings import vector_along
from .tokennorm import batch_norm


def _rep_norm(match: Match) -> Value:
    op, node = batch_norm(match), match.node("norm")
    rank, eta = len(match["x"].shape), match["eta"]
    array = eta.array.reshape(-1) if eta.array.size == 1 else vector_along(eta.array, op.axis, match["x"].shape, "eta")
    vector = match.graph.constant(array, eta.name)
    result: Value = match.add(RepNorm(op.axis % rank, op.eps), match["x"], *node.inputs[1:], vector)
    return result


@dataclass(frozen=True)
class RecogniseRepnorm(Pass):
    """SLAB's re-parameterised norm. Source: Guo et al., SLAB, section 3.2."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("rep_norm", P(Add, P(BatchNorm, Any("x"), name="norm"), P(Mul, Any("x"), Const(name="eta"))), _rep_norm),
    )
