"""EfficientFormerV2: convolutional FFNs on images throughout, attention before those at the end of the last two stages.

Genes: width_1 to width_4, [ratio_1] to [ratio_4] (expansion, once a block of the stage), attention_3 and attention_4
(how many of a stage's blocks, from its end, have attention: all of them where it has no more). Each but the ratios may
be a setting instead. Scales of layers are folded, the two heads of distillation are one, and every second pixel that
the query of a halving adds is the middle tap of the convolution beside it.

Source: Li et al., Rethinking Vision Transformers for MobileNet Size and Speed (ICCV 2023), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.graph import Value
from ...ir.ops.activation import Softmax
from ...ir.ops.attention import Attention
from ...ir.ops.elementwise import Mul
from ...ir.ops.linear import MatMul
from ...ir.ops.pool import Mean
from ...ir.ops.shape import Reshape, Resize, Transpose
from ..space import Choice, Genome
from . import Parts
from .efficientformer import HEADS, KEY, VALUE, Down, begin, distances
from .net import Net
from .vit import image_of, tokens_of

__all__ = ["AttentionDown", "Ffn", "Head", "Mixer", "parts"]


@dataclass(frozen=True)
class Ffn:
    """x + fc2(gelu(mid(gelu(fc1(x))))) on [1, width, side, side]; `mid` is a depthwise 3x3 convolution."""

    side: int
    width: int
    hidden: int

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        y = net.gelu(net.conv_norm(x, self.hidden, "fc1"), "act")
        y = net.gelu(net.conv_norm(y, self.hidden, "mid", 3, groups=self.hidden), "mid.act")
        return net.plus(x, net.conv_norm(y, self.width, "fc2"), "sum")


@dataclass(frozen=True)
class Mixer:
    """x + attention on [1, width, side, side], at half of its resolution where `halved`.

    Heads talk to each other before and after the softmax: 1x1 convolutions over them. Values are also mixed nearby.
    """

    side: int
    width: int
    halved: bool

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        y = net.conv_norm(x, self.width, "halve", 3, 2, groups=self.width) if self.halved else x
        side = y.shape[2]
        q, k = (self._heads(net, net.conv_norm(y, HEADS * KEY, name), f"{name}s") for name in "qk")
        values = net.conv_norm(y, HEADS * VALUE, "v")
        near = net.conv_norm(values, HEADS * VALUE, "near", 3, groups=HEADS * VALUE)
        scores = net.add(MatMul(), _turned(net, q, "qt"), k, name="products")
        scale = net.graph.constant(np.array(KEY**-0.5, np.float32), f"{scores.name}.scale")
        scores = net.plus(net.add(Mul(), scores, scale, name="scores"), distances(net, side), "biased")
        shares = net.add(Softmax(-1), net.conv(scores, HEADS, "talk1", bias=True), name="shares")
        shares = net.conv(shares, HEADS, "talk2", bias=True)
        mixed = net.add(MatMul(), shares, _turned(net, self._heads(net, values, "vs"), "vt"), name="mixed")
        mixed = net.add(Reshape(values.shape), _turned(net, mixed, "gathered"), name="image")
        mixed = net.plus(mixed, near, "both")
        if self.halved:
            mixed = net.add(Resize((self.side, self.side), "linear"), mixed, name="full")
        return net.plus(x, net.conv_norm(net.gelu(mixed, "act"), self.width, "proj"), "sum")

    def _heads(self, net: Net, x: Value, name: str) -> Value:
        """[1, H*d, h, w] -> [1, H, d, h*w]."""
        return net.add(Reshape((1, HEADS, x.shape[1] // HEADS, x.shape[2] * x.shape[3])), x, name=name)


def _turned(net: Net, x: Value, name: str) -> Value:
    """[1, H, a, b] -> [1, H, b, a]."""
    return net.add(Transpose((0, 1, 3, 2)), x, name=name)


@dataclass(frozen=True)
class AttentionDown:
    """[1, inputs, side, side] to [1, width, side / 2, side / 2]: a convolution, and attention of half as many rows."""

    side: int
    inputs: int
    width: int

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        keys, values = HEADS * KEY // 2, HEADS * VALUE // 2
        asked = net.conv(x, self.inputs, "local", 3, 2, groups=self.inputs, bias=True)
        q, k = net.conv_norm(asked, keys, "q"), net.conv_norm(x, keys, "k")
        v = net.conv_norm(x, values, "v")
        near = net.conv_norm(v, values, "near", 3, 2, groups=values)
        rows = [tokens_of(net, each, f"{name}s") for each, name in ((q, "q"), (k, "k"), (v, "v"))]
        op = Attention(HEADS, (KEY // 2) ** -0.5)
        mixed = image_of(net, net.add(op, *rows, distances(net, self.side, 2), name="attention"), "image")
        far = net.conv_norm(net.gelu(net.plus(mixed, near, "both"), "act"), self.width, "proj")
        return net.plus(far, net.conv_norm(x, self.width, "conv", 3, 2), "sum")


@dataclass(frozen=True)
class Head:
    """[1, width, side, side] -> logits [1, classes]: BatchNorm, mean, a Linear."""

    side: int
    width: int
    classes: int

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        return net.linear(net.add(Mean((2, 3)), net.batch_norm(x, "bn"), name="mean"), self.classes, "fc")


def parts(genome: Genome, settings: Mapping[str, Choice]) -> Parts:
    """See `families.parts`; errors as for `efficientformer.begin`."""
    given: dict[str, Any] = {**settings, **genome}
    widths, chain = begin(given, "gelu")
    for stage, width in enumerate(widths):
        side, ratios = int(given["image"]) // 4 >> stage, given[f"ratio_{stage + 1}"]
        if stage:
            down = AttentionDown if stage == 3 else Down
            chain.append((f"down.{stage}", down(2 * side, widths[stage - 1], width)))
        plain = len(ratios) - int(given.get(f"attention_{stage + 1}", 0))
        for place, ratio in enumerate(ratios):
            name = f"stages.{stage}.{place}"
            if place >= plain:
                chain.append((f"{name}.mixer", Mixer(side, width, stage == 2)))
            chain.append((f"{name}.ffn", Ffn(side, width, int(width * ratio))))
    return (*chain, ("head", Head(side, widths[3], int(given["classes"]))))
