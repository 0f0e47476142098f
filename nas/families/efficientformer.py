"""EfficientFormer: pooling and 1x1 convolutions on images in four stages, attention on tokens at the end of the last.

Genes: width_1 to width_4, [ratio_1] to [ratio_4] (expansion, once a block of the stage), attention (how many of the
last stage's blocks, 1 or more, stand on tokens: all of them where it has no more). Each but the ratios may be a setting
instead. The scales of layers are folded into the layers before them, except where pooling leaves none to fold into, and
the two heads of distillation are one: the mean of two Linears is a Linear.

Source: Li et al., EfficientFormer: Vision Transformers at MobileNet Speed (NeurIPS 2022), section 4 and appendix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.errors import UsageError
from ...ir.graph import Value
from ...ir.ops.attention import Attention
from ...ir.ops.elementwise import Mul, Sub
from ...ir.ops.pool import AveragePool
from ...ir.ops.shape import Gather, Split
from ..space import Choice, Genome
from . import Part, Parts
from .net import Net
from .vit import Ffn, Head, tokens_of

__all__ = ["HEADS", "KEY", "SCALE", "VALUE", "Down", "begin", "distances", "parts"]

HEADS, KEY, VALUE = 8, 32, 128
"""Heads of attention, and the channels of a key and of a value of each."""

SCALE = 0.3
"""Deviation of drawn scales and biases of attention; training begins at next to nothing."""


def distances(net: Net, side: int, step: int = 1) -> Value:
    """A bias [HEADS, queries, keys]: one for every |dy|, |dx| in a grid whose every `step`-th row and column asks.

    The parameter is a table [HEADS, side * side].
    """
    table = net.parameter("biases", (HEADS, side * side), SCALE)
    keys = np.stack(np.divmod(np.arange(side * side), side), 1)
    queries = keys[(keys % step == 0).all(1)]
    apart = np.abs(queries[:, None] - keys[None])
    places = net.graph.constant(apart[..., 0] * side + apart[..., 1], f"{table.name}.places")
    return net.add(Gather(1), table, places, name="bias")


@dataclass(frozen=True)
class Stem:
    """Pixels [1, C, S, S] to [1, width, S / 4, S / 4] by two convolutions, "relu" or "gelu" behind each."""

    image: tuple[int, int, int]
    width: int
    act: str = "relu"

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        act = {"relu": net.relu, "gelu": net.gelu}[self.act]
        x = act(net.conv_norm(x, self.width // 2, "1", 3, 2), "1.act")
        return act(net.conv_norm(x, self.width, "2", 3, 2), "2.act")


@dataclass(frozen=True)
class Down:
    """[1, inputs, side, side] to [1, width, side / 2, side / 2], without activation."""

    side: int
    inputs: int
    width: int

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        return net.conv_norm(x, self.width, "conv", 3, 2)


@dataclass(frozen=True)
class Pool:
    """x + scale (pool(x) - x) on [1, width, side, side]: the mean of 3x3 pixels mixes space."""

    side: int
    width: int

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        rest = net.add(Sub(), net.add(AveragePool((3, 3), (1, 1), (1, 1, 1, 1)), x, name="pool"), x, name="rest")
        scaled = net.add(Mul(), rest, net.parameter("scale", (self.width, 1, 1), SCALE), name="scaled")
        return net.plus(x, scaled, "sum")


@dataclass(frozen=True)
class ConvFfn:
    """x + fc2(gelu(fc1(x))) on [1, width, side, side], by 1x1 convolutions with BatchNorm."""

    side: int
    width: int
    hidden: int

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        inner = net.gelu(net.conv_norm(x, self.hidden, "fc1"), "act")
        return net.plus(x, net.conv_norm(inner, self.width, "fc2"), "sum")


@dataclass(frozen=True)
class Tokens:
    """[1, width, side, side] to tokens [1, side * side, width]; attention knows where they stand."""

    side: int
    width: int

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        return tokens_of(net, x, "tokens")


@dataclass(frozen=True)
class Mixer:
    """x + attention(norm(x)) on tokens [1, side * side, width], with a bias for every distance."""

    side: int
    width: int

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        sizes = (HEADS * KEY, HEADS * KEY, HEADS * VALUE)
        joined = net.linear(net.norm(x, "LayerNorm", "norm"), sum(sizes), "qkv")
        q, k, v = net.graph.add(Split(2, sizes), joined, name=f"{joined.name}.split", sources=(joined.name,))
        mixed = net.add(Attention(HEADS, KEY**-0.5), q, k, v, distances(net, self.side), name="attention")
        return net.plus(x, net.linear(mixed, self.width, "proj"), "sum")


def begin(given: Mapping[str, Any], act: str = "relu") -> tuple[list[int], list[tuple[str, Part]]]:
    """Width of each stage, and a chain of the stem alone.

    Raises:
        UsageError: The image cannot be halved five times.
    """
    image = int(given["image"])
    if image % 32:
        raise UsageError(f"images of {image} pixels cannot be halved five times", do="pad them to a multiple of 32")
    widths = [int(given[f"width_{stage}"]) for stage in (1, 2, 3, 4)]
    return widths, [("stem", Stem((int(given["channels"]), image, image), widths[0], act))]


def parts(genome: Genome, settings: Mapping[str, Choice]) -> Parts:
    """See `families.parts`; errors as for `begin`."""
    given: dict[str, Any] = {**settings, **genome}
    widths, chain = begin(given)
    for stage, width in enumerate(widths):
        side, ratios = int(given["image"]) // 4 >> stage, given[f"ratio_{stage + 1}"]
        if stage:
            chain.append((f"down.{stage}", Down(2 * side, widths[stage - 1], width)))
        images = max(0, len(ratios) - int(given["attention"])) if stage == 3 else len(ratios)
        for place, ratio in enumerate(ratios):
            name, hidden = f"stages.{stage}.{place}", int(width * ratio)
            if place < images:
                chain += [(f"{name}.mixer", Pool(side, width)), (f"{name}.ffn", ConvFfn(side, width, hidden))]
                continue
            if place == images:
                chain.append(("tokens", Tokens(side, width)))
            chain += [(f"{name}.mixer", Mixer(side, width)), (f"{name}.ffn", Ffn(side**2, width, hidden=hidden))]
    return (*chain, ("head", Head("LayerNorm", int(given["classes"]))))
