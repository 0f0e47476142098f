"""No 32-bit sum of an integer graph can overflow, whatever its weights and whatever its input."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.ir.integer import INT32_MAX, requant
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Gelu, Relu
from edgesmith.ir.ops.elementwise import Add
from edgesmith.ir.ops.linear import Linear
from edgesmith.ir.ops.norm import LayerNorm
from edgesmith.ir.ops.pool import Mean
from edgesmith.ir.passes.quantise import QuantOptions, convert, cosine
from edgesmith.ir.passes.quantise.calibrate import synthetic
from edgesmith.ir.passes.quantise.fit_weights import fit, fit_affine

WIDE = QuantOptions(stream="int16")


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 3000),
    st.sampled_from([128, 20_000, 32_768]),
    st.sampled_from([0.0, 1e-9, 1.0, 1e4]),
    st.sampled_from(["equal", "normal", "spike", "zero"]),
    st.integers(-128, 127),
)
def test_no_sum_can_leave_int32(k, most, bias, kind, zero):
    zero = zero if most == 128 else 0
    draw = np.random.default_rng(k)
    w = {"equal": np.ones((3, k)), "normal": draw.normal(0, 1, (3, k)), "spike": np.eye(3, k), "zero": np.zeros((3, k))}
    fitted = fit(w[kind], np.full(3, bias), zero, most)
    reach = np.abs(fitted.w.astype(np.int64)).sum(axis=1) * most + np.abs(fitted.bias.astype(np.int64))
    assert reach.max() <= fitted.bound <= INT32_MAX
    error = np.abs(fitted.w * fitted.scale[:, None] - w[kind]).max()
    assert error <= fitted.scale.max() / 2 + 1e-12
    offset = (fitted.bias + zero * fitted.w.astype(np.int64).sum(axis=1)) * fitted.scale
    assert np.allclose(offset, bias, atol=float(fitted.scale.max()))


def test_long_equal_rows_use_fewer_activation_bits(build):
    """4096 equal weights against full int16 would reach 127 * 32767 * 4096, eight times too much."""
    net = build.Net("float32")
    x = net.add(Gelu(), net.linear(net.input(1, 4, 8), 4096, name="fc1"), name="gelu")
    w = net.constant(np.where(np.arange(4096) % 2, 1.0, -1.0) * np.ones((3, 1)), "w")
    graph = net.output(net.add(Linear(), x, w, None, name="fc2"))
    made = convert(graph, np.random.default_rng(0).standard_normal((32, 4, 8)).astype(np.float32), WIDE)
    x = np.random.default_rng(1).standard_normal((1, 4, 8)).astype(np.float32)
    assert cosine(run(graph, {"x": x})["fc2"], made.run({"x": x})["fc2"]) > 0.999
    node = next(n for n in made.graph.nodes if n.name == "fc2")
    weights, table = node.input(1).array.astype(np.int64), node.input(0).producer.input(1).array.astype(np.int64)
    assert np.abs(table).max() * np.abs(weights).sum(axis=1).max() + np.abs(node.input(2).array).max() <= INT32_MAX
    assert np.abs(weights).max() == 127, "the activations gave way, not the weights"


def cnn(build):
    """Dense and depthwise convolutions, a residual, a head."""
    net = build.Net("float32")
    x = net.add(Relu(), net.conv(net.input(1, 3, 16, 16), 32, 3, name="stem"), name="relu")
    y = net.conv(net.add(Relu(), net.conv(x, 32, 3, groups=32, pads=(1, 1, 1, 1), name="dw")), 32, name="pw")
    return net.output(net.linear(net.add(Mean((2, 3)), net.add(Add(), x, y)), 5, name="head"))


def test_extreme_inputs_do_not_overflow(build):
    """The reference raises when a sum leaves int32; no input may make it do so."""
    for graph in (cnn(build), build.vit("float32", depth=2, width=48, heads=4)):
        made = convert(graph, synthetic(graph.inputs[0].shape, 4), WIDE)
        shape = made.graph.inputs[0].shape
        draw = np.random.default_rng(0)
        for x in (np.full(shape, 127), np.full(shape, -128), draw.choice([-128, 127], shape)):
            run(made.graph, {made.graph.inputs[0].name: x.astype(np.int8)})


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([128, 32_768]), st.floats(0, 3))
def test_scale_and_shift_per_channel(seed, most, spread):
    draw = np.random.default_rng(seed)
    a, c = draw.normal(0, 1, 6) * np.exp(draw.normal(0, spread, 6)), draw.normal(0, 1, 6)
    x_scale, zero = 4.0 / most, 5 if most == 128 else 0
    out_scale = (np.abs(a).max() * 4.2 + np.abs(c).max()) / 32_000
    mult, bias, lift = fit_affine(a, c, x_scale, zero, out_scale, most)
    x = draw.integers(-most, most, (40, 6))
    got = requant((x << lift) + bias, mult, 0, 0, 16) * out_scale
    assert np.abs(got - (a * x_scale * (x - zero) + c)).max() < 3 * out_scale + np.abs(c).max() * 2**-11


def test_shared_weights_stay_shared(build):
    net = build.Net("float32")
    x = net.input(1, 5, 16)
    w = net.normal(16, 16, name="w", scale=0.25)
    for _ in range(3):
        x = net.add(Add(), x, net.linear(net.add(LayerNorm(), x, None, None), 16, bias=False, weight=w))
    made = convert(net.output(x), None, WIDE)
    assert len({id(node.input(1)) for node in made.graph.nodes if type(node.op).__name__ == "QLinear"}) == 1
