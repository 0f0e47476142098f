"""A piece of a piece is one piece; one entry of an axis, without the axis, is gathered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Graph, Node, Value
from ...ops.shape import COPY, Gather, Reshape, Slice, Split
from ...rewrite import Any, Const, Match, Miss, P, Rule
from ..base import Pass


def sliced(shape: Sequence[int], cuts: Sequence[range]) -> Slice:
    """The Slice of a tensor of that shape that takes these indices of each axis."""
    axes = [axis for axis, cut in enumerate(cuts) if cut != range(shape[axis])]
    ends = [cuts[axis][-1] + (1 if cuts[axis].step > 0 else -1) for axis in axes]
    ends = [end if end >= 0 else -(2**31) for end in ends]  # before the first: no index says so but one far below
    starts, steps = [cuts[axis].start for axis in axes], [cuts[axis].step for axis in axes]
    return Slice(tuple(starts), tuple(ends), tuple(axes), tuple(steps))


def _merged(match: Match) -> Value:
    x, inner, outer = match["x"], match.node("inner").op, match.root.op
    assert isinstance(inner, Slice) and isinstance(outer, Slice)
    cuts = [range(n)[cut] for n, cut in zip(x.shape, inner.index(len(x.shape)), strict=True)]
    cuts = [whole[cut] for whole, cut in zip(cuts, outer.index(len(x.shape)), strict=True)]
    if COPY in (inner, outer) or not all(cuts):
        raise Miss("nothing is cut, or nothing is left")
    result: Value = match.add(sliced(x.shape, cuts), x)
    return result


def _entry(graph: Graph, x: Value, index: int, axis: int, root: Node, sources: Sequence[str]) -> Value:
    at = graph.constant(np.array(index), f"{root.name}.index")
    made: Value = graph.add(Gather(axis), x, at, name=root.name, sources=tuple(sources))
    return made


def _gathered(match: Match) -> Value:
    x, node = match["x"], match.node("cut")
    if isinstance(node.op, Gather):
        found = [(node.op.axis % x.type.rank, node.input(1).array.reshape(-1))]
    else:
        assert isinstance(node.op, Slice)
        cuts = [range(n)[cut] for n, cut in zip(x.shape, node.op.index(x.type.rank), strict=True)]
        found = [(axis, np.array(cut)) for axis, cut in enumerate(cuts) if cut != range(x.shape[axis])]
    if len(found) != 1 or not _drops(x.shape, found[0][0], found[0][1].size, match.root.output.shape):
        raise Miss("it is not one entry of one axis, or the axis stays")
    ((axis, (index,)),) = found
    return _entry(match.graph, x, int(index), axis, match.root, match.sources)


def _drops(shape: Sequence[int], axis: int, count: int, after: Sequence[int]) -> bool:
    return count == 1 and (*shape[:axis], *shape[axis + 1 :]) == tuple(after)


def _entries(graph: Graph, node: Node) -> int:
    """A Split into single entries whose axis every reader drops: one Gather each."""
    op, x = node.op, node.input(0)
    if not isinstance(op, Split) or set(op.sizes) != {1}:
        return 0
    axis = op.axis % len(x.shape)
    uses = [(index, reader) for index, value in enumerate(node.outputs) for reader in value.readers]
    public = any(value in graph.outputs for value in node.outputs)
    if public or not all(type(r.op) is Reshape and _drops(x.shape, axis, 1, r.output.shape) for _, r in uses):
        return 0
    for index, reader in uses:
        graph.replace(reader.output, _entry(graph, x, index, axis, reader, (*node.sources, *reader.sources)))
    graph.prune()
    return len(uses)


@dataclass(frozen=True)
class MergeSlices(Pass):
    """Slices of slices, as exporters write a step per axis, become one; legal when only the second reads the first.

    Reshape(Slice(x)) and Reshapes of a Split of one entry each    become    Gather(x), where they drop the axis
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("merge_slices", P(Slice, P(Slice, Any("x"), name="inner")), _merged),
        Rule("gather_entry", P(Reshape, P(Slice, Any("x"), name="cut")), _gathered),
        Rule("gather_entry", P(Reshape, P(Gather, Any("x"), Const(), name="cut")), _gathered),
    )

    def apply(self, graph: Graph) -> int:
        """What a Split cuts into single entries, then the rules."""
        return sum(_entries(graph, node) for node in graph.nodes if node in graph) + super().apply(graph)
