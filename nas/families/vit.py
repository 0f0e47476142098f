"""Plain vision transformers and what is searched around them: stems, mixers, norms, ranks, codes and shared blocks.

Genes, those in brackets once a block: patch, image, stem, width, depth, rank, norm, recursion, edges, window, [mixer],
[heads], [ratio], [primitive]. Each may be a setting instead, or is left at its default.

Sources: Dosovitskiy et al. 2021 (ViT), Liang et al. 2023 (MCUFormer: low rank), Guo et al. 2024 (SLAB: RepNorm and
linear attention), Liu et al. 2021 (Swin: windows), Yu et al. 2022 (PoolFormer: pooling), Shen et al. 2022 (SReT: blocks
applied twice).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

from ...ir.errors import UsageError
from ...ir.graph import Value
from ...ir.ops.attention import Attention
from ...ir.ops.conv import Conv, PatchEmbed
from ...ir.ops.elementwise import Div, Sub
from ...ir.ops.linear import MatMul
from ...ir.ops.pool import AveragePool, Mean, Sum
from ...ir.ops.shape import Concat, Reshape, Slice, Transpose
from ..space import Choice, Genome
from . import Chain, Part, Parts
from .net import Net

__all__ = ["MIXERS", "Ffn", "Head", "Mixer", "Stem", "image_of", "parts", "tokens_of"]

MIXERS = ("softmax", "window", "linear", "pool", "none")
DEFAULTS: dict[str, Choice] = {
    "channels": 3, "image": 224, "stem": "patch", "token": 0, "edges": "int8", "norm": "LayerNorm", "rank": 0.0,
    "factors": 2, "full": 0, "head_width": 0, "mixer": "softmax", "heads": 1, "ratio": 4, "primitive": "int8",
    "recursion": 1, "window": 4,
}  # fmt: skip
"""What a network has where its space says nothing; see the parts below for their meaning."""

POSITION, WINDOW = 0.02, 5
"""Deviation of drawn positions; pixels along a side of linear attention's depthwise convolution."""


@dataclass(frozen=True)
class Stem:
    """An image [1, C, S, S] becomes tokens [1, N, width], a class token first where there is one.

    Attributes:
        kind: "patch" cuts the image into patches, "conv" halves it by 3x3 convolutions until a token is a pixel.
        image: Channels, height and width; padded to whole patches where they do not divide.
        patch: Pixels along a side of what becomes a token.
        width: Channels of a token.
        token: Whether a class token stands before the others.
        code: How the weights of patches are stored.
    """

    kind: str
    image: tuple[int, int, int]
    patch: int
    width: int
    token: bool = False
    code: str = "int8"

    @property
    def grid(self) -> int:
        """Tokens along a side."""
        return -(-self.image[1] // self.patch)

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        x = self._patches(net, x) if self.kind == "patch" else self._convolved(net, x)
        if self.token:
            x = net.add(Concat(1), net.parameter("token", (1, 1, self.width), POSITION), x, name="joined")
        return net.plus(x, net.parameter("position", x.shape, POSITION), "embedded")

    def _patches(self, net: Net, x: Value) -> Value:
        missing = self.grid * self.patch - self.image[1]
        before, after = missing // 2, missing - missing // 2
        shape = (self.width, self.image[0], self.patch, self.patch)
        weight = net.parameter("patch.weight", shape, (shape[1] * shape[2] * shape[3]) ** -0.5)
        op = PatchEmbed((self.patch, self.patch), (before, before, after, after))
        net.store("patch", self.code)
        return net.add(op, x, weight, net.parameter("patch.bias", (self.width,), 0.1), name="patch")

    def _convolved(self, net: Net, x: Value) -> Value:
        halvings = self.patch.bit_length() - 1
        if 2**halvings != self.patch or self.patch < 2:
            raise UsageError(f"a stem of convolutions halves the image; {self.patch} is no power of two above 1")
        for step in range(halvings):
            width = max(8, self.width >> halvings - 1 - step)
            x = net.relu(net.conv_norm(x, width, f"{step}", 3, 2), f"{step}.act")
        return tokens_of(net, x, "tokens")


def tokens_of(net: Net, x: Value, name: str) -> Value:
    """[1, C, H, W] -> [1, H*W, C]."""
    flat = net.add(Reshape((1, x.shape[1], x.shape[2] * x.shape[3])), x, name=f"{name}.flat")
    return net.add(Transpose((0, 2, 1)), flat, name=name)


def image_of(net: Net, x: Value, name: str) -> Value:
    """[1, N, C] -> [1, C, side, side]."""
    turned = net.add(Transpose((0, 2, 1)), x, name=f"{name}.turned")
    side = isqrt(x.shape[1])
    return net.add(Reshape((1, x.shape[2], side, side)), turned, name=name)


@dataclass(frozen=True)
class _Block:
    """What mixers and FFNs share: tokens [1, tokens, width] in and out, and how their layers are made.

    Attributes:
        tokens: How many there are.
        width: Their channels.
        norm: One of `net.NORMS`.
        code: How weights are stored.
        rank: Inner width of low-rank layers as a share of `full`; 0 is dense.
        full: What `rank` is a share of; 0 is the smaller side of each matrix.
        factors: 2, or 3 with a square matrix between, as MCUFormer trains them.
    """

    tokens: int
    width: int
    norm: str = "LayerNorm"
    code: str = "int8"
    rank: float = 0.0
    full: int = 0
    factors: int = 2

    def linear(self, net: Net, x: Value, width: int, name: str) -> Value:
        """A layer of this rank; the bias is that of the last factor."""
        last = f"{name}.{self.factors - 1}" if self.rank else name
        return net.linear(self.narrowed(net, x, width, name), width, last, self.code)

    def narrowed(self, net: Net, x: Value, width: int, name: str) -> Value:
        """All factors of a layer but the last; a dense layer has no others."""
        inner = int((self.full or min(width, x.shape[-1])) * self.rank)
        for factor in range(self.factors - 1 if self.rank else 0):
            x = net.linear(x, inner, f"{name}.{factor}", self.code, bias=False)
        return x


@dataclass(frozen=True)
class Mixer(_Block):
    """x + mix(norm(x)), of one kind of `MIXERS`.

    Attributes:
        kind: "softmax" attention; the same within each "window"; "linear" attention after SLAB, with positions in the
            keys, and a depthwise convolution of the values; "pool", the mean of 3x3 tokens less the token.
        heads: Of attention.
        depth: Channels of a head; 0 shares the width out.
        window: Tokens along a side of a window.
    """

    kind: str = "softmax"
    heads: int = 1
    depth: int = 0
    window: int = 0

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        kinds = {"softmax": self._softmax, "window": self._windows, "linear": self._linear, "pool": self._pool}
        return net.plus(x, kinds[self.kind](net, net.norm(x, self.norm, "norm")), "sum")

    @property
    def inner(self) -> int:
        """Channels of all heads."""
        if not self.depth and self.width % self.heads:
            raise UsageError(f"{self.heads} heads do not share {self.width} channels out")
        return self.heads * (self.depth or self.width // self.heads)

    def _projected(self, net: Net, x: Value) -> list[Value]:
        """Queries, keys and values. Each has rows of its own, so that few heads are the leading rows of many."""
        x = self.narrowed(net, x, 3 * self.inner, "qkv")
        return [net.linear(x, self.inner, name, self.code) for name in "qkv"]

    def _softmax(self, net: Net, x: Value) -> Value:
        q, k, v = self._projected(net, x)
        mixed = net.add(Attention(self.heads, (self.inner // self.heads) ** -0.5), q, k, v, name="attention")
        return self.linear(net, mixed, self.width, "proj")

    def _windows(self, net: Net, x: Value) -> Value:
        """Attention of [windows, window * window, width]; four axes move them, as phones have no more."""
        side, many = self.window, self._windows_along()
        size, row = side * side, side * self.width
        cut = net.add(Reshape((many, side, many, row)), x, name="rows")
        cut = net.add(Transpose((0, 2, 1, 3)), cut, name="rows.turned")
        mixed = self._softmax(net, net.add(Reshape((many * many, size, self.width)), cut, name="windows"))
        back = net.add(Reshape((many, many, side, row)), mixed, name="back")
        return net.add(Reshape(x.shape), net.add(Transpose((0, 2, 1, 3)), back, name="back.turned"), name="tokens")

    def _windows_along(self) -> int:
        """Windows along a side of the grid."""
        side = isqrt(self.tokens)
        if side * side != self.tokens or side % self.window:
            raise UsageError(f"windows of {self.window}x{self.window} do not tile {self.tokens} tokens")
        return side // self.window

    def _linear(self, net: Net, x: Value) -> Value:
        q, k, v = self._projected(net, x)
        k = net.plus(k, net.parameter("position", k.shape, POSITION), "placed")
        sides = {"q": net.relu(q, "q.act"), "k": net.relu(k, "k.act"), "v": v}
        queries, keys, values = (self._heads(net, side, f"{name}s") for name, side in sides.items())
        turned = net.add(Transpose((0, 1, 3, 2)), keys, name="kt")
        mixed = net.add(MatMul(), queries, net.add(MatMul(), turned, values, name="kv"), name="mixed")
        total = net.add(MatMul(), queries, net.add(Sum((3,), True), turned, name="ksum"), name="total")
        least = net.graph.constant(total.type.numpy.type(1e-6), f"{total.name}.least")
        mixed = net.add(Div(), mixed, net.plus(total, least, "norm.total"), name="shares")
        flat = net.add(Reshape(v.shape), net.add(Transpose((0, 2, 1, 3)), mixed, name="gathered"), name="flat")
        weight = net.parameter("near.weight", (self.inner, 1, WINDOW, WINDOW), 0.2)
        pad = WINDOW // 2
        near = net.add(Conv(pads=(pad,) * 4, groups=self.inner), image_of(net, v, "grid"), weight, name="near")
        return self.linear(net, net.plus(flat, tokens_of(net, near, "near.tokens"), "both"), self.width, "proj")

    def _heads(self, net: Net, x: Value, name: str) -> Value:
        """[1, N, H*d] -> [1, H, N, d]."""
        cut = net.add(Reshape((1, self.tokens, self.heads, self.inner // self.heads)), x, name=f"{name}.cut")
        return net.add(Transpose((0, 2, 1, 3)), cut, name=name)

    def _pool(self, net: Net, x: Value) -> Value:
        grid = image_of(net, x, "grid")
        pooled = net.add(AveragePool((3, 3), (1, 1), (1, 1, 1, 1)), grid, name="pool")
        return net.add(Sub(), tokens_of(net, pooled, "pooled"), x, name="rest")


@dataclass(frozen=True)
class Ffn(_Block):
    """x + fc2(gelu(fc1(norm(x)))) with `hidden` channels between."""

    hidden: int = 0

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        inner = self.linear(net, net.norm(x, self.norm, "norm"), self.hidden, "fc1")
        return net.plus(x, self.linear(net, net.gelu(inner, "act"), self.width, "fc2"), "sum")


@dataclass(frozen=True)
class Head:
    """Tokens [1, N, width] -> logits [1, classes]: norm, mean over the patches, a Linear."""

    norm: str
    classes: int
    token: bool = False
    code: str = "int8"

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        x = net.norm(x, self.norm, "norm")
        if self.token:
            x = net.add(Slice((1,), (x.shape[1],), (1,), (1,)), x, name="patches")
        return net.linear(net.add(Mean((1,)), x, name="mean"), self.classes, "fc", self.code)


def parts(genome: Genome, settings: Mapping[str, Choice]) -> Parts:
    """See `families.parts`."""
    given: dict[str, Any] = {**DEFAULTS, **settings, **genome}
    stem = _stem(given)
    norm, edges, times = str(given["norm"]), str(given["edges"]), int(given["recursion"])
    blocks = [_block(given, index, stem) for index in range(int(given["depth"]))]
    repeated: list[Parts] = [block if times == 1 else (("", Chain(block * times)),) for block in blocks]
    *first, last = repeated
    head = ("head", Head(norm, int(given["classes"]), stem.token, edges))
    # A class token that nobody reads in the end may be a row less to compute in the last block.
    end: Parts = (("", Chain((*last, head))),) if stem.token else (*last, head)
    return (("stem", stem), *(part for block in first for part in block), *end)


def _stem(given: Mapping[str, Any]) -> Stem:
    image = (int(given["channels"]), int(given["image"]), int(given["image"]))
    where = (int(given["patch"]), int(given["width"]), bool(given["token"]), str(given["edges"]))
    return Stem(str(given["stem"]), image, *where)


def _block(given: Mapping[str, Any], index: int, stem: Stem) -> tuple[tuple[str, Part], ...]:
    """The parts of one block: its mixer, unless it has none, and its FFN."""
    mixer, heads, ratio, code = (_at(given[name], index) for name in ("mixer", "heads", "ratio", "primitive"))
    tokens, width, norm, rank = stem.grid**2 + stem.token, stem.width, str(given["norm"]), float(given["rank"])
    factors, full = int(given["factors"]), int(given["full"])
    found: list[tuple[str, Part]] = []
    if mixer != "none":
        depth = int(given["head_width"])
        if mixer == "pool":  # nothing in it has weights
            part = Mixer(tokens, width, norm, kind="pool")
        else:
            window = int(given["window"]) if mixer == "window" else 0
            kind = "softmax" if window >= stem.grid else mixer  # one window is no window
            block = (tokens, width, norm, code, rank, full, factors, kind, int(heads), depth)
            part = Mixer(*block, 0 if kind == "softmax" else window)
        found.append((f"blocks.{index}.mixer", part))
    ffn = Ffn(tokens, width, norm, code, rank, 0, factors, hidden=int(width * ratio))
    return (*found, (f"blocks.{index}.ffn", ffn))


def _at(decided: Any, index: int) -> Any:
    """What a gene decided for a block, or for all."""
    return decided[index] if isinstance(decided, tuple) else decided
