"""ONNX written back for models that nobody here wrote: lean, the same numbers, and recognised as what it was."""

from __future__ import annotations

from collections import Counter

import onnx
import pytest

from edgesmith import frontend
from edgesmith.ir.cost import cost
from edgesmith.ir.passes.pipelines import FLOAT_ONNX, run_pipeline
from edgesmith.lowering.onnx.write import write
from edgesmith.runtimes import ort

pytestmark = [pytest.mark.corpus, pytest.mark.slow]

MODELS = {
    # the norm before the last block's queries stands once more, for the class token alone
    "vit_tiny_patch16_224": {"Conv": 1, "Gelu": 12, "LayerNormalization": 26, "Softmax": 12, "Gemm": 1},
    "mobileone_s0": {"Conv": 43, "Relu": 43, "Gemm": 1, "ReduceMean": 1},
}
"""Operators of the model that is written, of the kinds that tell."""

NODES = {"vit_tiny_patch16_224": 322, "mobileone_s0": 88}
"""All nodes; a block of a transformer has 26, of which 8 are Reshape and Transpose."""

DEBRIS = {"BatchNormalization", "Cast", "Constant", "Erf", "Identity", "Pow", "Shape", "Sqrt", "Sub", "Unsqueeze"}


@pytest.mark.parametrize("name", MODELS)
def test_written_models_are_lean_and_give_the_source_s_numbers(name: str, tmp_path) -> None:
    from timm_corpus import export, relative_difference

    case = export(name)
    source = onnx.load(case.model)
    graph = frontend.load(case.model)
    run_pipeline(graph, FLOAT_ONNX)
    path = tmp_path / "written.onnx"
    model = write(graph)
    path.write_bytes(model.SerializeToString(deterministic=True))
    counts = Counter(node.op_type for node in model.graph.node)
    assert {kind: counts[kind] for kind in MODELS[name]} == MODELS[name]
    assert counts.total() == NODES[name] < len(source.graph.node)
    assert not DEBRIS & set(counts)

    (ours,) = next(ort.reference(path, [{graph.inputs[0].name: case.x}])).values()
    # The source itself is off by `fp32_noise` in single precision; merged branches round elsewhere, no worse.
    assert relative_difference(ours, case.exact) < 2 * case.record["fp32_noise"]
    assert cost(frontend.load(path)) == cost(graph)
