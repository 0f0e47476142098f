"""Batch normalisation with frozen statistics disappears into the layer before or after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph import Value
from ...ops.elementwise import Affine
from ...ops.norm import BatchNorm, RepNorm
from ...rewrite import Match, P, Rule
from ..base import Pass
from .absorb import absorb
from .channel_map import norm_map


def fold_norm(match: Match) -> Value:
    """Absorb the norm at the root of a match into weights."""
    node = match.root
    return absorb(match.graph, node, node.input(0), [norm_map(node)])


@dataclass(frozen=True)
class FoldBatchnorm(Pass):
    """Fold BatchNorm and Affine, y = a * x + c per channel.

        Conv(x, w, b) -> BatchNorm        becomes    Conv(x, a w, a b + c)
        BatchNorm -> Linear(., w, b)      becomes    Linear(x, w a, b + w c)

    Legal after a Conv, Linear or PatchEmbed (padded, grouped or not) whose output nothing else reads; else before them
    when all readers are such layers, unless one pads with zeros and c is not zero: the border is zero after the norm,
    not before it. Ops that only move or average (Reshape, Transpose, Slice, Mean, Concat of channels) may stand
    between, and a sum of such layers counts as one. A weight that a layer outside the fold reads is left alone.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("fold_batchnorm", P((BatchNorm, Affine), where=lambda op: not isinstance(op, RepNorm)), fold_norm),
    )
