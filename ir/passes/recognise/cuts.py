"""Pieces of one value that together are the whole of it: one Split, however they were cut.

A roll, too, is pieces that change places; where it is written as an order of indices, these are pieces as well.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from ...graph import Graph, Node, Value, sources_of
from ...ops.shape import Concat, Gather, Reshape, Slice, Split
from ..base import Pass
from ..exact.merge_slices import sliced


@dataclass(frozen=True)
class RecogniseCuts(Pass):
    """Slices that tile an axis become a Split: rolled windows, halves of a gate, a class token and the other tokens."""

    def apply(self, graph: Graph) -> int:
        """Take orders of indices for pieces, state bounds in one way, then join slices of a value, axis by axis."""
        taken = sum(_taken(graph, node) + _stated(graph, node) for node in graph.nodes)
        values = [*graph.inputs, *(value for node in graph.nodes for value in node.outputs)]
        return taken + sum(_join(graph, value) for value in values)


def _taken(graph: Graph, node: Node) -> int:
    """Indices that go up evenly: a Slice; that begin again once: a Split and a Concat; one of one: a view."""
    if not isinstance(node.op, Gather) or node.input(1).data is None or node.input(1).type.rank > 1:
        return 0
    x, axis = node.input(0), node.op.axis % node.input(0).type.rank
    size = x.shape[axis]
    if size == node.input(1).type.size == 1:
        graph.replace(node.output, graph.add(Reshape(node.output.shape), x, name=node.name, sources=node.sources))
        graph.erase(node)
        return 1
    if not node.input(1).shape:
        return 0
    indices = node.input(1).array % size
    if not indices.size:
        return 0
    first, last = int(indices[0]), int(indices[-1])
    step = int(indices[1]) - first if indices.size > 1 else 1
    made: Value
    if step > 0 and (np.diff(indices) == step).all():
        cut = Slice((first,), (last + 1,), (axis,), (step,))
        made = graph.add(cut, x, name=node.name, sources=node.sources)
    elif np.array_equal(indices, np.roll(np.arange(size), -first)):
        pieces = graph.add(Split(axis, (first, size - first)), x, name=f"{node.name}.pieces", sources=node.sources)
        made = graph.add(Concat(axis), pieces[1], pieces[0], name=node.name, sources=node.sources)
    else:
        return 0
    graph.replace(node.output, made)
    graph.erase(node)
    return 1


def _stated(graph: Graph, node: Node) -> int:
    """Bounds inside the tensor, of those axes alone that are cut."""
    if not isinstance(node.op, Slice) or node not in graph or not node.output.type.size:
        return 0
    x = node.input(0)
    op = sliced(x.shape, [range(n)[cut] for n, cut in zip(x.shape, node.op.index(x.type.rank), strict=True)])
    if op == node.op or not op.axes:
        return 0
    graph.replace(node.output, graph.add(op, x, name=node.name, sources=node.sources))
    graph.erase(node)
    return 1


def _join(graph: Graph, value: Value) -> int:
    by_axis: dict[int, dict[tuple[int, int], list[Node]]] = defaultdict(lambda: defaultdict(list))
    for node, _ in value.uses:
        if isinstance(node.op, Slice) and (cut := _interval(value, node.op)) is not None:
            by_axis[cut[0]][cut[1:]].append(node)
    count = 0
    for axis, found in by_axis.items():
        pieces = sorted(found)
        ends = [0, *(end for _, end in pieces)]
        if len(pieces) < 2 or [start for start, _ in pieces] != ends[:-1] or ends[-1] != value.shape[axis]:
            continue
        nodes = [node for piece in pieces for node in found[piece]]
        if any(node.output is out for node in nodes for out in graph.outputs):
            continue  # an output keeps its own name
        sizes = tuple(end - start for start, end in pieces)
        parts = graph.add(Split(axis, sizes), value, name=nodes[0].name, sources=sources_of(*nodes))
        for piece, part in zip(pieces, parts, strict=True):
            for node in found[piece]:
                graph.replace(node.output, part)
                graph.erase(node)
        count += 1
    return count


def _interval(value: Value, op: Slice) -> tuple[int, int, int] | None:
    """(axis, start, end) of a slice along one axis without steps or gaps."""
    cuts = [cut.indices(n) for cut, n in zip(op.index(len(value.shape)), value.shape, strict=True)]
    axes = [i for i, n in enumerate(value.shape) if range(*cuts[i]) != range(n)]
    if len(axes) != 1 or cuts[axes[0]][2] != 1 or cuts[axes[0]][0] >= cuts[axes[0]][1]:
        return None
    return axes[0], cuts[axes[0]][0], cuts[axes[0]][1]
