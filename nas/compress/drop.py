"""Branches left out: which of them a network misses least, by two criteria, and the graph without them.

The cosine of a stream before and after a branch, as in LLM-Drop (arXiv 2406.15786): one pass over the data ranks all.
The divergence of the output without a branch, as in FinerCut (arXiv 2405.18218): the branch of least divergence goes,
and the others are judged anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from ...ir.graph import Array, Graph
from ...ir.interpret import run, trace
from ..quality import angle
from .observe import chunks
from .rebuild import batched
from .sites import Branch, branches

__all__ = ["by_cosine", "by_divergence", "drop"]

Divergence = Callable[[Array, Array], float]


def drop(graph: Graph, names: Iterable[str]) -> Graph:
    """A copy in which these branches, named by their sums, are left out: what reads the sum reads the stream."""
    made, gone = graph.copy(), set(names)
    for branch in [each for each in branches(made) if each.name in gone]:
        node = made.value(branch.name).producer
        assert node is not None
        made.replace(node.output, node.input(branch.place))
    made.prune()
    return made


def by_cosine(graph: Graph, feeds: Mapping[str, Array]) -> list[tuple[str, float]]:
    """Branches by the mean cosine of stream and sum, token by token or pixel by pixel; what changes least first."""
    found = branches(graph)
    totals = {branch.name: 0.0 for branch in found}
    counts = dict.fromkeys(totals, 0)
    for _, lot in chunks(feeds):
        for name, cosines in _cosines(batched(graph, len(next(iter(lot.values())))), lot, found):
            totals[name] += float(cosines.sum())
            counts[name] += cosines.size
    scores = [(name, totals[name] / counts[name]) for name in totals]
    return sorted(scores, key=lambda each: -each[1])


def _cosines(graph: Graph, lot: Mapping[str, Array], found: Sequence[Branch]) -> Iterable[tuple[str, Array]]:
    held: dict[str, Array] = {}
    streams = {branch.stream for branch in found}
    sums = {branch.name: branch.stream for branch in found}
    for value, array in trace(graph, lot):
        axis = 1 if array.ndim == 4 else -1
        if value.name in sums:
            before = held[sums[value.name]].astype(np.float64)
            after = array.astype(np.float64)
            length = np.sqrt((before**2).sum(axis) * (after**2).sum(axis))
            yield value.name, (before * after).sum(axis) / np.maximum(length, np.finfo(np.float64).tiny)
        if value.name in streams:
            held[value.name] = array


def by_divergence(
    graph: Graph, feeds: Mapping[str, Array], most: int | None = None, divergence: Divergence = angle
) -> list[tuple[str, float]]:
    """Branches in the order in which they go, each with the divergence of the outputs once it and all before it have.

    Args:
        graph: The float graph; divergence is that of its first output.
        feeds: Stacked samples by input name.
        most: How many to take out; all by default.
        divergence: Of outputs [samples, ...] from those of the graph as it was; see `quality`.
    """
    wanted = outputs(graph, feeds)
    left = [branch.name for branch in branches(graph)]
    gone: list[tuple[str, float]] = []
    while left and (most is None or len(gone) < most):
        taken = [name for name, _ in gone]
        scores = {name: divergence(wanted, outputs(drop(graph, [*taken, name]), feeds)) for name in left}
        best = min(left, key=lambda name: scores[name])
        left.remove(best)
        gone.append((best, scores[best]))
    return gone


def outputs(graph: Graph, feeds: Mapping[str, Array]) -> Array:
    """The first output of a float graph for all samples."""
    name = graph.outputs[0].name
    parts = [run(batched(graph, len(next(iter(lot.values())))), lot)[name] for _, lot in chunks(feeds)]
    return np.concatenate(parts)
