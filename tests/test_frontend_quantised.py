"""Models that ONNX Runtime quantised: their integers and scales survive, and the numbers are what that runtime has.

Weights have seven bits, as products of eight saturate in ONNX Runtime on processors without instructions for them.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgesmith.frontend import imported, recognised
from edgesmith.frontend.fold import run
from edgesmith.ir.graph import Array
from edgesmith.ir.interpret import run as interpret
from edgesmith.ir.ops.quant import Dequantize, Quantize
from edgesmith.ir.passes.exact.fold_constants import FoldConstants
from edgesmith.ir.passes.pipelines import EXACT, run_pipeline

fused = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_frontend_fused.py"))))
draw, PICTURE = fused.draw, fused.PICTURE


def quantised(folder: Path, way: str) -> Path:
    """The small ViT, quantised with ONNX Runtime's tools."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter([{"x": draw(1, 3, 16, 16, seed=seed)} for seed in range(4)])

        def get_next(self) -> Any:
            return next(self.rest, None)

    source, made = folder / "float.onnx", folder / f"{way}.onnx"
    source.write_bytes(fused.vit().SerializeToString())
    if way.startswith("dynamic"):
        kinds = ["MatMul"] if way == "dynamic products" else None
        quantize_dynamic(source, made, weight_type=QuantType.QUInt8, op_types_to_quantize=kinds)
    else:
        form = QuantFormat.QDQ if way.startswith("pairs") else QuantFormat.QOperator
        quantize_static(
            source, made, Pictures(), quant_format=form, per_channel="channel" in way, reduce_range=True,
            weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
        )  # fmt: skip
    return made


WAYS = {
    "pairs": {"QuantizeLinear", "DequantizeLinear"},
    "pairs by channel": {"QuantizeLinear", "DequantizeLinear"},
    "operators": {"QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul", "QLinearSoftmax"},
    "dynamic products": {"DynamicQuantizeLinear", "MatMulInteger"},
    "dynamic": {"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore")
def test_quantised_network(way: str, tmp_path: Path) -> None:
    """As imported, and after all passes."""
    path = quantised(tmp_path, way)
    assert {node.op_type for node in onnx.load(path).graph.node} >= WAYS[way]
    (expected,) = run(path.read_bytes(), {"x": PICTURE}, [])
    graph = imported(path)
    if not way.startswith("dynamic"):
        stored = [node for node in graph.nodes if isinstance(node.op, Dequantize) and node.input(0).is_constant]
        assert len(stored) >= 14 and {node.input(0).dtype for node in stored} == {"int8"}
        assert {node.op.dtype for node in graph.nodes if isinstance(node.op, Quantize)} == {"int8"}
    np.testing.assert_allclose(interpret(graph, {"x": PICTURE})["y"], expected, rtol=1e-5, atol=1e-5)
    run_pipeline(recognised(graph), EXACT)
    np.testing.assert_allclose(interpret(graph, {"x": PICTURE})["y"], expected, rtol=1e-5, atol=1e-5)
    assert not any(isinstance(node.op, Dequantize) and node.input(0).is_constant for node in graph.nodes)


FUSED = {
    ("operators", "ORT_ENABLE_ALL"): "QLinearConv",
    ("dynamic", "ORT_ENABLE_EXTENDED"): "MatMulIntegerToFloat",
    ("dynamic products", "ORT_ENABLE_EXTENDED"): "DynamicQuantizeMatMul",
}


@pytest.mark.parametrize(("way", "level"), FUSED)
@pytest.mark.filterwarnings("ignore")
def test_quantised_network_that_was_optimised(way: str, level: str, tmp_path: Path) -> None:
    """Its integers are fused further, and turned to channels last."""
    path = quantised(tmp_path, way)
    (expected,) = run(path.read_bytes(), {"x": PICTURE}, [])
    made = fused.optimised(path, level)
    assert ("com.microsoft", FUSED[way, level]) in {(node.domain, node.op_type) for node in onnx.load(made).graph.node}
    np.testing.assert_allclose(interpret(imported(made), {"x": PICTURE})["y"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_stored_integers_stay_for_back_ends_that_take_them(tmp_path: Path) -> None:
    """Bytes are shared with the file's; scales by output channel sit on the axis of the outputs."""
    graph = imported(quantised(tmp_path, "pairs by channel"))
    FoldConstants(stored=True).apply(graph)
    layers = [node for node in graph.nodes if type(node.op).__name__ == "Linear"]
    stores = [node.input(1).producer for node in layers]
    assert len(stores) == 12
    for store in stores:
        assert store is not None and isinstance(store.op, Dequantize) and store.op.quant.axis == 0
        assert isinstance(store.op.quant.scale, tuple) and len(store.op.quant.scale) == store.input(0).shape[0]
        assert store.input(0).array.dtype == np.int8
    assert sum(isinstance(node.op, Quantize) for node in graph.nodes) > 30


def test_bytes_keep_their_sign_where_somebody_reads_them(tmp_path: Path) -> None:
    """An output, or arithmetic on the integers themselves; what is only moved and meant gets a sign, to the bit."""
    make = helper.make_node
    nodes = [
        make("QuantizeLinear", ["x", "step", "zero"], ["q"], "round"),
        make("Reshape", ["q", "shape"], ["flat"], "flat"),
        make("Split", ["flat"], ["left", "right"], "split", axis=1),
        make("DequantizeLinear", ["left", "step", "zero"], ["a"], "left"),
        make("DequantizeLinear", ["right", "step", "zero"], ["b"], "right"),
        make("QuantizeLinear", ["a", "step", "zero"], ["z"], "read"),
        make("DequantizeLinear", ["z", "step", "zero"], ["c"], "meant"),
    ]
    weights = {"step": scale(0.02), "zero": zero(131), "shape": np.array([2, 8], np.int64)}
    proto = fused.of_nodes(nodes, {"x": draw(4, 4) * 3}, weights, 17, ("b", "c", "z"))
    proto.graph.output[2].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    graph = imported(path)
    rounded = {node.sources: node.op.dtype for node in graph.nodes if isinstance(node.op, Quantize)}
    assert rounded == {("round",): "int8", ("read",): "uint8"}
    feeds = {"x": draw(4, 4) * 3}
    for found, wanted in zip(interpret(graph, feeds).values(), run(path.read_bytes(), feeds, []), strict=True):
        np.testing.assert_array_equal(found, wanted)


def of_integers(kind: str, operands: list[Array], **attributes: Any) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """One operator of ONNX Runtime's on an image of bytes, of which scale and zero point follow it."""
    names = [f"o{i}" for i in range(len(operands))]
    first = next(i for i, each in enumerate(operands) if each.size > 1)
    node = helper.make_node(kind, names, ["y"], "node", domain="com.microsoft", **attributes)
    graph = helper.make_graph(
        [node],
        "integers",
        [helper.make_tensor_value_info(names[first], onnx.TensorProto.UINT8, operands[first].shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, None)],
        [
            numpy_helper.from_array(each, n)
            for i, (n, each) in enumerate(zip(names, operands, strict=True))
            if i != first
        ],
    )
    graph.output[0].type.tensor_type.ClearField("shape")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), {names[first]: operands[first]}


BYTES = np.random.default_rng(1).integers(0, 256, (1, 8, 6, 6)).astype(np.uint8)
OTHER = np.random.default_rng(2).integers(0, 256, (1, 8, 6, 6)).astype(np.uint8)


def scale(step: float) -> Array:
    return np.array(step, np.float32)


def zero(point: int) -> Array:
    return np.array(point, np.uint8)


X = [BYTES, scale(0.02), zero(120)]
FORMS = [
    ("QLinearAdd", [*X, OTHER, scale(0.03), zero(100), scale(0.05), zero(128)], {}),
    ("QLinearMul", [*X, OTHER, scale(0.03), zero(100), scale(0.08), zero(128)], {}),
    ("QLinearSigmoid", [*X, scale(1 / 256), zero(0)], {}),
    ("QLinearLeakyRelu", [*X, scale(0.02), zero(30)], {"alpha": 0.1}),
    ("QLinearGlobalAveragePool", [*X, scale(0.01), zero(128)], {"channels_last": 0}),
    ("QLinearAveragePool", [*X, scale(0.017), zero(128)], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("QLinearConcat", [scale(0.04), zero(110), *X, OTHER, scale(0.03), zero(100)], {"axis": 1}),
    (
        "QGemm",
        [BYTES.reshape(8, 36), *X[1:], OTHER[0, 0, :, :4].reshape(6, 4).repeat(6, 0) // 2, scale(0.01), zero(60),
         np.arange(4, dtype=np.int32) * 500, scale(0.3), zero(128)],
        {},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "operands", "attributes"), FORMS, ids=[form[0] for form in FORMS])
def test_integer_operator(kind: str, operands: list[Array], attributes: dict[str, Any], tmp_path: Path) -> None:
    """Within one step, as ONNX Runtime rounds some of them by tables; nearly all are equal."""
    proto, feeds = of_integers(kind, operands, **attributes)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    (expected,) = run(path.read_bytes(), feeds, [])
    found = interpret(imported(path), feeds)["y"]
    assert found.dtype == expected.dtype and found.shape == expected.shape
    off = np.abs(found.astype(int) - expected.astype(int))
    assert off.max() <= 1 and (off > 0).mean() <= 0.02
