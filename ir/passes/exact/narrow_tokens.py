"""When only some tokens are read, only those are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Array, Graph, Node, Value
from ...op import Op
from ...ops.activation import Softmax, _Unary
from ...ops.attention import Attention
from ...ops.elementwise import Affine, _Binary
from ...ops.linear import Linear
from ...ops.norm import BatchNorm, LayerNorm, RMSNorm
from ...ops.shape import Gather, Reshape, Slice
from ...rewrite import Any, Match, Miss, P, Rule
from ..base import Pass
from .absorb import is_public, renewed

FEW = 8
"""A norm that is also read as a whole is repeated for a selection of at most one in so many rows."""

SPARED = 8
"""A selection moves up only if it spares at least one in so many rows: fewer are computed sooner than cut out of each
operand, and a copy of queries stands between layers that would run row by row together."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Which indices along one axis a Slice or Gather reads."""

    node: Node
    axis: int
    indices: Array


def selection(node: Node, index: int) -> Selection:
    """A reader as a selection.

    Raises:
        Miss: It is none, or selects along several axes.
    """
    op = node.op
    if index == 0 and isinstance(op, Gather) and node.input(1).data is not None:
        axis = op.axis % node.input(0).type.rank
        size = node.input(0).shape[axis]
        return Selection(node, axis, node.input(1).array % size)
    if index == 0 and isinstance(op, Slice):
        cuts = op.index(node.input(0).type.rank)
        axes = [i for i, n in enumerate(node.input(0).shape) if range(*cuts[i].indices(n)) != range(n)]
        if len(axes) == 1:
            (axis,) = axes
            return Selection(node, axis, np.arange(*cuts[axis].indices(node.input(0).shape[axis])))
    raise Miss(f"'{node.input(0).name}' is also read as a whole by '{node.name}'")


def union(readers: Sequence[Selection], size: int) -> Array:
    """Which of `size` indices anything reads, increasing."""
    read = np.zeros(size, bool)
    for reader in readers:
        read[reader.indices] = True
    return np.flatnonzero(read)


def select(graph: Graph, value: Value, axis: int, wanted: Array) -> Value:
    """The slices of a value at increasing indices, its rank kept; a constant is cut at once."""
    if value.data is not None:
        return renewed(graph, value, np.take(value.data, wanted, axis))
    first, last = int(wanted[0]), int(wanted[-1]) + 1
    made: Value
    if len(wanted) == last - first:
        cut = Slice((first,), (last,), (axis,), (1,))
        same = [reader.output for reader in value.readers if reader.op == cut]
        made = same[0] if same else graph.add(cut, value, name=f"{value.name}.narrow")
    else:
        indices = graph.constant(wanted, f"{value.name}.tokens")
        made = graph.add(Gather(axis), value, indices, name=f"{value.name}.narrow")
    return made


def _narrow(match: Match) -> Value:
    graph, value = match.graph, match.root.input(0)
    if is_public(graph, value):
        raise Miss(f"'{value.name}' is a graph output")
    readers = [selection(node, index) for node, index in value.uses]
    axis = readers[0].axis
    if any(reader.axis != axis for reader in readers):
        raise Miss(f"the readers of '{value.name}' select along different axes")
    wanted = union(readers, value.shape[axis])
    if len(wanted) in (0, value.shape[axis]):
        raise Miss(f"together the readers of '{value.name}' select all of it")
    if (value.shape[axis] - len(wanted)) * SPARED < value.shape[axis]:
        raise Miss(f"together the readers of '{value.name}' select nearly all of it")
    narrow = _push(graph, value, axis, wanted)
    for reader in readers:
        if reader.node is not match.root:
            graph.replace(reader.node.output, _again(graph, reader, narrow, wanted))
    own = next(reader for reader in readers if reader.node is match.root)
    return _again(graph, own, narrow, wanted)


def _apart(match: Match) -> Value:
    graph, value = match.graph, match.root.input(0)
    reader = selection(match.root, 0)
    wanted = union([reader], value.shape[reader.axis])
    if not len(wanted) or len(wanted) * FEW > value.shape[reader.axis]:
        raise Miss(f"too many rows of '{value.name}' would be normalised twice")
    return _again(graph, reader, _push(graph, value, reader.axis, wanted), wanted)


def _push(graph: Graph, value: Value, axis: int, wanted: Array) -> Value:
    """Compute only the wanted slices of a value, from slices of its operands."""
    node = value.producer
    if node is None:
        raise Miss(f"'{value.name}' is an input or constant")
    if len(node.outputs) > 1:
        raise Miss(f"'{node.name}' ({type(node.op).__name__}) makes several values")
    varying = _row_operands(node, axis)
    op: Op = node.op
    operands = list(node.inputs)
    for index, operand_axis in varying.items():
        operands[index] = select(graph, node.input(index), operand_axis, wanted)
    if isinstance(op, Reshape):
        op = Reshape(tuple(len(wanted) if i == axis else n for i, n in enumerate(op.shape)))
    made: Value = graph.add(op, *operands, name=node.name, sources=node.sources)
    return made


def _row_operands(node: Node, axis: int) -> dict[int, int]:
    """Operand index -> its axis along which row i of the output needs row i only.

    Raises:
        Miss: The op mixes rows along that axis.
    """
    op, out = node.op, node.output.type
    last = axis == out.rank - 1
    if isinstance(op, _Unary) or (isinstance(op, Linear | LayerNorm | RMSNorm) and not last):
        return {0: axis}
    if isinstance(op, Softmax | Affine | BatchNorm) and op.axis % out.rank != axis:
        return {0: axis}
    if isinstance(op, _Binary):
        places = {i: axis - (out.rank - node.input(i).type.rank) for i in (0, 1)}
        return {i: at for i, at in places.items() if at >= 0 and node.input(i).shape[at] == out.shape[axis]}
    if isinstance(op, Attention) and axis == 1:
        bias = node.optional(3)
        at = -1 if bias is None else bias.type.rank - 2
        return {0: 1, 3: at} if bias is not None and at >= 0 and bias.shape[at] == out.shape[1] else {0: 1}
    if isinstance(op, Reshape):
        x = node.input(0)
        same = [i for i in range(x.type.rank) if x.shape[: i + 1] == out.shape[: axis + 1] and i == axis]
        if same:
            return {0: axis}
    raise Miss(f"'{node.name}' ({type(op).__name__}) needs all of them")


def _again(graph: Graph, reader: Selection, narrow: Value, wanted: Array) -> Value:
    """What a reader selected, out of the narrowed value."""
    node, positions = reader.node, np.searchsorted(wanted, reader.indices)
    if np.array_equal(positions.reshape(-1), np.arange(len(wanted))):
        two_names = is_public(graph, node.output) and is_public(graph, narrow)
        if node.output.shape == narrow.shape and not two_names:
            return narrow
        made: Value = graph.add(Reshape(node.output.shape), narrow, name=node.name, sources=node.sources)
        return made
    indices = graph.constant(np.asarray(positions, np.int64), f"{node.name}.tokens")
    made = graph.add(Gather(reader.axis), narrow, indices, name=node.name, sources=node.sources)
    return made


@dataclass(frozen=True)
class NarrowTokens(Pass):
    """Move a selection of tokens up through ops that work row by row.

        LayerNorm(x) -> Gather token 0              becomes    Slice of x to token 0 -> LayerNorm -> Reshape
        Attention(q, k, v) -> token 0               becomes    Attention(token 0 of q, k, v)
        Add(x, Linear(h)) -> token 0                becomes    Add(token 0 of x, Linear(token 0 of h))

    Legal when all readers of the value are selections along one axis; the value is then computed for the union of what
    they read, if that spares enough. It stops where the value is also read as a whole (the keys and values of attention
    need every token), so no row is computed twice; but for a norm, which costs next to nothing for one row, while its
    whole output would have to lie in memory for the selection to read.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("narrow_tokens", P((Gather, Slice)), _narrow),
        Rule("norm_apart", P((Gather, Slice), P((LayerNorm, RMSNorm), Any("x"), shared=True)), _apart),
    )
