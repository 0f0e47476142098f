"""Models that nobody here wrote, from both of PyTorch's exporters: what is recognised, and how far the numbers move.

Run `python benchmarks/zoo.py [names...]` with the extra `train` installed; a name may carry options of its export, such
as `vit_tiny_patch16_224:fused:23` or `fastvit_t8:reparam`. The difference is the largest of any output in units of the
largest output, against ONNX Runtime with its optimisations off; the tolerance is 1e-4, or 20 times what single
precision alone does to the model where that is more. A model that is not exported, or does not import, has its reason
in its row.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from edgesmith import frontend
from edgesmith.ir.cost import cost
from edgesmith.ir.errors import EdgesmithError
from edgesmith.ir.graph import Graph
from edgesmith.ir.interpret import run
from edgesmith.ir.passes.pipelines import run_pipeline
from edgesmith.runtimes import ort

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "corpus"))

BLOCKS = (
    "Attention",
    "Gelu",
    "LayerNorm",
    "RMSNorm",
    "GroupNorm",
    "Silu",
    "HardSwish",
    "PatchEmbed",
    "BatchNorm",
    "Conv",
    "Softmax",
)
STRAY = ("Shape", "Expand", "Where", "Erf", "Pow", "Reciprocal")
"""What should have been read as something, or folded; BatchNorm is listed with the blocks."""
VARIANTS = (
    "mobileone_s0:reparam",
    "repvit_m0_9:reparam",
    "fastvit_t8:reparam",
    "vit_tiny_patch16_224:fused",
    "vit_tiny_patch16_224:20",
    "vit_tiny_patch16_224:fused:23",
    "swin_tiny_patch4_window7_224:fused",
    "swin_tiny_patch4_window7_224:20",
    "swin_tiny_patch4_window7_224:fused:23",
    "efficientformerv2_s0:20",
    "mobilevit_xxs:fused:23",
)


def blocks(graph: Graph) -> str:
    """How often the ops occur that people think in."""
    counts = Counter(type(node.op).__name__ for node in graph.nodes)
    return ", ".join(f"{counts[name]} {name}" for name in BLOCKS if counts[name])


def exported(spec: str, exporter: str) -> Any:
    """The case that a name with options stands for; an opset above 18 is written by dynamo alone."""
    import timm_corpus

    name, *options = spec.split(":")
    opsets = [int(option) for option in options if option.isdigit()]
    return timm_corpus.export(
        name, exporter, fused_attn="fused" in options, reparam="reparam" in options, opset=opsets[0] if opsets else None
    )


def row(spec: str, exporter: str) -> list[str]:
    """Import one export, simplify it, and compare both graphs with ONNX Runtime."""
    import timm_corpus

    try:
        case = exported(spec, exporter)
        begin = time.process_time()
        graph = frontend.imported(case.model)
        imported = len(graph.nodes)
        frontend.recognised(graph)
        seconds = time.process_time() - begin
    except (EdgesmithError, RuntimeError) as error:  # torch's exporters raise RuntimeErrors
        return [spec, exporter, "", "", str(error).splitlines()[0], *[""] * 6]
    recognised, found = len(graph.nodes), blocks(graph)
    feeds = {graph.inputs[0].name: case.x}
    exact = next(iter(next(ort.reference(case.model, [feeds])).values()))
    before = timm_corpus.relative_difference(next(iter(run(graph, feeds).values())), exact)
    run_pipeline(graph)
    after = timm_corpus.relative_difference(next(iter(run(graph, feeds).values())), exact)
    worst = max(before, after)
    verdict = "" if np.isfinite(worst) and worst <= case.tolerance else "  [red]too far[/]"
    steps = f"{imported} -> {recognised} -> {len(graph.nodes)}"
    stray = Counter(type(node.op).__name__ for node in graph.nodes)
    left = ", ".join(f"{stray[name]} {name}" for name in STRAY if stray[name])
    return [spec, exporter, steps, found, blocks(graph), left, f"{cost(graph).macs / 1e6:,.0f}", f"{seconds:.1f}",
            f"{before:.1e}", f"{after:.1e}{verdict}", f"{case.tolerance:.0e}"]  # fmt: skip


def cases(names: list[str]) -> list[tuple[str, str]]:
    """Each model from both exporters, each variant from the one that writes it."""
    import timm_corpus

    every = names or [*timm_corpus.NAMES, *timm_corpus.FAMILIES, *VARIANTS]
    newer = {spec for spec in every if any(option.isdigit() for option in spec.split(":"))}
    return [(spec, by) for spec in every for by in timm_corpus.OPSETS if by == "dynamo" or spec not in newer]


def main(names: list[str]) -> None:
    """Print the table for the models named, or all."""
    table = Table(title="Import and exact passes", show_lines=True)
    for head in ("model", "exporter", "nodes: imported, recognised, simplified", "recognised", "after exact passes"):
        table.add_column(head, overflow="fold")
    for head in ("stray", "M MACs", "s", "difference: imported", "simplified", "allowed"):
        table.add_column(head, justify="right", overflow="fold")
    for spec, exporter in track(cases(names), "models", console=Console(stderr=True)):
        table.add_row(*row(spec, exporter))
    Console(width=200).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
