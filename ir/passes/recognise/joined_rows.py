"""Layers that work row by row do so on tokens as they are, not on all rows joined to a matrix and parted again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph import Node, Value
from ...ops.activation import Gelu, HardSwish, Relu, Sigmoid, Silu, Tanh
from ...ops.linear import Linear
from ...ops.norm import LayerNorm, RMSNorm
from ...ops.shape import Reshape
from ...rewrite import Match, Miss, P, Rule
from ..base import Pass
from .scores import require_only

ROW_BY_ROW = (Gelu, HardSwish, LayerNorm, Linear, Relu, RMSNorm, Sigmoid, Silu, Tanh)


def _apart(match: Match) -> Value:
    root, layers = match.root, list[Node]()
    value = root.input(0)
    while (node := value.producer) is not None and isinstance(node.op, ROW_BY_ROW):
        require_only(match.graph, value)
        layers.insert(0, node)
        value = node.input(0)
    if not layers or node is None or not isinstance(node.op, Reshape):
        raise Miss("no layers stand between two Reshapes")
    x = node.input(0)
    lead = x.shape[:-1]
    if x.shape[-1:] != value.shape[-1:] or root.output.shape[: len(lead)] != lead:
        raise Miss(f"'{root.name}' does not put the rows of '{x.name}' back")
    for layer in layers:
        x = match.graph.add(layer.op, x, *layer.inputs[1:], name=layer.name, sources=layer.sources)
    result: Value = match.graph.add(root.op, x, name=root.name, sources=(*node.sources, *root.sources))
    return result


@dataclass(frozen=True)
class RecogniseJoinedRows(Pass):
    """Reshape, Linear and the like, Reshape: without the first Reshape, and often without the second."""

    rules: ClassVar[tuple[Rule, ...]] = (Rule("joined_rows", P(Reshape), _apart),)
