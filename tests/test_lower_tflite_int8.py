"""TFLite in integers: what pairs of Quantize and Dequantize become, held against the pairs' own reference."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")
pytest.importorskip("flatbuffers")

from ai_edge_litert import schema_py_generated as schema

from edgesmith.ir.errors import Unsupported
from edgesmith.ir.graph import Graph, Quant, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Gelu, Relu
from edgesmith.ir.ops.conv import Conv, PatchEmbed
from edgesmith.ir.ops.elementwise import Add, Mul
from edgesmith.ir.ops.linear import Linear
from edgesmith.ir.ops.pool import MaxPool, Mean
from edgesmith.ir.ops.quant import Dequantize, Quantize
from edgesmith.ir.ops.shape import Reshape, Transpose
from edgesmith.ir.passes.quantise.observe import observe
from edgesmith.ir.passes.quantise.qdq import QdqOptions, quantise_operands
from edgesmith.lowering.tflite.integers import decide, foreseen, settle
from edgesmith.lowering.tflite.write import write

pytestmark = pytest.mark.tflite

SHARED = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tflite_graphs.py"))))
delegated, interpreter, run_file = SHARED.delegated, SHARED.interpreter, SHARED.run_file


class Net:
    """A graph with pairs in the making."""

    def __init__(self):
        self.graph, self.draw = Graph("net"), np.random.default_rng(0)

    def input(self, *shape):
        return self.graph.input("x", Type("float32", shape))

    def pair(self, x, scale=0.03, zero=5):
        quant = Quant(scale, zero)
        return self.graph.add(Dequantize(quant), self.graph.add(Quantize(quant), x))

    def weight(self, *shape):
        scales = tuple(self.draw.uniform(0.0005, 0.002, shape[0]).astype(np.float32).tolist())
        data = self.draw.integers(-127, 128, shape).astype(np.int8)
        return self.graph.add(Dequantize(Quant(scales, 0, 0)), self.graph.constant(data, quant=Quant(scales, 0, 0)))

    def bias(self, size):
        return self.graph.constant(self.draw.normal(0, 0.2, size).astype(np.float32))

    def linear(self, x, size):
        return self.graph.add(Linear(), x, self.weight(size, x.shape[-1]), self.bias(size))

    def conv(self, x, size, **options):
        depth = x.shape[1] // options.get("groups", 1)
        return self.graph.add(Conv(pads=(1, 1, 1, 1), **options), x, self.weight(size, depth, 3, 3), self.bias(size))

    def add(self, op, *operands):
        return self.graph.add(op, *operands)

    def check(self, y, mode="static", steps=1.0, scale=0.03):
        """Write, run with and without XNNPACK, and allow so many steps of the last scale."""
        self.graph.output(y, "y")
        feeds = {v.name: self.draw.normal(0, 1, v.shape).astype(np.float32) for v in self.graph.inputs}
        wanted = run(self.graph, feeds)["y"]
        model = write(self.graph, "int8", {"activations": mode})
        for delegate in (True, False):
            found = run_file(model.data, feeds, delegate)["y"]
            assert np.abs(found - wanted).max() <= steps * scale * 1.01
        return model


def types(model, kind):
    """Element types of an operator's operands, for every operator of that kind."""
    read = schema.ModelT.InitFromPackedBuf(model.data)
    (graph,), code = read.subgraphs, getattr(schema.BuiltinOperator, kind)
    names = {value: name for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
    chosen = [each for each in graph.operators if read.operatorCodes[each.opcodeIndex].builtinCode == code]
    return [tuple(names[graph.tensors[i].type] for i in each.inputs) for each in chosen]


# ---- static ----


def test_linears_between_pairs_are_integers_throughout():
    net = Net()
    x = net.pair(net.input(2, 16))
    x = net.pair(net.add(Relu(), net.linear(x, 12)), zero=-128)
    model = net.check(net.pair(net.linear(x, 8)))
    assert model.operators == {"DEQUANTIZE": 1, "FULLY_CONNECTED": 2, "QUANTIZE": 1}
    assert set(types(model, "FULLY_CONNECTED")) == {("INT8", "INT8", "INT32")}
    assert model.details["static"] == ["linear", "linear.1"]
    assert delegated(model.data)


def test_convolutions_pool_sum_and_product_are_integers_throughout():
    net = Net()
    x = net.pair(net.input(1, 4, 8, 8))
    a = net.pair(net.add(Relu(), net.conv(x, 8)), zero=-128)
    b = net.pair(net.conv(a, 8, groups=8), 0.05, 0)
    c = net.pair(net.add(MaxPool((2, 2), (2, 2)), net.pair(net.add(Add(), a, b), 0.06, -20)), 0.06, -20)
    d = net.pair(net.add(Mul(), c, c), 0.1, -128)
    model = net.check(d, steps=2, scale=0.1)
    assert set(model.operators) == {
        "QUANTIZE", "TRANSPOSE", "CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MAX_POOL_2D", "MUL", "DEQUANTIZE",
    }  # fmt: skip
    assert types(model, "CONV_2D") == [("INT8", "INT8", "INT32")] == types(model, "DEPTHWISE_CONV_2D")
    assert delegated(model.data)


def test_borders_of_integers_are_zeros_of_their_scale():
    net = Net()
    x = net.pair(net.input(1, 4, 8, 8), zero=17)
    x = net.pair(net.conv(x, 4, strides=(2, 2)), 0.05, 3)
    pool = net.add(MaxPool((2, 2), (1, 1), (1, 1, 0, 0)), x)
    model = net.check(net.pair(pool, 0.05, 3), scale=0.05)
    assert {"PAD", "PADV2"} <= set(model.operators)


def test_integers_are_moved_instead_of_real_numbers():
    net = Net()
    image = net.pair(net.input(1, 3, 8, 8))
    x = net.pair(net.add(PatchEmbed((4, 4)), image, net.weight(8, 3, 4, 4), net.bias(8)))
    x = net.pair(net.linear(x, 16))
    x = net.add(Transpose((0, 2, 1, 3)), net.add(Reshape((1, 4, 2, 8)), x))
    model = net.check(net.add(Gelu(), x), steps=2)
    assert all(kinds[0] == "INT8" for kinds in (*types(model, "TRANSPOSE")[1:], *types(model, "RESHAPE")))
    assert model.operators["QUANTIZE"] == model.operators["DEQUANTIZE"] == 1


# ---- which ----


def lonely():
    """A layer with real neighbours on both sides."""
    net = Net()
    x = net.pair(net.add(Gelu(), net.input(2, 64)))
    return net, net.add(Gelu(), net.pair(net.linear(x, 64)))


@pytest.mark.parametrize("mode, operators", [
    ("auto", {"FULLY_CONNECTED": 1, "GELU": 2}),
    ("dynamic", {"FULLY_CONNECTED": 1, "GELU": 2}),
    ("static", {"DEQUANTIZE": 1, "FULLY_CONNECTED": 1, "GELU": 2, "QUANTIZE": 1}),
])  # fmt: skip
def test_a_layer_among_real_ones_rounds_as_it_runs(mode, operators):
    net, y = lonely()
    model = net.check(y, mode, steps=4)
    assert model.operators == operators
    wanted = ("INT8", "INT8", "INT32") if mode == "static" else ("FLOAT32", "INT8", "FLOAT32")
    assert types(model, "FULLY_CONNECTED") == [wanted]
    assert delegated(model.data)


def test_layers_that_hand_integers_on_are_static():
    net = Net()
    x = net.pair(net.add(Relu(), net.conv(net.pair(net.input(1, 16, 8, 8)), 16)), zero=-128)
    y = net.pair(net.conv(x, 16))
    model = net.check(net.add(Gelu(), y), "auto", steps=2)
    assert model.details["static"] == ["conv", "conv.1"] and not model.details["dynamic"]


def test_a_lonely_depthwise_layer_stays_real():
    net = Net()
    y = net.pair(net.conv(net.pair(net.add(Gelu(), net.input(1, 16, 8, 8))), 16, groups=16))
    model = net.check(net.add(Gelu(), y), "auto", steps=3)
    assert types(model, "DEPTHWISE_CONV_2D") == [("FLOAT32", "FLOAT32", "FLOAT32")]
    assert list(model.details["real"]) == ["conv"]


def test_a_stem_of_few_channels_stays_real():
    """Its int8 kernel multiplies five channels of zeros with three of the image."""
    net = Net()
    graph = net.graph

    def real(*shape):
        return graph.constant(net.draw.standard_normal(shape).astype(np.float32))

    x = net.input(1, 3, 8, 8)
    for name, depth in (("stem", 3), ("a", 16), ("b", 16)):
        x = graph.add(Conv(pads=(1, 1, 1, 1)), x, real(16, depth, 3, 3), real(16), name=name)
    graph.output(x, "y")
    seen = observe(graph, [{"x": net.draw.standard_normal((1, 3, 8, 8)).astype(np.float32)}])
    auto, static = (foreseen(graph, seen, QdqOptions(), mode) for mode in ("auto", "static"))
    assert auto.keep == {"stem": "int8 kernels take 8 input channels at a time, it has 3"} and not static.keep
    quantise_operands(graph, seen, auto)
    model = write(graph, "int8", {"activations": "auto"})
    assert len(model.details["static"]) == 2
    assert types(model, "CONV_2D") == [("FLOAT32", "FLOAT32", "FLOAT32"), *[("INT8", "INT8", "INT32")] * 2]


def test_a_layer_after_integers_may_be_real():
    """What the last integer operator gives is rounded inside it: nobody can read it unrounded."""
    net = Net()
    x = net.pair(net.conv(net.pair(net.input(1, 16, 8, 8)), 16))
    x = net.pair(net.conv(x, 16), 0.05, 0)
    y = net.graph.add(Conv(pads=(1, 1, 1, 1)), x, net.weight(16, 16, 3, 3), net.bias(16))
    model = net.check(y, "auto", steps=3)
    assert len(model.details["static"]) == 2 and len(model.details["dynamic"]) == 1


def test_pairs_are_foreseen_only_where_they_are_used():
    net = Net()
    graph = net.graph

    def real(*shape):
        return graph.constant(net.draw.standard_normal(shape).astype(np.float32))

    x = net.input(1, 16, 8, 8)
    for name in ("a", "b"):
        x = graph.add(Conv(pads=(1, 1, 1, 1)), x, real(16, 16, 3, 3), real(16), name=name)
    x = graph.add(Conv(groups=16), graph.add(Gelu(), x), real(16, 1, 3, 3), real(16), name="depth")
    x = graph.add(Gelu(), graph.add(Mean((2, 3)), graph.add(Gelu(), x)))
    graph.output(graph.add(Gelu(), graph.add(Linear(), x, real(8, 16), real(8), name="head")), "y")
    seen = observe(graph, [{"x": net.draw.standard_normal((1, 16, 8, 8)).astype(np.float32)}])
    auto, static, dynamic = (foreseen(graph, seen, QdqOptions(), mode) for mode in ("auto", "static", "dynamic"))
    assert auto.weights_only == {"head"} and list(auto.keep) == ["depth"]
    assert not static.weights_only and not static.keep
    assert dynamic.weights_only == {"a", "b", "head"} and list(dynamic.keep) == ["depth"]
    quantise_operands(graph, seen, auto)
    settle(graph)
    decision = decide(graph, "auto")
    assert list(decision.static) == ["a", "b"] and decision.dynamic == ["head"] and not decision.real


def test_what_stays_real_for_its_kernel_is_said():
    net, y = lonely()
    net.graph.output(y, "y")
    (note,) = write(net.graph, "int8").notes
    assert note == "in float, as XNNPACK has no int8 kernels for them: 2 Gelu"


def test_what_a_choice_leaves_is_no_pair_that_nobody_needs():
    net, y = lonely()
    net.graph.output(y, "y")
    settle(net.graph)
    decision = decide(net.graph, "auto")
    assert decision.dynamic == ["linear"]
    assert not [node for node in net.graph.nodes if isinstance(node.op, Quantize | Dequantize)]


def test_scales_per_channel_of_activations_are_refused():
    net = Net()
    x = net.input(1, 3)
    quant = Quant((0.1, 0.2, 0.3), 0, 1)
    net.graph.output(net.graph.add(Quantize(quant), x, sources=("odd",)), "y")
    with pytest.raises(Unsupported, match="without a spelling") as caught:
        write(net.graph, "int8")
    assert caught.value.where == ("odd",)


# ---- from calibration ----


@pytest.mark.parametrize("mode", ["auto", "static", "dynamic"])
def test_a_calibrated_network_stays_close(mode):
    net = Net()
    graph, draw = net.graph, net.draw

    def real(*shape):
        return graph.constant((draw.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32))

    x = graph.add(Relu(), graph.add(Conv((2, 2), (1, 1, 1, 1)), net.input(1, 3, 16, 16), real(16, 3, 3, 3), real(16)))
    x = graph.add(Relu(), graph.add(Conv(pads=(1, 1, 1, 1)), x, real(32, 16, 3, 3), real(32)))
    x = graph.add(Gelu(), graph.add(Linear(), graph.add(Mean((2, 3)), x), real(64, 32), real(64)))
    graph.output(graph.add(Linear(), x, real(10, 64), real(10)), "y")
    data = [{"x": draw.standard_normal((1, 3, 16, 16)).astype(np.float32)} for _ in range(8)]
    wanted = [run(graph, feeds)["y"] for feeds in data]
    quantise_operands(graph, observe(graph, data))
    model = write(graph, "int8", {"activations": mode})
    found = np.concatenate([run_file(model.data, feeds)["y"] for feeds in data])
    real_ones = np.concatenate(wanted)
    cosine = (found * real_ones).sum() / np.linalg.norm(found) / np.linalg.norm(real_ones)
    assert cosine > 0.999
    assert delegated(model.data)


# ---- a second judge ----


def micro(model, feeds):
    """TensorFlow Lite Micro's reference kernels on the same file."""
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    judge = runtime.Interpreter.from_bytes(model.data, arena_size=2**20)
    for index, array in enumerate(feeds.values()):
        judge.set_input(array, index)
    judge.invoke()
    return judge.get_output(0)


def test_micro_agrees_on_integers():
    net = Net()
    x = net.pair(net.add(Relu(), net.conv(net.pair(net.input(1, 4, 8, 8)), 8)), zero=-128)
    x = net.pair(net.conv(x, 8, groups=8), 0.05, 0)
    x = net.add(Reshape((1, 512)), x)
    net.graph.output(net.pair(net.linear(x, 4), 0.1, 1), "y")
    feeds = {"x": net.draw.normal(0, 1, (1, 4, 8, 8)).astype(np.float32)}
    wanted = run(net.graph, feeds)["y"]
    model = write(net.graph, "int8", {"activations": "static"})
    assert np.abs(micro(model, feeds) - wanted).max() <= 0.101


def test_micro_agrees_on_real_numbers():
    net = Net()
    x = net.add(Relu(), net.graph.add(Conv((2, 2), (1, 1, 1, 1)), net.input(1, 3, 8, 8), net.bias((6, 3, 3, 3)), None))
    x = net.add(MaxPool((2, 2), (2, 2)), x)
    x = net.graph.add(Linear(), net.add(Reshape((1, 24)), x), net.bias((5, 24)), net.bias(5))
    net.graph.output(x, "y")
    feeds = {"x": net.draw.normal(0, 1, (1, 3, 8, 8)).astype(np.float32)}
    wanted = run(net.graph, feeds)["y"]
    assert np.abs(micro(write(net.graph), feeds) - wanted).max() < 1e-5
