"""Exact passes on models that nobody here wrote: what they must leave, and how little the answer may move."""

from __future__ import annotations

import numpy as np
import pytest

from edgesmith import frontend
from edgesmith.ir.cost import cost
from edgesmith.ir.interpret import run
from edgesmith.ir.passes.pipelines import run_pipeline

pytestmark = pytest.mark.corpus

SMALL = ("vit_xs", "test_vit")
LARGE = ("deit_tiny_patch16_224", "mobileone_s0", "repvit_m0_9", "levit_128s", "efficientformer_l1", "poolformer_s12")


def slowly(names):
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", [*SMALL, *slowly(LARGE)])
def test_numbers_stay_and_costs_fall(name: str) -> None:
    from timm_corpus import export, relative_difference

    case = export(name)
    graph = frontend.load(case.model)
    (x,), (y,) = graph.inputs, graph.outputs
    feeds, name_of_output, before = {x.name: case.x}, y.name, cost(graph)
    expected = run(graph, feeds, "float64")[name_of_output]
    run_pipeline(graph)
    actual = run(graph, feeds, "float64")[name_of_output]
    assert relative_difference(actual, expected) < 1e-5
    assert relative_difference(actual, case.exact) < 1e-5
    assert relative_difference(run(graph, feeds)[name_of_output], case.y) < case.tolerance
    after = cost(graph)
    assert (after.macs, after.parameters) < (before.macs, before.parameters)
    assert not any(run_pipeline(graph).values())


@pytest.mark.slow
def test_check_5_mobileone_s0_keeps_43_convolutions() -> None:
    from timm_corpus import export

    imported, graph = (load(export("mobileone_s0").model) for load in (frontend.imported, frontend.load))
    counts = cost(imported).ops
    assert (counts["Conv"], counts["BatchNorm"]) == (191, 35)
    run_pipeline(graph)
    assert cost(graph).ops == {"Conv": 43, "Linear": 1, "Mean": 1, "Relu": 43}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobileone_s0", "repvit_m0_9"])
def test_merged_branches_are_those_that_the_authors_merge(name: str) -> None:
    from timm_corpus import export

    ours, theirs = (frontend.load(export(name, reparam=on).model) for on in (False, True))
    for graph in (ours, theirs):
        run_pipeline(graph)
    assert cost(ours) == cost(theirs)


@pytest.mark.slow
def test_deit_tiny_has_no_layernorm_and_a_last_block_of_one_row() -> None:
    from timm_corpus import export

    graph = frontend.load(export("deit_tiny_patch16_224").model)
    before = cost(graph)
    run_pipeline(graph)
    after = cost(graph)
    assert after.ops["RMSNorm"] == 26  # 25, and the first of the last block once more for its class token
    assert "LayerNorm" not in after.ops
    rows = 196 * 192
    unread = rows * 192 + 2 * rows * 197 + rows * 192 + 2 * rows * 768
    assert before.macs - after.macs == unread
    assert np.all([node.op.scale == 1.0 for node in graph.nodes if type(node.op).__name__ == "Attention"])
