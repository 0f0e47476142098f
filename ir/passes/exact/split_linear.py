"""A Linear whose output is only cut into pieces becomes one Linear per piece."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...graph import Graph, Node, Value, sources_of
from ...ops import linear, shape
from ..base import Pass
from .absorb import is_public


@dataclass(frozen=True)
class SplitLinear(Pass):
    """Queries, keys and values are then never held together and again apart, and can have scales of their own."""

    def apply(self, graph: Graph) -> int:
        """Returns how many layers were split."""
        return sum(_split(graph, node) for node in graph.nodes if isinstance(node.op, linear.Linear))


def _split(graph: Graph, node: Node) -> bool:
    """Split one layer when all readers cut pieces out of its channels."""
    width, readers = node.output.shape[-1], node.output.readers
    cuts = [(value, *bounds) for reader in readers for value, bounds in _pieces(reader, width)]
    constant = all(value.is_constant for value in node.inputs[1:] if value is not None)
    if is_public(graph, node.output) or not constant or not cuts or not all(_pieces(each, width) for each in readers):
        return False
    if sum(end - start for _, start, end in cuts) > width:
        return False  # what several pieces share would be computed more than once
    weight, bias = node.input(1).array, node.optional(2)
    for value, start, end in cuts:
        rows = graph.constant(np.ascontiguousarray(weight[start:end]), f"{node.input(1).name}_{start}")
        part = None if bias is None else graph.constant(bias.array[start:end].copy(), f"{bias.name}_{start}")
        sources = sources_of(node, value.producer)
        made = graph.add(node.op, node.input(0), rows, part, name=value.name, sources=sources)
        graph.replace(value, made)
    graph.prune()
    return True


def _pieces(reader: Node, width: int) -> list[tuple[Value, tuple[int, int]]]:
    """(output, (start, end)) for each piece a reader cuts along the last axis; empty when it does anything else."""
    op, rank = reader.op, len(reader.input(0).shape)
    if isinstance(op, shape.Split) and op.axis % rank == rank - 1:
        ends = np.cumsum(op.sizes).tolist()
        return [(v, (e - n, e)) for v, e, n in zip(reader.outputs, ends, op.sizes, strict=True)]
    if isinstance(op, shape.Slice) and [a % rank for a in op.axes] == [rank - 1] and op.steps == (1,):
        start, end, _ = slice(op.starts[0], op.ends[0]).indices(width)
        return [(reader.output, (start, end))]
    return []
