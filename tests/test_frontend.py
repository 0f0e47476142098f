"""The front end beyond single operators: names, outputs, shapes, folding, outside weights, all errors at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgesmith.frontend import imported, load
from edgesmith.frontend.fold import fold, run
from edgesmith.frontend.model import Model
from edgesmith.frontend.reader import read
from edgesmith.frontend.shapes import bind
from edgesmith.ir.errors import ModelError, Unsupported, UsageError
from edgesmith.ir.graph import Array
from edgesmith.ir.interpret import run as interpret


def draw(*shape: int, low: float = -2.0, high: float = 2.0) -> Array:
    return np.random.default_rng(sum(shape) + len(shape)).uniform(low, high, shape).astype(np.float32)


def ints(*numbers: int) -> Array:
    return np.asarray(numbers, np.int64)


def model(
    nodes: Sequence[NodeProto],
    x: Sequence[int | str | None],
    weights: dict[str, Array] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [
            onnx.ValueInfoProto(name=name, type=helper.make_tensor_type_proto(TensorProto.FLOAT, None))
            for name in outputs
        ],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def written(folder: Path, proto: onnx.ModelProto, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def test_all_refusals_come_at_once(tmp_path: Path) -> None:
    """The second refused node reads the first one's result and is named all the same."""
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], "first", to=TensorProto.FLOAT16),
        helper.make_node("Relu", ["a"], ["b"], "between"),
        helper.make_node("Cast", ["b"], ["y"], "second", to=TensorProto.BFLOAT16),
    ]
    with pytest.raises(Unsupported) as caught:
        load(written(tmp_path, model(nodes, (1, 4, 9, 8), {}, opset=18)))
    assert caught.value.where == ("first", "second")


def test_unknown_operators_and_unknown_forms_come_together(tmp_path: Path) -> None:
    """Whichever comes first in the file, both kinds are named, and what comes behind them as far as types are known."""
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], "form", to=TensorProto.FLOAT16),
        helper.make_node("RandomNormalLike", ["x"], ["b"], "unknown"),
        helper.make_node("Cast", ["b"], ["y"], "behind", to=TensorProto.BFLOAT16),
    ]
    with pytest.raises(Unsupported, match="RandomNormalLike") as caught:
        load(written(tmp_path, model(nodes, (1, 4), {}, opset=18)))
    assert set(caught.value.where) == {"form", "unknown", "behind"}
    assert "differ from run to run" in caught.value.why and "Cast 'form'" in caught.value.why
    assert "evaluation mode" in caught.value.do and "change these layers" in caught.value.do


def test_second_outputs_matter_only_when_read(tmp_path: Path) -> None:
    """Exporters declare the mask of a Dropout and the mean of a norm; they cost nothing while nobody reads them."""
    nodes = [
        helper.make_node("Dropout", ["x"], ["a", "mask"], "drop"),
        helper.make_node("LayerNormalization", ["a", "g"], ["y", "mean", "deviation"], "norm"),
    ]
    graph = load(written(tmp_path, model(nodes, (2, 4), {"g": draw(4)})))
    assert [node.name for node in graph.nodes] == ["norm"]
    x = draw(2, 4)
    found = interpret(load(written(tmp_path, model(nodes, (2, 4), {"g": draw(4)}, ("y", "mean")))), {"x": x})
    np.testing.assert_allclose(found["mean"], x.mean(axis=1, keepdims=True), rtol=1e-6)


def test_nameless_nodes_get_names(tmp_path: Path) -> None:
    """Sources always point at something: operator and position where the file has no name."""
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])]
    graph = imported(written(tmp_path, model(nodes, (2, 3))))
    assert [node.sources for node in graph.nodes] == [("Relu_0",), ("Neg_1",)]


def test_shared_weight_stays_one_constant(tmp_path: Path) -> None:
    """Through an Identity and a transposition alike."""
    weights = {"w": draw(4, 4)}
    nodes = [
        helper.make_node("Identity", ["w"], ["again"], "same"),
        helper.make_node("MatMul", ["x", "w"], ["a"], "one"),
        helper.make_node("MatMul", ["a", "again"], ["y"], "two"),
    ]
    graph = load(written(tmp_path, model(nodes, (2, 4), weights)))
    assert len(graph.constants) == 1 and len(graph.constants[0].uses) == 2


@pytest.mark.parametrize("way", ["input is output", "constant is output", "one value twice"])
def test_outputs_of_every_kind(way: str, tmp_path: Path) -> None:
    """An output may be an input, a constant, or another output under a second name."""
    nodes = {
        "input is output": [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Relu", ["x"], ["z"])],
        "constant is output": [helper.make_node("Relu", ["w"], ["y"]), helper.make_node("Relu", ["x"], ["z"])],
        "one value twice": [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Identity", ["y"], ["z"])],
    }[way]
    proto = model(nodes, (4,), {"w": draw(4)} if way == "constant is output" else {}, ("y", "z"))
    x = draw(4)
    expected = run(proto.SerializeToString(), {"x": x}, [])
    results = interpret(load(written(tmp_path, proto)), {"x": x})
    assert list(results) == ["y", "z"]
    for result, wanted in zip(results.values(), expected, strict=True):
        np.testing.assert_array_equal(result, wanted)


# ---- shapes ----

RELU = [helper.make_node("Relu", ["x"], ["y"], "relu")]


def test_symbolic_batch_is_one(tmp_path: Path) -> None:
    """Named or not."""
    for batch in ("N", None):
        graph = load(written(tmp_path, model(RELU, (batch, 3))))
        assert graph.inputs[0].shape == (1, 3)


def test_symbolic_sizes_are_asked_for(tmp_path: Path) -> None:
    """The error shows what to type."""
    path = written(tmp_path, model(RELU, ("N", 3, "height", "width")))
    with pytest.raises(ModelError, match="height") as caught:
        load(path)
    assert "--shape x=1x3x224x224" in caught.value.do
    assert load(path, {"x": (2, 3, 8, 8)}).inputs[0].shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("declared", "given"),
    [((1, 3), (1, 4)), (("n", "n"), (2, 3)), ((1, 3), (3,)), (("n", 3), (0, 3))],
    ids=["fixed", "symbol", "rank", "zero"],
)
def test_shapes_that_contradict_the_file(
    declared: tuple[int | str, ...], given: tuple[int, ...], tmp_path: Path
) -> None:
    """They are the caller's mistake, not the model's."""
    with pytest.raises(UsageError, match="'x'"):
        load(written(tmp_path, model(RELU, declared)), {"x": given})


def test_unknown_input_lists_the_known(tmp_path: Path) -> None:
    """A misspelt input name is answered with the right ones."""
    with pytest.raises(UsageError, match="image"):
        load(written(tmp_path, model(RELU, (1, 3))), {"image": (1, 3)})


# ---- folding ----


def debris(folder: Path) -> Path:
    """What the legacy exporter makes of a rolled, windowed feature map: shape arithmetic, a mask from Range and Mod."""
    weights = {"zero": np.asarray(0, np.int64), "one": np.asarray(1, np.int64), "seven": np.asarray(7, np.int64),
               "four": np.asarray(4, np.int64), "axis": ints(0), "w": draw(3, 4, 1, 1), "tail": ints(-1),
               "gain": draw(4), "bias": draw(4), "mean": draw(4), "var": draw(4, low=0.5)}  # fmt: skip
    make = helper.make_node
    nodes = [
        make("Shape", ["x"], ["shape"], "shape"),
        make("Gather", ["shape", "zero"], ["batch"], "batch", axis=0),
        make("Unsqueeze", ["batch", "axis"], ["front"], "front"),
        make("Concat", ["front", "tail"], ["target"], "target", axis=0),
        make("Range", ["zero", "seven", "one"], ["counting"], "counting"),
        make("Mod", ["counting", "four"], ["folded"], "mod"),
        make("Cast", ["folded"], ["real"], "real", to=TensorProto.FLOAT),
        make("Sin", ["real"], ["table"], "table"),
        make("ReduceSum", ["table"], ["number"], "number", keepdims=0),
        make("BatchNormalization", ["x", "gain", "bias", "mean", "var"], ["normed"], "norm"),
        make("Conv", ["normed", "w"], ["image"], "conv"),
        make("Mul", ["image", "number"], ["scaled"], "scale"),
        make("Reshape", ["scaled", "target"], ["y"], "flat"),
    ]
    return written(folder, model(nodes, ("n", 4, 3, 2), weights))


def folded(path: Path) -> Model:
    result = read(path)
    bind(result, {})
    fold(result)
    return result


def test_folding_changes_no_bit(tmp_path: Path) -> None:
    """Original and folded model are equal to the last bit; what runs on data is left node for node."""
    path = debris(tmp_path)
    result = folded(path)
    x = draw(1, 4, 3, 2)
    before = run(path.read_bytes(), {"x": x}, [])
    after = run(result.complete().SerializeToString(), {"x": x}, [])
    assert before[0].tobytes() == after[0].tobytes()
    assert [node.op_type for node in result.graph.node] == ["BatchNormalization", "Conv", "Mul", "Reshape"]


def test_the_file_is_only_read(tmp_path: Path) -> None:
    """Neither its bytes nor its folder change."""
    path = debris(tmp_path)
    before = path.read_bytes()
    path.chmod(0o444)
    load(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_import_is_reproducible(tmp_path: Path) -> None:
    """Twice the same names, order and constants."""
    path = debris(tmp_path)

    def described() -> list[object]:
        graph = load(path)
        nodes = [(n.name, n.op, [v.name for v in n.inputs if v], n.sources) for n in graph.nodes]
        return [nodes, [(c.name, c.array.tobytes()) for c in graph.constants]]

    assert described() == described()


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    """Weights in a file of their own are read, with offsets."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"], "mm"), helper.make_node("Add", ["a", "b"], ["y"], "add")]
    proto = model(nodes, (2, 4), {"w": draw(4, 40), "b": draw(40)})
    x = draw(2, 4)
    expected = run(proto.SerializeToString(), {"x": x}, [])[0]
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    result = interpret(load(path), {"x": x})["y"]
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    """A function of the file's own domain is its body."""
    body = [helper.make_node("Relu", ["a"], ["t"]), helper.make_node("Neg", ["t"], ["b"])]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    function = helper.make_function("local", "Shy", ["a"], ["b"], body, opsets)
    proto = model([helper.make_node("Shy", ["x"], ["y"], domain="local")], (2, 3))
    proto.opset_import.append(opsets[1])
    proto.functions.append(function)
    x = draw(2, 3)
    result = interpret(load(written(tmp_path, proto)), {"x": x})["y"]
    np.testing.assert_array_equal(result, -np.maximum(x, 0))


def attention_of_opset_23(kind: str) -> tuple[onnx.ModelProto, Array]:
    """The Attention operator on tokens, or by heads with a bias."""
    if kind == "tokens":
        node = helper.make_node("Attention", ["x", "x", "x"], ["y"], "att", q_num_heads=2, kv_num_heads=2)
        return model([node], (1, 5, 8), opset=23), draw(1, 5, 8)
    node = helper.make_node("Attention", ["x", "x", "x", "bias"], ["y"], "att", scale=0.3)
    return model([node], (1, 2, 5, 4), {"bias": draw(1, 2, 5, 5)}, opset=23), draw(1, 2, 5, 4)


@pytest.mark.parametrize("kind", ["tokens", "heads"])
def test_attention_operator(kind: str, tmp_path: Path) -> None:
    """It becomes the Attention op, whatever its layout."""
    proto, x = attention_of_opset_23(kind)
    graph = load(written(tmp_path, proto))
    assert [type(node.op).__name__ for node in graph.nodes].count("Attention") == 1
    expected = run(proto.SerializeToString(), {"x": x}, [])[0]
    np.testing.assert_allclose(interpret(graph, {"x": x})["y"], expected, rtol=1e-5, atol=1e-6)


def test_time_grows_with_nodes_only(tmp_path: Path) -> None:
    """Ten times the nodes take about ten times as long; a square law would take a hundred."""
    import time

    def seconds(count: int) -> float:
        names = ["x", *(f"t{i}" for i in range(count - 1)), "y"]
        kinds: Sequence[str] = ("Relu", "Neg", "Tanh")
        chain = [helper.make_node(kinds[i % 3], [a], [b]) for i, (a, b) in enumerate(pairwise(names))]
        path = written(tmp_path, model(chain, (1, 4)), f"{count}.onnx")
        begin = time.process_time()
        load(path)
        return time.process_time() - begin

    small = seconds(300)
    assert seconds(3000) < 40 * max(small, 0.02)
