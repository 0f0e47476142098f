"""Hybrids for small images: convolutions at full and half resolution, then transformer blocks at a quarter of it.

Genes, those in brackets once a block: stem (channels at full resolution, 0 for none), early, [early_block] and
[early_ratio] (blocks at half resolution), width, [local_block], [local_ratio] and [kernel] (blocks at a quarter),
[mixer], [heads] and [ratio] (blocks on tokens), head ("mean" of the tokens or "flat"). Each may be a setting instead;
where nothing says otherwise, blocks are depthwise and the head takes the mean. All blocks on images stand before those
on tokens, so that a network changes its layout once.

Sources: Li et al., EfficientFormer (2022), figure 3, for the shape and for blocks on tokens that are left out, the
Identity of its supernet; He et al., Deep Residual Learning (2015), figure 5, left, for residual blocks.
`samples/fashion` is one of the networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...ir.errors import UsageError
from ...ir.graph import Value
from ...ir.ops.attention import Attention
from ...ir.ops.pool import Mean
from ...ir.ops.shape import Reshape, Transpose
from ..space import Choice, Genome
from . import Part, Parts
from .net import Net
from .vit import Ffn

__all__ = ["HEAD", "Classifier", "DepthwiseBlock", "Down", "Mixer", "ResidualBlock", "Stem", "Tokens", "parts"]

HEAD = 16
"""Channels of an attention head, whatever the width: fewer heads are then the leading rows of more."""

POSITION = 0.02
"""Deviation of drawn positions."""


@dataclass(frozen=True)
class Stem:
    """Pixels [1, C, S, S] to [1, width, S / 2, S / 2], through `full` channels at full resolution unless that is 0."""

    image: tuple[int, int, int]
    full: int
    width: int

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        if self.full:
            x = net.relu(net.conv_norm(x, self.full, "full", 3), "full.act")
        # Weights that read pixels are others than those that read channels of the stem: two names.
        return net.relu(net.conv_norm(x, self.width, "halve" if self.full else "start", 3, 2), "act")


@dataclass(frozen=True)
class DepthwiseBlock:
    """[1, C, side, side] to the same: space by a depthwise convolution, then channels by two 1x1 convolutions."""

    side: int
    width: int
    ratio: int
    kernel: int = 3

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        y = net.conv_norm(x, self.width, f"mix{self.kernel}", self.kernel, groups=self.width)
        y = net.gelu(net.conv_norm(y, self.width * self.ratio, "expand"), "act")
        return net.plus(x, net.conv_norm(y, self.width, "project"), "sum")


@dataclass(frozen=True)
class ResidualBlock:
    """[1, C, side, side] to the same by two 3x3 convolutions, with `ratio` times as many channels between them.

    It costs nine times the weights of a depthwise block and learns in far fewer steps.
    """

    side: int
    width: int
    ratio: int

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        y = net.relu(net.conv_norm(x, self.width * self.ratio, "there", 3), "there.act")
        return net.relu(net.plus(x, net.conv_norm(y, self.width, "back", 3), "sum"), "act")


@dataclass(frozen=True)
class Down:
    """[1, inputs, side, side] to [1, width, side / 2, side / 2]."""

    side: int
    inputs: int
    width: int

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        return net.relu(net.conv_norm(x, self.width, "down", 3, 2), "act")


@dataclass(frozen=True)
class Tokens:
    """[1, width, side, side] to tokens [1, side * side, width] that know where they stand."""

    side: int
    width: int

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        x = net.add(Reshape((1, self.width, self.side**2)), x, name="flat")
        x = net.add(Transpose((0, 2, 1)), x, name="turned")
        return net.plus(x, net.parameter("position", x.shape, POSITION), "embedded")


@dataclass(frozen=True)
class Mixer:
    """x + attention(norm(x)) of `heads` times `HEAD` channels; queries, keys and values have weights of their own."""

    tokens: int
    width: int
    heads: int
    norm: str

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        normed = net.norm(x, self.norm, "norm")
        q, k, v = (net.linear(normed, self.heads * HEAD, name) for name in "qkv")
        mixed = net.add(Attention(self.heads, HEAD**-0.5), q, k, v, name="attention")
        return net.plus(x, net.linear(mixed, self.width, "proj"), "sum")


@dataclass(frozen=True)
class Classifier:
    """Tokens [1, tokens, width] -> logits [1, classes]: their mean, a norm, a Linear; or one Linear of all of them.

    A norm of every feature would blow up those of corners where nothing ever is, and one of tokens cannot be folded
    into weights of each token's own.
    """

    tokens: int
    width: int
    norm: str
    classes: int
    flat: bool = False

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        if not self.flat:
            return net.linear(net.norm(net.add(Mean((1,)), x, name="mean"), self.norm, "norm"), self.classes, "fc")
        # Channel by channel, that fewer channels are the leading columns of more.
        x = net.add(Transpose((0, 2, 1)), x, name="turned")
        return net.linear(net.add(Reshape((1, self.width * self.tokens)), x, name="flat"), self.classes, "all")


def parts(genome: Genome, settings: Mapping[str, Choice]) -> Parts:
    """See `families.parts`.

    Raises:
        UsageError: The image has no half and quarter.
    """
    given: dict[str, Any] = {**settings, **genome}
    side, early, width, norm = int(given["image"]), int(given["early"]), int(given["width"]), str(given["norm"])
    if side % 4:
        raise UsageError(f"images of {side} pixels have no quarter", do="pad them to a multiple of 4")
    half, quarter = side // 2, side // 4
    chain: list[tuple[str, Part]] = [("stem", Stem((int(given["channels"]), side, side), int(given["stem"]), early))]
    kinds = given.get("early_block", ("depthwise",) * len(given["early_ratio"]))
    for place, (kind, ratio) in enumerate(zip(kinds, given["early_ratio"], strict=True)):
        chain.append((f"early.{place}", _block(kind, half, early, ratio, 3)))
    chain.append(("down", Down(half, early, width)))
    kinds = given.get("local_block", ("depthwise",) * len(given["local_ratio"]))
    for place, each in enumerate(zip(kinds, given["local_ratio"], given["kernel"], strict=True)):
        kind, ratio, kernel = each
        chain.append((f"local.{place}", _block(kind, quarter, width, ratio, kernel)))
    chain.append(("tokens", Tokens(quarter, width)))
    blocks = zip(given["mixer"], given["heads"], given["ratio"], strict=True)
    for place, (mixer, heads, ratio) in enumerate(blocks):
        if mixer == "softmax":
            chain.append((f"blocks.{place}.mixer", Mixer(quarter**2, width, heads, norm)))
        if mixer != "skip":
            chain.append((f"blocks.{place}.ffn", Ffn(quarter**2, width, norm, hidden=int(width * ratio))))
    flat = given.get("head", "mean") == "flat"
    return (*chain, ("head", Classifier(quarter**2, width, norm, int(given["classes"]), flat)))


def _block(kind: str, side: int, width: int, ratio: int, kernel: int) -> Part:
    if kind == "residual":
        return ResidualBlock(side, width, ratio)
    if kind == "depthwise":
        return DepthwiseBlock(side, width, ratio, kernel)
    raise UsageError(f"there is no block '{kind}' on images", do="choose depthwise or residual")
