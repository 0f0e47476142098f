"""GroupNorm from an InstanceNorm over joined channels, with the scale and shift after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph import Value
from ...ops.elementwise import Add, Mul
from ...ops.norm import GroupNorm
from ...ops.shape import Reshape
from ...rewrite import Any, Const, Match, Miss, P, Rule
from ..base import Pass
from .spellings import vector_along


def _group_norm(match: Match) -> Value:
    x, inner = match["x"], match.node("norm")
    joined, op = inner.input(0).shape, inner.op
    assert isinstance(op, GroupNorm)
    if match.root.output.shape != x.shape:
        raise Miss(f"{x.shape} does not come back: the result is {match.root.output.shape}")
    if len(joined) != 3 or joined[0] != x.shape[0] or op.groups != joined[1] or x.shape[1] % op.groups:
        raise Miss(f"{joined} does not join whole channels of {x.shape}")
    for index, neutral in ((1, 1), (2, 0)):
        vector = inner.optional(index)
        if vector is not None and (vector.data is None or (vector.data != neutral).any()):
            raise Miss("the inner norm has a scale or shift of its own")
    result: Value = match.add(GroupNorm(op.groups, op.eps), x, name=inner.name)
    return result


def _affine(match: Match) -> Value:
    node = match.node("norm")
    scale, shift = node.optional(1), node.optional(2)
    array = vector_along(match.array("c"), 1, node.output.shape, "constant")
    if match.root.output.shape != node.output.shape:
        raise Miss("the constant enlarges the image")
    vector = match.graph.constant(array, match["c"].name)
    if isinstance(match.root.op, Mul):
        if scale is not None or shift is not None:
            raise Miss("it is scaled or shifted already")
        scale = vector
    elif shift is not None:
        raise Miss("it is shifted already")
    else:
        shift = vector
    result: Value = match.add(node.op, match["x"], scale, shift, name=node.name)
    return result


@dataclass(frozen=True)
class RecogniseGroupnorm(Pass):
    """Reshape, InstanceNorm, Reshape, Mul, Add as torch's exporters write GroupNorm before opset 18."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("group_norm", P(Reshape, P(GroupNorm, P(Reshape, Any("x")), name="norm")), _group_norm),
        Rule("group_norm_affine", P((Mul, Add), P(GroupNorm, Any("x"), name="norm"), Const(name="c")), _affine),
    )
