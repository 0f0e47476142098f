"""Small graphs with random weights and random norm statistics (never 0 and 1, which hide mistakes)."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from edgesmith.ir.graph import Array, Graph, Node, Type, Value
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Gelu, Relu
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.conv import Conv, PatchEmbed
from edgesmith.ir.ops.elementwise import Add, Affine, Mul
from edgesmith.ir.ops.linear import Linear
from edgesmith.ir.ops.norm import BatchNorm, LayerNorm, RepNorm
from edgesmith.ir.ops.pool import Mean
from edgesmith.ir.ops.shape import Concat, Gather, Reshape
from edgesmith.ir.passes.base import Pass
from edgesmith.ir.rewrite import Trace, tracing
from edgesmith.ir.text import show
from edgesmith.ir.verify import verify


class Net:
    """A graph under construction; every layer gets parameters of its own, named after it."""

    def __init__(self, dtype: str = "float64", seed: int = 0) -> None:
        self.graph, self.dtype = Graph("net"), dtype
        self.rng = np.random.default_rng(seed)

    def input(self, *shape: int, name: str = "x") -> Value:
        return self.graph.input(name, Type(self.dtype, shape))

    def constant(self, array: Array | float, name: str = "c") -> Value:
        return self.graph.constant(np.asarray(array, self.dtype), name)

    def normal(self, *shape: int, name: str = "c", scale: float = 1.0) -> Value:
        return self.constant(self.rng.normal(0, scale, shape), name)

    def positive(self, *shape: int, name: str = "c") -> Value:
        return self.constant(self.rng.uniform(0.3, 2.0, shape), name)

    def add(self, op, *inputs: Value | None, name: str = "") -> Value:
        return self.graph.add(op, *inputs, name=name, sources=(f"/{name or type(op).__name__.lower()}",))

    def output(self, *values: Value) -> Graph:
        for value in values:
            self.graph.output(value)
        return self.graph

    def linear(self, x: Value, n: int, bias: bool = True, name: str = "fc", weight: Value | None = None) -> Value:
        k = x.shape[-1]
        w = weight or self.normal(n, k, name=f"{name}.weight", scale=k**-0.5)
        return self.add(Linear(), x, w, self.normal(n, name=f"{name}.bias") if bias else None, name=name)

    def conv(self, x: Value, n: int, k: int = 1, bias: bool = True, name: str = "conv", **options: object) -> Value:
        depth = x.shape[1] // int(options.get("groups", 1))
        w = self.normal(n, depth, k, k, name=f"{name}.weight", scale=(depth * k * k) ** -0.5)
        return self.add(Conv(**options), x, w, self.normal(n, name=f"{name}.bias") if bias else None, name=name)

    def patch_embed(self, x: Value, n: int, patch: int, bias: bool = True, name: str = "patch") -> Value:
        w = self.normal(n, x.shape[1], patch, patch, name=f"{name}.weight", scale=0.2)
        return self.add(
            PatchEmbed((patch, patch)), x, w, self.normal(n, name=f"{name}.bias") if bias else None, name=name
        )

    def layernorm(self, x: Value, scale: bool = True, shift: bool = True, name: str = "norm") -> Value:
        n = x.shape[-1]
        g = self.positive(n, name=f"{name}.g") if scale else None
        return self.add(LayerNorm(1e-6), x, g, self.normal(n, name=f"{name}.b") if shift else None, name=name)

    def statistics(self, n: int, name: str) -> list[Value]:
        names = ("scale", "bias", "mean")
        return [*(self.normal(n, name=f"{name}.{part}") for part in names), self.positive(n, name=f"{name}.var")]

    def batchnorm(self, x: Value, axis: int = 1, name: str = "bn") -> Value:
        return self.add(BatchNorm(axis), x, *self.statistics(x.shape[axis], name), name=name)

    def repnorm(self, x: Value, axis: int = -1, name: str = "rep") -> Value:
        eta = self.positive(1, name=f"{name}.eta")
        return self.add(RepNorm(axis), x, *self.statistics(x.shape[axis], name), eta, name=name)

    def affine(self, x: Value, axis: int = -1, shift: bool = True, name: str = "affine") -> Value:
        n = x.shape[axis]
        c = self.normal(n, name=f"{name}.c") if shift else self.constant(np.zeros(n), f"{name}.c")
        return self.add(Affine(axis), x, self.positive(n, name=f"{name}.a"), c, name=name)


def vit(
    dtype: str = "float64",
    depth: int = 2,
    width: int = 12,
    heads: int = 2,
    bias: bool = True,
    head: str = "token",
    norm: str = "layer",
    layer_scale: bool = True,
) -> Graph:
    """A pre-norm vision transformer on 16 x 16 images, 16 patches and a class token.

    `head`: "token" reads the class token, "mean" the average. `norm`: "layer" or "rep".
    """
    net = Net(dtype)
    normalise = net.layernorm if norm == "layer" else net.repnorm
    image = net.input(1, 3, 16, 16, name="image")
    tokens = net.patch_embed(image, width, 4, bias)
    x = net.add(Concat(1), net.normal(1, 1, width, name="cls"), tokens, name="tokens")
    x = net.add(Add(), x, net.normal(1, 17, width, name="pos"), name="embedded")
    for i in range(depth):
        b = f"block{i}"
        h = normalise(x, name=f"{b}.norm1")
        q, k, v = (net.linear(h, width, bias, name=f"{b}.{part}") for part in "qkv")
        h = net.add(Attention(heads, (width // heads) ** -0.5), q, k, v, name=f"{b}.attention")
        h = net.linear(h, width, bias, name=f"{b}.proj")
        x = net.add(Add(), x, scaled(net, h, f"{b}.ls1") if layer_scale else h, name=f"{b}.add1")
        h = net.linear(normalise(x, name=f"{b}.norm2"), 2 * width, bias, name=f"{b}.fc1")
        h = net.linear(net.add(Gelu(), h, name=f"{b}.gelu"), width, bias, name=f"{b}.fc2")
        x = net.add(Add(), x, scaled(net, h, f"{b}.ls2") if layer_scale else h, name=f"{b}.add2")
    x = normalise(x, name="norm")
    pooled = net.add(Gather(1), x, net.graph.constant(np.int64(0)), name="pool") if head == "token" else None
    pooled = net.add(Mean((1,)), x, name="pool") if pooled is None else pooled
    return net.output(net.linear(pooled, 5, bias, name="head"))


def scaled(net: Net, x: Value, name: str) -> Value:
    """x times a learned factor per channel."""
    return net.add(Mul(), x, net.positive(x.shape[-1], name=f"{name}.gamma"), name=name)


def mobileone(dtype: str = "float64", blocks: int = 3, branches: int = 4, channels: int = 6) -> Graph:
    """MobileOne blocks at training time: depthwise, then pointwise, each a sum of conv-norm branches and a norm."""
    net = Net(dtype)
    x = net.input(1, channels, 8, 8)
    for i in range(blocks):
        x = mobileone_block(net, x, f"b{i}.dw", 3, branches, channels, 2 if i == 1 else 1)
        x = mobileone_block(net, x, f"b{i}.pw", 1, branches, 1, 1)
    x = net.add(Mean((2, 3)), x, name="pool")
    return net.output(net.linear(x, 4, name="head"))


def mobileone_block(net: Net, x: Value, name: str, k: int, branches: int, groups: int, stride: int) -> Value:
    """Sum of `branches` k x k convolutions, a 1 x 1 scale branch (k > 1) and a bare norm (stride 1); then ReLU."""
    n, terms = x.shape[1], []
    if stride == 1:
        terms.append(net.batchnorm(x, name=f"{name}.skip"))
    kernels = [*([1] if k > 1 else []), *[k] * branches]
    for j, size in enumerate(kernels):
        pad = size // 2
        options = {"strides": (stride, stride), "pads": (pad, pad, pad, pad), "groups": groups}
        y = net.conv(x, n, size, bias=False, name=f"{name}.conv{j}", **options)
        terms.append(net.batchnorm(y, name=f"{name}.bn{j}"))
    total = terms[0]
    for j, term in enumerate(terms[1:]):
        total = net.add(Add(), total, term, name=f"{name}.sum{j}")
    return net.add(Relu(), total, name=f"{name}.relu")


def reshape(net: Net, x: Value, *shape: int, name: str = "reshape") -> Value:
    """x under another shape."""
    return net.add(Reshape(shape), x, name=name)


def feeds(graph: Graph, seed: int = 7) -> dict[str, Array]:
    """Random arrays for all inputs."""
    rng = np.random.default_rng(seed)
    return {value.name: rng.normal(0, 1, value.shape).astype(value.dtype) for value in graph.inputs}


def difference(before: Graph, after: Graph) -> float:
    """Greatest difference of any output on random input, relative to the output's largest element."""
    arrays = feeds(before)
    expected, actual = run(before, arrays), run(after, arrays)
    assert list(expected) == list(actual)
    return max(float(np.abs(e - actual[n]).max() / np.abs(e).max()) for n, e in expected.items())


def kinds(graph: Graph) -> dict[str, int]:
    """Nodes by op."""
    found: dict[str, int] = {}
    for node in graph.nodes:
        found[type(node.op).__name__] = found.get(type(node.op).__name__, 0) + 1
    return found


def node(graph: Graph, name: str) -> Node:
    """The node of a name."""
    return next(node for node in graph.nodes if node.name == name)


# ---- what every pass is held to ----


def masked(graph: Graph) -> str:
    """The text without the values of constants: those are compared as numbers."""
    return re.sub(r"= (#[0-9a-f]+|\[.*\])$", "= constant", show(graph), flags=re.MULTILINE)


def before_and_after(p: Pass, make: Callable[..., Graph]) -> str:
    """The graph that `make` builds on a Net, the pass, and what the pass makes of it."""
    graph = make(Net("float32"), True)
    before = masked(graph)
    p.apply(graph)
    return f"{before}\n# {p.name}\n\n{masked(graph)}"


def error_of_pass(p: Pass, make: Callable[..., Graph], dtype: str, bias: bool) -> float:
    """How much a pass moves the outputs; it must change the graph, keep it legal and keep its types."""
    graph = make(Net(dtype), bias)
    before = graph.copy()
    assert p.apply(graph) > 0
    verify(graph, p.name)
    assert [value.type for value in graph.outputs] == [value.type for value in before.outputs]
    return difference(before, graph)


def reasons_of_refusal(p: Pass, make: Callable[..., Graph]) -> str:
    """Why a pass left a graph alone, as its rules say; the graph must not have changed."""
    graph = make(Net())
    before, trace = show(graph), Trace()
    token = tracing.set(trace)
    try:
        assert p.apply(graph) == 0
    finally:
        tracing.reset(token)
    assert show(graph) == before
    return "\n".join(reason for _, _, reason, _ in trace.misses)
