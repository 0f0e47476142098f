"""What softmax does not see of its keys goes, and what its weights do not change of the values follows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Array, Graph, Node, Value
from ...ops.attention import Attention
from ...rewrite import Match, Miss, P, Rule
from ..base import Pass
from .absorb import fold_into_readers, rebuild, writers
from .channel_map import ChannelMap, double


def _shift_of(graph: Graph, value: Value) -> tuple[Node, Array, Array]:
    """The layer that makes tokens, its bias, and which of its channels they are, in their order.

    Raises:
        Miss: No layer alone makes them, someone else reads them, or it adds nothing to them.
    """
    channels = value.shape[2]
    found = writers(graph, value, ChannelMap(2, np.ones(channels), np.ones(channels)))
    if len(found) > 1:
        raise Miss(f"'{value.name}' is a sum of layers")
    ((layer, m),) = found.items()
    bias = layer.optional(2)
    chosen = m.c != 0
    if bias is None or not double(bias)[chosen].any():
        raise Miss(f"'{layer.name}' adds nothing to '{value.name}'")
    return layer, double(bias), chosen


def _without(graph: Graph, layer: Node, bias: Array, chosen: Array) -> None:
    left = np.where(chosen, 0, bias)
    rebuild(graph, layer, layer.input(1), left if left.any() else None)


def _keys(match: Match) -> Value:
    _without(match.graph, *_shift_of(match.graph, match.root.input(1)))
    return _again(match)


def _values(match: Match) -> Value:
    graph, attention = match.graph, match.root
    layer, bias, chosen = _shift_of(graph, attention.input(2))
    shift = bias[chosen]
    fold_into_readers(graph, attention.output, ChannelMap(2, np.ones(len(shift)), shift), layer.sources)
    _without(graph, layer, bias, chosen)
    return _again(match)


def _again(match: Match) -> Value:
    made: Value = match.add(match.root.op, *match.root.inputs)
    return made


@dataclass(frozen=True)
class FoldAttentionBias(Pass):
    """Drop the bias of keys, and let that of values join the bias of what reads the result.

        Attention(q, Linear(x, w, b), v)                    becomes    Attention(q, Linear(x, w), v)
        Linear(Attention(q, k, Linear(x, w, b)), p, c)      becomes    Linear(Attention(q, k, Linear(x, w)), p, c + p b)

    A bias of keys adds the same to all scores of a query, which softmax ignores; a bias of values is averaged with
    weights that add up to one. Legal where only this attention reads them, and for values where linear layers alone
    read the result.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("fold_key_bias", P(Attention), _keys),
        Rule("fold_value_bias", P(Attention), _values),
    )
