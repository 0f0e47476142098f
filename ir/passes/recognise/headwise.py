"""What is done to queries and keys head by head (activation, pooling, norm) is done before heads turn to the front.

    Linear -> Reshape -> Transpose -> ReduceMax   becomes   Linear -> Reshape -> ReduceMax -> Transpose

so that attention sees tokens of all heads, pooled over the windows that the tokens already lie in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...graph import Graph, Node, Value
from ...ops.activation import _Unary
from ...ops.elementwise import Mul
from ...ops.linear import Linear, MatMul
from ...ops.norm import LayerNorm, RMSNorm
from ...ops.pool import Mean, ReduceMax, Sum
from ...ops.shape import Reshape, Transpose
from ..base import Pass
from .heads import factor_of
from .token_order import order_of, sunk_reduction, sunk_rows


@dataclass(frozen=True)
class RecogniseHeadwise(Pass):
    """Transpositions sink below activations, reductions over tokens, and norms of single heads."""

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
    if isinstance(node.op, _Unary):
        return _activated(graph, node)
    if isinstance(node.op, Transpose):
        return _scaled(graph, node)
    if isinstance(node.op, Mean | ReduceMax | Sum):
        return sunk_reduction(graph, node)
    return sunk_rows(graph, node) if isinstance(node.op, LayerNorm | RMSNorm) and _of_heads(node.input(0)) else None


def _activated(graph: Graph, node: Node) -> Value | None:
    """An activation of what a layer made and movement has turned, next to the layer."""
    chain: list[Node] = []
    value = node.input(0)
    while (above := value.producer) is not None and isinstance(above.op, Reshape | Transpose):
        if len(value.readers) > 1:
            return None
        chain.insert(0, above)
        value = above.input(0)
    turned = any(isinstance(each.op, Transpose) for each in chain)
    if not turned or above is None or not isinstance(above.op, Linear) or value.dtype != node.output.dtype:
        return None
    made: Value = graph.add(node.op, value, name=node.name, sources=node.sources)
    for each in chain:
        made = graph.add(each.op, made, name=each.name, sources=each.sources)
    return made


def _scaled(graph: Graph, node: Node) -> Value | None:
    """A factor of queries or keys that are turned for their product: it is then a factor of the scores' operand."""
    before = node.input(0).producer
    scaled = None if before is None or len(node.input(0).readers) > 1 else factor_of(before)
    if scaled is None or before is None or not all(isinstance(reader.op, MatMul) for reader in node.output.readers):
        return None
    turned = graph.add(node.op, scaled[0], name=node.name, sources=node.sources)
    factor = graph.constant(np.asarray(scaled[1], turned.dtype), f"{before.name}.factor")
    made: Value = graph.add(Mul(), turned, factor, name=before.name, sources=before.sources)
    return made


def _of_heads(value: Value) -> bool:
    """Whether the last axis is a part of what was the last axis before movement."""
    order = order_of(value)
    split = None if order is None else order.source.producer
    return split is not None and isinstance(split.op, Reshape) and split.input(0).shape[-1] > value.shape[-1]
