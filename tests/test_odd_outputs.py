"""Outputs that no layer makes, and numbers near the ends of float32: models that are legal and unusual."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

import edgesmith
from edgesmith.ir.errors import ModelError

pytestmark = pytest.mark.compiler
SHAPE = [1, 4, 6]


def onnx_model(folder, nodes, outputs, weights=(), shape=SHAPE):
    """A file with the input x of `shape` and outputs of these names and shapes."""
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in outputs]
    stored = [numpy_helper.from_array(array, name) for name, array in weights]
    steps = [helper.make_node(*node, **attributes) for *node, attributes in nodes]
    graph = helper.make_graph(steps, "odd", given, made, stored)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "odd.onnx")
    return folder / "odd.onnx"


def weight(scale=1.0):
    return ("w", (np.random.default_rng(0).standard_normal((6, 6)) * scale).astype(np.float32))


TABLE = ("table", np.linspace(-1, 1, 5, dtype=np.float32))
MODELS = {
    "the input itself": ([("Identity", ["x"], ["y"], {})], [("y", SHAPE)], ()),
    "one value in two layouts": (
        [("MatMul", ["x", "w"], ["y"], {}), ("Transpose", ["y"], ["z"], {"perm": [0, 2, 1]})],
        [("y", SHAPE), ("z", [1, 6, 4])],
        (weight(),),
    ),
    "a constant beside a layer": (
        [("MatMul", ["x", "w"], ["y"], {}), ("Identity", ["table"], ["z"], {})],
        [("y", SHAPE), ("z", [5])],
        (weight(), TABLE),
    ),
    "nearly nothing": ([("MatMul", ["x", "w"], ["y"], {})], [("y", SHAPE)], (weight(1e-20),)),
}


@pytest.mark.parametrize("dtype", ["int8", "float32"])
@pytest.mark.parametrize("name", MODELS)
def test_an_unusual_output_compiles(tmp_path, name, dtype):
    model = onnx_model(tmp_path, *MODELS[name])
    found = edgesmith.compile(model, "host", out=tmp_path / "out", dtype=dtype)
    assert found.verification[-1]["cosine"] > 0.999
    assert [each["name"] for each in found.manifest["outputs"]] == [name for name, _ in MODELS[name][1]]


def test_a_batch_is_refused_by_name(tmp_path):
    model = onnx_model(tmp_path, [("MatMul", ["x", "w"], ["y"], {})], [("y", [2, 4, 6])], (weight(),), shape=[2, 4, 6])
    with pytest.raises(ModelError, match="more than one sample") as refused:
        edgesmith.compile(model, "host", out=tmp_path / "out")
    assert refused.value.where == ("x",) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["host", "onnx"])
@pytest.mark.parametrize(("shape", "kind", "words"), [([1, 0, 6], 1, "holds nothing"), ([1, 4, 6], 3, "float32")])
def test_inputs_that_hold_nothing_or_bytes_are_refused_by_name(tmp_path, target, shape, kind, words):
    ends = [helper.make_tensor_value_info(name, kind, shape) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save(model, tmp_path / "odd.onnx")
    with pytest.raises(ModelError, match=words) as refused:
        edgesmith.compile(tmp_path / "odd.onnx", target, out=tmp_path / "out")
    assert refused.value.where == ("x",) and not (tmp_path / "out").exists()


def test_weights_that_overflow_when_folded_are_refused(tmp_path):
    large = ("w", np.full((6, 6), 1e30, np.float32))
    nodes = [("MatMul", ["x", "w"], ["m"], {}), ("Mul", ["m", "s"], ["y"], {})]
    model = onnx_model(tmp_path, nodes, [("y", SHAPE)], (large, ("s", np.float32(1e30).reshape(()))))
    with pytest.raises(ModelError, match="overflows"):
        edgesmith.compile(model, "host", out=tmp_path / "out", calibration=np.zeros(SHAPE, np.float32))
    with pytest.raises(ModelError, match="NaN or infinite") as refused:
        edgesmith.compile(model, "host", out=tmp_path / "out")
    assert refused.value.where == ("y",) and "ONNX Runtime" in refused.value.why
