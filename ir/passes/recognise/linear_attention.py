"""Attention without softmax, whose products associate: q (k^T v) over q times the sum of k, both orders as one.

    [q k^T [v 1]] cut apart, its parts divided         becomes   MatMul(q, MatMul(k^T, v)) / (MatMul(q, Sum(k^T)) + eps)
    (q k^T) v, where fewer products do                 becomes   q (k^T v)
    Sum(q k^T), and Sum(q * Sum(k))                    become    MatMul(q, Sum(k^T))

EfficientViT (Cai et al., 2023, section 3.1) appends ones to v; SLAB (Guo et al., 2024, section 3.3) sums k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph import Graph, Node, Value
from ...ops.activation import Reciprocal
from ...ops.elementwise import Div, Mul
from ...ops.linear import MatMul
from ...ops.pool import Sum
from ...ops.shape import Pad, Split, Transpose
from ...rewrite import Any, Match, Miss, P, Rule, rewrite
from ..base import Pass


@dataclass(frozen=True)
class RecogniseLinearAttention(Pass):
    """The normaliser is a product of its own, and products are taken in the cheaper order."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("row_sums", P(Sum, P(MatMul, Any("q"), Any("k"), shared=True), name="total"), lambda m: _row_sums(m)),
        Rule("row_sums", P(Sum, P(Mul, Any("q"), P(Sum, Any("k"), name="keys"))), lambda m: _weighted_sum(m)),
        Rule("quotient", P(Mul, Any("x"), P(Reciprocal, Any("divisor"))), lambda m: _quotient(m)),
        Rule("associate", P(MatMul, P(MatMul, Any("a"), Any("b")), Any("c")), lambda m: _associate(m, True)),
        Rule("associate", P(MatMul, Any("a"), P(MatMul, Any("b"), Any("c"))), lambda m: _associate(m, False)),
    )

    def apply(self, graph: Graph) -> int:
        """Ones that v was padded with go first."""
        if not any(isinstance(node.op, MatMul) for node in graph.nodes):
            return 0
        count = sum(_unpadded(graph, node) for node in graph.nodes if node in graph)
        graph.prune()
        return count + rewrite(graph, self.rules)


def _unpadded(graph: Graph, node: Node) -> int:
    """A product whose last column, or row, is cut off again, and was ones."""
    op = node.op
    if not isinstance(op, Split) or len(op.sizes) != 2 or op.sizes[1] != 1 or op.axis % node.input(0).type.rank < 2:
        return 0
    axis = op.axis - node.input(0).type.rank if op.axis >= 0 else op.axis
    outer = node.input(0).producer
    if outer is None or not isinstance(outer.op, MatMul) or len(outer.output.readers) > 1 or axis < -2:
        return 0
    side = 1 if axis == -1 else 0  # columns come from the right operand, rows from the left one
    inner = outer.input(side).producer
    if inner is None or not isinstance(inner.op, MatMul) or len(inner.output.readers) > 1:
        return 0
    padded, keys = inner.input(side), inner.input(1 - side)
    values = _without_ones(padded, axis)
    if values is None:
        return 0
    name, sources = node.name, (*inner.sources, *outer.sources)
    over = -1 if side else -2
    total = graph.add(Sum((over % keys.type.rank,), True), keys, name=f"{name}.keys", sources=sources)
    mixed = graph.add(MatMul(), *_sided(side, keys, values), name=f"{name}.values", sources=sources)
    for output, part in zip(node.outputs, (mixed, total), strict=True):
        made = graph.add(MatMul(), *_sided(side, outer.input(1 - side), part), name=name, sources=sources)
        graph.replace(output, made)
    return 1


def _sided(side: int, other: Value, value: Value) -> tuple[Value, Value]:
    return (other, value) if side else (value, other)


def _without_ones(value: Value, axis: int) -> Value | None:
    """What was padded with ones at the end of an axis, by one."""
    node = value.producer
    if node is None or not isinstance(node.op, Pad) or node.op.value != 1:
        return None
    rank = value.type.rank
    expected = [0] * (2 * rank)
    expected[rank + axis % rank] = 1
    return node.input(0) if list(node.op.pads) == expected else None


def _row_sums(match: Match) -> Value:
    """The sum over keys of all scores of a query is its product with the sum of the keys."""
    op, k = match.root.op, match["k"]
    assert isinstance(op, Sum)
    rank = match.root.input(0).type.rank
    if [axis % rank for axis in op.axes] != [rank - 1] or not op.keepdims or match["k"].is_constant:
        raise Miss("the sum is not over the keys alone")
    total = match.graph.add(Sum((k.type.rank - 1,), True), k, name=f"{match.root.name}.keys", sources=match.sources)
    result: Value = match.add(MatMul(), match["q"], total)
    return result


def _weighted_sum(match: Match) -> Value:
    op, k, q = match.root.op, match["k"], match["q"]
    keys = match.node("keys").op
    assert isinstance(op, Sum) and isinstance(keys, Sum)
    rank = q.type.rank
    summed = [axis % rank for axis in op.axes] == [rank - 1] and [axis % rank for axis in keys.axes] == [rank - 2]
    if rank < 3 or k.type.rank != rank or not summed or not (op.keepdims and keys.keepdims):
        raise Miss("it is no product of each query with the sum of the keys")
    if match.root.input(0).shape != q.shape or q.shape[:-2] != k.shape[:-2]:
        raise Miss("heads differ")
    perm = (*range(rank - 2), rank - 1, rank - 2)
    turned = match.graph.add(Transpose(perm), k, name=f"{match.root.name}.turned", sources=match.sources)
    total = match.graph.add(Sum((rank - 1,), True), turned, name=f"{match.root.name}.keys", sources=match.sources)
    result: Value = match.add(MatMul(), q, total)
    return result


def _quotient(match: Match) -> Value:
    x, divisor = match["x"], match["divisor"]
    above = x.producer
    if above is None or not isinstance(above.op, MatMul) or divisor.shape[-1:] != (1,):
        raise Miss("it is no product of rows over a number per row")
    result: Value = match.add(Div(), x, divisor)
    return result


def _associate(match: Match, left: bool) -> Value:
    """Three products of activations, in the order of fewer multiplications."""
    a, b, c = match["a"], match["b"], match["c"]
    if any(value.is_constant for value in (a, b, c)) or not a.shape[:-2] == b.shape[:-2] == c.shape[:-2]:
        raise Miss("a factor is constant, or is shared by heads")
    (n, k), m, d = a.shape[-2:], b.shape[-1], c.shape[-1]
    first, second = n * k * m + n * m * d, k * m * d + n * k * d
    if (second >= first) if left else (first >= second):
        raise Miss(f"{first:,} and {second:,} multiplications: it is in the better order")
    made: Value
    if left:
        made = match.add(MatMul(), a, match.graph.add(MatMul(), b, c, sources=match.sources))
    else:
        made = match.add(MatMul(), match.graph.add(MatMul(), a, b, sources=match.sources), c)
    return made
