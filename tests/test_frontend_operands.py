"""Operators whose operands are all computed at run time: nothing may lean on a weight being known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgesmith.frontend import imported, load
from edgesmith.frontend.fold import run
from edgesmith.ir.graph import Array
from edgesmith.ir.interpret import run as interpret


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed + sum(shape)).uniform(-2, 2, shape).astype(np.float32)


def ints(*rows: Any) -> Array:
    return np.asarray(rows, np.int64)


def of_node(
    kind: str, operands: Sequence[Array], weights: dict[int, Array] | None = None, opset: int = 18, **attributes: Any
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """One node; operands are inputs of the model but for those given as weights by position (None: left out)."""
    weights = weights or {}
    feeds = {f"x{i}": array for i, array in enumerate(operands)}
    names = list(feeds)
    for position, array in sorted(weights.items()):
        names.insert(position, "" if array is None else f"w{position}")
    graph = helper.make_graph(
        [helper.make_node(kind, names, ["y"], "node", **attributes)],
        "operands",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in feeds.items()],
        [onnx.ValueInfoProto(name="y", type=helper.make_tensor_type_proto(TensorProto.FLOAT, None))],
        [numpy_helper.from_array(array, f"w{i}") for i, array in weights.items() if array is not None],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), feeds


IMAGE = draw(2, 4, 7, 6)
ROWS = ints([[0, 1], [1, -1], [0, 0]])[0]
ONCE = ints([0, 2], [3, 1])

FORMS: list[tuple[str, list[Array], dict[str, Any]]] = [
    *(
        ("Einsum", operands, {"equation": equation})
        for equation, operands in {
            "ij,jk->ik": [draw(3, 4), draw(4, 5)],
            "bij,bjk->bik": [draw(2, 3, 4), draw(2, 4, 5)],
            "bhid,bhjd->bhij": [draw(2, 2, 3, 4), draw(2, 2, 5, 4)],
            "bhij,bhjd->bihd": [draw(2, 2, 3, 5), draw(2, 2, 5, 4)],
            "...ij,jk->...ik": [draw(2, 3, 4), draw(4, 5)],
            "ij->ji": [draw(3, 4)],
            "ij->i": [draw(3, 4)],
            "ii->i": [draw(4, 4)],
            "i,j->ij": [draw(3), draw(4)],
            "bij,bij->b": [draw(2, 3, 4), draw(2, 3, 4, seed=1)],
            "bnd,nd->bnd": [draw(2, 3, 4), draw(3, 4)],
            "nchw,nkhw->nck": [draw(2, 3, 4, 5), draw(2, 2, 4, 5)],
            "ij,jk,kl->il": [draw(2, 3), draw(3, 4), draw(4, 2)],
            "ij,jk": [draw(3, 4), draw(4, 5)],
        }.items()
    ),
    *(
        ("ScatterElements", [draw(4, 3), ints([0, 1, 2], [3, -2, 1]), draw(2, 3)], {"reduction": reduction})
        for reduction in ("none", "add", "mul", "max", "min")
    ),
    ("ScatterElements", [draw(3, 5), ints([0, 4], [1, 3], [-1, 2]), draw(3, 2)], {"axis": 1}),
    *(
        ("ScatterND", [draw(4, 5, 3), ONCE, draw(2, 3)], {"reduction": reduction})
        for reduction in ("none", "add", "mul", "max", "min")
    ),
    ("ScatterND", [draw(4, 3), ints([2], [0]), draw(2, 3)], {}),
    ("GatherElements", [draw(4, 3), ints([0, 1, 2], [3, -2, 1])], {"axis": 0}),
    ("GatherND", [draw(2, 3, 4), ROWS], {}),
    ("GatherND", [draw(2, 3, 4), ints([1], [-1])], {"batch_dims": 1}),
    ("Gather", [draw(5, 3), ints([0, -1], [2, 4])], {"axis": 0}),
    ("Conv", [IMAGE, draw(6, 4, 3, 3), draw(6)], {"pads": [1, 0, 1, 2]}),
    ("Conv", [IMAGE, draw(4, 1, 3, 3)], {"group": 4, "strides": [2, 1]}),
    ("Conv", [draw(2, 4, 9), draw(6, 2, 3)], {"group": 2, "dilations": [2]}),
    ("Conv", [draw(1, 2, 4, 5, 5), draw(3, 2, 2, 3, 3)], {"strides": [2, 1, 1]}),
    ("ConvTranspose", [IMAGE, draw(4, 3, 3, 3), draw(6)], {"group": 2, "strides": [2, 2], "output_padding": [1, 0]}),
    ("ConvTranspose", [draw(1, 3, 6), draw(3, 2, 4)], {"strides": [3], "pads": [1, 2]}),
    ("MatMul", [draw(2, 3, 4), draw(4)], {}),
    ("MatMul", [draw(4), draw(4, 2)], {}),
    ("MatMul", [draw(2, 1, 3, 4), draw(5, 4, 2)], {}),
    ("Gemm", [draw(4, 3), draw(5, 4), draw(3, 1)], {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("PRelu", [IMAGE, draw(4, 1, 1)], {}),
    ("LayerNormalization", [draw(2, 3, 4), draw(4), draw(4)], {}),
    ("GroupNormalization", [IMAGE, draw(2), draw(2)], {"num_groups": 2}),
    ("BatchNormalization", [IMAGE, draw(4), draw(4), draw(4), np.abs(draw(4)) + 1], {}),
    ("Clip", [IMAGE, np.array(-1, np.float32), np.array(0.5, np.float32)], {}),
    ("Where", [draw(3, 4) > 0, draw(3, 1), draw(4)], {}),
]


@pytest.mark.parametrize(("kind", "operands", "attributes"), FORMS, ids=[f"{i}-{f[0]}" for i, f in enumerate(FORMS)])
def test_everything_is_computed(kind: str, operands: list[Array], attributes: dict[str, Any], tmp_path: Path) -> None:
    """As imported and as recognised, against ONNX Runtime."""
    operands = [np.asarray(each) for each in operands]
    proto, feeds = of_node(kind, operands, **attributes)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    (expected,) = run(path.read_bytes(), feeds, [])
    for graph in (imported(path), load(path)):
        found = interpret(graph, feeds)["y"]
        assert found.shape == expected.shape and found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


# ---- masks of attention ----

Q, K, V = draw(1, 2, 4, 8), draw(1, 2, 5, 8, seed=1), draw(1, 2, 5, 8, seed=2)


def attention(mask: Array) -> Array:
    """With minus infinity where the mask says no, rows of nothing but that being zero."""
    scores = np.where(mask, Q @ K.transpose(0, 1, 3, 2) * np.float32(8**-0.5), np.float32(-np.inf))
    top = scores.max(axis=-1, keepdims=True)
    weights = np.where(top == -np.inf, np.float32(0), np.exp(scores - np.where(top == -np.inf, np.float32(0), top)))
    sums = weights.sum(axis=-1, keepdims=True)
    return weights / np.where(sums == 0, np.float32(1), sums) @ V


MASKS = {
    "some keys": np.array([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]], bool),
    "no key for one": np.array([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]], bool),
}


@pytest.mark.parametrize("known", [True, False], ids=["constant", "computed"])
@pytest.mark.parametrize("name", MASKS)
def test_masks_are_minus_infinity_to_the_last_bit(name: str, known: bool, tmp_path: Path) -> None:
    """A large negative number stands in for it only where that changes nothing; who may see nothing, gets nothing."""
    mask = MASKS[name]
    operands = [Q, K, V] if known else [Q, K, V, mask]
    proto, feeds = of_node("Attention", operands, {3: mask} if known else {}, opset=24)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    found = interpret(imported(path), feeds)["y"]
    np.testing.assert_array_equal(found, attention(mask))
    (expected,) = ReferenceEvaluator(proto).run(None, feeds)
    np.testing.assert_allclose(found, np.nan_to_num(expected), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(interpret(load(path), feeds)["y"], found, rtol=1e-5, atol=1e-6)
