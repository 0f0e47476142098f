"""Fewer heads: which of an attention's heads the projection misses least, and the graph without these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...ir.graph import Array, Graph, Node
from ...ir.ops.attention import Attention
from .observe import Observed
from .rebuild import rebuilt
from .sites import Heads
from .width import surgeon

__all__ = ["importance", "keep", "kept_outputs", "spread"]


def importance(graph: Graph, site: Heads, seen: Observed) -> tuple[int, ...]:
    """The heads, the one that is worth most first: see `width.surgeon`, with the columns of a head as one block."""
    w = _layer(graph, site.out).input(1).array.astype(np.float64)
    return surgeon([(w, seen.inputs[site.out].moment)], site.count)


def keep(graph: Graph, site: Heads, kept: Sequence[int]) -> Graph:
    """The graph with these heads only; it computes what a zero in the projection's columns of the others would give."""
    attention = graph.value(site.name).producer
    assert attention is not None and isinstance(attention.op, Attention)
    weights: dict[str, Array] = {}
    for name in (site.q, site.k, site.v):
        node = _layer(graph, name)
        at = spread(kept, node.output.shape[-1] // site.count)
        weights |= {value.name: value.array[at] for value in node.inputs[1:] if value is not None}
    out = _layer(graph, site.out).input(1)
    weights[out.name] = out.array[:, spread(kept, out.shape[1] // site.count)]
    return rebuilt(graph, weights, {site.name: replace(attention.op, heads=len(kept))})


def kept_outputs(graph: Graph, site: Heads, kept: Sequence[int]) -> dict[str, Array]:
    """Which of their channels queries, keys and values still have, by the names of their layers."""
    names = (site.q, site.k, site.v)
    return {name: spread(kept, graph.value(name).shape[-1] // site.count) for name in names}


def spread(kept: Sequence[int], width: int) -> Array:
    """The channels of these heads, each of which has `width`."""
    return np.concatenate([np.arange(head * width, (head + 1) * width) for head in kept])


def _layer(graph: Graph, name: str) -> Node:
    node = graph.value(name).producer
    assert node is not None
    return node
