"""Whole small networks, each with something that one back end or another stumbles over; tests read it with runpy."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from edgesmith.ir.graph import Graph
from edgesmith.ir.ops.activation import Gelu, HardSwish, Relu, Sigmoid, Silu, Tanh
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.elementwise import Add, Mul
from edgesmith.ir.ops.linear import MatMul
from edgesmith.ir.ops.pool import AveragePool, MaxPool, Mean
from edgesmith.ir.ops.shape import Reshape, Resize, Slice, Transpose

Make = Callable[[ModuleType], Graph]
NETS: dict[str, Make] = {}
PAD = (1, 1, 1, 1)


def network(make: Make) -> Make:
    NETS[make.__name__] = make
    return make


def attend(net, x, heads, width, queries=None, bias=None):
    """Attention of `width` channels between projections, with the stream added."""
    source = x if queries is None else queries
    normed = net.layernorm(x, name="norm")
    q = net.linear(net.layernorm(source, name="norm_q") if queries is not None else normed, width, name="q")
    k, v = net.linear(normed, width, name="k"), net.linear(normed, width, name="v")
    mixed = net.add(Attention(heads, (width // heads) ** -0.5), q, k, v, bias, name="mixed")
    return net.add(Add(), source, net.linear(mixed, source.shape[-1], name="proj"), name="stream")


@network
def odd_vit(build):
    return build.vit("float32", depth=2, width=15, heads=3)


@network
def mean_pooled_vit(build):
    return build.vit("float32", depth=2, width=16, heads=2, head="mean")


@network
def batch_of_sequences(build):
    net = build.Net("float32")
    return net.output(attend(net, net.add(Reshape((3, 7, 12)), net.input(1, 21, 12), name="cut"), 2, 12))


@network
def batch_of_sequences_and_narrow_queries(build):
    net = build.Net("float32")
    x = net.add(Reshape((2, 9, 10)), net.input(1, 18, 10), name="cut")
    first = net.add(Slice((0,), (2,), (1,), (1,)), x, name="first")
    return net.output(attend(net, x, 2, 14, first))


@network
def attention_with_a_bias(build):
    net = build.Net("float32")
    return net.output(attend(net, net.input(1, 11, 8), 2, 6, bias=net.normal(2, 11, 11)))


@network
def bare_attention(build):
    net = build.Net("float32")
    x = net.input(1, 6, 8)
    parts = [net.add(Tanh(), net.linear(x, 8, name=name), name=f"{name}_tanh") for name in "qkv"]
    return net.output(net.add(Attention(2, 0.5), *parts, name="bare"))


@network
def attention_that_is_read_as_it_is(build):
    net = build.Net("float32")
    x = net.input(1, 7, 9)
    q, k, v = (net.linear(x, n, name=name) for name, n in (("q", 6), ("k", 6), ("v", 15)))
    return net.output(net.add(Attention(3, 0.7), q, k, v, name="mixed"))


@network
def learned_queries(build):
    net = build.Net("float32")
    x = net.layernorm(net.input(1, 9, 12), name="norm")
    k, v = net.linear(x, 8, name="k"), net.linear(x, 10, name="v")
    mixed = net.add(Attention(2, 0.5), net.normal(1, 3, 8), k, v, name="mixed")
    return net.output(net.linear(mixed, 5, name="head"))


@network
def stream_with_a_later_reader(build):
    net = build.Net("float32")
    x = net.linear(net.input(1, 8, 12), 12, name="stem")
    y = attend(net, x, 2, 12)
    return net.output(net.add(Add(), y, x, name="again"))


@network
def row_chains(build):
    net = build.Net("float32")
    x = net.input(1, 5, 7)
    for name, act in (("a", Gelu()), ("b", Silu()), ("c", HardSwish()), ("d", Relu())):
        hidden = net.add(act, net.linear(net.layernorm(x, name=f"{name}n"), 11, name=f"{name}1"), name=f"{name}act")
        x = net.add(Add(), x, net.linear(hidden, 7, name=f"{name}2"), name=f"{name}add")
    return net.output(net.layernorm(x, name="last"))


@network
def convolutions(build):
    net = build.Net("float32")
    x = net.add(Relu(), net.conv(net.input(1, 3, 13, 11), 8, 3, strides=(2, 2), pads=PAD), name="stem")
    y = net.add(HardSwish(), net.conv(x, 8, 3, name="dw", groups=8, pads=PAD), name="dw_act")
    gate = net.add(Mean((2, 3), True), y, name="squeeze")
    gate = net.add(Sigmoid(), net.conv(gate, 8, name="excite"), name="gate")
    y = net.add(Add(), x, net.conv(net.add(Mul(), y, gate, name="gated"), 8, name="project"), name="sum")
    y = net.add(MaxPool((3, 3), (2, 2), PAD), net.conv(y, 6, 3, name="grouped", groups=2), name="pool")
    y = net.add(AveragePool((3, 3), (1, 1), PAD), y, name="mean")
    return net.output(net.add(Resize((6, 5), "linear"), y, name="resized"))


@network
def spatial_attention(build):
    """Every pixel is weighed by a gate that its channels' mean decides: the gate repeats along the last axis."""
    net = build.Net("float32")
    x = net.conv(net.input(1, 3, 9, 7), 6, name="stem")
    score = net.conv(net.add(Mean((1,), True), x, name="squeeze"), 1, 3, name="score", pads=PAD)
    gate = net.add(Sigmoid(), score, name="gate")
    columns = net.add(Mean((2,), True), x, name="columns")
    y = net.add(Add(), net.add(Mul(), x, gate, name="gated"), columns, name="sum")
    return net.output(net.conv(y, 4, name="head"))


@network
def clamped_sums(build):
    net = build.Net("float32")
    x = net.conv(net.input(1, 3, 6, 5), 8, name="stem")
    for name in "ab":
        hidden = net.add(Relu(), net.conv(x, 12, name=f"{name}1"), name=f"{name}relu")
        total = net.add(Add(), x, net.conv(hidden, 8, name=f"{name}2"), name=f"{name}add")
        x = net.add(Relu(), total, name=f"{name}out")
    return net.output(x)


@network
def products_of_activations(build):
    net = build.Net("float32")
    x = net.add(Reshape((3, 4, 6)), net.input(1, 12, 6), name="cut")
    left, right = net.linear(x, 6, name="left"), net.add(Transpose((0, 2, 1)), net.linear(x, 6, name="right"), name="t")
    return net.output(net.add(MatMul(), left, right, name="product"))


@network
def image_to_tokens_and_back(build):
    net = build.Net("float32")
    x = net.conv(net.input(1, 3, 8, 8), 6, 3, strides=(2, 2), pads=PAD)
    tokens = net.add(Transpose((0, 2, 1)), net.add(Reshape((1, 6, 16)), x, name="flat"), name="tokens")
    tokens = attend(net, tokens, 3, 6)
    image = net.add(Reshape((1, 6, 4, 4)), net.add(Transpose((0, 2, 1)), tokens, name="back"), name="image")
    return net.output(net.conv(image, 4, 3, name="head", pads=PAD))


@network
def norm_that_only_a_convolution_reads(build):
    net = build.Net("float32")
    tokens = net.add(Transpose((0, 2, 1)), net.layernorm(net.input(1, 16, 6)), name="back")
    image = net.add(Reshape((1, 6, 4, 4)), tokens, name="image")
    return net.output(net.conv(image, 4, 3, name="head", pads=PAD))
