"""What happens to queries and keys head by head, pooling and norms, happens before heads are turned to the front.

    Linear -> Reshape -> Transpose -> ReduceMax   becomes   Linear -> Reshape -> ReduceMax -> Transpose

so that attention sees tokens of all heads, pooled over the windows that the tokens already lie in.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...graph import Graph, Node, Value
from ...ops.norm import LayerNorm, RMSNorm
from ...ops.pool import Mean, ReduceMax, Sum
from ...ops.shape import Reshape
from ..base import Pass
from .token_order import order_of, sunk_reduction, sunk_rows


@dataclass(frozen=True)
class RecogniseHeadwise(Pass):
    """Transpositions sink below reductions over tokens, and below norms of single heads."""

    def apply(self, graph: Graph) -> int:
        """Once in data-flow order, which carries a transposition past all of them."""
        count = 0
        for node in graph.nodes:
            if (made := _sunk(graph, node)) is not None:
                graph.replace(node.output, made)
                count += 1
        graph.prune()
        return count


def _sunk(graph: Graph, node: Node) -> Value | None:
    if isinstance(node.op, Mean | ReduceMax | Sum):
        return sunk_reduction(graph, node)
    return sunk_rows(graph, node) if isinstance(node.op, LayerNorm | RMSNorm) and _of_heads(node.input(0)) else None


def _of_heads(value: Value) -> bool:
    """Whether the last axis is a part of what was the last axis before movement."""
    order = order_of(value)
    split = None if order is None else order.source.producer
    return split is not None and isinstance(split.op, Reshape) and split.input(0).shape[-1] > value.shape[-1]
