"""y = a * x + c per channel: where such a map comes from, and how it passes ops that only move or average."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...graph import Array, Node, Value
from ...ops.elementwise import Add, Affine, Div, Mul, Sub
from ...ops.norm import BatchNorm, RepNorm
from ...ops.pool import AveragePool, Mean, Sum
from ...ops.shape import Concat, Expand, Gather, Reshape, Resize, Slice, Split, Transpose
from ...rewrite import Miss

MOST_CHANNELS = 2**20
"""Far more than layers have: a map takes 16 bytes for each."""


@dataclass(frozen=True, eq=False)
class ChannelMap:
    """y = a * x + c along `axis` (counted from the front) of some value; a and c are float64 vectors."""

    axis: int
    a: Array
    c: Array

    def at(self, axis: int) -> ChannelMap:
        """The same map along another axis."""
        return ChannelMap(axis, self.a, self.c)

    def within(self, size: int, start: int) -> ChannelMap:
        """The same map on channels [start, start + len) out of `size`; the others stay as they are."""
        _check_size(size)
        a, c = np.ones(size), np.zeros(size)
        a[start : start + len(self.a)] = self.a
        c[start : start + len(self.c)] = self.c
        return ChannelMap(self.axis, a, c)

    def then(self, other: ChannelMap) -> ChannelMap:
        """First this map, then the other."""
        return ChannelMap(self.axis, other.a * self.a, other.a * self.c + other.c)

    @property
    def is_factor(self) -> bool:
        """Whether it multiplies all channels by the same number, so that its axis does not matter."""
        return bool(np.all(self.a == self.a[0])) and not self.c.any()

    def over(self, size: int, axis: int) -> ChannelMap:
        """The same factor along another axis of that size."""
        _check_size(size)
        return ChannelMap(axis, np.full(size, self.a[0]), np.zeros(size))

    def equals(self, other: ChannelMap) -> bool:
        """Whether both do the same."""
        same = self.axis == other.axis and np.array_equal(self.a, other.a)
        return bool(same and np.array_equal(self.c, other.c))


def _check_size(size: int) -> None:
    if size > MOST_CHANNELS:
        raise Miss(f"an axis of {size} elements is none of channels")


def double(value: Value) -> Array:
    """The data of a constant in float64; raises `Miss` when it is computed at run time."""
    if value.data is None:
        raise Miss(f"'{value.name}' is not a constant")
    return value.data.astype(np.float64)


def norm_map(node: Node) -> ChannelMap:
    """The map that an Affine, BatchNorm or RepNorm node is.

    RepNorm is BatchNorm(x) + eta * x, hence a = scale / sqrt(var + eps) + eta and c = bias - mean * (a - eta).
    """
    op = node.op
    operands = [double(node.input(i)) for i in range(1, len(node.inputs))]
    if isinstance(op, Affine):
        a, c = operands
    elif isinstance(op, BatchNorm):
        a, c = op.coefficients(*operands[:4])
        a = a + operands[4].reshape(-1) if isinstance(op, RepNorm) else a
    else:
        raise Miss(f"{type(op).__name__} is no map per channel")
    return ChannelMap(op.axis % node.input(0).type.rank, a, c)


def arithmetic_maps(node: Node) -> tuple[Value, list[ChannelMap]]:
    """The data operand of an Add, Sub, Mul or Div with a constant, and the map that it is.

    A scalar is a map along every axis: several maps are returned, last axis first.

    Raises:
        Miss: No operand is constant, or the constant varies along more than one axis.
    """
    left, right = node.input(0), node.input(1)
    if left.is_constant == right.is_constant:
        raise Miss("exactly one operand must be a constant")
    data, constant = (right, left) if left.is_constant else (left, right)
    shape = node.output.shape
    if data.shape != shape:
        raise Miss(f"the constant '{constant.name}' stretches '{data.name}'")
    values = double(constant).reshape([1] * (len(shape) - constant.type.rank) + list(constant.shape))
    axes = [i for i, n in enumerate(values.shape) if n > 1]
    if len(axes) > 1:
        raise Miss(f"'{constant.name}' varies along axes {axes}, not along one")
    maps = []
    for axis in axes or range(len(shape) - 1, -1, -1):
        _check_size(shape[axis])
        vector = np.broadcast_to(values.reshape(-1), (shape[axis],))
        maps.append(ChannelMap(axis, *_coefficients(node, vector, constant is left)))
    return data, maps


def _coefficients(node: Node, v: Array, on_left: bool) -> tuple[Array, Array]:
    one, zero = np.ones_like(v), np.zeros_like(v)
    if isinstance(node.op, Mul):
        return v, zero
    if isinstance(node.op, Add):
        return one, v
    if isinstance(node.op, Sub):
        return (-one, v) if on_left else (one, -v)
    if isinstance(node.op, Div) and not on_left:
        return 1 / v, zero
    raise Miss("a constant divided by a value is not linear in the value")


# ---- passing ops that move or average ----


def matching_axis(source: tuple[int, ...], target: tuple[int, ...], axis: int) -> int | None:
    """Where `axis` of a tensor of shape `source` is after a reshape to `target`; None when it was cut or joined."""
    before = math.prod(source[:axis])
    for i, n in enumerate(target):
        if n == source[axis] and math.prod(target[:i]) == before:
            return i
    return None


def moved_axis(node: Node, axis: int) -> int | None:
    """Where input axis `axis` of a one-operand op that moves or averages is in its output; None when it is not kept.

    Averages are included where their weights sum to one: a map per channel then commutes with them.
    """
    op, x = node.op, node.inputs[0]
    if x is None:
        return None
    if isinstance(op, Transpose):
        return op.perm.index(axis)
    if isinstance(op, Reshape):
        return matching_axis(x.shape, op.shape, axis)
    if isinstance(op, Mean):
        reduced = {a % x.type.rank for a in op.axes}
        return None if axis in reduced else axis - (0 if op.keepdims else sum(a < axis for a in reduced))
    if isinstance(op, Gather):
        own, rank = op.axis % x.type.rank, node.input(1).type.rank
        return None if axis == own else axis if axis < own else axis + rank - 1
    whole = isinstance(op, AveragePool) and not (op.count_include_pad and any(op.pads))
    if whole or isinstance(op, Resize):
        return axis if axis == 1 else None
    return axis if isinstance(op, Slice | Split) else None


def downstream(node: Node, index: int, m: ChannelMap) -> list[tuple[Value, ChannelMap]]:
    """What a map on operand `index` becomes on the node's outputs.

    Raises:
        Miss: The op does not commute with a map per channel.
    """
    op = node.op
    if isinstance(op, Concat) and op.axis % len(node.output.shape) == m.axis:
        start = sum(node.input(i).shape[m.axis] for i in range(index))
        return [(node.output, m.within(node.output.shape[m.axis], start))]
    axis = moved_axis(node, m.axis) if index == 0 else None
    if axis is None:
        raise Miss(f"'{node.name}' ({type(op).__name__}) stands between it and the weights")
    if isinstance(op, Split) and op.axis % node.input(0).type.rank == m.axis:
        cuts = np.cumsum(op.sizes)[:-1]
        pieces = zip(node.outputs, np.split(m.a, cuts), np.split(m.c, cuts), strict=True)
        return [(value, ChannelMap(axis, a, c)) for value, a, c in pieces]
    if isinstance(op, Slice):
        cut = op.index(node.input(0).type.rank)[m.axis]
        return [(node.output, ChannelMap(axis, m.a[cut], m.c[cut]))]
    return [(value, m.at(axis)) for value in node.outputs]


def upstream(value: Value, m: ChannelMap) -> tuple[Value, ChannelMap]:
    """What a map on a value is on the operand of the op that moved it there.

    Raises:
        Miss: The value's producer is not an op that moves or averages.
    """
    node = value.producer
    if node is None:
        raise Miss(f"'{value.name}' is an input or constant")
    op, source = node.op, node.inputs[0]
    if source is None or source.type.rank == 0:
        raise Miss(f"'{value.name}' is made of nothing that has channels")
    rank = source.type.rank
    if isinstance(op, Split):
        cut = op.axis % rank
        m = m.over(value.shape[cut], cut) if m.is_factor else m
        if m.axis != cut:
            raise Miss(f"'{value.name}' is only a part of '{source.name}'")
        return source, m.within(source.shape[cut], sum(op.sizes[: node.outputs.index(value)]))
    if m.is_factor and isinstance(op, Reshape | Transpose | Expand | Sum | Mean | Slice | Gather):
        return source, m.over(source.shape[-1], rank - 1)
    axes = [i for i in range(rank) if moved_axis(node, i) == m.axis]
    if not axes:
        raise Miss(f"'{value.name}' is made by {type(op).__name__}, which has no weights")
    if isinstance(op, Slice) and op.index(rank)[axes[0]] != slice(None):
        raise Miss(f"'{value.name}' is only a part of '{source.name}'")
    return source, m.at(axes[0])
