"""What ONNX Runtime's optimisers write: each fused operator is what that runtime says it is, and whole networks too."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgesmith.frontend import imported, load
from edgesmith.frontend.fold import run
from edgesmith.ir.errors import Unsupported
from edgesmith.ir.graph import Array
from edgesmith.ir.interpret import run as interpret


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed + sum(shape)).uniform(-1, 1, shape).astype(np.float32)


def of_nodes(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Array],
    weights: dict[str, Array],
    opset: int = 17,
    outputs: Sequence[str] = ("y",),
) -> onnx.ModelProto:
    unknown = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    graph = helper.make_graph(
        nodes,
        "test",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in inputs.items()
        ],
        [onnx.ValueInfoProto(name=name, type=unknown) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@dataclass
class Fused:
    """One operator: x goes in first, then constants (None: operand left out)."""

    kind: str
    x: Array
    constants: Sequence[Array | None] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    domain: str = "com.microsoft"
    outputs: Sequence[str] = ("y",)
    opset: int = 17

    def model(self) -> onnx.ModelProto:
        weights = {f"c{i}": c for i, c in enumerate(self.constants) if c is not None}
        operands = ["x", *("" if c is None else f"c{i}" for i, c in enumerate(self.constants))]
        node = helper.make_node(self.kind, operands, self.outputs, "fused", domain=self.domain, **self.attributes)
        return of_nodes([node], {"x": self.x}, weights, self.opset, [name for name in self.outputs if name])


T = draw(2, 5, 12)
IMAGE = draw(1, 4, 6, 7)
KERNEL = draw(6, 4, 3, 3)
ROW = draw(12)
MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)

FUSED = [
    Fused("Gelu", T),
    Fused("BiasGelu", T, [ROW]),
    Fused("FastGelu", T),
    Fused("FastGelu", T, [ROW]),
    *(Fused("QuickGelu", T, attributes={"alpha": alpha}) for alpha in (1.0, 1.702, 0.7)),
    Fused("QuickGelu", T),
    Fused("SkipLayerNormalization", T, [draw(2, 5, 12, seed=1), ROW]),
    Fused("SkipLayerNormalization", T, [draw(2, 5, 12, seed=1), ROW, draw(12, seed=2)], {"epsilon": 1e-3}),
    Fused("SkipLayerNormalization", T, [draw(5, 12), ROW, None, draw(12, seed=2)], outputs=("y", "", "", "z")),
    Fused("SkipSimplifiedLayerNormalization", T, [draw(2, 5, 12, seed=1), ROW], {"epsilon": 1e-3}),
    Fused("SimplifiedLayerNormalization", T, [ROW], {"axis": -1, "epsilon": 1e-3}, ""),
    *(Fused("LayerNormalization", T, [ROW, ROW], {"axis": -1}, "", opset=opset) for opset in (11, 16, 17)),
    Fused("FusedMatMul", T, [draw(2, 12, 3)], {"alpha": 0.5}),
    Fused("FusedMatMul", T, [draw(2, 3, 12)], {"transB": 1}),
    Fused("FusedMatMul", T, [draw(2, 5, 3)], {"transA": 1, "alpha": 2.0}),
    Fused("FusedMatMul", T, [draw(12, 3)]),
    *(
        Fused("FusedConv", IMAGE, [KERNEL, draw(6)], {"activation": name, "pads": [1] * 4, **numbers})
        for name, numbers in (
            ("Relu", {}),
            ("LeakyRelu", {"activation_params": [0.2]}),
            ("Clip", {"activation_params": [0.0, 0.5]}),
            ("HardSigmoid", {"activation_params": [0.3, 0.4]}),
        )
    ),
    Fused("FusedConv", IMAGE, [KERNEL, draw(6), draw(1, 6, 4, 5)], {"activation": "Relu"}),
    Fused("FusedGemm", draw(3, 4), [draw(4, 6), draw(6)], {"activation": "Relu"}),
    Fused(
        "FusedGemm",
        draw(3, 4),
        [draw(6, 4), draw(6)],
        {"activation": "LeakyRelu", "activation_alpha": 0.2, "transB": 1},
    ),
    Fused("Attention", T, [draw(12, 36), draw(36)], {"num_heads": 3}),
    Fused("Attention", T, [draw(12, 36), draw(36)], {"num_heads": 3, "unidirectional": 1}),
    Fused("Attention", T, [draw(12, 36), draw(36), MASK], {"num_heads": 3, "scale": 0.7}),
    Fused("Attention", T, [draw(12, 36), draw(36), None, None, draw(2, 3, 5, 5)], {"num_heads": 3}),
    Fused("Attention", T, [draw(12, 42), draw(42)], {"num_heads": 3, "qkv_hidden_sizes": [12, 12, 18]}),
    Fused("MultiHeadAttention", T, [draw(2, 4, 12), draw(2, 4, 12, seed=1)], {"num_heads": 3}),
    Fused("MultiHeadAttention", T, [T, draw(2, 5, 12, seed=1), draw(36)], {"num_heads": 2, "scale": 0.4}),
    Fused("MultiHeadAttention", T, [T, T, None, MASK], {"num_heads": 3}),
    Fused("MultiHeadAttention", T, [T, T, None, None, draw(1, 3, 5, 5)], {"num_heads": 3}),
]


@pytest.mark.parametrize("form", FUSED, ids=lambda form: form.kind)
def test_fused_operator_agrees_with_onnx_runtime(form: Fused, tmp_path: Path) -> None:
    """Op for op and recognised."""
    path = tmp_path / "model.onnx"
    path.write_bytes(form.model().SerializeToString())
    expected = run(path.read_bytes(), {"x": form.x}, [])
    for graph in (imported(path), load(path)):
        for found, wanted in zip(interpret(graph, {"x": form.x}).values(), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


REFUSED = [
    (Fused("FusedConv", IMAGE, [KERNEL], {"activation": "Softsign"}), "Softsign"),
    (Fused("FusedMatMul", T, [draw(12, 3)], {"transBatchA": 1}), "batches"),
    (Fused("GroupQueryAttention", T, [T, T]), "com.microsoft.GroupQueryAttention"),
]


@pytest.mark.parametrize(("form", "reason"), REFUSED, ids=lambda value: getattr(value, "kind", None))
def test_refused_by_name(form: Fused, reason: str, tmp_path: Path) -> None:
    """Forms and operators that are not taken apart."""
    path = tmp_path / "model.onnx"
    path.write_bytes(form.model().SerializeToString())
    with pytest.raises(Unsupported, match=reason) as caught:
        load(path)
    assert caught.value.where == ("fused",)


# ---- whole networks ----


@dataclass
class Writer:
    """A network written node by node, as exporters do."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)
    numbers: Any = field(default_factory=count)

    def weight(self, array: Array) -> str:
        name = f"w{next(self.numbers)}"
        self.weights[name] = array
        return name

    def add(self, kind: str, *operands: str | Array, **attributes: Any) -> str:
        names = [self.weight(each) if isinstance(each, np.ndarray) else each for each in operands]
        output = f"t{next(self.numbers)}"
        self.nodes.append(helper.make_node(kind, names, [output], f"n{output}", **attributes))
        return output

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        seed = next(self.numbers)
        product = self.add("MatMul", x, draw(inputs, outputs, seed=seed) / np.float32(math.sqrt(inputs)))
        return self.add("Add", product, draw(outputs, seed=seed) / np.float32(10))

    def norm(self, x: str, width: int) -> str:
        return self.add("LayerNormalization", x, 1 + draw(width) / 4, draw(width, seed=1), epsilon=1e-5)

    def heads(self, x: str, perm: list[int]) -> str:
        return self.add("Transpose", self.add("Reshape", x, np.array([0, -1, 2, 8], np.int64)), perm=perm)

    def block(self, x: str) -> str:
        normed = self.norm(x, 16)
        q, k, v = (self.linear(normed, 16, 16) for _ in range(3))
        q, k, v = self.heads(q, [0, 2, 1, 3]), self.heads(k, [0, 2, 3, 1]), self.heads(v, [0, 2, 1, 3])
        scores = self.add("Mul", self.add("MatMul", q, k), np.array(8**-0.5, np.float32))
        mixed = self.add("MatMul", self.add("Softmax", scores, axis=-1), v)
        joined = self.add("Reshape", self.add("Transpose", mixed, perm=[0, 2, 1, 3]), np.array([0, -1, 16], np.int64))
        x = self.add("Add", self.linear(joined, 16, 16), x)
        hidden = self.linear(self.norm(x, 16), 16, 32)
        erf = self.add("Erf", self.add("Div", hidden, np.array(math.sqrt(2), np.float32)))
        bent = self.add("Mul", hidden, self.add("Add", erf, np.array(1, np.float32)))
        gelu = self.add("Mul", bent, np.array(0.5, np.float32))
        return self.add("Add", self.linear(gelu, 32, 16), x)


PICTURE = draw(1, 3, 16, 16)


def vit() -> onnx.ModelProto:
    """Two blocks of a ViT on 16 patches, with a convolution and its ReLU in front."""
    net = Writer()
    stem = net.add("Relu", net.add("Conv", "x", draw(16, 3, 3, 3) / 3, draw(16), pads=[1] * 4))
    patches = net.add("Conv", stem, draw(16, 16, 4, 4) / 12, draw(16), strides=[4, 4])
    x = net.add("Transpose", net.add("Reshape", patches, np.array([0, 16, -1], np.int64)), perm=[0, 2, 1])
    x = net.norm(net.block(net.block(x)), 16)
    net.nodes[-1].output[0] = "y"
    return of_nodes(net.nodes, {"x": PICTURE}, net.weights)


def optimised(path: Path, level: str) -> Path:
    """What ONNX Runtime saves at a level, or its tool for transformers makes of a model."""
    made = path.with_name(f"{level}.onnx")
    if level == "tool":
        from onnxruntime.transformers.optimizer import optimize_model

        optimize_model(str(path), "vit", num_heads=2, hidden_size=16, opt_level=0).save_model_to_file(str(made))
        return made
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(made)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return made


EXPECTED = {
    "ORT_ENABLE_EXTENDED": {"FusedConv", "Gelu", "FusedMatMul"},
    "tool": {"SkipLayerNormalization", "BiasGelu"},
}


@pytest.mark.parametrize("level", EXPECTED)
def test_optimised_network_is_the_original(level: str, tmp_path: Path) -> None:
    """Its fused operators are there, its numbers are the same, and its blocks are recognised all the same."""
    path = tmp_path / "model.onnx"
    path.write_bytes(vit().SerializeToString())
    (expected,) = run(path.read_bytes(), {"x": PICTURE}, [])
    made = optimised(path, level)
    assert {node.op_type for node in onnx.load(made).graph.node} >= EXPECTED[level]
    graph = load(made)
    np.testing.assert_allclose(interpret(graph, {"x": PICTURE})["y"], expected, rtol=1e-4, atol=1e-5)
    kinds = Counter(type(node.op).__name__ for node in graph.nodes)
    assert (kinds["Attention"], kinds["Gelu"], kinds["LayerNorm"], kinds["Softmax"]) == (2, 2, 5, 0)


def test_layouts_of_one_processor_are_refused_with_a_way_out(tmp_path: Path) -> None:
    """The highest level writes convolutions for the vector registers at hand."""
    path = tmp_path / "model.onnx"
    path.write_bytes(vit().SerializeToString())
    made = optimised(path, "ORT_ENABLE_ALL")
    if not any(node.domain == "com.microsoft.nchwc" for node in onnx.load(made).graph.node):
        pytest.skip("ONNX Runtime has no such convolutions for this processor")
    with pytest.raises(Unsupported, match="layout of one processor") as caught:
        load(made)
    assert "ORT_ENABLE_EXTENDED" in caught.value.do


def test_control_flow_and_lists_are_refused_with_a_reason(tmp_path: Path) -> None:
    """Each kind has its own."""
    nodes = [
        helper.make_node("SequenceConstruct", ["x", "x"], ["s"], "list"),
        helper.make_node("ConcatFromSequence", ["s"], ["y"], "joined", axis=0),
    ]
    path = tmp_path / "model.onnx"
    path.write_bytes(of_nodes(nodes, {"x": ROW}, {}).SerializeToString())
    with pytest.raises(Unsupported, match="lists of tensors") as caught:
        load(path)
    assert "stack" in caught.value.do and caught.value.where == ("list", "joined")
