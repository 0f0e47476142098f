"""The scale and shift of a normalisation move into the layers that read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Value
from ...ops.norm import GroupNorm, LayerNorm, RMSNorm
from ...rewrite import Match, Miss, P, Rule
from ..base import Pass
from .absorb import fold_into_readers
from .channel_map import ChannelMap, double


def _fold(match: Match) -> Value:
    node = match.root
    g, b = node.optional(1), node.optional(2)
    if g is None and b is None:
        raise Miss("the norm has neither scale nor shift")
    axis = 1 if isinstance(node.op, GroupNorm) else node.output.type.rank - 1
    channels = node.output.shape[axis]
    m = ChannelMap(axis, np.ones(channels) if g is None else double(g), np.zeros(channels) if b is None else double(b))
    fold_into_readers(match.graph, node.output, m)
    new: Value = match.add(node.op, node.input(0))
    return new


@dataclass(frozen=True)
class FoldAffineNorm(Pass):
    """Take scale g and shift b out of LayerNorm, RMSNorm and GroupNorm.

        LayerNorm(x, g, b) -> Linear(., w, v)    becomes    LayerNorm(x) -> Linear(., w g, v + w b)

    Legal when all readers are linear layers along the channels, and none pads with zeros while b is not zero; ops that
    only move or average may stand between. It leaves the norm a pure row statistic, which `NormToRmsnorm` needs.
    """

    rules: ClassVar[tuple[Rule, ...]] = (Rule("fold_affine_norm", P((LayerNorm, RMSNorm, GroupNorm)), _fold),)
