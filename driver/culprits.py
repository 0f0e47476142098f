"""Which operation of a file spoils its numbers: the graph it was written from is kept beside it, and both are compared.

That takes a runtime whose every operation can be looked at: an evaluator, such as that of Core ML packages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.errors import UsageError

if TYPE_CHECKING:
    from ..ir.graph import Array, Graph
    from ..runtimes import Runner
    from ..runtimes.mlprogram import Comparison, Mode

__all__ = ["compared", "fault", "graph_feeds", "keep", "kept", "narrowed"]

GRAPH, WEIGHTS = "graph.txt", "graph.npz"

Feeds = Mapping[str, "Array"]


def keep(folder: Path, graph: Graph) -> None:
    """Lay a graph into an artifact: its text, and the arrays that the text abbreviates."""
    from ..ir.text import arrays_of, show

    (folder / GRAPH).write_text(show(graph), encoding="utf-8")
    np.savez(folder / WEIGHTS, allow_pickle=False, **arrays_of(graph))


def kept(folder: Path) -> Graph | None:
    """The graph that lies in an artifact; None where none does."""
    from ..ir.text import parse

    if not (folder / GRAPH).is_file():
        return None
    with np.load(folder / WEIGHTS, allow_pickle=False) as arrays:
        return parse((folder / GRAPH).read_text(encoding="utf-8"), dict(arrays))


def narrowed(runner: Runner, arithmetic: str) -> Runner:
    """The evaluator with another arithmetic.

    Raises:
        UsageError: There is no such arithmetic, or the runner computes in its own.
    """
    from ..runtimes.mil import Evaluator
    from ..runtimes.mlprogram import MODES

    if not isinstance(runner, Evaluator):
        raise UsageError(f"'{runner.name}' computes in an arithmetic of its own", do="leave --arithmetic out")
    if arithmetic not in MODES:
        raise UsageError(f"there is no arithmetic '{arithmetic}'", do=f"choose one of {', '.join(MODES)}")
    return Evaluator(MODES[arithmetic])


def graph_feeds(stored: Feeds, tensors: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    """What a file is fed, by the names of the graph that it was written from."""
    return {tensor.get("of", tensor["name"]): stored[tensor["name"]] for tensor in tensors}


def compared(runner: Runner, file: Path, graph: Graph, feeds: Feeds, names: Mapping[str, str]) -> Comparison | None:
    """Hold every operation of a file against the graph it was written from; None where the runner does not show them.

    Args:
        runner: What runs the file, in its arithmetic.
        file: Where it lies.
        graph: What it computes.
        feeds: Arrays by the graph's inputs.
        names: Name in the file by name in the graph, where they differ.
    """
    from ..runtimes.mil import Evaluator
    from ..runtimes.mlprogram import compare

    if not isinstance(runner, Evaluator):
        return None
    mode: Mode = runner.mode
    return compare(file, graph, feeds, mode, names=names)


def fault(comparison: Comparison | None) -> str:
    """The first operation at fault, in words; "" if there is none."""
    row = comparison.culprit if comparison else None
    if row is None:
        return ""
    if row.verdict == "meaning":
        return f"{row} computes something else: by itself it errs by {row.meaning:.1e} in float32"
    return f"{row} loses the numbers: by itself it errs by {row.own:.1e} where rounding explains {row.rounding:.1e}"
