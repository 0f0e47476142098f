"""A constant added after a matrix product or a convolution is its bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph import Value
from ...ops.conv import Conv
from ...ops.elementwise import Add
from ...ops.linear import Linear
from ...rewrite import Any, Const, Match, Miss, P, Rule
from ..base import Pass
from .spellings import vector_along


def _absorb(match: Match) -> Value:
    node = match.node("product")
    if node.optional(2) is not None:
        raise Miss("it has a bias already")
    shape = node.output.shape
    if match.root.output.shape != shape:
        raise Miss(f"the constant enlarges {shape} to {match.root.output.shape}")
    axis = len(shape) - 1 if isinstance(node.op, Linear) else 1
    array = vector_along(match.array("bias"), axis, shape, "bias")
    same = array.shape == match["bias"].shape
    bias = match["bias"] if same else match.graph.constant(array, match["bias"].name)
    result: Value = match.add(node.op, match["x"], match["w"], bias, name=node.name)
    return result


@dataclass(frozen=True)
class RecogniseLinear(Pass):
    """Linear + vector and Conv + vector, in either order of the sum."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("bias", P(Add, P((Linear, Conv), Any("x"), Const(name="w"), name="product"), Const(name="bias")), _absorb),
    )
