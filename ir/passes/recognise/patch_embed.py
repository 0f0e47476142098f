"""A convolution whose stride is its kernel, read as tokens, is a patch embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph import Value
from ...ops.conv import Conv, PatchEmbed
from ...ops.shape import Reshape, Transpose
from ...rewrite import Any, Const, Match, Miss, P, Rule
from ..base import Pass

CONV = P(Conv, Any("x"), Const(name="w"), name="image")


def _patch_embed(match: Match) -> Value:
    node, weight = match.node("image"), match["w"]
    op, (batch, channels, height, width) = node.op, node.output.shape
    assert isinstance(op, Conv)
    patch = (weight.shape[2], weight.shape[3])
    if patch == (1, 1):
        raise Miss("a kernel of one pixel is a Linear, not a patch")
    if op.strides != patch:
        raise Miss(f"strides {op.strides} are not the kernel {patch}")
    if op.groups != 1 or op.dilations != (1, 1):
        raise Miss("it is grouped or dilated")
    if match.root.output.shape != (batch, height * width, channels):
        raise Miss(f"{match.root.output.shape} is no sequence of {height * width} tokens")
    result: Value = match.add(PatchEmbed(patch, op.pads), match["x"], weight, node.optional(2), name=node.name)
    return result


@dataclass(frozen=True)
class RecognisePatchEmbed(Pass):
    """Conv, Reshape and Transpose in either order."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("patch_embed", P(Transpose, P(Reshape, CONV), where=lambda op: op.perm == (0, 2, 1)), _patch_embed),
        Rule("patch_embed", P(Reshape, P(Transpose, CONV, where=lambda op: op.perm == (0, 2, 3, 1))), _patch_embed),
    )
