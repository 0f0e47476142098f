"""Rotary positions: channels of queries and keys turned in pairs, by products with two tables and a swap of halves.

    q = y * C + swapped(y) * S,   y = Linear(x; rows of q), pairs at the same place of either half of each head

Whichever channels a model pairs, neighbours or halves, the rows of both projections are put in the order in which the
second half follows the first: scores do not change when queries and keys do alike. A class token, which is not turned,
has 1 and 0 in the tables. Source: Su et al., RoFormer, 2021, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Array, Graph, Value, sources_of
from ...ops.elementwise import Add, Mul, Sub
from ...ops.linear import Linear, MatMul
from ...ops.shape import Concat, Reshape, Split, Transpose
from ...rewrite import Any, Match, Miss, P, Rule
from ..base import Pass
from .head_factors import leads_to_softmax
from .heads import narrowed, shaped
from .linear_form import Terms, source_of, terms_of


@dataclass(frozen=True)
class _Turned:
    """An operand [B, H, N, d] of a product of scores.

    Attributes:
        source: The projection [B, N, C] that it is made of.
        channels: [H, d, 2] the channels of the source that each channel is made of, the lesser first.
        factors: [N, H, d, 2] their factors.
        sources: Names of the nodes it stands for.
    """

    source: Value
    channels: Array
    factors: Array
    sources: tuple[str, ...]


def _turned(operand: Value, swapped: bool) -> _Turned:
    """Read an operand [B, H, N, d], or [B, H, d, N] when swapped.

    Raises:
        Miss: It is anything but tokens in order, each channel a sum of two channels of the same token.
    """
    source, nodes = source_of(operand)
    if operand.type.rank != 4 or source.type.rank != 3 or not isinstance(getattr(source.producer, "op", None), Linear):
        raise Miss(f"'{operand.name}' is no projection of tokens, by head")
    sums = [node for node in nodes if isinstance(node.op, Add | Sub)]
    if not sums or any(node.output.type.rank < 4 for node in sums):
        raise Miss(f"'{operand.name}' is no sum by head: not turned, or turned before heads are split")
    terms = terms_of(operand, source, {})
    if swapped:
        terms = Terms(terms.numbers.swapaxes(-1, -2), terms.factors.swapaxes(-1, -2))
    rows, channels = np.divmod(terms.numbers, source.shape[-1])
    _, images, heads, tokens, depth = terms.numbers.shape
    live = terms.factors != 0
    if images > 1 or tokens != source.shape[1] or (live & (rows != np.arange(tokens)[:, None])).any():
        raise Miss("tokens are mixed, or out of order")
    least = np.where(live, channels, source.shape[-1]).min(axis=(0, 1, 3), keepdims=True)
    most = np.where(live, channels, -1).max(axis=(0, 1, 3), keepdims=True)
    if (live & (channels != least) & (channels != most)).any() or (least > most).any():
        raise Miss(f"a channel of '{operand.name}' is made of more than two, or of none")
    first = np.where(channels == least, terms.factors, 0.0).sum(axis=0)[0]
    second = np.where((channels == most) & (least != most), terms.factors, 0.0).sum(axis=0)[0]
    pairs = np.stack([np.broadcast_to(each, (1, 1, heads, 1, depth))[0, 0, :, 0] for each in (least, most)], axis=-1)
    factors = np.stack([first, second], axis=-1).swapaxes(0, 1)
    return _Turned(source, pairs, factors, sources_of(*sorted(nodes, key=lambda node: node.serial)))


def _places(turned: _Turned) -> list[int]:
    """The channels of a head, those that come first in their pairs and then, in the same order, their partners.

    Raises:
        Miss: They are no pairs, or not the same ones in all heads.
    """
    depth = turned.channels.shape[1]
    orders = []
    for head in turned.channels:
        by_pair: dict[tuple[int, ...], list[int]] = {}
        for place in range(depth):
            by_pair.setdefault(tuple(int(c) for c in head[place]), []).append(place)
        alone = [places[0] for pair, places in by_pair.items() if pair[0] == pair[1]]
        couples = [tuple(places) for pair, places in by_pair.items() if pair[0] != pair[1]]
        couples += list(zip(alone[::2], alone[1::2], strict=False))
        if any(len(couple) != 2 for couple in couples) or 2 * len(couples) != depth:
            raise Miss("channels are not turned in pairs")
        orders.append([couple[i] for i in (0, 1) for couple in sorted(couples)])
    if any(order != orders[0] for order in orders[1:]):
        raise Miss("heads pair their channels differently")
    return orders[0]


def _rotation(graph: Graph, turned: _Turned, places: list[int], name: str) -> Value:
    """[B, N, H * d] in the order of places."""
    tokens, heads, depth, _ = turned.factors.shape
    half = depth // 2
    channels, factors = turned.channels[:, places], turned.factors[:, :, places]
    first = np.arange(depth) < half
    own = np.where(first, channels[..., 0], channels[..., 1])
    single = channels[..., 0] == channels[..., 1]
    cosine = np.where(first | single, factors[..., 0], factors[..., 1])
    sine = np.where(single, 0.0, np.where(first, factors[..., 1], factors[..., 0]))
    y = narrowed(graph, turned.source, own.reshape(-1), 2, name)
    batch = y.shape[0]
    apart = graph.add(Reshape((batch, tokens, heads, 2, half)), y, name=f"{y.name}.halves", sources=turned.sources)
    low, high = graph.add(Split(3, (1, 1)), apart, name=f"{y.name}.half", sources=turned.sources)
    swapped = graph.add(Concat(3), high, low, name=f"{y.name}.exchanged", sources=turned.sources)
    swapped = shaped(graph, swapped, y.shape, turned.sources)
    scale = float(np.sqrt((cosine**2 + sine**2).max()))
    scale = 1.0 if np.isclose(scale, 1.0, atol=1e-5) else scale
    parts = []
    for value, table, part in ((y, cosine, "cos"), (swapped, sine, "sin")):
        constant = graph.constant((table / scale).reshape(tokens, -1).astype(y.dtype), f"{y.name}.{part}")
        parts.append(graph.add(Mul(), value, constant, name=f"{y.name}.{part}_part", sources=turned.sources))
    total: Value = graph.add(Add(), *parts, name=f"{y.name}.turned", sources=turned.sources)
    if scale == 1.0:
        return total
    factor = graph.constant(np.asarray(scale, y.dtype), f"{y.name}.scale")
    made: Value = graph.add(Mul(), total, factor, name=f"{y.name}.scaled", sources=turned.sources)
    return made


def _rotary(match: Match) -> Value:
    graph, q, k = match.graph, match["q"], match["k"]
    if not leads_to_softmax(match.root.output):
        raise Miss("the product is no scores")
    parts = (_turned(q, False), _turned(k, True))
    places = _places(parts[0])
    if places != _places(parts[1]):
        raise Miss("queries and keys pair their channels differently")
    operands = []
    for turned, name, perm in ((parts[0], "q", (0, 2, 1, 3)), (parts[1], "k", (0, 2, 3, 1))):
        tokens, heads, depth, _ = turned.factors.shape
        rotated = _rotation(graph, turned, places, name)
        by_head = graph.add(Reshape((1, tokens, heads, depth)), rotated, sources=turned.sources)
        operands.append(graph.add(Transpose(perm), by_head, sources=turned.sources))
    result: Value = graph.add(MatMul(), *operands, name=match.root.name, sources=match.root.sources)
    return result


@dataclass(frozen=True)
class RecogniseRotary(Pass):
    """Pairs of channels turned by an angle per token, on both operands of scores."""

    rules: ClassVar[tuple[Rule, ...]] = (Rule("rotary", P(MatMul, Any("q"), Any("k")), _rotary),)
