"""TFLite as a back end: every float op gives its reference in LiteRT, forms that it lacks are named at once."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("ai_edge_litert")
pytest.importorskip("flatbuffers")

from ai_edge_litert import schema_py_generated as schema

from edgesmith import frontend
from edgesmith.ir.errors import ModelError, Unsupported
from edgesmith.ir.graph import Graph, Quant, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops import registry
from edgesmith.ir.ops.activation import Clip, Erf, Gelu, HardSigmoid, Relu, Silu, Softmax
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.conv import Conv, PatchEmbed
from edgesmith.ir.ops.elementwise import Add, Mul, Pow
from edgesmith.ir.ops.integer_elementwise import QTable8
from edgesmith.ir.ops.linear import Linear, MatMul
from edgesmith.ir.ops.norm import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from edgesmith.ir.ops.pool import AveragePool, MaxPool, Mean
from edgesmith.ir.ops.quant import Dequantize, Quantize
from edgesmith.ir.ops.search import Scatter, TopK
from edgesmith.ir.ops.shape import Gather, Pad, Reshape, Resize, Slice, Split
from edgesmith.ir.passes.pipelines import FLOAT_TFLITE, run_pipeline
from edgesmith.lowering.tflite import flatbuffer
from edgesmith.lowering.tflite.spellings import SPELLINGS
from edgesmith.lowering.tflite.write import write

pytestmark = pytest.mark.tflite

SHARED = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tflite_graphs.py"))))
agree, delegated, one_op, run_file = SHARED.agree, SHARED.delegated, SHARED.one_op, SHARED.run_file

FAMILIES = (
    "activation", "attention", "conv", "elementwise", "linear", "logic", "norm", "number", "pool", "search", "shape",
)  # fmt: skip
FLOAT = {name: cls for name, cls in registry().items() if cls.__module__.rsplit(".", 1)[1] in FAMILIES}
CASES = [(f"{name}-{i}", op, arrays) for name, cls in FLOAT.items() for i, (op, arrays) in enumerate(cls.examples())]
each = pytest.mark.parametrize("op, arrays", [case[1:] for case in CASES], ids=[case[0] for case in CASES])

MORE = [
    (Conv((2, 2), (1, 1, 1, 1)), ((1, 3, 8, 8), (4, 3, 3, 3), (4,))),
    (Conv((2, 2), (0, 0, 1, 1)), ((1, 3, 8, 8), (4, 3, 3, 3), (4,))),
    (Conv((1, 1), (1, 1, 1, 1), groups=6), ((2, 6, 5, 4), (12, 1, 3, 3), (12,))),
    (Conv((1, 1), (0, 0, 0, 0), groups=2), ((1, 6, 5, 4), (4, 3, 1, 1), None)),
    (PatchEmbed((2, 2), (1, 1, 0, 0)), ((1, 3, 5, 5), (4, 3, 2, 2), (4,))),
    (Linear(), ((7,), (3, 7), (3,))),
    (Linear(), ((1, 2, 3, 7), (3, 7), None)),
    (MatMul(), ((2, 3, 4, 5), (1, 1, 5, 6))),
    (AveragePool((3, 3), (2, 2), (1, 1, 1, 1)), ((1, 2, 7, 8),)),
    (AveragePool((3, 3), (2, 2), (1, 1, 1, 1), True, True), ((1, 2, 8, 8),)),
    (AveragePool((2, 2), (2, 2), (0, 0, 0, 0), True), ((1, 2, 7, 5),)),
    (AveragePool((3, 2), (1, 1), (1, 1, 1, 0), False, True), ((1, 2, 6, 5),)),
    (MaxPool((3, 3), (2, 2), (1, 1, 1, 1)), ((1, 2, 8, 8),)),
    (MaxPool((3, 3), (2, 2), (1, 0, 0, 1), True), ((1, 2, 8, 7),)),
    (Mean((1, 3), True), ((2, 3, 4, 5),)),
    (GroupNorm(2), ((2, 6, 3, 4), (6,), (6,))),
    (GroupNorm(3), ((2, 6, 5), None, None)),
    (LayerNorm(), ((5,), (5,), (5,))),
    (RMSNorm(1e-6), ((1, 2, 3, 8), (8,))),
    (BatchNorm(1), ((2, 3, 5), (3,), (3,), (3,), (3,))),
    (Softmax(0), ((3, 4),)),
    (Gather(1), ((2, 5, 3), np.array([1, 2], np.int64))),
    (Gather(1), ((2, 5, 3), np.array([3, 0, -1], np.int64))),
    (Slice((4, 0), (-(2**62), 5), (1, 2), (-2, 2)), ((2, 5, 6),)),
    (Split(2, (3, 3)), ((1, 2, 6),)),
    (Split(1, (1,) * 6), ((1, 6, 2),)),
    (Pad((0, -1, 1, 0, 0, 2, -2, 1), 0.5), ((1, 3, 4, 5),)),
    (Pad((0, 0, 1, 2)), ((3, 4),)),
    (Resize((8, 8), "linear", "align_corners"), ((1, 2, 4, 4),)),
    (Resize((8, 8), "linear", "asymmetric"), ((1, 2, 4, 4),)),
    (Resize((8, 12), "nearest", "half_pixel"), ((1, 2, 4, 4),)),
    (Resize((2, 2), "nearest", "asymmetric", "floor"), ((1, 2, 5, 4),)),
    (HardSigmoid(1 / 6, 0.5), ((3, 4),)),
    (Clip(-1, 1), ((3, 4),)),
    (Clip(0.25, 0.5), ((3, 4),)),
    (Add(), ((5,), (2, 3, 1))),
    (Mul(), ((4, 1, 3, 2, 2), (1, 2))),
]


def filled(shapes):
    """Positive numbers of those shapes, so that variances are; arrays stay as they are."""
    draw = np.random.default_rng(3)
    return [
        each if each is None or isinstance(each, np.ndarray) else draw.uniform(0.1, 2, each).astype(np.float32)
        for each in shapes
    ]


def needs_constants(op):
    return isinstance(op, BatchNorm | GroupNorm) or type(op).__name__ == "Affine"


# ---- the ops ----


def test_every_float_op_has_a_spelling_or_is_taken_apart():
    assert set(SPELLINGS) == {*FLOAT.values(), Quantize, Dequantize} - {Attention, PatchEmbed}


@each
@pytest.mark.parametrize("constant", [True, False], ids=["weights", "operands"])
def test_litert_gives_the_reference(op, arrays, constant):
    if isinstance(op, Erf | Scatter) or (isinstance(op, TopK) and op.axis == 1):
        pytest.skip("refused, see test_forms_that_tflite_lacks_are_named_at_once")
    if not constant and needs_constants(op):
        pytest.skip("refused, see test_forms_that_tflite_lacks_are_named_at_once")
    graph, feeds = one_op(op, arrays, constant)
    wanted = run(graph, feeds)
    model = write(graph)
    assert "CUSTOM" not in model.operators
    for delegate in (True, False):
        agree(run_file(model.data, feeds, delegate), wanted)


@pytest.mark.parametrize("op, shapes", MORE, ids=[f"{type(op).__name__}-{i}" for i, (op, _) in enumerate(MORE)])
@pytest.mark.parametrize("constant", [True, False], ids=["weights", "operands"])
def test_litert_gives_the_reference_of_harder_forms(op, shapes, constant):
    if not constant and needs_constants(op):
        pytest.skip("refused, see test_forms_that_tflite_lacks_are_named_at_once")
    graph, feeds = one_op(op, filled(shapes), constant)
    wanted = run(graph, feeds)
    agree(run_file(write(graph).data, feeds), wanted)


@pytest.mark.parametrize("exponent, kinds", [(2, ["MUL"]), (0.5, ["SQRT"]), (-0.5, ["RSQRT"]), (3, ["POW"])])
def test_powers_that_have_an_operator_are_written_as_it(exponent, kinds):
    graph, feeds = one_op(Pow(), filled([(3, 4), np.full((), exponent, np.float32)]), True)
    wanted = run(graph, feeds)
    model = write(graph)
    assert list(model.operators) == kinds
    agree(run_file(model.data, feeds), wanted)


@pytest.mark.parametrize(
    "op, shapes, count",
    [
        (RMSNorm(), ((1, 5, 8), None), 4),
        (LayerNorm(), ((1, 5, 8), None, None), 6),
        (Gelu("tanh"), ((1, 5, 8),), 1),
        (Gelu("sigmoid"), ((1, 5, 8),), 3),
        (Silu(), ((1, 5, 8),), 2),
        (HardSigmoid(1 / 6, 0.5), ((1, 5, 8),), 2),
        (Linear(), ((1, 5, 8), (3, 8), (3,)), 1),
    ],
)
def test_spellings_are_as_short_as_they_can_be_and_all_on_the_fast_path(op, shapes, count):
    graph, _ = one_op(op, filled(shapes), True)
    model = write(graph)
    assert sum(model.operators.values()) == count
    assert delegated(model.data)


def test_forms_that_tflite_lacks_are_named_at_once():
    graph = Graph("odd")
    x = graph.input("x", Type("float32", (1, 2, 4, 4)))
    nearest = graph.add(Resize((5, 5), "nearest", "half_pixel", "ceil"), x, sources=("upper",))
    graph.output(graph.add(Erf(), nearest, sources=("bend",)), "y")
    scale = graph.input("scale", Type("float32", (2,)))
    graph.output(graph.add(GroupNorm(2), x, scale, None, sources=("norm",)), "z")
    with pytest.raises(Unsupported, match="error function") as caught:
        write(graph)
    assert caught.value.where == ("upper", "bend", "norm")
    assert "nearest" in caught.value.why and "compile time" in caught.value.why


def test_ops_without_a_spelling_are_named_at_once():
    graph = Graph("integers")
    op, (x, table) = next(QTable8.examples())
    x, table = graph.input("x", Type(x.dtype.name, x.shape, Quant(0.1))), graph.constant(table)
    for name in ("first", "second"):
        graph.output(graph.add(op, x, table, sources=(name,)), name)
    with pytest.raises(Unsupported, match="QTable8") as caught:
        write(graph)
    assert caught.value.where == ("first", "second")


# ---- fusing ----


@pytest.mark.parametrize("op, shapes", [
    (Conv((1, 1), (1, 1, 1, 1)), ((1, 3, 5, 5), (4, 3, 3, 3), (4,))),
    (Linear(), ((2, 5), (4, 5), (4,))),
    (Add(), ((2, 5), (2, 5))),
    (AveragePool((2, 2)), ((1, 2, 5, 5),)),
])  # fmt: skip
@pytest.mark.parametrize("clamp", [Relu(), Clip(0, 6), Clip(-1, 1)], ids=["relu", "relu6", "one"])
def test_a_clamp_joins_the_operator_before_it(op, shapes, clamp):
    draw = np.random.default_rng(0)
    arrays = [draw.normal(0, 4, shape).astype(np.float32) for shape in shapes]
    graph, feeds = one_op(op, arrays, True)
    (before,) = graph.outputs
    graph.outputs.clear()
    graph.output(graph.add(clamp, before), "clamped")
    wanted = run(graph, feeds)
    model = write(graph)
    assert not {"RELU", "RELU6", "RELU_N1_TO_1"} & set(model.operators)
    agree(run_file(model.data, feeds), wanted)


def test_a_value_that_is_seen_is_not_clamped():
    graph, feeds = one_op(Add(), [np.full(3, -1, np.float32), np.full(3, -1, np.float32)], False)
    graph.output(graph.add(Relu(), graph.outputs[0]), "clamped")
    wanted = run(graph, feeds)
    model = write(graph)
    assert set(model.operators) == {"ADD", "RELU"}
    agree(run_file(model.data, feeds), wanted)


# ---- the file ----


def test_names_of_inputs_and_outputs_are_the_model_s_own():
    graph = Graph("names")
    a, b = graph.input("pixels/left", Type("float32", (1, 2))), graph.input("pixels:0", Type("float32", (1, 2)))
    graph.output(graph.add(Add(), a, b), "sum of both")
    graph.output(a)
    graph.output(graph.outputs[0])
    graph.output(graph.add(Reshape((1, 2)), b), "same")
    feeds = {"pixels/left": np.ones((1, 2), np.float32), "pixels:0": np.full((1, 2), 2, np.float32)}
    wanted = run(graph, feeds)
    agree(run_file(write(graph).data, feeds), wanted)


def test_equal_constants_are_stored_once_and_aligned():
    graph = Graph("shared")
    x, w = graph.input("x", Type("float32", (2, 32))), np.ones((32, 32), np.float32)
    for index in range(3):
        x = graph.add(Linear(), x, graph.constant(w.copy(), f"w{index}"))
    graph.output(x, "y")
    data = write(graph).data
    assert len(data) < 3 * w.nbytes
    model = schema.Model.GetRootAs(data)
    places = [model.Buffers(i)._tab for i in range(model.BuffersLength())]
    starts = [tab.Vector(tab.Offset(4)) for tab in places if tab.Offset(4)]
    assert starts and all(start % 16 == 0 for start in starts)


def test_versions_are_no_newer_than_needed():
    cases = {
        ("FULLY_CONNECTED", 1): (Linear(), ((2, 8), (4, 8), (4,))),
        ("FULLY_CONNECTED", 5): (Linear(), ((1, 2, 8), (4, 8), (4,))),
        ("FULLY_CONNECTED", 6): (Linear(), ((2, 8), (4, 8), None)),
        ("CONV_2D", 1): (Conv(), ((1, 4, 5, 5), (4, 4, 1, 1), (4,))),
        ("CONV_2D", 6): (Conv(groups=2), ((1, 4, 5, 5), (4, 2, 1, 1), (4,))),
        ("DEPTHWISE_CONV_2D", 2): (Conv(dilations=(2, 2), groups=4), ((1, 4, 5, 5), (4, 1, 2, 2), (4,))),
        ("RESIZE_BILINEAR", 3): (Resize((8, 8), "linear"), ((1, 2, 4, 4),)),
    }
    for (kind, wanted), (op, shapes) in cases.items():
        model = schema.ModelT.InitFromPackedBuf(write(one_op(op, filled(shapes), True)[0]).data)
        found = {code.builtinCode: code.version for code in model.operatorCodes}
        assert found[getattr(schema.BuiltinOperator, kind)] == wanted, kind


def test_weights_too_large_for_the_format_are_refused(monkeypatch):
    monkeypatch.setattr(flatbuffer, "MOST_BYTES", 100)
    with pytest.raises(ModelError, match="larger than 2 GiB"):
        write(one_op(Linear(), filled([(2, 8), (8, 8), None]), True)[0])


# ---- whole models ----


@pytest.fixture
def models(tiny_pixels, fashion):
    """Models that a bare computer has."""
    return [tiny_pixels, fashion / "model.onnx"]


def source_s(path, feeds):
    """What ONNX Runtime makes of the file."""
    session = onnxruntime.InferenceSession(path)
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, feeds), strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float16", "dynamic"])
def test_a_model_gives_the_source_s_numbers(models, dtype):
    for path in models:
        graph = frontend.load(path)
        run_pipeline(graph, FLOAT_TFLITE)
        draw = np.random.default_rng(1)
        feeds = {value.name: draw.standard_normal(value.shape).astype(np.float32) for value in graph.inputs}
        model = write(graph, dtype)
        share = {"float32": 2e-5, "float16": 5e-3, "dynamic": 1e-1}[dtype]
        agree(run_file(model.data, feeds), source_s(path, feeds), share)
        assert delegated(model.data)


@pytest.mark.parametrize("dtype", ["float32", "float16", "dynamic"])
def test_same_graph_same_bytes(models, dtype):
    for path in models:
        one, other = (write(frontend.load(path), dtype).data for _ in range(2))
        assert one == other
