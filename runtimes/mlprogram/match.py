"""Which value of a program is which value of our graph: by name, and by axes where the layout differs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

import numpy as np

from ...ir.graph import Graph, Value
from .program import Array, Program

__all__ = ["aligned", "distance", "matched", "sanitised"]


def sanitised(name: str) -> str:
    """A name as MIL takes it: letters, digits and underscores, and no digit first (coremltools' own rule)."""
    clean = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return f"var_{clean}" if clean[:1].isdigit() else clean


def matched(program: Program, graph: Graph, names: Mapping[str, str]) -> dict[str, Value]:
    """Values of the graph by name in the program, of all results that both have.

    Args:
        program: The one.
        graph: The other.
        names: Name in the program by name in the graph, where known; others keep theirs, sanitised if need be.
    """
    made = {name for each in program.operations for name, _ in each.outputs}
    result: dict[str, Value] = {}
    for value in (value for node in graph.nodes for value in node.outputs):
        known = [names[value.name]] if value.name in names else [value.name, sanitised(value.name)]
        for name in known:
            if name in made:
                result.setdefault(name, value)
                break
    return result


def aligned(ours: Array, theirs: Array) -> Array | None:
    """Our array with its axes laid out as theirs are; None where no order of axes can do that.

    Tokens are [B, N, C] here and [B, C, 1, N] in a program for the Neural Engine. Where several orders fit, it is the
    one whose numbers come closest.
    """
    if ours.shape == theirs.shape:
        return ours
    if ours.size != theirs.size:
        return None
    long = [size for size in ours.shape if size > 1]
    target = tuple(size for size in theirs.shape if size > 1)
    tight = ours.reshape(long)
    orders = [p for p in itertools.permutations(range(len(long))) if tuple(long[axis] for axis in p) == target]
    if not orders:
        flat = ours.reshape(theirs.shape)
        return flat if _far(flat, theirs) < 0.1 else None
    candidates = [tight.transpose(order).reshape(theirs.shape) for order in orders]
    return min(candidates, key=lambda array: _far(array, theirs)) if len(candidates) > 1 else candidates[0]


def _far(one: Array, other: Array) -> float:
    """Mean distance of the numbers that are finite in both, against the mean size."""
    both = np.isfinite(one) & np.isfinite(other)
    return float(np.abs(one - other, where=both, out=np.zeros_like(one)).sum() / (np.abs(one[both]).sum() + 1e-30))


def distance(found: Array, wanted: Array) -> float:
    """Largest difference; infinite where one is no number and the other is, zero where both are the same infinity."""
    with np.errstate(invalid="ignore"):
        apart = np.where(found == wanted, 0.0, np.abs(found.astype(np.float64) - wanted))
    both = np.isnan(found) & np.isnan(wanted) if found.dtype.kind == "f" else np.zeros(found.shape, bool)
    return float(np.where(both, 0.0, np.where(np.isnan(apart), np.inf, apart)).max(initial=0.0))
