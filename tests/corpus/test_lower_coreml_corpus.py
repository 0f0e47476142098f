"""Core ML packages of models that nobody here wrote: every target, layout and storage of weights gives their numbers.

    python tests/corpus/test_lower_coreml_corpus.py [models.onnx...]

prints a line a package: its operations, its error as a share of the largest output, its cosine with ONNX Runtime, and
the largest error of a weight that it stores in few bits.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from edgesmith import frontend, lowering, targets
from edgesmith.ir.graph import Graph
from edgesmith.ir.passes.pipelines import run_pipeline
from edgesmith.lowering import Job
from edgesmith.runtimes import ort
from edgesmith.runtimes.mlprogram import MODES, read
from edgesmith.runtimes.mlprogram.evaluator import trace
from edgesmith.runtimes.mlprogram.program import Program

pytestmark = [pytest.mark.corpus, pytest.mark.coreml, pytest.mark.slow]

BACKEND = lowering.load("coreml")
MODELS = ("test_vit", "mobilevit_xxs", "levit_128s")
"""What a test run has the time for; name others on the command line."""

CASES = (
    ("iphone12", "plain", "", "float32"),
    ("iphone12", "ane", "", "float16"),
    ("iphone13", "ane", "", "float32"),
    ("iphone13", "plain", "", "float16"),
    ("iphone15", "plain", "", "float32"),
    ("iphone15", "ane", "", "float16"),
    ("iphone15", "ane", "int8", "float16"),
    ("iphone15", "plain", "palette6", "float16"),
    ("iphone15", "ane", "palette4", "float16"),
)
"""Target, layout, storage of weights, arithmetic."""

LEAST_COSINE = 0.999
"""Of a package in float16 with whole weights. What few bits leave of the outputs of a network that was not trained for
them says little: there, the weights themselves are held against the whole ones."""

FARTHEST = {"int8": 0.02, "palette6": 0.0365, "palette4": 0.146}
"""Largest error of a stored weight, as a share of its norm. The best levels lose sqrt(4.5) / count of numbers with the
tails of a Laplace distribution, and less of normal ones (Panter and Dite, Proc. IRE 1951): a tenth more than that. For
int8 it is the rounding where a channel's largest weight is nine times the usual one."""

DEBRIS = {"batch_norm", "erf", "gather", "shape"}


def packages(model: Path, folder: Path) -> Iterator[tuple[tuple[str, ...], Mapping[str, int], float, float, float]]:
    """Case, operators, error and cosine of every package of a model, and the largest error of its weights."""
    graph = frontend.load(model)
    run_pipeline(graph, BACKEND.passes("float16"))
    draw = np.random.default_rng(0)
    feeds = {value.name: draw.standard_normal(value.shape).astype(np.float32) for value in graph.inputs}
    (wanted,) = next(ort.reference(model, [feeds])).values()
    whole: dict[str, Mapping[str, np.ndarray]] = {}  # weights by layout
    for case in CASES:
        operators, program, values = _package(graph, case, feeds, folder / f"{'-'.join(filter(None, case))}.mlpackage")
        whole |= {} if case[2] else {case[1]: program.constants}
        found = values[program.outputs[0]]
        one, other = (array.astype(np.float64).ravel() for array in (found, wanted))
        error = np.abs(one - other).max() / np.abs(other).max()
        cosine = float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
        yield case, operators, float(error), cosine, _farthest(program, values, whole[case[1]])


def _package(
    graph: Graph, case: tuple[str, ...], feeds: Mapping[str, np.ndarray], path: Path
) -> tuple[Mapping[str, int], Program, dict[str, np.ndarray]]:
    """Operators of the package written, the program read back, and all that it computes."""
    target, layout, weights, dtype = case
    options = {name: option.default for name, option in BACKEND.options.items()}
    options |= {"layout": layout, "weights": weights}
    written = BACKEND.write(Job(graph.copy(), targets.get(target), dtype, options, {}), path)
    names = {port.of: port.name for port in written.ports}
    given = {names.get(name, name): array for name, array in feeds.items()}
    program = read(path)
    return written.operators, program, dict(trace(program, given, MODES["declared"]))


def _farthest(program: Program, values: Mapping[str, np.ndarray], whole: Mapping[str, np.ndarray]) -> float:
    """The largest relative error of a weight that the package unpacks; 0 where it unpacks none."""
    errors = [0.0]
    for operation in program.operations:
        if operation.kind.startswith("constexpr_"):
            exact = whole[operation.name.rpartition("_")[0]].astype(np.float64)
            errors.append(float(np.linalg.norm(values[operation.name] - exact) / np.linalg.norm(exact)))
    return max(errors)


@pytest.mark.parametrize("name", MODELS)
def test_every_package_gives_the_source_s_numbers(name: str, tmp_path: Path) -> None:
    from timm_corpus import export

    for case, operators, error, cosine, farthest in packages(export(name).model, tmp_path):
        assert not DEBRIS & set(operators), case
        if case[2]:
            assert 0 < farthest < FARTHEST[case[2]], (case, farthest)
        else:
            assert error < 1e-4 if case[3] == "float32" else cosine > LEAST_COSINE, (case, error, cosine)


def main() -> None:
    """Print the table."""
    for model in map(Path, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as folder:
            for case, operators, error, cosine, farthest in packages(model, Path(folder)):
                words, count = " ".join(filter(None, case)), sum(operators.values())
                print(f"{model.stem:40} {words:28} {count:4} {error:8.1e} {cosine:.6f} {farthest:.4f}", flush=True)


if __name__ == "__main__":
    main()
