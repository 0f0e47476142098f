"""Scalar factors, and the scale of attention scores, disappear into weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Value
from ...ops.attention import Attention
from ...ops.elementwise import Add, Div, Mul, Sub
from ...rewrite import Match, Miss, P, Rule
from ..base import Pass
from .absorb import absorb, fold_into_writer
from .channel_map import ChannelMap, arithmetic_maps
from .fold_layer_scale import is_scalar_operand


def _fold(match: Match) -> Value:
    node = match.root
    if not is_scalar_operand(node):
        raise Miss("no operand is a constant scalar")
    data, maps = arithmetic_maps(node)
    return absorb(match.graph, node, data, maps)


def _fold_attention(match: Match) -> Value:
    node = match.root
    assert isinstance(node.op, Attention)
    channels = node.input(0).shape[2]
    m = ChannelMap(2, np.full(channels, node.op.scale), np.zeros(channels))
    fold_into_writer(match.graph, node.input(0), m)
    new: Value = match.add(dataclasses.replace(node.op, scale=1.0), *node.inputs)
    return new


@dataclass(frozen=True)
class FoldScalars(Pass):
    """Fold Mul, Div, Add and Sub with a constant scalar, and Attention's scale into the query.

        Linear(x, w, b) -> Div 8                        becomes    Linear(x, w / 8, b / 8)
        Attention(Linear(x, w, b), k, v) {scale=s}      becomes    Attention(Linear(x, s w, s b), k, v) {scale=1}

        MatMul(Linear(x, w, b), k) * s                  becomes    MatMul(Linear(x, s w, s b), k)

    Legal as `FoldBatchnorm` states; for attention, when only it reads the query. A query that is one piece of a joint
    projection (Split) scales only its rows of that weight.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("fold_scalar", P((Mul, Div, Add, Sub)), _fold),
        Rule("fold_attention_scale", P(Attention, where=lambda op: op.scale != 1.0), _fold_attention),
    )
