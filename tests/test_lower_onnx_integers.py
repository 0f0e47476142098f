"""Pairs of Quantize and Dequantize in ONNX: as written the same numbers, as ONNX Runtime runs them integer kernels."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

import edgesmith
from edgesmith.ir.errors import Unsupported
from edgesmith.ir.graph import Graph, Quant, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Gelu, Relu
from edgesmith.ir.ops.conv import PatchEmbed
from edgesmith.ir.ops.elementwise import Add
from edgesmith.ir.ops.linear import Linear
from edgesmith.ir.ops.quant import Dequantize, Quantize
from edgesmith.ir.ops.shape import Reshape
from edgesmith.ir.passes.quantise.observe import observe
from edgesmith.ir.passes.quantise.qdq import LAYERS, QdqOptions, quantise_operands
from edgesmith.lowering.onnx.write import OPSETS, write

LEVELS = onnxruntime.GraphOptimizationLevel
REAL = {"Gemm", "MatMul", "Conv", "FusedMatMul", "FusedConv"}


def executed(model, feeds, folder, optimise=False):
    """Outputs, and how often ONNX Runtime runs each operator."""
    written, run_as = folder / "written.onnx", folder / "run.onnx"
    written.write_bytes(model.SerializeToString(deterministic=True))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = LEVELS.ORT_ENABLE_EXTENDED if optimise else LEVELS.ORT_DISABLE_ALL
    options.optimized_model_filepath, options.intra_op_num_threads, options.log_severity_level = str(run_as), 1, 3
    session = onnxruntime.InferenceSession(str(written), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    kinds = Counter(node.op_type for node in onnx.load(run_as).graph.node)
    return dict(zip(names, session.run(names, feeds), strict=True)), kinds


def samples(graph, count=3, seed=0):
    draw = np.random.default_rng(seed)
    return [{v.name: draw.standard_normal(v.shape).astype(np.float32) for v in graph.inputs} for _ in range(count)]


def quantised(graph, **options):
    data = samples(graph)
    quantise_operands(graph, observe(graph, data), QdqOptions(**options))
    return graph, data


@pytest.fixture
def n(build):
    """A net under construction."""
    return build.Net("float32")


@pytest.fixture
def tokens(n):
    """A patch embedding, two linear layers on tokens, one on a row."""
    x = n.input(1, 3, 12, 12)
    x = n.add(PatchEmbed((4, 4)), x, n.normal(8, 3, 4, 4, scale=0.1), n.normal(8), name="embed")
    x = n.add(Add(), x, n.linear(n.add(Gelu(), n.linear(x, 24, name="up")), 8, bias=False, name="down"))
    return n.output(n.linear(n.add(Reshape((1, 72)), x), 5, name="head"))


@pytest.fixture
def image(n):
    """Convolutions of several kinds with a ReLU and a sum."""
    x = n.conv(n.input(1, 3, 12, 12), 8, 3, name="stem")
    y = n.conv(n.add(Relu(), x), 8, 3, groups=8, pads=(1, 1, 1, 1), name="depth")
    return n.output(n.conv(n.add(Add(), y, x), 6, 1, bias=False, name="point"))


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("results", [LAYERS, ()], ids=["results", "operands"])
@pytest.mark.parametrize("net", ["tokens", "image"])
def test_as_written_it_gives_the_reference(net, results, opset, request, tmp_path):
    """Where sums in another order fall on the other side of a tie, one step of that value is the difference."""
    graph, data = quantised(request.getfixturevalue(net), results=results)
    model = write(graph, opset)
    for feeds in data:
        actual, _ = executed(model, feeds, tmp_path)
        for name, expected in run(graph, feeds).items():
            off = np.abs(actual[name] - expected) > 1e-5 * np.abs(expected).max()
            assert off.mean() < 0.02 and np.abs(actual[name] - expected).max() < 0.03 * np.abs(expected).max()


@pytest.mark.parametrize("opset", OPSETS)
def test_linear_layers_run_as_integers(tokens, opset, tmp_path):
    graph, data = quantised(tokens, results=(PatchEmbed,), pairs=True)
    actual, kinds = executed(write(graph, opset), data[0], tmp_path, optimise=True)
    assert kinds["QGemm"] == 3 and kinds["QLinearConv"] == 1 and not REAL & set(kinds)
    expected = run(graph, data[0])["head"]
    assert np.abs(actual["head"] - expected).max() < 0.03 * np.abs(expected).max()


@pytest.mark.parametrize("opset", OPSETS)
def test_convolutions_run_as_integers(image, opset, tmp_path):
    graph, data = quantised(image, pairs=True)
    actual, kinds = executed(write(graph, opset), data[0], tmp_path, optimise=True)
    assert kinds["QLinearConv"] == 3 and not REAL & set(kinds)
    expected = run(graph, data[0])["point"]
    assert np.abs(actual["point"] - expected).max() < 0.03 * np.abs(expected).max()


def test_neighbours_do_not_saturate(n, tmp_path):
    """Two products of the largest numbers, both of one sign, leave 16 bits unless the weights keep clear of that."""
    x = n.input(4, 64)
    w = np.ones((3, 64), np.float32)
    w[1], w[2] = -1, np.where(np.arange(64) % 2, 1, 0.3)
    graph = n.output(n.add(Linear(), x, n.constant(w), None, name="y"))
    feeds = {"x": np.full((4, 64), 3, np.float32)}
    quantise_operands(graph, observe(graph, [feeds]), QdqOptions(pairs=True, results=()))
    actual, kinds = executed(write(graph), feeds, tmp_path, optimise=True)
    assert not REAL & set(kinds) and np.allclose(actual["y"], 3 * w.sum(axis=1), rtol=0.01)


@pytest.mark.parametrize("opset", ["20", "23"])
def test_a_compile_gives_integers_and_says_what_is_none(tokens, opset, tmp_path):
    data = {"x": np.concatenate([feeds["x"] for feeds in samples(tokens)])}
    found = edgesmith.compile(tokens, "onnx", out=tmp_path / "out", dtype="int8", calibration=data, opset=opset)
    assert found.manifest["agreement"] == {"error": None, "cosine": 0.99}
    assert found.manifest["notes"] == ["in float, as ONNX Runtime has no integer kernels for them: 1 Gelu"]
    last = found.verification[-1]
    assert last["rung"] == "model.onnx on ort" and last["cosine"] > 0.999
    _, kinds = executed(onnx.load(found.folder / "model.onnx"), {"x": data["x"][:1]}, tmp_path, optimise=True)
    assert kinds["QGemm"] == 3 and kinds["QLinearConv"] == 1 and not REAL & set(kinds)


def test_weights_are_signed_and_activations_are_not(tokens):
    graph, _ = quantised(tokens)
    model = write(graph)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    zeros = {
        (node.op_type, types[node.input[0]] if node.input[0] in types else "computed", types[node.input[2]])
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    }
    uint8, int8, int32 = onnx.TensorProto.UINT8, onnx.TensorProto.INT8, onnx.TensorProto.INT32
    assert zeros == {
        ("QuantizeLinear", "computed", uint8), ("DequantizeLinear", "computed", uint8),
        ("DequantizeLinear", int8, int8), ("DequantizeLinear", int32, int32),
    }  # fmt: skip
    assert not any(tensor.name.endswith(("up.weight", "up.bias")) for tensor in model.graph.initializer)


def test_biases_stand_for_the_same_numbers(tokens):
    graph, _ = quantised(tokens)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in write(graph).graph.initializer}
    biases = [node.input(2) for node in graph.nodes if isinstance(node.op, LAYERS) and node.optional(2) is not None]
    assert len(biases) == 3
    for value in biases:
        steps = next(a for a in stored.values() if a.dtype == np.float32 and a.shape == value.shape)
        whole = next(a for name, a in stored.items() if name.startswith(value.name))
        assert whole.dtype == np.int32 and steps.shape == whole.shape


def test_integers_that_are_public_keep_their_type(tmp_path):
    graph = Graph("public")
    x = graph.input("x", Type("float32", (2, 3)))
    q = graph.output(graph.add(Quantize(Quant(0.1, 4)), x, name="q"))
    graph.output(graph.add(Dequantize(Quant(0.1, 4)), q, name="y"))
    graph.output(graph.add(Dequantize(Quant((0.5, 2.0), 0, 0)), graph.input("given", Type("int8", (2, 3))), name="z"))
    feeds = {"x": np.array([[-0.05, 0.05, 0.15], [99, -99, 0]], np.float32), "given": np.ones((2, 3), np.int8)}
    actual, _ = executed(write(graph), feeds, tmp_path)
    for name, expected in run(graph, feeds).items():
        assert actual[name].dtype == expected.dtype and np.array_equal(actual[name], expected)
    assert actual["q"].tolist() == [[4, 4, 6], [127, -128, 4]]


def test_crossings_are_equal_bit_for_bit(tmp_path):
    """Ties, saturation and steps that are no power of two, a hundred thousand of them."""
    graph = Graph("crossing")
    x = graph.input("x", Type("float32", (100_000,)))
    quant = Quant(float(np.float32(0.0173)), -11)
    graph.output(graph.add(Dequantize(quant), graph.add(Quantize(quant), x), name="y"))
    halves = np.arange(50_000) / 2 - 12_500
    feeds = {
        "x": np.concatenate([halves * quant.scale, np.random.default_rng(0).normal(0, 1, 50_000)]).astype(np.float32)
    }
    assert np.array_equal(executed(write(graph), feeds, tmp_path)[0]["y"], run(graph, feeds)["y"])


def test_a_constant_in_integers_may_be_an_output(tmp_path):
    graph = Graph("constant")
    w = graph.constant(np.arange(6, dtype=np.int8).reshape(2, 3), "w")
    real = graph.add(Dequantize(Quant((0.5, 2.0), 0, 0)), w, name="real")
    graph.output(graph.add(Add(), graph.input("x", Type("float32", (2, 3))), real, name="y"))
    graph.output(real)
    feeds = {"x": np.ones((2, 3), np.float32)}
    for name, expected in run(graph, feeds).items():
        assert np.array_equal(executed(write(graph), feeds, tmp_path)[0][name], expected)


def test_sixteen_bits_need_a_newer_opset(tmp_path):
    graph = Graph("wide")
    x = graph.input("x", Type("float32", (5,)))
    quant = Quant(2.0**-10, 0)
    graph.output(graph.add(Dequantize(quant), graph.add(Quantize(quant, "int16"), x, sources=("wide",)), name="y"))
    feeds = {"x": np.array([-40, -0.0005, 0, 1.23456, 40], np.float32)}
    assert np.array_equal(executed(write(graph, 21), feeds, tmp_path)[0]["y"], run(graph, feeds)["y"])
    with pytest.raises(Unsupported, match="opset 20 has no crossing from or to int16") as caught:
        write(graph, 20)
    assert "wide" in caught.value.where


def test_same_graph_same_bytes(tokens):
    graph, _ = quantised(tokens)
    one, other = (write(graph.copy()).SerializeToString(deterministic=True) for _ in range(2))
    assert one == other
