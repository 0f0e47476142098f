"""Import, recognition and exact passes cost in proportion to nodes, counted in calls."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import FrameType

import onnx
import pytest

from edgesmith import frontend
from edgesmith.ir.passes.pipelines import run_pipeline

vit = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "importing.py"))["vit"]


def calls(path: Path) -> dict[str, float]:
    """Python calls per imported node, by stage."""
    counts = [0]

    def count(frame: FrameType, event: str, argument: object) -> None:
        counts[-1] += event == "call"

    sys.setprofile(count)
    try:
        graph = frontend.imported(path)
        nodes = len(graph.nodes)
        for work in (frontend.recognised, run_pipeline):
            counts.append(0)
            work(graph)
    finally:
        sys.setprofile(None)
    return {stage: each / nodes for stage, each in zip(("import", "recognise", "simplify"), counts, strict=True)}


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, float]]:
    """Of 1, 4 and 12 blocks; the first pays for what is loaded once."""
    folder, found = tmp_path_factory.mktemp("depths"), {}
    for depth in (1, 4, 12):
        onnx.save(vit(depth), folder / "vit.onnx")
        found[depth] = calls(folder / "vit.onnx")
    return found


@pytest.mark.parametrize("stage", ["import", "recognise", "simplify"])
def test_calls_per_node_do_not_grow_with_depth(stage: str, costs: dict[int, dict[str, float]]) -> None:
    """Of three times the blocks, a pass that is quadratic in nodes would make up to three times as many for each."""
    assert costs[12][stage] < 1.1 * costs[4][stage]
