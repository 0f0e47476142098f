"""Layers that work row by row do so on rows as they are read in the end, not joined to a matrix and parted again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph import Graph, Node, Value
from ...ops.activation import Gelu, HardSwish, Relu, Sigmoid, Silu, Tanh
from ...ops.linear import Linear
from ...ops.norm import LayerNorm, RMSNorm
from ...ops.shape import Gather, Reshape, Slice, Split
from ...rewrite import Match, Miss, P, Rule
from ..base import Pass
from .scores import require_only

ROW_BY_ROW = (Gelu, HardSwish, LayerNorm, Linear, Relu, RMSNorm, Sigmoid, Silu, Tanh)


def _layers(match: Match) -> tuple[Value, Node, list[Node]]:
    """What the layers before the root read, the movement that makes it, and the layers in order.

    Raises:
        Miss: There are none, or somebody else reads what one of them makes.
    """
    layers = list[Node]()
    value = match.root.input(0)
    while (node := value.producer) is not None and isinstance(node.op, ROW_BY_ROW):
        require_only(match.graph, value)
        layers.insert(0, node)
        value = node.input(0)
    if not layers or node is None or not isinstance(node.op, (Gather, Reshape, Slice, Split)):
        raise Miss("no layers stand between two Reshapes")
    return value, node, layers


def _on(graph: Graph, x: Value, layers: list[Node]) -> Value:
    for layer in layers:
        x = graph.add(layer.op, x, *layer.inputs[1:], name=layer.name, sources=layer.sources)
    return x


def _apart(match: Match) -> Value:
    root, (rows, node, layers) = match.root, _layers(match)
    x = node.input(0)
    lead = x.shape[:-1]
    if not isinstance(node.op, Reshape) or x.shape[-1] != rows.shape[-1] or root.output.shape[: len(lead)] != lead:
        raise Miss(f"'{root.name}' does not put the rows of '{x.name}' back")
    sources = (*node.sources, *root.sources)
    result: Value = match.graph.add(root.op, _on(match.graph, x, layers), name=root.name, sources=sources)
    return result


def _parted_before(match: Match) -> Value:
    root, (rows, node, layers) = match.root, _layers(match)
    require_only(match.graph, rows)
    before, after = root.input(0).shape, root.output.shape
    if before[-1:] != after[-1:] or len(after) > max(3, len(before)):
        raise Miss(f"'{root.name}' cuts rows, or makes more axes of them")
    if not isinstance(node.op, Reshape) and len(after) >= len(before):
        raise Miss(f"'{root.name}' does not drop the axis that '{node.name}' cuts")
    shape = (*after[:-1], rows.shape[-1])
    parted = match.graph.add(Reshape(shape), rows, name=f"{rows.name}.rows", sources=root.sources)
    return _on(match.graph, parted, layers)


@dataclass(frozen=True)
class RecogniseJoinedRows(Pass):
    """Reshape, Linear and the like, Reshape: without the first Reshape, and often without the second.

    Where the rows are not put back, the second goes before the layers: it joins the first, or drops the axis of a cut.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("joined_rows", P(Reshape), _apart),
        Rule("parted_rows", P(Reshape), _parted_before),
    )
