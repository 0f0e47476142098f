"""Models that nobody here wrote, from both of PyTorch's exporters: what is recognised, and how far the numbers move.

Run `python benchmarks/zoo.py [names...]` with the extra `train` installed. The difference is the largest of any output
in units of the largest output, against ONNX Runtime with its optimisations off; the tolerance is 1e-4, or 20 times what
single precision alone does to the model where that is more.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from edgesmith import frontend
from edgesmith.ir.cost import cost
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
)


def blocks(graph: Graph) -> str:
    """How often the ops occur that people think in."""
    counts = Counter(type(node.op).__name__ for node in graph.nodes)
    return ", ".join(f"{counts[name]} {name}" for name in BLOCKS if counts[name])


def row(name: str, exporter: str) -> list[str]:
    """Import one export, simplify it, and compare both graphs with ONNX Runtime."""
    import timm_corpus

    case = timm_corpus.export(name, exporter)
    graph = frontend.imported(case.model)
    imported = len(graph.nodes)
    frontend.recognised(graph)
    recognised, found = len(graph.nodes), blocks(graph)
    feeds = {graph.inputs[0].name: case.x}
    exact = next(iter(next(ort.reference(case.model, [feeds])).values()))
    before = timm_corpus.relative_difference(next(iter(run(graph, feeds).values())), exact)
    run_pipeline(graph)
    after = timm_corpus.relative_difference(next(iter(run(graph, feeds).values())), exact)
    worst = max(before, after)
    verdict = "" if np.isfinite(worst) and worst <= case.tolerance else "  [red]too far[/]"
    steps = f"{imported} -> {recognised} -> {len(graph.nodes)}"
    return [name, exporter, steps, found, blocks(graph), f"{cost(graph).macs / 1e6:,.0f}",
            f"{before:.1e}", f"{after:.1e}{verdict}", f"{case.tolerance:.0e}"]  # fmt: skip


def main(names: list[str]) -> None:
    """Print the table for the models named, or all."""
    import timm_corpus

    table = Table(title="Import and exact passes", show_lines=True)
    for head in ("model", "exporter", "nodes: imported, recognised, simplified", "recognised", "after exact passes"):
        table.add_column(head, overflow="fold")
    for head in ("M MACs", "difference: imported", "simplified", "allowed"):
        table.add_column(head, justify="right", overflow="fold")
    cases = [(name, exporter) for name in names or timm_corpus.NAMES for exporter in timm_corpus.OPSETS]
    for name, exporter in track(cases, "models", console=Console(stderr=True)):
        table.add_row(*row(name, exporter))
    Console(width=190).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
