"""Fewer or narrower heads of attention: what the projection, or the scores, miss least; and the graph without it.

Heads go whole, or every head gives up some of its channels: those of queries and keys by what they add to the scores,
those of values by what the projection loses when it makes the best of the others.
"""

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

__all__ = ["Kept", "by_head", "importance", "keep", "keys", "outputs_kept", "values"]

Kept = tuple[tuple[int, ...], tuple[int, ...]]
"""Channels of queries and keys, and channels of values, of those that heads are left with: increasing."""


def importance(graph: Graph, site: Heads, seen: Observed) -> tuple[int, ...]:
    """The heads, the one that is worth most first: see `width.surgeon`, with the columns of a head as one block."""
    return surgeon([_projection(graph, site, seen)], site.count)


def values(graph: Graph, site: Heads, seen: Observed) -> tuple[int, ...]:
    """The channels of all values, the one that is worth most first."""
    w, moment = _projection(graph, site, seen)
    return surgeon([(w, moment)], w.shape[1])


def keys(site: Heads, seen: Observed) -> tuple[int, ...]:
    """The channels of queries and keys by their share in the scores, E[q^2] var(k), the greatest first.

    What all keys have in common moves no score against another.
    """
    q, k = (seen.wanted[name].astype(np.float64) for name in (site.q, site.k))
    shares = (q**2).mean(axis=(0, 1)) * k.var(axis=1).mean(axis=0)
    return tuple(int(channel) for channel in np.argsort(-shares, kind="stable"))


def by_head(order: Sequence[int], heads: Sequence[int], count: int, width: int, most: int) -> tuple[int, ...]:
    """The `most` first of an order over the channels of `count` heads in each of the `heads` that stay; increasing."""
    each = width // count
    return tuple(
        channel
        for head in heads
        for channel in sorted([channel for channel in order if channel // each == head][:most])
    )


def keep(graph: Graph, site: Heads, heads: int, kept: Kept) -> Graph:
    """The graph with so many heads and these of their channels; it computes what zeros in the others would give."""
    attention = graph.value(site.name).producer
    assert attention is not None and isinstance(attention.op, Attention)
    weights: dict[str, Array] = {}
    for name, at in outputs_kept(site, kept).items():
        weights |= {value.name: value.array[at] for value in _layer(graph, name).inputs[1:] if value is not None}
    out = _layer(graph, site.out).input(1)
    weights[out.name] = out.array[:, np.asarray(kept[1])]
    return rebuilt(graph, weights, {site.name: replace(attention.op, heads=heads)})


def outputs_kept(site: Heads, kept: Kept) -> dict[str, Array]:
    """Which of their channels queries, keys and values still have, by the names of their layers."""
    return {name: np.asarray(kept[part]) for name, part in ((site.q, 0), (site.k, 0), (site.v, 1))}


def _projection(graph: Graph, site: Heads, seen: Observed) -> tuple[Array, Array]:
    return _layer(graph, site.out).input(1).array.astype(np.float64), seen.inputs[site.out].moment


def _layer(graph: Graph, name: str) -> Node:
    node = graph.value(name).producer
    assert node is not None
    return node
