"""Units: what becomes an operator together, a node with the activation behind it that costs nothing inside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...ir.graph import Graph, Node, Value
from ...ir.op import Op
from ...ir.ops.activation import Clip, Relu
from ...ir.ops.conv import Conv
from ...ir.ops.elementwise import Add, Mul, Sub
from ...ir.ops.linear import Linear
from ...ir.ops.pool import AveragePool, MaxPool

__all__ = ["Unit", "clamp", "units"]

TAKES_ACTIVATION = (Add, AveragePool, Conv, Linear, MaxPool, Mul, Sub)
"""Ops whose operator clamps its result on the way out."""

CLAMPS = {(0.0, math.inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}


@dataclass(eq=False)
class Unit:
    """One node, or a node and its activation, with the values that it takes and gives."""

    node: Node
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    activation: str = "NONE"
    tail: tuple[Node, ...] = ()

    @property
    def op(self) -> Op:
        """What it computes."""
        return self.node.op

    @property
    def sources(self) -> tuple[str, ...]:
        """Names in the user's model."""
        return self.node.sources or (self.node.name,)


def clamp(op: Op) -> str | None:
    """The activation that an op is, None when it is no clamp that operators know."""
    if isinstance(op, Relu):
        return "RELU"
    return CLAMPS.get((op.minimum, op.maximum)) if isinstance(op, Clip) else None


def units(graph: Graph, integers: Mapping[Node, tuple[Node, ...]] | None = None) -> list[Unit]:
    """All nodes of the graph, in order; an activation that is the only reader of a node joins it.

    Args:
        graph: It is only read.
        integers: What follows a node inside one integer operator, Quantize last.
    """
    found: list[Unit] = []
    joined: set[Node] = set()
    public = set(graph.outputs)
    for node in graph.nodes:
        if node in joined:
            continue
        unit = Unit(node, node.inputs, node.outputs)
        found.append(unit)
        if integers and node in integers:
            *clamps, last = integers[node]
            unit.tail, unit.outputs = (*clamps, last), last.outputs
            unit.activation = next((kind for each in clamps if (kind := clamp(each.op))), "NONE")
            joined.update(unit.tail)
            continue
        if not isinstance(node.op, TAKES_ACTIVATION) or node.output in public or len(node.output.uses) != 1:
            continue
        (after,) = node.output.readers
        if kind := clamp(after.op):
            unit.activation, unit.tail, unit.outputs = kind, (after,), after.outputs
            joined.add(after)
    return found
