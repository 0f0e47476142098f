"""A learned factor (or shift) per channel disappears into the layer before or after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph import Node, Value
from ...ops.elementwise import Add, Div, Mul, Sub
from ...rewrite import Match, Miss, P, Rule
from ..base import Pass
from .absorb import absorb
from .channel_map import arithmetic_maps


def is_scalar_operand(node: Node) -> bool:
    """Whether one operand is a constant of one element."""
    return any(value is not None and value.is_constant and value.type.size == 1 for value in node.inputs)


def _fold(match: Match) -> Value:
    node = match.root
    if is_scalar_operand(node):
        raise Miss("the constant is a scalar, which fold_scalars folds")
    data, maps = arithmetic_maps(node)
    return absorb(match.graph, node, data, maps)


@dataclass(frozen=True)
class FoldLayerScale(Pass):
    """Fold Mul, Div, Add and Sub with one constant per channel.

        x + Mul(Linear(h, w, b), s)    becomes    x + Linear(h, s w, s b)

    Legal as `FoldBatchnorm` states. The pooling mixer x + s * (pool(x) - x) has no weights and stays. It must run
    before `NormToRmsnorm`, because a factor per channel does not commute with centring.
    """

    rules: ClassVar[tuple[Rule, ...]] = (Rule("fold_layer_scale", P((Mul, Div, Add, Sub)), _fold),)
