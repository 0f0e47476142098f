"""A gate per channel from the mean of each channel: convolutions of one pixel, wherever axes of size 1 were dropped.

    x * Reshape(act(Linear(act(Linear(Mean(x))))))   becomes   x * act(Conv(act(Conv(Mean(x)))))

Source: Hu et al., Squeeze-and-Excitation Networks, 2018, section 3.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from ...graph import Graph, Node, Value
from ...ops.activation import _Unary
from ...ops.conv import Conv
from ...ops.elementwise import Mul
from ...ops.linear import Linear
from ...ops.pool import Mean
from ...ops.shape import Reshape
from ...rewrite import Any, Match, Miss, P, Rule
from ..base import Pass


def _gate(match: Match) -> Value:
    """Layers on [B, C] between a mean over pixels and a product with an image."""
    x, gate = match["x"], match["gate"]
    if x.type.rank != 4 or gate.shape != (*x.shape[:2], 1, 1):
        raise Miss(f"{gate.shape} is no gate per channel of {x.shape}")
    layers: list[Node] = []
    node = gate.producer
    while node is not None and isinstance(node.op, _Unary | Linear | Reshape):
        if isinstance(node.op, Linear) and node.input(1).data is None:
            raise Miss(f"'{node.name}' has no weights")
        layers.insert(0, node)
        node = node.input(0).producer
    if node is None or not isinstance(node.op, Mean) or node.input(0).type.rank != 4:
        raise Miss("it is not made of the mean of an image")
    if not any(isinstance(each.op, Linear) for each in layers):
        raise Miss("there is no layer between the mean and the gate")
    over = {axis % 4 for axis in node.op.axes}
    shapes = [each.output.shape for each in (node, *layers)]
    if over != {2, 3} or any(shape[:1] != x.shape[:1] or set(shape[2:]) - {1} for shape in shapes):
        raise Miss("the mean is not over pixels, or the layers mix images")
    others = [each.name for each in layers if len(each.output.readers) > 1]
    if others:
        raise Miss(f"'{others[0]}' is also read by others")
    match.nodes += [*reversed(layers), node]
    result: Value = match.add(Mul(), x, _of_pixels(match.graph, node, layers))
    return result


def _of_pixels(graph: Graph, mean: Node, layers: list[Node]) -> Value:
    """The layers on [B, C, 1, 1]."""
    assert isinstance(mean.op, Mean)
    pooled = dataclasses.replace(mean.op, axes=(2, 3), keepdims=True)
    value: Value = graph.add(pooled, mean.input(0), name=mean.name, sources=mean.sources)
    for node in layers:
        if isinstance(node.op, Reshape):
            continue
        operands = list(node.inputs[1:])
        op = Conv() if isinstance(node.op, Linear) else node.op
        if isinstance(node.op, Linear):
            weight = node.input(1)
            operands[0] = graph.constant(weight.array[:, :, None, None], weight.name)
        value = graph.add(op, value, *operands, name=node.name, sources=node.sources)
    return value


@dataclass(frozen=True)
class RecogniseSqueezeExcite(Pass):
    """Gates on [B, C] become gates on [B, C, 1, 1]."""

    rules: ClassVar[tuple[Rule, ...]] = (Rule("squeeze_excite", P(Mul, Any("x"), Any("gate")), _gate),)
