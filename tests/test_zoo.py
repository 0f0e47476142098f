"""Real models from both exporters of torch: they import, they agree with ONNX Runtime, their blocks are counted."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesmith.frontend import load
from edgesmith.ir.interpret import run

pytestmark = pytest.mark.corpus

VIT = {"PatchEmbed": 1, "Attention": 12, "Gelu": 12, "LayerNorm": 25, "Linear": 73}
SMALL_VIT = {"PatchEmbed": 1, "Attention": 6, "Gelu": 6, "LayerNorm": 13, "Linear": 37}
BLOCKS: dict[str, dict[str, int]] = {
    "vit_xs": {"PatchEmbed": 1, "Attention": 4, "Gelu": 4, "LayerNorm": 9, "Linear": 25},
    "vit_mcu": SMALL_VIT,
    "test_vit": SMALL_VIT,
    "vit_tiny_patch16_224": VIT,
    "deit_tiny_patch16_224": VIT,
    "deit_small_patch16_224": VIT,
    "deit_tiny_distilled_patch16_224": {**VIT, "Linear": 74},
    # one block of attention at the end; pooling mixes the tokens before it
    "efficientformer_l1": {"Attention": 1, "LayerNorm": 3, "Gelu": 15, "AveragePool": 14, "Conv": 33},
    # its blocks mix scores across heads, which is no plain attention: only the one that downsamples is
    "efficientformerv2_s0": {"Attention": 1, "Softmax": 4, "Gelu": 35, "Resize": 2, "BatchNorm": 1},
    "mobilevit_xxs": {"Attention": 9, "LayerNorm": 21, "Silu": 34, "Conv": 35},
    "mobileone_s0": {"Conv": 191, "BatchNorm": 35, "Relu": 43},
    "poolformer_s12": {"GroupNorm": 24, "AveragePool": 12, "Gelu": 12, "LayerNorm": 1, "Conv": 28},
    # three stages of 2, 3 and 4 blocks, and two that downsample between them
    "levit_128s": {"Attention": 11, "HardSwish": 25, "Conv": 4, "Softmax": 0},
    "mobilenetv4_conv_small": {"Conv": 46, "Relu": 30, "Linear": 1},
    "repvit_m0_9": {"Conv": 126, "Gelu": 27, "BatchNorm": 25},
}
"""How often each op stands in the recognised graph: what the architecture's description says."""

DEBRIS = {"Erf", "Expand", "Pow", "Sqrt", "Reciprocal", "Sub"}
"""Spellings that should have been recognised; EfficientFormer's and PoolFormer's own Sub is a layer, not debris."""


@pytest.fixture(scope="module")
def corpus() -> Any:
    """The exporter of real models, with its folder on the path."""
    sys.path.append(str(Path(__file__).parent / "corpus"))
    import timm_corpus

    return timm_corpus


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
@pytest.mark.parametrize("name", BLOCKS)
def test_model(name: str, exporter: str, corpus: Any) -> None:
    """Within 20 times the noise of float32 itself, every block recognised, in seconds."""
    case = corpus.export(name, exporter)
    begin = time.process_time()
    graph = load(case.model)
    assert time.process_time() - begin < 5 + case.record["parameters"] / 5e6
    ops = Counter(type(node.op).__name__ for node in graph.nodes)
    assert {op: ops[op] for op in BLOCKS[name]} == BLOCKS[name]
    pooled = "AveragePool" in BLOCKS[name]
    assert not (DEBRIS - ({"Sub"} if pooled else set())) & ops.keys()
    assert all(node.sources for node in graph.nodes)
    (result,) = run(graph, {graph.inputs[0].name: case.x}).values()
    expected = corpus.run_ort(case.model, case.x)
    assert corpus.relative_difference(result, expected) <= case.tolerance
    assert corpus.relative_difference(result, case.y) <= case.tolerance
    assert np.argmax(result) == np.argmax(expected)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "levit_128s", "mobilevit_xxs"])
def test_exporters_lead_to_one_graph(name: str, corpus: Any) -> None:
    """Both exporters of the same model end in the same operators."""
    graphs = [load(corpus.export(name, exporter).model) for exporter in ("legacy", "dynamo")]
    first, second = (Counter(type(node.op).__name__ for node in graph.nodes) for graph in graphs)
    assert first == second


@pytest.mark.parametrize(
    ("exporter", "options"),
    [("legacy", {"fused_attn": True}), ("dynamo", {"fused_attn": True, "opset": 23}), ("dynamo", {"opset": 20})],
    ids=["fused, legacy", "Attention operator", "Gelu operator"],
)
def test_other_exports_of_one_model(exporter: str, options: dict[str, Any], corpus: Any) -> None:
    """Scale on both operands, the Attention operator, the Gelu operator: the same graph again."""
    case = corpus.export("test_vit", exporter, **options)
    graph = load(case.model)
    ops = Counter(type(node.op).__name__ for node in graph.nodes)
    assert {op: ops[op] for op in SMALL_VIT} == SMALL_VIT
    (result,) = run(graph, {graph.inputs[0].name: case.x}).values()
    assert corpus.relative_difference(result, case.y) <= case.tolerance


def test_norms_before_opset_17(corpus: Any) -> None:
    """Without the LayerNormalization operator there are nine nodes for each."""
    graph = load(corpus.export("test_vit", "legacy", opset=11).model)
    ops = Counter(type(node.op).__name__ for node in graph.nodes)
    assert {op: ops[op] for op in SMALL_VIT} == SMALL_VIT


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "levit_128s", "poolformer_s12"])
def test_folding_changes_no_bit(name: str, corpus: Any) -> None:
    """The folded file and the exporter's give the same bytes under ONNX Runtime without optimisations."""
    from edgesmith.frontend.fold import fold
    from edgesmith.frontend.fold import run as run_plainly
    from edgesmith.frontend.reader import read
    from edgesmith.frontend.shapes import bind

    case = corpus.export(name, "legacy")
    model = read(case.model)
    bind(model, {})
    fold(model)
    assert len(model.graph.node) < 0.9 * case.record["nodes"]
    feeds = {model.graph.input[0].name: case.x}
    before = run_plainly(case.model.read_bytes(), feeds, [])
    after = run_plainly(model.complete().SerializeToString(), feeds, [])
    assert [a.tobytes() for a in before] == [a.tobytes() for a in after]
