"""Models of every family of blocks: blocks are found as often as the architecture has them, nothing stray is left.

The counts are those of the papers' descriptions; attention of windows, channels or shared keys is Attention.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edgesmith.frontend import load
from edgesmith.ir.interpret import run
from edgesmith.ir.passes.pipelines import run_pipeline

pytestmark = pytest.mark.corpus

FAMILIES: dict[str, tuple[int, dict[str, int]]] = {
    # stages of 2, 2, 6 and 2 blocks; every second block but the last is shifted: two rolls there and back
    "swin_tiny_patch4_window7_224": (290, {"Attention": 12, "MatMul": 0, "Split": 20, "Concat": 20, "Slice": 0}),
    # 12 blocks; three pool their queries and what passes by; only the embedding gives tokens an order
    "hiera_tiny_224": (178, {"Attention": 12, "ReduceMax": 6, "Transpose": 2, "Split": 0}),
    # stages of 2, 4 and 3 blocks of separable attention
    "mobilevitv2_100": (206, {"Softmax": 9, "Sum": 9, "Split": 9, "MatMul": 0}),
    # 12 blocks between channels, 2 of class attention; queries and keys have length 1
    "xcit_nano_12_p16_224": (482, {"Attention": 14, "RMSNorm": 24, "MatMul": 0}),
    "edgenext_x_small": (250, {"Attention": 3, "RMSNorm": 6, "MatMul": 0}),
    # 4 blocks of linear attention: keys with values, queries with both, and with the sum of keys
    "efficientvit_b0": (150, {"MatMul": 12, "Sum": 4, "Div": 4, "Pad": 0}),
    # 8 blocks of attention whose heads share keys and values
    "mobilenetv4_hybrid_medium": (270, {"Attention": 8, "MatMul": 0, "Softmax": 0}),
    # 12 blocks, each with a response norm: one gate per channel
    "convnextv2_atto": (228, {"Sqrt": 12, "Div": 12, "Gelu": 12, "LayerNorm": 17}),
    "pvt_v2_b0": (190, {"Attention": 8, "MatMul": 0}),
    # 9 gates per channel
    "mobilenetv3_small_050": (124, {"HardSigmoid": 9, "Conv": 53, "Mean": 10}),
    # 12 blocks, queries and keys turned by position; gated linear units
    "eva02_tiny_patch14_224": (344, {"Attention": 12, "Split": 24, "Neg": 0, "Silu": 12}),
    # 30 blocks, each with a gate over tokens
    "gmlp_ti16_224": (334, {"Split": 30, "Slice": 0, "Mul": 30}),
}
"""Nodes after the exact passes at most, and how often some ops stand there."""

STRAY = {"BatchNorm", "Erf", "Expand", "Pow", "Reciprocal", "Where"}


@pytest.fixture(scope="module")
def corpus() -> Any:
    """The exporter of real models, with its folder on the path."""
    sys.path.append(str(Path(__file__).parent / "corpus"))
    import timm_corpus

    return timm_corpus


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_family(name: str, corpus: Any) -> None:
    """Imported and simplified it agrees with torch; counts are the architecture's."""
    most, counts = FAMILIES[name]
    case = corpus.export(name)
    graph = load(case.model)
    feeds = {graph.inputs[0].name: case.x}
    for _ in range(2):
        (result,) = run(graph, feeds).values()
        assert corpus.relative_difference(result, case.y) <= case.tolerance
        run_pipeline(graph)
    ops = Counter(type(node.op).__name__ for node in graph.nodes)
    assert {op: ops[op] for op in counts} == counts
    assert not STRAY & ops.keys()
    assert len(graph.nodes) <= most
