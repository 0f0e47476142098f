"""Models that nobody here wrote, as C in single precision on this computer: how near the truth it stays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgesmith import frontend, targets
from edgesmith.ir.interpret import run
from edgesmith.ir.memory import plan
from edgesmith.ir.passes.pipelines import FLOAT_C, run_pipeline
from edgesmith.lowering.c.lower import Vector, lower
from edgesmith.runtimes import host

pytestmark = [pytest.mark.corpus, pytest.mark.compiler]

SMALL = ("vit_xs", "test_vit")
LARGE = (
    "deit_tiny_distilled_patch16_224", "efficientformer_l1", "efficientformerv2_s0", "levit_128s",
    "mobilenetv4_conv_small", "mobileone_s0", "mobilevit_xxs", "poolformer_s12", "repvit_m0_9",
)  # fmt: skip


def on_this_computer(path: Path, x: np.ndarray, folder: Path) -> np.ndarray:
    """What a model's library computes from `x`."""
    graph = frontend.load(path)
    run_pipeline(graph, FLOAT_C)
    assert not any(run_pipeline(graph, FLOAT_C).values())
    feeds = {graph.inputs[0].name: x}
    part = lower(graph, plan(graph), targets.get("host"), folder, "model", Vector(feeds, run(graph, feeds)))
    (folder / "manifest.json").write_text(json.dumps({**part, "target": "host"}))
    (got,) = host.Program(folder).call([np.ascontiguousarray(x)])
    return got


@pytest.mark.parametrize("name", SMALL)
def test_a_library_agrees_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    from timm_corpus import export, relative_difference, run_ort

    case = export(name)
    assert relative_difference(on_this_computer(case.model, case.x, tmp_path), run_ort(case.model, case.x)) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_library_is_as_near_the_truth_as_torch(name: str, tmp_path: Path) -> None:
    """Deep convolutional networks amplify rounding: torch's own distance from its double precision is the measure."""
    from timm_corpus import export, relative_difference

    case = export(name)
    got = on_this_computer(case.model, case.x, tmp_path)
    assert relative_difference(got, case.exact) <= max(1e-5, 2 * case.record["fp32_noise"])
