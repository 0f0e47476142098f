"""Attention by meaning, wherever its scale and bias stand and however heads are moved about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Array, Node, Value, sources_of
from ...ops.activation import Softmax
from ...ops.attention import Attention
from ...ops.elementwise import Add
from ...ops.linear import MatMul
from ...ops.shape import Transpose
from ...rewrite import Any, Match, Miss, P, Rule
from ..base import Pass
from .heads import Layout, apart, factor_of, layout_of, origin_of, shaped, tokens_of


@dataclass
class _Scores:
    """What softmax is taken of: factor * (a @ b) + bias."""

    product: Node
    factor: float
    bias: Array | None
    nodes: list[Node]


def _scores(value: Value) -> _Scores:
    factor, bias, nodes = 1.0, None, []
    while (node := value.producer) is not None and not isinstance(node.op, MatMul):
        nodes.append(node)
        scaled = factor_of(node)
        if scaled is not None:
            value, factor = scaled[0], factor * scaled[1]
            continue
        constants = [v for v in node.inputs if v is not None and v.is_constant]
        if not isinstance(node.op, Add) or len(constants) != 1:
            raise Miss(f"softmax is taken of {type(node.op).__name__} '{node.name}', not of scaled and biased scores")
        table = constants[0].array
        table = table if factor == 1 else (table * table.dtype.type(factor))
        bias = table if bias is None else bias + table
        value = node.input(1 if node.inputs[0] is constants[0] else 0)
    if node is None:
        raise Miss("softmax is taken of no product")
    return _Scores(node, factor, bias, [*nodes, node])


def _attention(match: Match, transposed: bool) -> Value:
    graph, values = match.graph, match["v"]
    softmax = match.node("weights")
    rank = len(softmax.output.shape)
    if softmax.op.attributes()["axis"] % rank != rank - 1:
        raise Miss("softmax is not over the last axis")
    scores = _scores(softmax.input(0))
    left, right = scores.product.input(0), scores.product.input(1)
    if rank < 3 or not left.shape[:-2] == right.shape[:-2] == values.shape[:-2]:
        raise Miss(f"heads differ or are shared: {left.shape}, {right.shape}, {values.shape}")
    if softmax.output.shape != scores.product.output.shape:
        raise Miss("the bias enlarges the scores")
    at_q, at_k, at_v = origin_of(left), origin_of(right), origin_of(values, through_factors=False)
    if any(not origin.source.shape or not origin.source.type.size for origin in (at_q, at_k, at_v)):
        raise Miss("an operand has no tokens")
    layout = layout_of(left, at_q)
    bias = _bias(scores.bias, layout, softmax.output.shape)
    q = tokens_of(graph, left, at_q, layout, "q")
    k = tokens_of(graph, right, at_k, layout, "k", swapped=True)
    v = tokens_of(graph, values, at_v, layout, "v", swapped=transposed)
    table = None if bias is None else graph.constant(bias, f"{match.root.name}.bias")
    nodes = [*at_q.nodes, *at_k.nodes, *at_v.nodes, *scores.nodes, *match.nodes]
    sources = sources_of(*sorted(dict.fromkeys(nodes), key=lambda node: node.serial))
    op = Attention(layout.heads, scores.factor * at_q.factor * at_k.factor)
    attended = graph.add(op, q, k, v, table, name=match.root.name, sources=sources)
    by_head = apart(graph, attended, layout, transposed, match.sources)
    return shaped(graph, by_head, match.root.output.shape, match.sources)


def _bias(table: Array | None, layout: Layout, shape: tuple[int, ...]) -> Array | None:
    """The bias as [H, N, M]; as [B, H, N, M], or [B, 1, N, M], where it differs between windows."""
    if table is None:
        return None
    full = layout.by_head(np.broadcast_to(table, shape))
    if (full == full[:1]).all():
        return np.ascontiguousarray(full[0])
    return np.ascontiguousarray(full[:, :1] if (full == full[:, :1]).all() else full)


WEIGHTS = P(Softmax, Any("scores"), name="weights")


@dataclass(frozen=True)
class RecogniseAttention(Pass):
    """softmax(scale * q k^T + bias) v, and the same transposed; q, k and v become separate projections."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("attention", P(MatMul, WEIGHTS, Any("v")), lambda match: _attention(match, False)),
        Rule(
            "attention",
            P(
                MatMul,
                Any("v"),
                P(Transpose, WEIGHTS, where=lambda op: op.perm[-2:] == (len(op.perm) - 1, len(op.perm) - 2)),
            ),
            lambda match: _attention(match, True),
        ),
    )
