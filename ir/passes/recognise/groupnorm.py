"""GroupNorm from a norm over joined channels, with the scale and shift after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Node, Value
from ...ops.elementwise import Add, Mul
from ...ops.norm import GroupNorm, LayerNorm
from ...ops.shape import Reshape
from ...rewrite import Any, Const, Match, Miss, P, Rule
from ..base import Pass
from .spellings import vector_along


def _groups(norm: Node, x: Value) -> int:
    """How many groups of whole channels of x a norm over joined elements treats on their own.

    Raises:
        Miss: Its rows are no groups of channels.
    """
    joined, op = norm.input(0).shape, norm.op
    grouped = isinstance(op, GroupNorm) and op.groups == joined[1]
    vectors = [norm.optional(1), norm.optional(2)]
    plain = all(v is None or (v.data is not None and bool(np.all(v.data == 1 - i))) for i, v in enumerate(vectors))
    rows = isinstance(op, LayerNorm) and len(joined) == 3 and plain
    whole = x.type.rank > 2 and joined[0] == x.shape[0] and x.shape[1] % joined[1] == 0
    if not (grouped or rows) or not whole or (rows and joined[2] == x.shape[-1]):
        raise Miss(f"{joined} does not join whole channels of {x.shape}")
    return joined[1]


def _group_norm(match: Match) -> Value:
    """The norm of the image itself, or of what the result looks like where that has the same channels."""
    graph, x, inner, shape = match.graph, match["x"], match.node("norm"), match.root.output.shape
    groups = _groups(inner, x)
    if shape != x.shape:
        if shape[:2] != x.shape[:2] or len(shape) < 3:
            raise Miss(f"{x.shape} does not come back: the result is {shape}")
        x = graph.add(Reshape(shape), x, name=f"{inner.name}.pixels", sources=inner.sources)
    vectors: list[Value | None] = []
    for value in (inner.optional(1), inner.optional(2)):
        if value is not None and value.data is None:
            raise Miss("the inner norm has a scale or shift computed at run time")
        neutral = value is None or bool(np.all(value.array == (0 if vectors else 1)))
        per_channel = None if neutral or value is None else np.repeat(value.array, x.shape[1] // groups)
        vectors.append(None if per_channel is None else graph.constant(per_channel, f"{inner.name}.vector"))
    operands = vectors if vectors[1] is not None else vectors[:1] if vectors[0] is not None else []
    result: Value = match.add(GroupNorm(groups, inner.op.attributes()["eps"]), x, *operands, name=inner.name)
    return result


def _same_channels(match: Match) -> Value:
    """Pixels joined before a norm and parted after it: the norm does not care."""
    node, x = match.node("norm"), match["x"]
    if match.root.output.shape != x.shape or x.shape[:2] != node.output.shape[:2] or x.type.rank < 3:
        raise Miss(f"the channels of {node.output.shape} are not those of {x.shape}")
    result: Value = match.add(node.op, x, *node.inputs[1:], name=node.name)
    return result


def _affine(match: Match) -> Value:
    node = match.node("norm")
    scale, shift = node.optional(1), node.optional(2)
    array = vector_along(match.array("c"), 1, node.output.shape, "constant")
    if match.root.output.shape != node.output.shape:
        raise Miss("the constant enlarges the image")
    vector = match.graph.constant(array, match["c"].name)
    if isinstance(match.root.op, Mul):
        if scale is not None:
            raise Miss("it is scaled already")
        scale = vector
        shift = shift if shift is None else match.graph.constant(shift.array * array, shift.name)
    elif shift is not None:
        raise Miss("it is shifted already")
    else:
        shift = vector
    result: Value = match.add(node.op, match["x"], scale, shift, name=node.name)
    return result


JOINED = P((GroupNorm, LayerNorm), P(Reshape, Any("x")), name="norm")


@dataclass(frozen=True)
class RecogniseGroupnorm(Pass):
    """Reshape, InstanceNorm (or a norm of rows), Reshape, Mul, Add as exporters write GroupNorm."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("group_norm_pixels", P(Reshape, P(GroupNorm, P(Reshape, Any("x")), name="norm")), _same_channels),
        Rule("group_norm", P(Reshape, JOINED), _group_norm),
        Rule("group_norm_affine", P((Mul, Add), P(GroupNorm, Any("x"), name="norm"), Const(name="c")), _affine),
    )
