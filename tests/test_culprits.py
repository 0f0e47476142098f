"""The operation at fault is named: by `run --check` of an evaluated file, and where a compile's own check fails."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

import edgesmith
from edgesmith.cli import commands
from edgesmith.ir.errors import InternalError, ModelError, UsageError
from edgesmith.ir.graph import Graph, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Gelu
from edgesmith.ir.ops.elementwise import Mul
from edgesmith.ir.ops.linear import Linear

pytestmark = pytest.mark.coreml

LONG = 4096
NARROW = "float16-accumulate16"
WEIGHTS = np.abs(np.random.default_rng(2).standard_normal((4, LONG))).astype(np.float32)


def network(op=None):
    """A long sum of small numbers, then an activation, with the names of the ONNX nodes they came from."""
    graph = Graph("net")
    x = graph.input("x", Type("float32", (1, LONG)))
    value = graph.add(Linear(), x, graph.constant(WEIGHTS, "w"), name="sum", sources=("fc.matmul",))
    value = graph.add(op or Gelu(), value, *([value] if isinstance(op, Mul) else []), name="act", sources=("act.node",))
    graph.output(graph.add(Linear(), value, graph.constant(np.eye(4, dtype=np.float32) * 0.01), name="y"))
    return graph


def samples(size, count=3):
    """Positive numbers, so that sums grow."""
    return {"x": (size * np.abs(np.random.default_rng(3).standard_normal((count, LONG)))).astype(np.float32)}


def compiled(graph, place, size=1e-3, dtype="float16"):
    return edgesmith.compile(graph, "iphone15", out=place, dtype=dtype, calibration=samples(size))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return compiled(network(), tmp_path_factory.mktemp("culprits") / "out")


def test_every_operation_is_compared(artifact):
    found = edgesmith.run(artifact, check=True)
    assert [row.value for row in found.comparison.rows] == ["sum", "act", "y"]
    assert found.equal == 1 and found.comparison.culprit is None
    assert all(0 < row.own <= 4 * row.rounding for row in found.comparison.rows[:2])
    exact = edgesmith.run(artifact, check=True, arithmetic="float32")
    assert all(row.own == 0 for row in exact.comparison.rows)
    assert edgesmith.run(artifact).comparison is None


def test_sums_in_halves_are_found_and_end_in_an_exit_code(artifact):
    result = CliRunner().invoke(
        commands, ["run", str(artifact.folder), "--check", "--arithmetic", "declared-accumulate16", "--json"]
    )
    data = json.loads(result.stdout)
    assert data["comparison"]["culprit"] == "sum" and "sums in half precision" in data["device"]
    row = data["comparison"]["rows"][0]
    assert row["verdict"] == "precision" and row["sources"] == ["fc.matmul"] and row["own"] > 32 * row["rounding"]
    assert result.exit_code == (1 if data["equal"] < data["samples"] else 0)


def test_the_table_is_printed(artifact):
    words = CliRunner().invoke(commands, ["run", str(artifact.folder), "--check"]).stdout
    assert "Operations that err most, 3 of 3" in words and "linear sum" in words and "fc.matmul" in words
    assert words.rstrip().endswith("first at fault  none") and "cosine of at least 0.999" in words
    words = CliRunner().invoke(commands, ["run", str(artifact.folder), "--check", "--arithmetic", NARROW]).stdout
    assert words.rstrip().endswith("first at fault  linear 'sum'") and "precision" in words


def test_own_inputs_are_compared_with_the_graph_that_is_kept(artifact):
    data = samples(1e-3, 2)
    found = edgesmith.run(artifact, inputs=data, check=True, runs=2)
    assert found.equal == found.samples == 2 and found.against == "reference"
    for one, given in zip(found.outputs["y"], data["x"], strict=True):
        np.testing.assert_allclose(one, run(network(), {"x": given[None]})["y"], rtol=2e-3)


def test_arithmetics_that_there_are_not(artifact, tmp_path):
    with pytest.raises(UsageError, match="no arithmetic 'bfloat16'") as caught:
        edgesmith.run(artifact, arithmetic="bfloat16")
    assert "declared-accumulate16" in caught.value.do
    other = edgesmith.compile(network(), "onnx", out=tmp_path / "onnx", calibration=samples(1.0))
    with pytest.raises(UsageError, match="'ort' computes in an arithmetic of its own"):
        edgesmith.run(other, arithmetic="float16")


def test_a_compile_that_fails_names_the_operation_that_means_something_else(tmp_path, monkeypatch):
    from edgesmith.lowering.coreml import spellings

    wrong = {**spellings.GELU, "none": "SIGMOID_APPROXIMATION"}
    monkeypatch.setattr(spellings, "GELU", wrong)
    with pytest.raises(InternalError, match=r"(?s)does not compute.*gelu 'act' \(from act.node\) computes something"):
        compiled(network(), tmp_path / "out", dtype="float32")
    assert not (tmp_path / "out").exists()


def test_a_compile_that_overflows_names_the_operation(tmp_path, monkeypatch):
    """Where nothing is kept in float32: the product is infinite, and so is all that follows."""
    from edgesmith.lowering.coreml import half

    monkeypatch.setattr(half, "examine", lambda graph, measured: half.Lint())
    with pytest.raises(ModelError, match=r"(?s)NaN or infinite.*mul 'act' \(from act.node\) loses the numbers"):
        compiled(network(Mul()), tmp_path / "out", 1.0)
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    kept = compiled(network(Mul()), tmp_path / "out", 1.0).manifest["details"]["float16"]["kept"]
    assert kept["act"].startswith("overflow")


def test_what_is_kept_is_the_graph(artifact):
    """Read back it is the same, and the artifact knows its files."""
    from edgesmith.driver.culprits import kept
    from edgesmith.ir.text import show

    graph = kept(artifact.folder)
    assert show(graph) == (artifact.folder / "graph.txt").read_text(encoding="utf-8")
    assert {"graph.txt", "graph.npz"} <= set(artifact.manifest["files"])
    assert [node.sources for node in graph.nodes][:2] == [("fc.matmul",), ("act.node",)]
