"""Control flow that is decided and recurrent layers of known length are written out, with ONNX Runtime's numbers."""

from __future__ import annotations

from collections.abc import Sequence
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

make = helper.make_node
FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed + sum(shape)).uniform(-1, 1, shape).astype(np.float32)


def port(name: str, kind: int = FLOAT, shape: Sequence[int] | None = None) -> onnx.ValueInfoProto:
    return onnx.ValueInfoProto(name=name, type=helper.make_tensor_type_proto(kind, shape))


def body(
    nodes: Sequence[onnx.NodeProto],
    outputs: Sequence[str],
    inputs: Sequence[onnx.ValueInfoProto] = (),
    **weights: Array,
) -> onnx.GraphProto:
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    kinds = [BOOL if name.startswith("on") else FLOAT for name in outputs]
    ports = [port(name, kind) for name, kind in zip(outputs, kinds, strict=True)]
    return helper.make_graph(nodes, "body", inputs, ports, tensors)


def file(
    folder: Path, nodes: Sequence[onnx.NodeProto], x: Sequence[int], weights: dict[str, Array],
    outputs: Sequence[str] = ("y",), opset: int = 17, **more: int,
) -> Path:  # fmt: skip
    inputs = [port("x", FLOAT, x), *(port(name, kind, ()) for name, kind in more.items())]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "test", inputs, [port(name) for name in outputs], tensors)
    path = folder / "model.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8).SerializeToString()
    )
    return path


def agrees(path: Path, x: Array, tolerance: float = 1e-6) -> None:
    """As imported and after recognition."""
    expected = run(path.read_bytes(), {"x": x}, [])
    for graph in (imported(path), load(path)):
        results = list(interpret(graph, {"x": x}).values())
        for found, wanted in zip(results, expected, strict=True):
            assert found.shape == wanted.shape
            np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def branch(condition: str, output: str, inner: onnx.GraphProto, other: onnx.GraphProto) -> onnx.NodeProto:
    return make("If", [condition], [output], f"if_{output}", then_branch=inner, else_branch=other)


@pytest.mark.parametrize("size", [4, 5])
def test_a_branch_is_taken_by_the_shape(size: int, tmp_path: Path) -> None:
    """The condition is computed from shapes; branches read what is around them, and share names; one is in another."""
    deep = branch("same", "t", body([make("Neg", ["a"], ["t"])], ["t"]), body([make("Abs", ["a"], ["t"])], ["t"]))
    inner = body([deep, make("Mul", ["t", "w"], ["u"])], ["u"])
    other = body([make("Add", ["a", "w"], ["t"], "t"), make("Add", ["t", "own"], ["u"])], ["u"], own=draw(1))
    nodes = [
        make("Relu", ["x"], ["a"], "relu"),
        make("Shape", ["a"], ["sizes"], "shape"),
        make("Gather", ["sizes", "last"], ["width"], "width"),
        make("Equal", ["width", "four"], ["same"], "same"),
        branch("same", "y", inner, other),
    ]
    numbers = {"last": np.array(-1, np.int64), "four": np.array(4, np.int64), "w": draw(1)}
    agrees(file(tmp_path, nodes, (2, size), numbers), draw(2, size))


def test_an_open_branch_is_refused_by_name(tmp_path: Path) -> None:
    """With what may decide."""
    inner, other = body([make("Neg", ["x"], ["t"])], ["t"]), body([make("Abs", ["x"], ["t"])], ["t"])
    nodes = [make("ReduceMax", ["x"], ["top"], keepdims=0), make("Less", ["top", "zero"], ["c"])]
    path = file(tmp_path, [*nodes, branch("c", "y", inner, other)], (3,), {"zero": np.float32(0).reshape(1)[0:1]})
    with pytest.raises(Unsupported, match="only constants may") as caught:
        load(path)
    assert caught.value.where == ("if_y",)


def loop(going_on: str, more: Sequence[onnx.NodeProto] = ()) -> onnx.NodeProto:
    """state -> relu(state * w + number); all states are collected."""
    nodes = [
        make("Cast", ["i"], ["real"], to=FLOAT),
        make("Mul", ["s", "w"], ["scaled"], "scale"),
        make("Add", ["scaled", "real"], ["t"], "sum"),
        make("Relu", ["t"], ["s_next"], "relu"),
        make("Identity", ["s_next"], ["row"]),
        *more,
    ]
    ports = [port("i", INT, ()), port("on", BOOL, ()), port("s", FLOAT, None)]
    inner = body(nodes, [going_on, "s_next", "row"], ports, w=draw(3))
    return make("Loop", ["count", "start", "x"], ["y", "rows"], "loop", body=inner)


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("count", [1, 4])
def test_a_loop_of_known_length_is_written_out(count: int, opset: int, tmp_path: Path) -> None:
    """Sources name the loop, the round and the node."""
    going_on = make("Identity", ["on"], ["on_next"])
    numbers = {"count": np.array(count, np.int64), "start": np.array(True)}
    path = file(tmp_path, [loop("on_next", [going_on])], (2, 3), numbers, ("y", "rows"), opset)
    agrees(path, draw(2, 3))
    sources = [source for node in imported(path).nodes for source in node.sources]
    assert f"loop.{count - 1}/relu" in sources


def test_a_loop_that_never_runs(tmp_path: Path) -> None:
    """What goes in comes out."""
    inner = body([make("Neg", ["s"], ["t"]), make("Identity", ["on"], ["on_next"])], ["on_next", "t"],
                 [port("i", INT, ()), port("on", BOOL, ()), port("s")])  # fmt: skip
    nodes = [make("Abs", ["x"], ["a"]), make("Loop", ["count", "start", "a"], ["y"], "loop", body=inner)]
    for count, start in ((0, True), (5, False)):
        numbers = {"count": np.array(count, np.int64), "start": np.array(start)}
        agrees(file(tmp_path, nodes, (2, 3), numbers), draw(2, 3))


def test_loops_without_end_or_too_long_are_refused(tmp_path: Path) -> None:
    """Each with its reason."""
    stops = [make("ReduceMax", ["t"], ["top"], keepdims=0), make("Less", ["top", "limit"], ["on_next"])]
    numbers = {"count": np.array(4, np.int64), "start": np.array(True), "limit": np.float32(3).reshape(1)}
    with pytest.raises(Unsupported, match="only constants may"):
        load(file(tmp_path, [loop("on_next", stops)], (2, 3), numbers, ("y", "rows")))
    numbers["count"] = np.array(10**9, np.int64)
    with pytest.raises(Unsupported, match="1000000000 rounds") as caught:
        load(file(tmp_path, [loop("on_next", [make("Identity", ["on"], ["on_next"])])], (2, 3), numbers, ("y", "rows")))
    assert caught.value.where == ("loop",)


def counting(nodes: Sequence[onnx.NodeProto], ports: int = 3, own: str = "") -> onnx.GraphProto:
    """The body of a loop, its names with a letter of their own."""
    given = [port(f"i{own}", INT, ()), port(f"on{own}", BOOL, ()), port(f"s{own}"), port("more")][:ports]
    going_on = make("Identity", [f"on{own}"], [f"on_next{own}"])
    return body([going_on, *nodes], [f"on_next{own}", f"t{own}"], given)


NEG = make("Neg", ["x"], ["t"])
INNER = make("Loop", ["count", "on", "s"], ["t"], "inner", body=counting([make("Neg", ["su"], ["tu"])], own="u"))
HOSTILE = {
    "in loops": (counting([INNER]), "10000 rounds of 104 nodes"),
    "without a state": (counting([NEG], ports=2), "3 inputs"),
    "with too much": (counting([NEG], ports=4), "3 inputs"),
}


@pytest.mark.parametrize("way", HOSTILE)
def test_hostile_loops(way: str, tmp_path: Path) -> None:
    """Refused in time and by name."""
    inner, words = HOSTILE[way]
    node = make("Loop", ["count", "start", "x"], ["y"], "loop", body=inner)
    numbers = {"count": np.array(10_000, np.int64), "start": np.array(True)}
    with pytest.raises(ModelError, match=words) as caught:
        load(file(tmp_path, [node], (2, 3), numbers))
    assert any("loop" in name for name in caught.value.where)


# ---- recurrent layers ----


T, B, D, H = 3, 2, 3, 4


def layer(kind: str, ways: int = 1, state: bool = False, peepholes: bool = False, **attributes: Any):
    """A recurrent layer over [T, B, D], its weights constants."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    weights = {"w": draw(ways, gates * H, D), "r": draw(ways, gates * H, H), "b": draw(ways, 2 * gates * H)}
    operands = ["x", "w", "r", "b"]
    if state:
        weights |= {"h": draw(ways, B, H), "c": draw(ways, B, H, seed=1)}
        operands += ["", "h", *(["c"] if kind == "LSTM" else [])]
    if peepholes:
        weights["p"] = draw(ways, 3 * H)
        operands += [""] * (7 - len(operands)) + ["p"]
    outputs = ["y", "last", *(["cell"] if kind == "LSTM" else [])]
    return make(kind, operands, outputs, "layer", hidden_size=H, **attributes), weights, outputs


LAYERS = [
    *((kind, {}) for kind in ("LSTM", "GRU", "RNN")),
    *((kind, {"state": True, "direction": "reverse"}) for kind in ("LSTM", "GRU", "RNN")),
    *((kind, {"state": True, "ways": 2, "direction": "bidirectional"}) for kind in ("LSTM", "GRU", "RNN")),
    ("LSTM", {"peepholes": True, "state": True}),
    ("LSTM", {"clip": 0.4}),
    ("LSTM", {"input_forget": 1}),
    ("LSTM", {"activations": ["HardSigmoid", "Relu", "Tanh"], "activation_alpha": [0.3], "activation_beta": [0.4]}),
    ("GRU", {"linear_before_reset": 1, "state": True}),
    ("GRU", {"linear_before_reset": 1, "ways": 2, "direction": "bidirectional"}),
    ("RNN", {"activations": ["LeakyRelu", "Relu"], "activation_alpha": [0.2], "ways": 2, "direction": "bidirectional"}),
]


@pytest.mark.parametrize(("kind", "form"), LAYERS, ids=[f"{k}-{'-'.join(f)}" for k, f in LAYERS])
def test_recurrent_layer(kind: str, form: dict[str, Any], tmp_path: Path) -> None:
    """Outputs of all steps and the last states."""
    node, weights, outputs = layer(kind, **form)
    agrees(file(tmp_path, [node], (T, B, D), weights, outputs), draw(T, B, D), 2e-6)


def test_long_sequences_and_strange_functions_are_refused(tmp_path: Path) -> None:
    """The limit is named."""
    node, weights, outputs = layer("GRU")
    with pytest.raises(Unsupported, match="300 steps; at most 256"):
        load(file(tmp_path, [node], (300, B, D), weights, outputs))
    node, weights, outputs = layer("RNN", activations=["Softplus"])
    with pytest.raises(Unsupported, match="activation Softplus"):
        load(file(tmp_path, [node], (T, B, D), weights, outputs))
