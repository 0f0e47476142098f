"""Float graphs against their integer graphs: how close, how safe from overflow, and what is refused."""

import numpy as np
import pytest

from edgesmith.ir.errors import ModelError, Unsupported, UsageError
from edgesmith.ir.graph import Quant, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Clip, Erf, Gelu, HardSwish, Log, Relu, Sigmoid, Silu, Softmax
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.conv import Conv
from edgesmith.ir.ops.elementwise import Add, Affine, Div, Maximum, Mul, Pow, Sub
from edgesmith.ir.ops.linear import MatMul
from edgesmith.ir.ops.norm import GroupNorm, LayerNorm, RMSNorm
from edgesmith.ir.ops.pool import AveragePool, MaxPool, Mean, Sum
from edgesmith.ir.ops.shape import Concat, Gather, Pad, Reshape, Resize, Slice, Split, Transpose
from edgesmith.ir.passes.quantise import QuantOptions, convert, cosine, quantise
from edgesmith.ir.passes.quantise.calibrate import calibrate
from edgesmith.ir.passes.quantise.fidelity import report, snr
from edgesmith.ir.text import arrays_of, parse, show
from edgesmith.ir.verify import verify

WIDE, NARROW = QuantOptions(stream="int16"), QuantOptions(stream="int8")


def samples(graph, count, seed):
    """`count` normal samples for a graph of one input."""
    shape = graph.inputs[0].shape
    return np.random.default_rng(seed).standard_normal((count, *shape[1:])).astype(np.float32)


def compared(graph, options, data=None, count=8):
    """(conversion, cosine of the outputs over unseen samples)."""
    made = convert(graph, samples(graph, 16, 1) if data is None else data, options)
    verify(made.graph, "quantise")
    assert show(parse(show(made.graph), arrays_of(made.graph))) == show(made.graph)
    name = graph.inputs[0].name
    pairs = []
    for x in samples(graph, count, 2):
        expected, got = run(graph, {name: x[None]}), made.run({name: x[None]})
        assert {k: v.shape for k, v in expected.items()} == {k: v.shape for k, v in got.items()}
        pairs += [(expected[k], got[k]) for k in expected]
    return made, float(np.mean([cosine(a, b) for a, b in pairs]))


def ops(graph):
    return [type(node.op).__name__ for node in graph.nodes]


# ---- transformers ----


@pytest.mark.parametrize("head", ["token", "mean"])
@pytest.mark.parametrize(("norm", "depth"), [("layer", 4), ("rep", 1)])
def test_vision_transformers(build, head, norm, depth):
    graph = build.vit("float32", depth=depth, width=64, heads=4, head=head, norm=norm)
    made, wide = compared(graph, WIDE)
    _, narrow = compared(graph, NARROW)
    assert wide > 0.998, wide
    assert 0.99 < narrow < wide + 1e-4, (narrow, wide)
    assert not {value.dtype for node in made.graph.nodes for value in node.outputs} - {"int8", "int16"}


def test_token_values_have_the_forms_of_the_contract(build):
    graph = build.vit("float32", depth=1, width=32, heads=4, layer_scale=False)
    made, _ = compared(graph, NARROW)
    type_of = {name: twin[0].type for name, twin in made.twins.items()}
    assert type_of["image"].dtype == "int8" and type_of["image"].shape == (1, 16, 16, 3)
    assert type_of["block0.q"].dtype == "int16" and type_of["block0.q"].quant.axis == -1
    assert type_of["block0.k"].dtype == type_of["block0.v"].dtype == "int8"
    assert type_of["block0.k"].quant.axis == type_of["block0.v"].quant.axis == -1
    products = np.array(type_of["block0.q"].quant.scale) * np.array(type_of["block0.k"].quant.scale)
    assert np.allclose(products.reshape(4, 8), products.reshape(4, 8)[:, :1]), "one score scale per head"
    assert type_of["block0.attention"].dtype == type_of["block0.add1"].dtype == "int8"
    assert type_of["block0.fc1"].dtype == type_of["block0.gelu"].dtype == type_of["block0.proj"].dtype == "int16"
    assert type_of["head"].dtype == "int16"
    wide = convert(graph, None, QuantOptions(stream="int16", output="int8"))
    assert wide.twins["block0.add1"][0].dtype == "int16" and wide.graph.outputs[0].dtype == "int8"


def test_a_fused_projection_is_split(build):
    """One Linear for q, k and v, cut by Split or by slices, quantises like three."""
    for cut in ("split", "slices"):
        net = build.Net("float32")
        x = net.add(LayerNorm(), net.input(1, 9, 16), None, None)
        qkv = net.linear(x, 48, name="qkv")
        if cut == "split":
            q, k, v = net.add(Split(-1, (16, 16, 16)), qkv)
        else:
            q, k, v = (net.add(Slice((i,), (i + 16,), (2,), (1,)), qkv) for i in (0, 16, 32))
        graph = net.output(net.linear(net.add(Attention(2, 0.35), q, k, v), 8, name="out"))
        made, close = compared(graph, WIDE)
        assert close > 0.999
        assert ops(made.graph).count("QLinear") == 4 and "Split" not in ops(made.graph)


def test_channels_of_unequal_size_need_their_own_scales(build):
    graph = build.vit("float32", depth=2, width=32, heads=2, layer_scale=False)
    spread = np.exp2(np.random.default_rng(0).uniform(-4, 4, 32)).astype(np.float32)
    for node in graph.nodes:  # k and v grow per channel; q and proj undo it, so the network stays the same
        for part, factor, axis in (("k", spread, 0), ("q", 1 / spread, 0), ("v", spread, 0), ("proj", 1 / spread, 1)):
            if node.name.endswith(f".{part}"):
                weight = node.input(1).array * (factor[:, None] if axis == 0 else factor)
                graph.set_input(node, 1, graph.constant(weight))
                if axis == 0:
                    graph.set_input(node, 2, graph.constant(node.input(2).array * factor))
    _, each = compared(graph, WIDE)
    _, whole = compared(graph, QuantOptions(stream="int16", channels=False))
    assert each > 0.999
    assert 1 - each < (1 - whole) / 3, (each, whole)


def test_attention_bias_and_mask(build):
    net = build.Net("float32")
    x = net.add(LayerNorm(), net.input(1, 6, 16), None, None)
    q, k, v = (net.linear(x, 16, name=name) for name in "qkv")
    bias = np.random.default_rng(0).standard_normal((1, 2, 6, 6))
    bias[..., 4:] = -1e9
    graph = net.output(net.add(Attention(2, 0.35), q, k, v, net.constant(bias), name="a"))
    made, close = compared(graph, WIDE)
    assert close > 0.999
    assert any(node.op.bias_shift for node in made.graph.nodes if type(node.op).__name__ == "QAttention")


def test_a_learned_query(build):
    net = build.Net("float32")
    x = net.add(LayerNorm(), net.input(1, 9, 16), None, None)
    k, v = (net.linear(x, 16, name=name) for name in "kv")
    pooled = net.add(Attention(2, 0.35), net.normal(1, 1, 16, name="query", scale=3), k, v)
    graph = net.output(net.linear(pooled, 4, name="out"))
    _, close = compared(graph, WIDE)
    assert close > 0.999


def test_wide_heads_keep_scores_in_int32(build):
    net = build.Net("float32")
    x = net.add(LayerNorm(), net.input(1, 5, 512), None, None)
    q, k, v = (net.linear(x, 512, name=name) for name in "qkv")
    graph = net.output(net.add(Attention(1, 512**-0.5), q, k, v))
    made, close = compared(graph, WIDE)
    assert close > 0.999
    feeds = made.feeds({"x": np.full((1, 5, 512), 1e6, np.float32)})
    run(made.graph, feeds)  # raises OverflowError where a sum leaves int32


def test_auto_takes_the_narrow_stream_only_where_it_is_good_enough(build):
    graph = build.vit("float32", depth=2, width=32, heads=2)
    data = samples(graph, 4, 1)
    strict, lax = (convert(graph, data, QuantOptions(auto_cosine=least)) for least in (1.0, 0.5))
    assert (strict.options.stream, lax.options.stream) == ("int16", "int8")
    assert "int8 gives cosine" in strict.notes[-1]


def test_a_calibration_serves_several_conversions(build):
    graph = build.vit("float32", depth=1)
    calibration = calibrate(graph, samples(graph, 4, 1))
    texts = [show(quantise(graph, calibration, options)) for options in (WIDE, WIDE, NARROW)]
    assert texts[0] == texts[1] != texts[2]


# ---- convolutional networks ----


def squeeze_excite(net, x, name):
    gate = net.add(Mean((2, 3), True), x, name=f"{name}.mean")
    gate = net.add(Relu(), net.conv(gate, 4, name=f"{name}.fc1"), name=f"{name}.relu")
    return net.add(Mul(), x, net.add(Sigmoid(), net.conv(gate, x.shape[1], name=f"{name}.fc2")), name=f"{name}.scaled")


def cnn(build):
    """Stem, depthwise block with SE and a residual, pools, a pyramid by Resize and Concat, a head."""
    net = build.Net("float32")
    x = net.input(1, 3, 24, 24)
    x = net.add(Relu(), net.conv(x, 16, 3, strides=(2, 2), pads=(1, 1, 1, 1), name="stem"), name="stem.relu")
    y = net.add(Silu(), net.conv(x, 32, name="expand"), name="silu")
    y = net.add(Clip(0.0, 6.0), net.conv(y, 32, 3, groups=32, pads=(1, 1, 1, 1), name="dw"), name="relu6")
    y = net.conv(squeeze_excite(net, y, "se"), 16, name="project")
    x = net.add(Add(), x, y, name="residual")
    small = net.add(MaxPool((3, 3), (2, 2), (0, 0, 0, 0), True), x, name="maxpool")
    mean = net.add(AveragePool((3, 3), (2, 2), (1, 1, 1, 1)), x, name="avgpool")
    small = net.add(Concat(1), small, mean, name="both")
    small = net.add(HardSwish(), net.conv(small, 8, 3, pads=(1, 1, 1, 1), name="mix"), name="hardswish")
    large = net.add(Resize((12, 12), "linear"), small, name="up")
    x = net.add(Concat(1), large, x, name="pyramid")
    x = net.conv(x, 12, 3, groups=4, pads=(1, 1, 1, 1), name="grouped")
    return net.output(net.linear(net.add(Mean((2, 3)), x, name="pool"), 5, name="head"))


def test_convolutional_network(build):
    graph = cnn(build)
    made, close = compared(graph, QuantOptions())
    assert close > 0.998, close
    ladder = report(made, [{"x": x[None]} for x in samples(graph, 4, 3)])
    worst = min(ladder.rungs, key=lambda rung: rung.snr)
    assert worst.snr > 22, worst
    seen = {rung.name for rung in ladder.rungs}
    assert {"silu", "relu6", "se.scaled", "residual", "maxpool", "avgpool", "up", "pyramid", "grouped"} <= seen
    assert ops(made.graph).count("QTable8") == 3, "clamps need no table"
    assert "Transpose" not in ops(made.graph)


def test_padding_is_zero_also_at_the_border(build):
    """A zero point that did not pad the border would show there."""
    net = build.Net("float32")
    x = net.add(Relu(), net.conv(net.input(1, 2, 8, 8), 4, name="first"), name="relu")
    graph = net.output(net.conv(x, 3, 5, pads=(2, 2, 2, 2), name="second"))
    made, _ = compared(graph, QuantOptions())
    for x in samples(graph, 4, 9):
        expected, got = run(graph, {"x": x[None]})["second"], made.run({"x": x[None]})["second"]
        frame = np.ones((8, 8), bool)
        frame[2:-2, 2:-2] = False
        assert snr(expected[..., frame], got[..., frame]) > 30


def test_uneven_depthwise_channels_need_their_own_scales(build):
    net = build.Net("float32")
    spread = np.exp2(np.linspace(-5, 2, 16)).astype(np.float32)
    x = net.conv(net.input(1, 3, 12, 12), 16, 3, name="first", bias=False)
    first = net.graph.nodes[-1]
    net.graph.set_input(first, 1, net.constant(first.input(1).array * spread[:, None, None, None]))
    x = net.conv(x, 16, 3, groups=16, name="dw", bias=False)
    depthwise = net.graph.nodes[-1]
    net.graph.set_input(depthwise, 1, net.constant(depthwise.input(1).array / spread[:, None, None, None]))
    graph = net.output(net.linear(net.add(Mean((2, 3)), x), 6, name="head"))
    _, each = compared(graph, QuantOptions())
    _, whole = compared(graph, QuantOptions(channels=False))
    assert 1 - each < (1 - whole) / 3, (each, whole)


def test_images_become_tokens_without_moving(build):
    net = build.Net("float32")
    x = net.conv(net.input(1, 3, 8, 8), 16, 2, strides=(2, 2), name="stem")
    x = net.add(Transpose((0, 2, 1)), net.add(Reshape((1, 16, 16)), x))
    x = net.add(LayerNorm(), x, None, None)
    x = net.linear(x, 16, name="fc")
    x = net.add(Reshape((1, 16, 4, 4)), net.add(Transpose((0, 2, 1)), x))
    graph = net.output(net.conv(x, 4, 3, name="last"))
    made, close = compared(graph, WIDE)
    assert close > 0.999
    assert "Transpose" not in ops(made.graph)


@pytest.mark.parametrize("case", ["unfused_attention", "group_norm", "elementwise", "quotients", "moves", "rms"])
def test_what_else_is_lowered(build, case):
    graph = globals()[case](build.Net("float32"))
    _, close = compared(graph, WIDE)
    assert close > 0.998, close


def unfused_attention(net):
    x = net.add(LayerNorm(), net.input(1, 10, 16), None, None)
    parts = (net.add(Reshape((1, 10, 2, 8)), net.linear(x, 16, name=name)) for name in "qkv")
    q, k, v = (net.add(Transpose((0, 2, 1, 3)), part) for part in parts)
    scores = net.add(MatMul(), q, net.add(Transpose((0, 1, 3, 2)), k))
    scores = net.add(Softmax(-1), net.add(Div(), scores, net.constant(8**0.5)))
    x = net.add(Reshape((1, 10, 16)), net.add(Transpose((0, 2, 1, 3)), net.add(MatMul(), scores, v)))
    return net.output(net.linear(x, 8, name="out"))


def group_norm(net):
    x = net.conv(net.input(1, 3, 8, 8), 8, 3, name="stem")
    g, b = net.positive(8), net.normal(8)
    return net.output(net.conv(net.add(GroupNorm(1), x, g, b), 4, name="last"))


def elementwise(net):
    x = net.linear(net.input(1, 6, 12), 12, name="fc")
    x = net.add(Add(), net.add(Mul(), x, net.positive(12)), net.normal(1, 6, 12))
    x = net.add(Sub(), net.constant(0.5), net.add(Pow(), x, net.constant(2.0)))
    x = net.add(Maximum(), net.add(Sub(), x, net.normal(12)), net.constant(-3.0))
    y = net.add(Mul(), x, net.linear(x, 12, name="gate"))
    return net.output(net.add(Affine(1), net.add(Sub(), x, y), net.positive(6), net.normal(6)))


def quotients(net):
    """Rows divided by their sums, as linear attention does, and a constant by what is computed."""
    x = net.add(Relu(), net.linear(net.input(1, 6, 12), 12, name="fc"))
    total = net.add(Add(), net.linear(x, 1, False, "total"), net.constant(4.0))
    shares = net.add(Div(), x, total, name="shares")
    inverse = net.add(Div(), net.positive(12), net.add(Add(), x, net.constant(1.0)), name="inverse")
    return net.output(net.linear(net.add(Add(), shares, inverse), 8, name="out"))


def moves(net):
    x = net.conv(net.input(1, 4, 6, 6), 8, name="stem")
    a, b = net.add(Split(1, (3, 5)), net.add(Pad((0, 0, 1, 0, 0, 0, 0, 2), 0.5), x))
    b = net.add(Slice((0, 1), (5, -1), (1, 3), (2, 1)), b)
    a = net.add(Gather(2), a, net.graph.constant(np.array([0, 3, -1])))
    rows = [net.add(Reshape((1, value.type.size)), value) for value in (a, b)]
    return net.output(net.add(Concat(1), *rows))


def rms(net):
    x = net.linear(net.input(1, 5, 24), 24, name="fc")
    x = net.add(RMSNorm(1e-6), x, net.positive(24))
    return net.output(net.linear(net.add(Sum((1,)), x), 8, name="out"))


# ---- reports and refusals ----


def test_report_names_the_first_value_that_is_off(build):
    graph = build.vit("float32", depth=2, width=32, heads=2)
    made = convert(graph, samples(graph, 4, 1), WIDE)
    feeds = [{"image": x[None]} for x in samples(graph, 3, 2)]
    assert report(made, feeds, 0.9).first_below == ""
    broken = next(node for node in made.graph.nodes if node.name == "block1.v")
    made.graph.set_input(broken, 1, made.graph.constant(-broken.input(1).array))
    ladder = report(made, feeds, 0.9)
    assert ladder.first_below == "block1.v"
    assert "block1.v" in ladder.text() and len(ladder.cosines) == 3


def test_everything_that_cannot_be_lowered_is_named_at_once(build):
    net = build.Net("float32")
    x = net.linear(net.input(1, 4, 8), 8, name="fc")
    a = net.add(Pow(), x, net.linear(x, 8, name="fc1"), name="top")
    b = net.add(Div(), x, net.linear(x, 8, name="fc2"), name="ratio")
    graph = net.output(net.add(Add(), a, b), net.add(Conv(), net.input(2, 3, 4, 4, name="y"), net.normal(2, 3, 1, 1)))
    with pytest.raises(Unsupported, match="2 operators or inputs") as caught:
        quantise(graph)
    assert set(caught.value.where) == {"/top", "/conv"}  # a quotient has an integer form
    assert "batch is 2" in caught.value.why and caught.value.do


def test_integer_inputs_are_refused(build):
    net = build.Net("float32")
    ids = net.graph.input("ids", Type("int64", (1, 4)))
    graph = net.output(net.add(Gather(0), net.normal(10, 8, name="table"), ids, name="embedding"))
    with pytest.raises(Unsupported) as caught:
        quantise(graph)
    assert set(caught.value.where) == {"ids", "/embedding"}


def test_functions_with_poles_stay_finite(build):
    net = build.Net("float32")
    x = net.add(Erf(), net.add(Log(), net.add(Add(), net.add(Gelu(), net.input(1, 6, 4)), net.constant(0.5))))
    graph = net.output(x)
    _, close = compared(graph, WIDE)
    assert close > 0.99


def test_unknown_options():
    with pytest.raises(UsageError, match="stream"):
        QuantOptions(stream="int4")
    with pytest.raises(UsageError, match="weights"):
        QuantOptions(weights="best")


def test_inputs_and_outputs_round_trip(build):
    graph = build.vit("float32", depth=1)
    made = convert(graph, samples(graph, 2, 1), WIDE)
    x = samples(graph, 1, 2)
    feeds = made.feeds({"image": x})
    assert feeds["image"].dtype == np.int8
    scale = made.graph.inputs[0].type.quant.scale
    inside = np.abs(x) < 100 * scale
    assert np.abs(made.real("image", feeds["image"]) - x)[inside].max() <= scale * 0.501
    assert isinstance(made.graph.outputs[0].type.quant, Quant)
    with pytest.raises(ModelError):
        convert(graph, x[:, :2], WIDE)
