"""Attention by meaning, wherever its scale and bias stand and however heads are moved about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Array, Node, Value, sources_of
from ...ops.activation import Softmax
from ...ops.attention import Attention
from ...ops.elementwise import Mul
from ...ops.linear import MatMul
from ...ops.shape import Reshape
from ...rewrite import Match, Miss, P, Rule
from ..base import Pass
from .heads import Layout, Sharing, apart, layout_of, origin_of, shaped, sharing_of, tokens_of
from .scores import Scores, is_turn, require_only, scores_of


def _attention(match: Match) -> Value:
    """The product of what softmax makes and of values, in either order."""
    graph, root = match.graph, match.root
    side, moves = _weights_of(match)
    scores = scores_of(graph, moves[-1])
    weights, values, lead = root.input(side), root.input(1 - side), root.output.shape[:-2]
    turned = sum(is_turn(node.op) for node in moves) % 2 == 1
    if turned ^ scores.columns != (side == 1):
        raise Miss("softmax is not over the axis that the product sums")
    if not lead or len(scores.shape) < 3 or weights.shape[:-2] != lead:
        raise Miss(f"heads differ: {weights.shape} and {values.shape}")
    at_q, at_k = (origin_of(each, lead=scores.product.output.shape[:-2]) for each in (scores.queries, scores.keys))
    at_v = origin_of(values, through_factors=False, lead=lead)
    if any(not origin.source.shape or not origin.source.type.size for origin in (at_q, at_k, at_v)):
        raise Miss("an operand has no tokens")
    layout = layout_of(at_k if at_q.source.is_constant else at_q)  # learned queries tell nothing of the movement
    sharing = sharing_of(layout, at_k.numbers(), at_v.numbers())
    gain, bias = _gain(scores, layout), _bias(scores, layout, sharing)
    nodes = [*at_q.nodes, *at_k.nodes, *at_v.nodes, *scores.nodes, *match.nodes]
    sources = sources_of(*sorted(dict.fromkeys(nodes), key=lambda node: node.serial))
    q = tokens_of(graph, scores.queries, at_q, layout, "q", sharing.order, scores.turned)
    k = tokens_of(graph, scores.keys, at_k, layout, "k", sharing.shared, not scores.turned)
    v = tokens_of(graph, values, at_v, layout, "v", sharing.shared, side == 1)
    if (gain != gain[0, 0]).any():
        factors = (gain[:, sharing.order, None] / gain[0, 0]).astype(q.dtype)
        factors = factors if layout.heads == 1 else np.repeat(factors[0, :, 0], q.shape[2] // layout.heads)
        q = graph.add(Mul(), q, graph.constant(factors, f"{root.name}.gain"), sources=sources)
    batch, rows, width = q.shape
    q = shaped(graph, q, (batch, rows * sharing.queries, width // sharing.queries), sources)
    table = None if bias is None else graph.constant(bias.astype(q.dtype), f"{root.name}.bias")
    op = Attention(sharing.heads, float(gain[0, 0]) * at_q.factor * at_k.factor)
    attended = graph.add(op, q, k, v, table, name=root.name, sources=sources)
    attended = shaped(graph, attended, (batch, rows, attended.shape[2] * sharing.queries), match.sources)
    by_head = apart(graph, attended, layout, sharing, side == 1, match.sources)
    return shaped(graph, by_head, root.output.shape, match.sources)


def _weights_of(match: Match) -> tuple[int, list[Node]]:
    """Which operand is made by softmax, and the nodes from the movement of it up to softmax, now part of the match."""
    for side in (0, 1):
        nodes: list[Node] = []
        node = match.root.input(side).producer
        while node is not None and (is_turn(node.op) or isinstance(node.op, Reshape)):
            nodes.append(node)
            node = node.input(0).producer
        if node is not None and isinstance(node.op, Softmax):
            match.nodes += [*nodes, node]
            for each in (*nodes, node):
                require_only(match.graph, each.output)
                if isinstance(each.op, Reshape) and each.output.shape[-2:] != each.input(0).shape[-2:]:
                    raise Miss(f"'{each.name}' mixes attention weights up")
            return side, [*nodes, node]
    raise Miss("neither operand is made by softmax")


def _gain(scores: Scores, layout: Layout) -> Array:
    """The factor of each head as [1, H]; as [B, 1] where heads are a batch."""
    full = layout.by_head(np.broadcast_to(scores.gain, (*scores.shape[:-2], 1, 1)))[:, :, 0, 0]
    if (full == full[:1]).all():
        return np.asarray(full[:1])
    if layout.heads > 1:
        raise Miss("the factor differs between images or windows")
    return np.asarray(full)


def _bias(scores: Scores, layout: Layout, sharing: Sharing) -> Array | None:
    """The bias as [H, N, M]; as [B, H, N, M], or [B, 1, N, M], where it differs between windows."""
    if not scores.bias.any():
        return None
    full = layout.by_head(np.broadcast_to(scores.bias, scores.shape))[:, sharing.order]
    images, _, rows, keys = full.shape
    apart = full.reshape(images, sharing.queries, sharing.heads, rows, keys)
    full = apart.transpose(0, 2, 3, 1, 4).reshape(images, sharing.heads, -1, keys)
    if (full == full[:1]).all():
        return np.ascontiguousarray(full[0])
    return np.ascontiguousarray(full[:, :1] if (full == full[:, :1]).all() else full)


@dataclass(frozen=True)
class RecogniseAttention(Pass):
    """softmax(scale * q k^T + bias) v, and the same transposed; q, k and v become separate projections.

    Heads that share keys and values are one head with more queries.
    """

    rules: ClassVar[tuple[Rule, ...]] = (Rule("attention", P(MatMul), _attention),)
