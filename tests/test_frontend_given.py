"""What is known beside the file: inputs that never change, sizes of samples, batches, and how pixels come in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import edgesmith
from edgesmith.cli.verbs import commands
from edgesmith.driver.feeds import inputs_of
from edgesmith.frontend import imported, load
from edgesmith.frontend.fold import run
from edgesmith.ir.errors import ModelError, UsageError
from edgesmith.ir.graph import Array
from edgesmith.ir.interpret import run as interpret

make = helper.make_node
FLOAT, BYTE, INT = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT64
Port = tuple[str, int, Sequence[int | str]]


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed + sum(shape)).uniform(-1, 1, shape).astype(np.float32)


def file(
    folder: Path, nodes: Sequence[onnx.NodeProto], inputs: Sequence[Port], weights: dict[str, Array],
    outputs: Sequence[str] = ("y",),
) -> Path:  # fmt: skip
    unknown = helper.make_tensor_type_proto(FLOAT, None)
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*port) for port in inputs],
        [onnx.ValueInfoProto(name=name, type=unknown) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = folder / "model.onnx"
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(proto.SerializeToString())
    return path


def by_rate(folder: Path) -> Path:
    """A network of which a number decides: which weights are used, and by what is divided."""

    def branch(weight: str) -> onnx.GraphProto:
        unknown = helper.make_tensor_type_proto(FLOAT, None)
        nodes = [make("MatMul", ["x", weight], ["t"], f"by_{weight}")]
        return helper.make_graph(nodes, weight, [], [onnx.ValueInfoProto(name="t", type=unknown)])

    nodes = [
        make("Equal", ["rate", "sixteen"], ["high"]),
        make("If", ["high"], ["a"], "if", then_branch=branch("fine"), else_branch=branch("coarse")),
        make("Cast", ["rate"], ["real"], to=FLOAT),
        make("Div", ["a", "real"], ["y"]),
    ]
    weights = {"sixteen": np.array(16, np.int64), "fine": draw(4, 3), "coarse": draw(4, 3, seed=1)}
    return file(folder, nodes, [("x", FLOAT, ("n", 4)), ("rate", INT, ())], weights)


@pytest.mark.parametrize("rate", [16, 8])
def test_a_value_decides(rate: int, tmp_path: Path) -> None:
    """The input is gone, the branch is taken, and the numbers are those of ONNX Runtime."""
    path = by_rate(tmp_path)
    graph = load(path, values={"rate": rate})
    x = draw(1, 4)
    (expected,) = run(path.read_bytes(), {"x": x, "rate": np.array(rate, np.int64)}, [])
    assert [value.name for value in graph.inputs] == ["x"]
    np.testing.assert_allclose(interpret(graph, {"x": x})["y"], expected, rtol=1e-6)


def test_values_that_do_not_fit(tmp_path: Path) -> None:
    """They are the caller's mistake."""
    path = by_rate(tmp_path)
    with pytest.raises(UsageError, match="its inputs are: x, rate"):
        load(path, values={"speed": 16})
    with pytest.raises(UsageError, match="'rate', which is a number"):
        load(path, values={"rate": [16, 8]})


def test_values_reach_artifacts(tmp_path: Path) -> None:
    """From the command line, held against ONNX Runtime, to which the value is given as well."""
    line = ["compile", str(by_rate(tmp_path)), "--target", "onnx", "--value", "rate=8", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(commands, [*line, "--json"])
    assert result.exit_code == 0, result.output
    manifest = json.loads(result.stdout)
    assert [each["name"] for each in manifest["inputs"]] == ["x"] and manifest["model"]["values"] == {"rate": 8}
    result = CliRunner().invoke(commands, ["show", str(by_rate(tmp_path)), "--value", "rate"])
    assert result.exit_code == 2 and "sr=16000" in result.output


# ---- open sizes ----


def open_image(folder: Path, *sizes: int | str) -> Path:
    nodes = [make("Conv", ["x", "w"], ["c"], "conv"), make("GlobalAveragePool", ["c"], ["y"])]
    return file(folder, nodes, [("x", FLOAT, sizes)], {"w": draw(5, 3, 3, 3)})


@pytest.mark.parametrize(
    ("sizes", "sample", "expected"),
    [
        (("n", 3, "h", "w"), draw(7, 3, 8, 6), (1, 3, 8, 6)),
        (("n", 3, "h", "w"), draw(3, 8, 6), (1, 3, 8, 6)),
        ((2, 3, "h", "w"), draw(8, 3, 8, 6), (2, 3, 8, 6)),
        (("n", 3, "h", "w"), np.zeros((7, 8, 6, 3), np.uint8), (1, 3, 8, 6)),
        (("n", 3, "h", "w"), np.zeros((8, 6, 3), np.uint8), (1, 3, 8, 6)),
        (("n", 3, "h", "h"), draw(7, 3, 8, 8), (1, 3, 8, 8)),
    ],
)
def test_open_sizes_are_those_of_a_sample(
    sizes: tuple[int | str, ...], sample: Array, expected: tuple[int, ...], tmp_path: Path
) -> None:
    """By the input's name, or as the only array; the first axis counts samples."""
    path = open_image(tmp_path, *sizes)
    assert load(path, sample={"x": sample}).inputs[0].shape == expected
    assert load(path, sample={"": sample}).inputs[0].shape == expected
    asked = (expected[0], 3, 16, 16)
    assert load(path, {"x": asked}, sample={"x": sample}).inputs[0].shape == asked


def test_a_sample_of_another_kind_says_nothing(tmp_path: Path) -> None:
    """The error is the one that there is without it."""
    with pytest.raises(ModelError, match="--shape"):
        load(open_image(tmp_path, "n", 3, "h", "w"), sample={"x": draw(7, 4, 8, 6)})


def test_calibration_sets_open_sizes(tmp_path: Path) -> None:
    """Nothing else need be said."""
    artifact = edgesmith.compile(
        open_image(tmp_path, "n", 3, "h", "w"), "onnx", out=tmp_path / "out", calibration=draw(4, 3, 8, 6)
    )
    assert artifact.manifest["inputs"][0]["shape"] == [1, 3, 8, 6]


@pytest.mark.parametrize("batch", [1, 3])
def test_several_inputs_and_outputs_of_any_batch(batch: int, tmp_path: Path) -> None:
    """A symbol that two inputs share is one size."""
    nodes = [make("MatMul", ["a", "w"], ["h"]), make("Add", ["h", "b"], ["y"]), make("Relu", ["h"], ["z"])]
    path = file(tmp_path, nodes, [("a", FLOAT, ("n", 4)), ("b", FLOAT, ("n", 3))], {"w": draw(4, 3)}, ("y", "z"))
    feeds = {"a": draw(batch, 4), "b": draw(batch, 3)}
    graph = load(path, {"a": (batch, 4)} if batch > 1 else None)
    assert [value.shape for value in graph.inputs] == [(batch, 4), (batch, 3)]
    expected = run(path.read_bytes(), feeds, [])
    for found, wanted in zip(interpret(graph, feeds).values(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    artifact = edgesmith.compile(
        path, "onnx", out=tmp_path / "out", shapes={"a": (batch, 4)},
        calibration={name: np.concatenate([array] * 4) for name, array in feeds.items()},
    )  # fmt: skip
    assert [each["shape"][0] for each in artifact.manifest["outputs"]] == [batch, batch]


# ---- pixels ----

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)


def normalising(folder: Path) -> Path:
    """Bytes with channels last, normalised by the network itself."""
    nodes = [
        make("Transpose", ["x"], ["first"], "turn", perm=[0, 3, 1, 2]),
        make("Cast", ["first"], ["real"], "cast", to=FLOAT),
        make("Div", ["real", "scale"], ["unit"], "unit"),
        make("Sub", ["unit", "mean"], ["centred"], "centre"),
        make("Div", ["centred", "std"], ["normal"], "normal"),
        make("Conv", ["normal", "w", "b"], ["c"], "conv", strides=[4, 4]),
        make("Flatten", ["c"], ["y"]),
    ]
    weights = {"scale": np.array(255, np.float32), "mean": 0.4 + draw(1, 3, 1, 1) / 10, "std": 0.3 + draw(3, 1, 1) / 10,
               "w": draw(5, 3, 4, 4), "b": draw(5)}  # fmt: skip
    return file(folder, nodes, [("x", BYTE, (1, 8, 8, 3))], weights)


def test_bytes_stay_bytes_unless_asked(tmp_path: Path) -> None:
    """As pixels they are real numbers, which the metadata say how to make."""
    path = normalising(tmp_path)
    (expected,) = run(path.read_bytes(), {"x": PIXELS[:1]}, [])
    graph = load(path)
    assert graph.inputs[0].dtype == "uint8"
    np.testing.assert_allclose(interpret(graph, {"x": PIXELS[:1]})["y"], expected, rtol=1e-4, atol=1e-4)
    graph = load(path, pixels=True)
    (given,) = inputs_of(graph)
    assert graph.inputs[0].dtype == "float32"
    sample = given.arrays(PIXELS)[0]
    np.testing.assert_allclose(sample, PIXELS[:1], atol=1e-3)
    np.testing.assert_allclose(interpret(graph, {"x": sample})["y"], expected, rtol=1e-4, atol=1e-4)


def test_bytes_that_something_else_reads_stay_bytes(tmp_path: Path) -> None:
    """A comparison of bytes is none of real numbers."""
    nodes = [make("Equal", ["x", "seven"], ["same"]), make("Cast", ["same"], ["y"], to=FLOAT)]
    path = file(tmp_path, nodes, [("x", BYTE, (1, 4))], {"seven": np.array(7, np.uint8)})
    assert imported(path, pixels=True).inputs[0].dtype == "uint8"


def test_a_model_of_bytes_compiles(tmp_path: Path) -> None:
    """Calibrated with bytes; the reference gets the bytes that the file takes."""
    artifact = edgesmith.compile(normalising(tmp_path), "onnx", out=tmp_path / "out", calibration=PIXELS)
    assert artifact.manifest["inputs"][0]["dtype"] == "float32"
