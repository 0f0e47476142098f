"""Gated linear units: the gate and what it lets through are two products of the same rows, not one that is cut.

    a, b = Split(Linear(x)) ; act(a) * b   becomes   act(Linear(x; first rows)) * Linear(x; last rows)

Source: Shazeer, GLU Variants Improve Transformer, 2020, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Node, Value
from ...ops.activation import _Unary
from ...ops.conv import Conv
from ...ops.elementwise import Mul
from ...ops.linear import Linear
from ...ops.shape import Split
from ...rewrite import Any, Match, Miss, P, Rule
from ..base import Pass
from .heads import narrowed


def _cut_of(value: Value) -> tuple[Node, int, list[Node]] | None:
    """(Split, which piece, activations after it) that a factor is made by."""
    after: list[Node] = []
    while (node := value.producer) is not None and len(value.readers) == 1:
        if isinstance(node.op, Split):
            return node, node.outputs.index(value), after
        if not isinstance(node.op, _Unary):
            return None
        after.insert(0, node)
        value = node.input(0)
    return None


def _gate(match: Match) -> Value:
    """Both factors are pieces of one product, or of an activation of it."""
    graph = match.graph
    left, right = _cut_of(match["a"]), _cut_of(match["b"])
    if left is None or right is None or left[0] is not right[0] or left[1] == right[1]:
        raise Miss("the factors are no two pieces of one value")
    split = left[0]
    assert isinstance(split.op, Split)
    if len(split.outputs) > 2:
        raise Miss(f"'{split.name}' has more pieces")
    before: list[Node] = []
    source = split.input(0)
    while (node := source.producer) is not None and isinstance(node.op, _Unary) and len(source.readers) == 1:
        before.insert(0, node)
        source = node.input(0)
    axis = split.op.axis % source.type.rank
    if node is None or len(source.readers) > 1 or not _is_layer(node, axis):
        raise Miss("what is cut is no product with weights, or is also read as a whole")
    match.nodes += [*left[2], *right[2], split, *before, node]
    ends = np.cumsum((0, *split.op.sizes))
    factors = []
    for (_, piece, after), part in ((left, "gate"), (right, "value")):
        value = narrowed(graph, source, np.arange(ends[piece], ends[piece + 1]), axis, part)
        for each in (*before, *after):
            value = graph.add(each.op, value, name=f"{each.name}.{part}" if each in before else each.name,
                              sources=each.sources)  # fmt: skip
        factors.append(value)
    result: Value = match.add(Mul(), *factors)
    return result


def _is_layer(node: Node, axis: int) -> bool:
    if not all(value is None or value.is_constant for value in node.inputs[1:]):
        return False
    if isinstance(node.op, Linear):
        return axis == node.output.type.rank - 1
    return isinstance(node.op, Conv) and node.op.groups == 1 and axis == 1


@dataclass(frozen=True)
class RecogniseGatedLinear(Pass):
    """Pieces of a product that meet again as factors are computed apart."""

    rules: ClassVar[tuple[Rule, ...]] = (Rule("gated_linear", P(Mul, Any("a"), Any("b")), _gate),)
