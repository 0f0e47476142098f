"""Operators in every form that files have them: the graph must say what ONNX Runtime says of the same file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgesmith.frontend import imported, load
from edgesmith.frontend.fold import run
from edgesmith.ir.errors import ModelError, Unsupported
from edgesmith.ir.graph import Array
from edgesmith.ir.interpret import run as interpret
from edgesmith.ir.ops.pool import AveragePool

Attributes = dict[str, Any]


def draw(*shape: int, low: float = -2.0, high: float = 2.0) -> Array:
    return np.random.default_rng(sum(shape) + len(shape)).uniform(low, high, shape).astype(np.float32)


def ints(*numbers: int) -> Array:
    return np.asarray(numbers, np.int64)


@dataclass
class Form:
    """One operator as a file may have it: x goes in first, constants after it (None: operand left out)."""

    kind: str
    x: tuple[int, ...]
    constants: Sequence[Array | None] = ()
    attributes: Attributes = field(default_factory=dict)
    opset: int = 17
    outputs: int = 1
    low: float = -2.0

    @property
    def label(self) -> str:
        detail = "_".join(f"{k}={v}" for k, v in self.attributes.items()).replace(" ", "")
        shapes = "_".join("none" if c is None else "x".join(map(str, c.shape)) or "0d" for c in self.constants)
        return f"{self.kind}{self.opset}-{'x'.join(map(str, self.x))}-{shapes}-{detail}"


def of_form(form: Form) -> onnx.ModelProto:
    """The file with that node alone."""
    weights = {f"c{i}": c for i, c in enumerate(form.constants) if c is not None}
    operands = ["x", *("" if c is None else f"c{i}" for i, c in enumerate(form.constants))]
    outputs = [f"y{i}" for i in range(form.outputs)]
    unknown = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [helper.make_node(form.kind, operands, outputs, "the_node", **form.attributes)],
        "form",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, form.x)],
        [onnx.ValueInfoProto(name=name, type=unknown) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", form.opset)], ir_version=8)


def written(folder: Path, proto: onnx.ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


IMAGE = (1, 4, 9, 8)
TABLE = draw(6, 4)
W3 = draw(6, 4, 3, 3)

FORMS = [
    *(
        Form(kind, (2, 3, 5))
        for kind in ("Relu", "Sigmoid", "Tanh", "Erf", "Exp", "Abs", "Neg", "HardSwish", "Identity")
    ),
    *(Form(kind, (2, 3, 5), low=0.1) for kind in ("Sqrt", "Log", "Reciprocal")),
    Form("HardSigmoid", (2, 5)),
    Form("HardSigmoid", (2, 5), attributes={"alpha": 1 / 6, "beta": 0.5}),
    Form("LeakyRelu", (2, 5), attributes={"alpha": 0.2}),
    Form("PRelu", (2, 5), [draw(1)]),
    Form("Gelu", (2, 5), opset=20),
    Form("Gelu", (2, 5), attributes={"approximate": "tanh"}, opset=20),
    Form("Clip", (2, 5), [np.float32(0), np.float32(1)]),
    Form("Clip", (2, 5), [np.float32(0.5), None]),
    Form("Clip", (2, 5), [None, np.float32(0.5)]),
    Form("Clip", (2, 5), [np.float32(0)]),
    Form("Clip", (2, 5)),
    *(Form("Softmax", (2, 3, 5), attributes={"axis": axis}, opset=opset) for axis in (0, 1, -1) for opset in (11, 13)),
    Form("Softmax", (2, 3, 5), opset=11),
    Form("Dropout", (2, 5)),
    Form("Dropout", (2, 5), [np.float32(0.5)]),
    Form("Cast", (2, 5), attributes={"to": TensorProto.FLOAT}),
    # arithmetic
    *(Form(kind, (2, 3, 5), [draw(5, low=0.5)]) for kind in ("Add", "Sub", "Mul", "Div", "Min", "Max")),
    Form("Add", (2, 1, 5), [draw(3, 1)]),
    Form("Mul", IMAGE, [draw(4, 1, 1)]),
    Form("Sum", (2, 5), [draw(5), draw(2, 1)]),
    Form("Pow", (2, 5), [np.float32(2)]),
    Form("Pow", (2, 5), [np.asarray(2, np.int64)]),
    Form("Pow", (2, 5), [np.float32(-0.5)], low=0.5),
    # reductions
    Form("ReduceMean", IMAGE, attributes={"axes": [2, 3], "keepdims": 0}),
    Form("ReduceMean", IMAGE, attributes={"axes": [-1, -2]}),
    Form("ReduceMean", (2, 5, 3), attributes={"axes": [1]}, opset=11),
    Form("ReduceMean", (2, 5, 3), [ints(1)], {"keepdims": 0}, opset=18),
    Form("ReduceMean", (2, 5, 3), opset=18),
    Form("ReduceMean", (2, 5, 3), attributes={"noop_with_empty_axes": 1}, opset=18),
    Form("ReduceSum", (2, 5, 3), attributes={"axes": [1]}, opset=11),
    Form("ReduceSum", (2, 5, 3), [ints(-1)], opset=13),
    Form("ReduceMax", (2, 5, 3), attributes={"axes": [1]}),
    Form("ReduceL2", (2, 5, 3), attributes={"axes": [-1]}),
    Form("GlobalAveragePool", IMAGE),
    Form("GlobalMaxPool", IMAGE),
    # products
    Form("MatMul", (2, 3, 4), [draw(4, 6)]),
    Form("MatMul", (2, 3, 5, 4), [draw(4, 6)]),
    Form("MatMul", (5, 4), [draw(4)]),
    Form("MatMul", (4,), [draw(4, 6)]),
    Form("MatMul", (2, 3, 4), [draw(2, 4, 6)]),
    Form("Gemm", (3, 4), [TABLE, draw(6)], {"transB": 1}),
    Form("Gemm", (3, 4), [draw(4, 6), draw(6)]),
    Form("Gemm", (3, 4), [TABLE], {"transB": 1}),
    Form("Gemm", (4, 3), [draw(4, 6), draw(3, 6)], {"transA": 1, "alpha": 0.5, "beta": 2.0}),
    Form("Gemm", (3, 4), [TABLE, draw(1)], {"transB": 1}),
    Form("Gemm", (3, 4), [TABLE, draw(3, 1)], {"transB": 1}),
    # convolutions
    Form("Conv", IMAGE, [W3, draw(6)], {"pads": [1, 1, 1, 1]}),
    Form("Conv", IMAGE, [W3], {"pads": [0, 1, 2, 0], "strides": [2, 1]}),
    Form("Conv", IMAGE, [draw(4, 1, 3, 3), draw(4)], {"group": 4, "dilations": [2, 2]}),
    Form("Conv", IMAGE, [draw(6, 2, 1, 3)], {"group": 2, "kernel_shape": [1, 3]}),
    *(
        Form("Conv", IMAGE, [W3], {"auto_pad": mode, "strides": strides})
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for strides in ([1, 1], [2, 2], [3, 2])
    ),
    Form("Conv", (1, 4, 9), [draw(6, 2, 3), draw(6)], {"group": 2, "strides": [2], "pads": [1, 0]}),
    Form("Pad", IMAGE, [ints(0, 0, 1, 1, 0, 0, 1, 1)], {"mode": "reflect"}),
    Form("Resize", IMAGE, [None, None, ints(1, 4, 18, 16)], {"mode": "cubic", "exclude_outside": 1}),
    Form("MaxPool", IMAGE, attributes={"kernel_shape": [2, 2], "dilations": [2, 2]}),
    Form("Conv", (1, 4, 5, 5, 5), [draw(6, 4, 3, 3, 3)]),
    Form("ConvTranspose", IMAGE, [draw(4, 5, 2, 2), draw(5)], {"strides": [2, 2]}),
    Form("ConvTranspose", IMAGE, [draw(4, 5, 4, 4)], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Form("ConvTranspose", IMAGE, [draw(4, 2, 3, 3)], {"group": 2, "strides": [2, 1], "output_padding": [1, 0]}),
    Form("ConvTranspose", IMAGE, [draw(4, 5, 1, 1)], {"strides": [3, 2]}),
    Form("ConvTranspose", IMAGE, [draw(4, 5, 3, 3)], {"pads": [1, 2, 0, 1]}),
    # norms
    Form("LayerNormalization", (2, 3, 5), [draw(5), draw(5)], {"epsilon": 1e-6}),
    Form("LayerNormalization", (2, 3, 5), [draw(5)]),
    Form("LayerNormalization", (2, 3, 5), [draw(3, 5), draw(3, 5)], {"axis": 1}),
    Form("RMSNormalization", (2, 3, 5), [draw(5)], opset=23),
    Form("BatchNormalization", IMAGE, [draw(4), draw(4), draw(4), draw(4, low=0.2)]),
    Form("BatchNormalization", (3, 4), [draw(4), draw(4), draw(4), draw(4, low=0.2)], {"epsilon": 1e-3}),
    Form("InstanceNormalization", IMAGE, [draw(4), draw(4)]),
    Form("GroupNormalization", IMAGE, [draw(4), draw(4)], {"num_groups": 2}, opset=21),
    # pools
    Form("MaxPool", IMAGE, attributes={"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Form("MaxPool", IMAGE, attributes={"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    Form("MaxPool", IMAGE, attributes={"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    *(
        Form("AveragePool", IMAGE, attributes={"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": c})
        for c in (0, 1)
    ),
    Form("AveragePool", IMAGE, attributes={"kernel_shape": [2, 2], "strides": [2, 2]}),
    *(
        Form("AveragePool", IMAGE, attributes={"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1, **more})
        for more in ({}, {"count_include_pad": 1})
    ),
    *(Form("Resize", IMAGE, [None, None, ints(1, 4, 18, 24)], {"mode": mode}) for mode in ("nearest", "linear")),
    Form("Resize", IMAGE, [None, np.asarray([1, 1, 2, 2], np.float32)], {"mode": "linear"}),
    Form("Resize", IMAGE, [None, None, ints(1, 4, 20, 5)], {"mode": "cubic"}),
    Form("Resize", IMAGE, [None, np.asarray([1, 1, 2, 2], np.float32)], {"mode": "cubic", "cubic_coeff_a": -0.5}),
    Form("Resize", IMAGE, [None, None, ints(18, 16)], {"mode": "linear", "axes": [2, 3]}, opset=18),
    Form(
        "Resize",
        IMAGE,
        [None, np.asarray([1, 1, 2, 4], np.float32)],
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    Form(
        "Resize",
        IMAGE,
        [None, None, ints(1, 4, 5, 4)],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    # movement
    Form("Reshape", (2, 3, 4), [ints(0, -1)]),
    Form("Reshape", (2, 3, 4), [ints(-1, 2, 2)]),
    Form("Flatten", (2, 3, 4)),
    Form("Flatten", (2, 3, 4), attributes={"axis": 0}),
    Form("Flatten", (2, 3, 4), attributes={"axis": -1}),
    Form("Squeeze", (1, 3, 1, 4), [ints(0, 2)]),
    Form("Squeeze", (1, 3, 1, 4), attributes={"axes": [-2]}, opset=11),
    Form("Squeeze", (1, 3, 1, 4)),
    Form("Unsqueeze", (3, 4), [ints(0, -1)]),
    Form("Unsqueeze", (3, 4), attributes={"axes": [1]}, opset=11),
    Form("Transpose", (2, 3, 4), attributes={"perm": [1, 2, 0]}),
    Form("Transpose", (2, 3, 4)),
    Form("Concat", (2, 3), [draw(2, 1), draw(2, 2)], {"axis": -1}),
    Form("Split", (2, 6), attributes={"axis": 1}, outputs=3, opset=11),
    Form("Split", (2, 6), [ints(1, 5)], {"axis": -1}, outputs=2),
    Form("Split", (2, 6), attributes={"axis": 1, "split": [4, 2]}, outputs=2, opset=11),
    Form("Split", (2, 7), attributes={"axis": 1, "num_outputs": 2}, outputs=2, opset=18),
    Form("Slice", (2, 6, 5), [ints(1), ints(2**63 - 1), ints(1)]),
    Form("Slice", (2, 6, 5), [ints(-3, 0), ints(-1, 5), ints(1, 2), ints(1, 2)]),
    Form("Slice", (2, 6, 5), [ints(-1), ints(-(2**63) + 1), ints(1), ints(-2)]),
    Form("Slice", (2, 6), [ints(0, 1), ints(1, 4)]),
    Form("Gather", (2, 6, 5), [np.asarray(0, np.int64)], {"axis": 1}),
    Form("Gather", (2, 6, 5), [np.asarray(-1, np.int64)], {"axis": -1}),
    Form("Gather", (4, 3), [np.asarray([[0, 3], [1, -1]], np.int64)]),
    Form("Expand", (1, 3, 1), [ints(2, 1, 4)]),
    Form("Tile", (2, 3), [ints(2, 1)]),
    Form("Pad", IMAGE, [ints(0, 0, 1, 2, 0, 0, 3, 0)]),
    Form("Pad", IMAGE, [ints(0, 0, 1, 0, 0, 0, 0, -2), np.float32(1.5)]),
    Form("Pad", IMAGE, [ints(1, 2), None, ints(3)], opset=18),
    Form("DepthToSpace", IMAGE, attributes={"blocksize": 2}),
    Form("DepthToSpace", IMAGE, attributes={"blocksize": 2, "mode": "CRD"}),
    Form("SpaceToDepth", (1, 3, 4, 6), attributes={"blocksize": 2}),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.label)
def test_form_agrees_with_onnx_runtime(form: Form, tmp_path: Path) -> None:
    """Imported op for op and recognised: both within rounding of ONNX Runtime without optimisations."""
    proto = of_form(form)
    x = draw(*form.x, low=form.low)
    expected = run(proto.SerializeToString(), {"x": x}, [])
    path = written(tmp_path, proto)
    for graph in (imported(path), load(path)):
        results = interpret(graph, {"x": x})
        assert list(results) == [f"y{i}" for i in range(form.outputs)]
        for result, wanted in zip(results.values(), expected, strict=True):
            assert result.shape == wanted.shape and result.dtype == wanted.dtype
            np.testing.assert_allclose(result, wanted, rtol=2e-5, atol=1e-5)
        assert all("the_node" in node.sources for node in graph.nodes if node.name == "the_node")


def test_a_border_of_nothing_is_not_counted(tmp_path: Path) -> None:
    """Exporters say count_include_pad of pools without pads; kernels that have no such count must still take them."""
    form = Form("AveragePool", IMAGE, attributes={"kernel_shape": [2, 2], "count_include_pad": 1, "pads": [0] * 4})
    (pool,) = imported(written(tmp_path, of_form(form))).nodes
    assert isinstance(pool.op, AveragePool) and not pool.op.count_include_pad
    form.attributes["pads"] = [1, 0, 0, 0]
    pool = imported(written(tmp_path, of_form(form))).nodes[0]
    assert isinstance(pool.op, AveragePool) and pool.op.count_include_pad


REFUSED = [
    (Form("MaxPool", (1, 2, 3, 3, 3, 3), attributes={"kernel_shape": [2, 2, 2, 2]}), "at most 3"),
    (Form("Cast", (2, 5), attributes={"to": TensorProto.FLOAT16}), "float16"),
    (Form("Dropout", (2, 5), [np.float32(0.5).reshape(()), np.array(True)]), "training_mode"),
]


@pytest.mark.parametrize(("form", "reason"), REFUSED, ids=lambda value: getattr(value, "label", None))
def test_refused_form_names_node_and_form(form: Form, reason: str, tmp_path: Path) -> None:
    """A known operator in an unknown form is Unsupported, by name."""
    with pytest.raises(Unsupported, match=reason) as caught:
        load(written(tmp_path, of_form(form)))
    assert caught.value.where == ("the_node",)


# ---- the cases inside the onnx wheel ----


def as_file(case: Any) -> tuple[onnx.ModelProto, dict[str, Array], list[Array]] | None:
    """A case as a network would have it: data in the first input, parameters as weights; None if it has no numbers."""
    inputs, outputs = case.data_sets[0]
    if not all(
        isinstance(a, (np.ndarray, np.generic)) and np.asarray(a).dtype.kind in "fiub" for a in [*inputs, *outputs]
    ):
        return None
    proto = onnx.ModelProto()
    proto.CopyFrom(case.model)
    names = [each.name for each in proto.graph.input]
    data = [name for name, a in zip(names, inputs, strict=True) if a.dtype == np.float32][:1]
    arrays = dict(zip(names, map(np.asarray, inputs), strict=True))
    if any(0 in a.shape for a in arrays.values()) or not data:
        return None
    kept = [each for each in proto.graph.input if each.name in data]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    proto.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in arrays.items() if name not in data)
    return proto, {name: arrays[name] for name in data}, [np.asarray(a) for a in outputs]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_onnx_backend_cases(tmp_path: Path) -> None:
    """Every case of an operator with a rule is right, or refused by an error of ours; most are right."""
    from onnx.backend.test.case.node import collect_testcases

    from edgesmith.frontend import rules  # noqa: F401
    from edgesmith.frontend.call import RULES

    right, refused, wrong = 0, 0, []
    for case in collect_testcases(None):
        known = case.model is not None and {node.op_type for node in case.model.graph.node} <= RULES.keys()
        content = as_file(case) if known else None
        if content is None:
            continue
        proto, feeds, outputs = content
        try:
            results = interpret(load(written(tmp_path, proto), {name: a.shape for name, a in feeds.items()}), feeds)
        except ModelError:
            refused += 1
            continue
        pairs = list(zip(results.values(), outputs, strict=True))
        good = all(a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True) for a, b in pairs)
        right += good
        wrong += [] if good else [case.name]
    assert wrong == []
    assert right > 2 * refused > 0
