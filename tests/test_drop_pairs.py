"""Models that ONNX Runtime quantised, where integers have scales of our own or there are none: back to real numbers."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

import edgesmith
from edgesmith import lowering, targets
from edgesmith.frontend import imported, recognised
from edgesmith.frontend.fold import run
from edgesmith.ir.graph import Array, Graph, Quant, Type
from edgesmith.ir.interpret import run as interpret
from edgesmith.ir.ops.activation import Clip, Sqrt
from edgesmith.ir.ops.elementwise import Add, Mul
from edgesmith.ir.ops.logic import Cast
from edgesmith.ir.ops.pool import MaxPool
from edgesmith.ir.ops.quant import Dequantize, Quantize
from edgesmith.ir.ops.shape import Split, Transpose
from edgesmith.ir.passes.pipelines import INTEGER, run_pipeline
from edgesmith.ir.passes.quantise.drop_pairs import DropPairs
from edgesmith.ir.verify import verify

fused = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_frontend_fused.py"))))
draw = fused.draw
WAYS = {
    "pairs": {}, "pairs by channel": {"per_channel": True}, "operators": {"quant_format": "QOperator"},
    "bytes with a sign": {"activation_type": "QInt8"}, "weights without a sign": {"weight_type": "QUInt8"},
    "dynamic": {},
}  # fmt: skip
PICTURES = [draw(1, 3, 16, 16, seed=seed) for seed in range(6)]


def images() -> onnx.ModelProto:
    """Convolutions whose ReLU and ReLU6 the tool leaves out, a pool, a sum of both signs, a head."""
    net = fused.Writer()
    x = net.add("Relu", net.add("Conv", "x", draw(8, 3, 3, 3) / 2, draw(8) / 4, pads=[1] * 4, strides=[2, 2]))
    x = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    bounds = np.array(0, np.float32), np.array(0.5, np.float32)
    y = net.add("Clip", net.add("Conv", x, draw(8, 1, 3, 3), draw(8) / 4, pads=[1] * 4, group=8), *bounds)
    x = net.add("Add", net.add("Conv", y, draw(8, 8, 1, 1), draw(8)), x)
    x = net.add("Flatten", net.add("GlobalAveragePool", net.add("Relu", net.add("Conv", x, draw(12, 8, 1, 1)))))
    net.add("Gemm", x, draw(12, 10), draw(10))
    net.nodes[-1].output[0] = "y"
    return fused.of_nodes(net.nodes, {"x": PICTURES[0]}, net.weights)


def quantised(folder: Path, source: onnx.ModelProto, way: str) -> Path:
    """What ONNX Runtime's tool makes of a network; weights of seven bits, as products of eight may saturate."""
    from onnxruntime import quantization as tool

    class Pictures(tool.CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter([{"x": each} for each in PICTURES])

        def get_next(self) -> dict[str, Array] | None:
            return next(self.rest, None)

    made = folder / f"{way}.onnx"
    (folder / "float.onnx").write_bytes(source.SerializeToString())
    if way == "dynamic":
        tool.quantize_dynamic(folder / "float.onnx", made, weight_type=tool.QuantType.QUInt8)
        return made
    asked = {"quant_format": "QDQ", "activation_type": "QUInt8", "weight_type": "QInt8", "per_channel": False}
    asked |= WAYS[way]
    kinds = {name: getattr(tool.QuantType, str(asked[name])) for name in ("activation_type", "weight_type")}
    form = tool.QuantFormat[str(asked["quant_format"])]
    tool.quantize_static(
        folder / "float.onnx", made, Pictures(), quant_format=form, reduce_range=True, **kinds,
        per_channel=bool(asked["per_channel"]),
    )  # fmt: skip
    return made


def cosine(one: Array, other: Array) -> float:
    return float((one * other).sum() / np.sqrt(np.square(one).sum() * np.square(other).sum()))


def kinds(graph: Graph) -> list[str]:
    return [type(node.op).__name__ for node in graph.nodes]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore")
def test_what_is_left_is_nearer_to_the_float_network_than_its_integers(way: str, tmp_path: Path) -> None:
    """Only weights are rounded then, and activations that the tool had left out are there again."""
    source = images()
    path = quantised(tmp_path, source, way)
    graph = imported(path)
    recognised(graph)
    run_pipeline(graph, INTEGER)
    assert not {"Quantize", "Dequantize", "Round", "Cast"} & set(kinds(graph))
    errors = {"left": 0.0, "integers": 0.0}
    for x in PICTURES:
        (wanted,) = run(source.SerializeToString(), {"x": x}, [])
        (integers,) = run(path.read_bytes(), {"x": x}, [])
        left = interpret(graph, {"x": x})["y"]
        assert cosine(left, wanted) > 0.999
        errors["left"] += np.square(left - wanted).sum()
        errors["integers"] += np.square(integers - wanted).sum()
    assert errors["left"] < errors["integers"]


@pytest.mark.parametrize("way", ["pairs by channel", "operators", "dynamic"])
@pytest.mark.filterwarnings("ignore")
def test_what_stood_between_pairs_is_recognised(way: str, tmp_path: Path) -> None:
    """Attention of a small ViT."""
    source = fused.vit()
    graph = recognised(imported(quantised(tmp_path, source, way)))
    DropPairs().apply(graph)
    verify(graph)
    found = kinds(graph)
    assert [found.count(name) for name in ("Attention", "LayerNorm", "Linear")] == [2, 5, 12]
    assert not {"Dequantize", "Round"} & set(found)
    (wanted,) = run(source.SerializeToString(), {"x": PICTURES[0]}, [])
    assert cosine(interpret(graph, {"x": PICTURES[0]})["y"], wanted) > 0.995
    assert DropPairs().apply(graph) == 0


def pair(graph: Graph, x, quant: Quant, *moves):
    x = graph.add(Quantize(quant), x)
    for move in moves:
        x = graph.add(move, x)
    return graph.add(Dequantize(quant), x)


BOTH, ABOVE = Quant(0.1, 3), Quant(0.02, -128)


def test_a_range_that_begins_at_zero_still_cuts() -> None:
    graph = Graph()
    x = graph.input("x", Type("float32", (2, 3, 4, 4)))
    graph.output(pair(graph, x, ABOVE, MaxPool((2, 2), (2, 2)), Transpose((0, 2, 3, 1))), "y")
    graph.output(pair(graph, graph.add(Add(), x, x), BOTH), "z")
    feeds = {"x": draw(2, 3, 4, 4) * 16 - 10}
    before = interpret(graph, feeds)
    assert DropPairs().apply(graph) == 2
    verify(graph)
    assert [node.op for node in graph.nodes if isinstance(node.op, Clip)] == [Clip(0.0, 0.02 * 255)]
    after = interpret(graph, feeds)
    np.testing.assert_allclose(after["y"], before["y"], atol=0.01 + 1e-6)
    assert before["y"].max() == pytest.approx(5.1) and before["y"].min() == 0
    np.testing.assert_array_equal(after["z"], 2 * feeds["x"])


def test_no_cut_where_nothing_is_below_zero() -> None:
    """A pair inside a norm does not hide it."""
    graph = Graph()
    x = graph.input("x", Type("float32", (2, 6)))
    square = graph.add(Mul(), x, x)
    stable = graph.add(Add(), pair(graph, square, ABOVE), graph.constant(np.float32(1e-3)))
    graph.output(graph.add(Sqrt(), pair(graph, stable, ABOVE)), "y")
    DropPairs().apply(graph)
    assert kinds(graph) == ["Mul", "Add", "Sqrt"]


def test_pairs_stay_whose_integers_are_used() -> None:
    graph = Graph()
    x = graph.input("x", Type("float32", (2, 6)))
    q = graph.add(Quantize(BOTH), x)
    graph.output(graph.add(Dequantize(ABOVE), q), "another scale")
    graph.output(graph.add(Dequantize(BOTH), graph.add(Cast("int8"), graph.add(Cast("int32"), q))), "computed")
    graph.output(graph.add(Dequantize(BOTH), q), "the input itself")
    assert DropPairs().apply(graph) == 0
    _, second = graph.add(Split(1, (2, 4)), q)
    graph.output(graph.add(Dequantize(BOTH), second), "a piece")
    assert DropPairs().apply(graph) == 1
    verify(graph)
    feeds = {"x": draw(2, 6)}
    np.testing.assert_array_equal(interpret(graph, feeds)["a piece"], feeds["x"][:, 2:])


HOST = pytest.mark.compiler
COMPILED = [
    *(("pairs by channel", *each) for each in (
        ("android", "float32"), ("android", "int8"), ("android", "dynamic"), ("onnx", "int8"), ("onnx", "float32"),
        ("iphone15", "float16"), ("tvm-cpu", "float32"),
    )),
    ("operators", "android", "int8"), ("operators", "onnx", "int8"), ("dynamic", "onnx", "int8"),
    *(pytest.param(way, "host", "int8", marks=HOST) for way in ("pairs by channel", "operators", "dynamic")),
    *(pytest.param(way, "host", "float32", marks=HOST) for way in ("operators", "dynamic")),
]  # fmt: skip


@pytest.mark.parametrize(("way", "target", "dtype"), COMPILED)
@pytest.mark.filterwarnings("ignore")
def test_a_quantised_network_compiles(way: str, target: str, dtype: str, tmp_path: Path) -> None:
    """Its own check passes, and the outputs are those of the float network."""
    backend = targets.get(target).backend
    if backend != "c" and (missing := lowering.load(backend).why_not()):
        pytest.skip(missing)
    source = images()
    path = quantised(tmp_path, source, way)
    made = edgesmith.compile(
        path, target, dtype=dtype, calibration={"x": np.concatenate(PICTURES)}, out=tmp_path / "made"
    )
    last = made.manifest["verification"][-1]
    assert last["cosine"] > 0.99
    assert ("drop_pairs" in str(made.manifest["verification"])) == (dtype != "float32" or backend in ("c", "onnx"))
