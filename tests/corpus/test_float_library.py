"""Models that nobody here wrote, as C in single precision on this computer, against ONNX Runtime."""

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


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_a_library_in_single_precision_agrees_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    from timm_corpus import export, relative_difference, run_ort

    case = export(name)
    graph = frontend.load(case.model)
    run_pipeline(graph, FLOAT_C)
    assert not any(run_pipeline(graph, FLOAT_C).values())
    feeds = {graph.inputs[0].name: case.x}
    part = lower(graph, plan(graph), targets.get("host"), tmp_path, name, Vector(feeds, run(graph, feeds)))
    (tmp_path / "manifest.json").write_text(json.dumps({**part, "target": "host"}))
    program = host.Program(tmp_path)
    (got,) = program.call([np.ascontiguousarray(case.x)])
    assert relative_difference(got, run_ort(case.model, case.x)) <= 1e-5
