"""Fewer channels: which of them matter least to the layers that read them, and the graph without these.

Channels go one by one: each time the one whose loss costs the layers behind it the least, after these have made the
best of the channels that are left (optimal brain surgeon: Hassibi and Stork 1993; for whole columns: ZipLM, arXiv
2302.04089). So every width is a prefix of one order, as in MatFormer (arXiv 2310.07707), which needs training for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...ir.graph import Array, Graph
from ...ir.op import Op
from ...ir.ops.conv import Conv
from .observe import Observed
from .rebuild import rebuilt
from .sites import Channels

__all__ = ["DAMP", "importance", "keep", "surgeon"]

DAMP = 1e-3
"""Of the mean of a moment's diagonal, added to it: channels that never differ have no inverse."""


def importance(graph: Graph, group: Channels, seen: Observed) -> tuple[int, ...]:
    """The channels of a group, the one that is worth most first."""
    problems = []
    for name in group.readers:
        node = graph.value(name).producer
        assert node is not None
        w = np.moveaxis(node.input(1).array, 1, -1)
        problems.append((w.reshape(-1, group.size).astype(np.float64), seen.inputs[name].moment))
    return surgeon(problems, group.size)


def surgeon(problems: Sequence[tuple[Array, Array]], count: int) -> tuple[int, ...]:
    """An order of `count` equal blocks of columns, so that any number of the last ones costs little.

    Args:
        problems: Weights [N, K] and second moment [K, K] of their input, one pair for each layer that reads the
            columns; column k belongs to block k // (K // count). A layer's loss counts as a share of its output.
        count: How many blocks.
    """
    whole = (float(np.einsum("nk,kl,nl->", w, moment, w)) for w, moment in problems)
    states = [
        (w / np.sqrt(max(energy, np.finfo(float).tiny)), np.linalg.inv(_damped(moment)))
        for (w, moment), energy in zip(problems, whole, strict=True)
    ]
    left, gone = list(range(count)), list[int]()
    while len(left) > 1:
        losses = {block: sum(_loss(w, inverse, _columns(w, block, count)) for w, inverse in states) for block in left}
        worst = min(left, key=lambda block: (losses[block], block))
        for w, inverse in states:
            _remove(w, inverse, _columns(w, worst, count))
        left.remove(worst)
        gone.append(worst)
    return (*left, *reversed(gone))


def _damped(moment: Array) -> Array:
    return np.asarray(moment + np.eye(len(moment)) * max(DAMP * float(np.trace(moment)) / len(moment), 1e-12))


def _columns(w: Array, block: int, count: int) -> slice:
    width = w.shape[1] // count
    return slice(block * width, (block + 1) * width)


def _loss(w: Array, inverse: Array, at: slice) -> float:
    """What the squared output loses without these columns when all others adapt."""
    return float(np.einsum("nk,kl,nl->", w[:, at], np.linalg.inv(inverse[at, at]), w[:, at]))


def _remove(w: Array, inverse: Array, at: slice) -> None:
    """Take columns out, in place, and let the others adapt."""
    share = np.linalg.solve(inverse[at, at], inverse[at, :])
    w -= w[:, at] @ share
    w[:, at] = 0.0
    inverse -= inverse[:, at] @ share
    size = at.stop - at.start
    inverse[at, :], inverse[:, at] = 0.0, 0.0
    inverse[at, at] = np.eye(size)


def keep(graph: Graph, group: Channels, kept: Sequence[int]) -> Graph:
    """The graph with these channels of a group only; it computes what a zero in the others would give."""
    at = np.asarray(kept)
    weights: dict[str, Array] = {}
    ops: dict[str, Op] = {}
    for name in (*group.writers, *group.depthwise):
        _cut(graph, name, 0, at, weights)
    for name in group.readers:
        _cut(graph, name, 1, at, weights)
    for name in group.depthwise:
        node = graph.value(name).producer
        assert node is not None and isinstance(node.op, Conv)
        ops[name] = replace(node.op, groups=len(at))
    return rebuilt(graph, weights, ops)


def _cut(graph: Graph, name: str, axis: int, at: Array, weights: dict[str, Array]) -> None:
    """Rows (axis 0) of a layer's weights and bias, or columns (axis 1) of its weights."""
    node = graph.value(name).producer
    assert node is not None
    for value in node.inputs[1 : 3 if axis == 0 else 2]:
        if value is not None:
            weights[value.name] = np.take(weights.get(value.name, value.array), at, axis)


def kept_outputs(group: Channels, kept: Sequence[int]) -> Mapping[str, Array]:
    """Which of their channels the layers of a group still make, by their names."""
    return {name: np.asarray(kept) for name in (*group.writers, *group.depthwise)}
