"""Hybrids for small images: convolutions at full and half resolution, then transformer blocks at a quarter of it.

The shape of EfficientFormer (Li et al., 2022, figure 3), with `samples/fashion` as one of its members: all blocks on
images stand before those on tokens, so that a network changes its layout once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from ...ir.graph import Array, Graph, Value
from ...ir.ops.attention import Attention
from ...ir.ops.pool import Mean
from ...ir.ops.shape import Reshape, Transpose
from ..space import Choice, Genome
from .net import Net

__all__ = ["HEAD", "build"]

HEAD = 16
"""Channels of an attention head, whatever the width: fewer heads are then the leading rows of more."""


def build(genome: Genome, settings: Mapping[str, Choice], weights: Mapping[str, Array] | None = None) -> Graph:
    """Build the float network of `genome`: image [1, C, S, S] to logits [1, classes].

    Genes: `stem` (channels at full resolution, 0 for none), `early`, `early_depth`, `early_ratio` (blocks at half
    resolution), `width`, `local_depth`, `local_ratio`, `kernel` (blocks at a quarter), `depth`, `mixer`, `heads`,
    `ratio` (blocks on tokens; mixer "none" leaves the feed-forward network alone).

    Args:
        genome: What was decided.
        settings: `image` (S, a multiple of 4), `channels`, `classes`, and `norm` of the tokens, one of `net.NORMS`.
        weights: A value for each parameter, by name; by default drawn at random, always the same.
    """
    net, norm = Net("hybrid", weights), str(settings["norm"])
    side = int(settings["image"])
    x = _image_blocks(net, net.input("image", 1, int(settings["channels"]), side, side), genome)
    x = net.add(Reshape((1, x.shape[1], x.shape[2] * x.shape[3])), x, name="flat")
    x = net.add(Transpose((0, 2, 1)), x, name="tokens")
    x = net.plus(x, net.parameter("position", x.shape, 0.02), "embedded")
    genes = zip(*(_each(genome, name) for name in ("mixer", "heads", "ratio")), strict=True)
    for place, (mixer, heads, ratio) in enumerate(genes):
        with net.within(f"blocks.{place}"):
            x = _attention(net, x, int(heads), norm) if mixer == "softmax" else x
            x = _feed_forward(net, x, int(ratio), norm)
    pooled = net.norm(net.add(Mean((1,)), x, name="pool"), norm, "norm")
    return net.finish(net.linear(pooled, int(settings["classes"]), "head"))


def _image_blocks(net: Net, x: Value, genome: Genome) -> Value:
    """The convolutional part, [1, C, S, S] to [1, width, S / 4, S / 4]."""
    stem, early, width = (int(cast("int", genome[name])) for name in ("stem", "early", "width"))
    if stem:
        x = net.relu(net.conv_norm(x, stem, "stem", 3), "stem.act")
    # Read from the pixels or from the stem's channels, its weights mean different things: two names.
    x = net.relu(net.conv_norm(x, early, "halve" if stem else "start", 3, stride=2), "halve.act")
    for place, ratio in enumerate(_each(genome, "early_ratio")):
        x = _depthwise_block(net, x, int(ratio), 3, f"early.{place}")
    x = net.relu(net.conv_norm(x, width, "quarter", 3, stride=2), "quarter.act")
    for place, (ratio, kernel) in enumerate(zip(_each(genome, "local_ratio"), _each(genome, "kernel"), strict=True)):
        x = _depthwise_block(net, x, int(ratio), int(kernel), f"local.{place}")
    return x


def _depthwise_block(net: Net, x: Value, ratio: int, kernel: int, name: str) -> Value:
    """Mix space by a depthwise convolution, then channels by two 1x1 convolutions; [1, C, H, W] to the same."""
    channels = x.shape[1]
    with net.within(name):
        y = net.conv_norm(x, channels, f"mix{kernel}", kernel, groups=channels)
        y = net.gelu(net.conv_norm(y, channels * ratio, "expand"), "act")
        return net.plus(x, net.conv_norm(y, channels, "project"), "add")


def _attention(net: Net, x: Value, heads: int, norm: str) -> Value:
    """Self-attention behind its norm, added to the tokens [1, N, E]."""
    with net.within("mixer"):
        normed = net.norm(x, norm, "norm")
        q, k, v = (net.linear(normed, heads * HEAD, name) for name in "qkv")
        mixed = net.add(Attention(heads, HEAD**-0.5), q, k, v, name="attention")
        return net.plus(x, net.linear(mixed, x.shape[-1], "proj"), "add")


def _feed_forward(net: Net, x: Value, ratio: int, norm: str) -> Value:
    """The feed-forward network behind its norm, added to the tokens [1, N, E]."""
    with net.within("mlp"):
        hidden = net.gelu(net.linear(net.norm(x, norm, "norm"), x.shape[-1] * ratio, "fc1"), "act")
        return net.plus(x, net.linear(hidden, x.shape[-1], "fc2"), "add")


def _each(genome: Genome, name: str) -> tuple[Choice, ...]:
    """What a gene that decides several times decided."""
    return cast("tuple[Choice, ...]", genome[name])
