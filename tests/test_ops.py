"""Every float op: type rule equals reference on its own examples, precision is kept, ONNX Runtime agrees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgesmith.ir.errors import ShapeError
from edgesmith.ir.graph import Type
from edgesmith.ir.op import Op
from edgesmith.ir.ops import activation, conv, elementwise, linear, norm, pool, registry, shape
from edgesmith.ir.ops.attention import Attention

FAMILIES = ("activation", "attention", "conv", "elementwise", "linear", "norm", "pool", "shape")
FLOAT = {
    name: cls
    for name, cls in registry().items()
    if cls.__module__.rsplit(".", 1)[1] in FAMILIES
}
CASES = [(f"{name}-{i}", op, arrays) for name, cls in FLOAT.items() for i, (op, arrays) in enumerate(cls.examples())]
each = pytest.mark.parametrize("op, arrays", [case[1:] for case in CASES], ids=[case[0] for case in CASES])


def as_tuple(result: Any) -> tuple:
    return result if isinstance(result, tuple) else (result,)


def types(arrays) -> list[Type | None]:
    return [None if a is None else Type(a.dtype.name, a.shape) for a in arrays]


def in_double(arrays) -> list:
    return [a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for a in arrays]


def test_all_families_are_here() -> None:
    assert {cls.__module__.rsplit(".", 1)[1] for cls in FLOAT.values()} == set(FAMILIES)


@each
def test_type_rule_says_what_the_reference_makes(op: Op, arrays) -> None:
    for given in (arrays, in_double(arrays)):
        inferred, computed = as_tuple(op.infer(*types(given))), as_tuple(op.reference(*given))
        assert [(t.dtype, t.shape) for t in inferred] == [(a.dtype.name, a.shape) for a in computed]
        assert all(isinstance(a, np.ndarray) for a in computed)


@each
def test_double_precision_is_double(op: Op, arrays) -> None:
    single, double = as_tuple(op.reference(*arrays)), as_tuple(op.reference(*in_double(arrays)))
    for a, b in zip(single, double, strict=True):
        scale = np.abs(b).max()
        assert np.abs(a - b).max() <= 2e-5 * scale
    if isinstance(op, linear.Linear | norm.LayerNorm | activation.Gelu | Attention):
        assert any(np.any(a != b) for a, b in zip(single, double, strict=True))


@each
def test_reference_leaves_its_operands_alone(op: Op, arrays) -> None:
    kept = [None if a is None else a.copy() for a in arrays]
    op.reference(*arrays)
    assert all(a is None or np.array_equal(a, k) for a, k in zip(arrays, kept, strict=True))


@each
def test_attributes_are_hashable_and_rebuild_the_op(op: Op, arrays) -> None:
    assert hash(op) == hash(type(op)(**op.attributes()))
    assert op == dataclasses.replace(op)


# ---- against ONNX Runtime ----

Made = tuple[str, list, dict[str, Any]]


def ints(values) -> np.ndarray:
    return np.array(values, np.int64)


def window(op, x) -> Made:
    shared = {"kernel_shape": op.kernel, "strides": op.strides, "pads": op.pads, "ceil_mode": int(op.ceil_mode)}
    if isinstance(op, pool.AveragePool):
        return "AveragePool", [x], shared | {"count_include_pad": int(op.count_include_pad)}
    return "MaxPool", [x], shared


def layer_norm(op, x, g=None, b=None) -> Made:
    g = np.ones(x.shape[-1], x.dtype) if g is None else g
    return "LayerNormalization", [x, g, *([] if b is None else [b])], {"axis": -1, "epsilon": op.eps}


def group_norm(op, x, g=None, b=None) -> Made:
    g = np.ones(x.shape[1], x.dtype) if g is None else g
    b = np.zeros(x.shape[1], x.dtype) if b is None else b
    return "GroupNormalization", [x, g, b], {"num_groups": op.groups, "epsilon": op.eps}


def convolution(op, x, w, b=None) -> Made:
    attributes = {"strides": op.strides, "pads": op.pads, "dilations": op.dilations, "group": op.groups}
    return "Conv", [x, w, *([] if b is None else [b])], attributes


def resize(op, x) -> Made:
    sizes = ints([*x.shape[:2], *op.size])
    attributes = {"coordinate_transformation_mode": op.coordinates, "mode": op.mode}
    return "Resize", [x, None, None, sizes], attributes | {"nearest_mode": op.nearest}


def plain(name: str) -> Callable[..., Made]:
    return lambda op, *arrays: (name, list(arrays), {})


def reduction(name: str) -> Callable[..., Made]:
    return lambda op, x: (name, [x, ints(op.axes)], {"keepdims": int(op.keepdims)})


SAME = [
    *(activation.Erf, activation.Exp, activation.Log, activation.Sqrt, activation.Reciprocal, activation.Neg),
    *(activation.Abs, activation.Sigmoid, activation.Tanh, activation.Relu, activation.HardSwish),
    *(elementwise.Add, elementwise.Sub, elementwise.Mul, elementwise.Div, elementwise.Pow, linear.MatMul),
]
"""Ops that ONNX has under the same name, without attributes."""

ONNX: dict[type[Op], Callable[..., Made]] = {
    **{cls: plain(cls.__name__) for cls in SAME},
    elementwise.Minimum: plain("Min"),
    elementwise.Maximum: plain("Max"),
    activation.HardSigmoid: lambda op, x: ("HardSigmoid", [x], {"alpha": op.alpha, "beta": op.beta}),
    activation.LeakyRelu: lambda op, x: ("LeakyRelu", [x], {"alpha": op.alpha}),
    activation.Clip: lambda op, x: ("Clip", [x, np.float32(op.minimum), np.float32(op.maximum)], {}),
    activation.Gelu: lambda op, x: ("Gelu", [x], {"approximate": op.approximate}),
    activation.Softmax: lambda op, x: ("Softmax", [x], {"axis": op.axis}),
    linear.Linear: lambda op, x, w, b=None: ("Gemm", [x, w, *([] if b is None else [b])], {"transB": 1}),
    conv.Conv: convolution,
    norm.LayerNorm: layer_norm,
    norm.GroupNorm: group_norm,
    norm.BatchNorm: lambda op, *arrays: ("BatchNormalization", list(arrays), {"epsilon": op.eps}),
    pool.MaxPool: window,
    pool.AveragePool: window,
    pool.Mean: reduction("ReduceMean"),
    pool.Sum: reduction("ReduceSum"),
    pool.ReduceMax: reduction("ReduceMax"),
    shape.Reshape: lambda op, x: ("Reshape", [x, ints(op.shape)], {}),
    shape.Expand: lambda op, x: ("Expand", [x, ints(op.shape)], {}),
    shape.Transpose: lambda op, x: ("Transpose", [x], {"perm": op.perm}),
    shape.Concat: lambda op, *arrays: ("Concat", list(arrays), {"axis": op.axis}),
    shape.Slice: lambda op, x: ("Slice", [x, *map(ints, (op.starts, op.ends, op.axes, op.steps))], {}),
    shape.Split: lambda op, x: ("Split", [x, ints(op.sizes)], {"axis": op.axis}),
    shape.Gather: lambda op, x, i: ("Gather", [x, i], {"axis": op.axis}),
    shape.Pad: lambda op, x: ("Pad", [x, ints(op.pads), np.float32(op.value)], {}),
    shape.Resize: resize,
}
WITHOUT = {"Affine", "Attention", "PatchEmbed", "RepNorm", "RMSNorm", "Silu"}
"""Ops of ours that ONNX spells with several nodes, or has only in opsets that few runtimes read."""


def runs_in_onnx(op: Op, arrays) -> bool:
    """Whether this very case has a direct counterpart."""
    if isinstance(op, linear.Linear):
        return arrays[0].ndim == 2
    if isinstance(op, norm.BatchNorm):
        return type(op) is norm.BatchNorm and op.axis == 1
    return not (isinstance(op, activation.Gelu) and op.approximate == "sigmoid")


COMPARED = [case for case in CASES if type(case[1]) in ONNX and runs_in_onnx(*case[1:])]


def onnx_runtime(kind: str, arrays, attributes: dict[str, Any], outputs: int) -> list[np.ndarray]:
    """The result of a model of one node."""
    import onnxruntime

    named = [("" if a is None else f"i{i}", a) for i, a in enumerate(arrays)]
    constants = [numpy_helper.from_array(np.asarray(a), name) for name, a in named if a is not None]
    names = [f"o{i}" for i in range(outputs)]
    node = helper.make_node(kind, [name for name, _ in named], names, **attributes)
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names]
    graph = helper.make_graph([node], "one", [], ports, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {})


@pytest.mark.parametrize("op, arrays", [case[1:] for case in COMPARED], ids=[case[0] for case in COMPARED])
def test_reference_agrees_with_onnx_runtime(op: Op, arrays) -> None:
    expected = as_tuple(op.reference(*arrays))
    kind, operands, attributes = ONNX[type(op)](op, *arrays)
    actual = onnx_runtime(kind, operands, attributes, len(expected))
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= 1e-5 * max(np.abs(b).max(), 1e-3)


def test_every_op_is_compared_or_named_as_ours() -> None:
    assert {name for name, cls in FLOAT.items() if cls not in ONNX} == WITHOUT
    assert {type(op) for _, op, _ in COMPARED} == set(ONNX)


# ---- refusals of the type rules, and costs ----

x234 = Type("float32", (2, 3, 4))
MISFITS = {
    "x has 4 features, the weight expects 5": (linear.Linear(), x234, Type("float32", (6, 5))),
    "bias must be": (linear.Linear(), x234, Type("float32", (6, 4)), Type("float32", (5,))),
    "inner sizes differ": (linear.MatMul(), x234, x234),
    "do not broadcast": (elementwise.Add(), x234, Type("float32", (3, 3))),
    "operands have dtypes": (elementwise.Add(), x234, Type("int64", (4,))),
    "expects vectors of 4": (norm.LayerNorm(), x234, Type("float32", (3,))),
    "does not reshape": (shape.Reshape((5, 5)), x234),
    "is no permutation": (shape.Transpose((0, 1)), x234),
    "do not add up to 3": (shape.Split(1, (1, 1)), x234),
    "does not broadcast to": (shape.Expand((2, 5, 4)), x234),
    "does not fit the padded image": (conv.Conv(), Type("float32", (1, 1, 2, 2)), Type("float32", (1, 1, 3, 3))),
    "does not divide into 2 groups": (norm.GroupNorm(2), x234),
    "channels do not divide into 3 heads": (Attention(3), x234, x234, x234),
    "approximate must be one of": (activation.Gelu("best"), x234),
    "are empty or repeat": (pool.Mean((1, -2)), x234),
}


@pytest.mark.parametrize("complaint", MISFITS)
def test_type_rule_refuses_what_does_not_fit(complaint: str) -> None:
    op, *operands = MISFITS[complaint]
    with pytest.raises(ShapeError, match=complaint):
        op.infer(*operands)


def test_macs_follow_their_formulas() -> None:
    image, kernel = Type("float32", (1, 4, 8, 8)), Type("float32", (6, 2, 3, 3))
    assert conv.Conv((2, 2), (1, 1, 1, 1), (1, 1), 2).macs(image, kernel) == 4 * 4 * 6 * 2 * 9
    assert linear.Linear().macs(x234, Type("float32", (5, 4))) == 2 * 3 * 5 * 4
    q, kv = Type("float32", (1, 5, 8)), Type("float32", (1, 7, 8))
    assert Attention(2).macs(q, kv, kv) == 2 * 5 * 7 * 8
    assert activation.Relu().macs(x234) == 0
