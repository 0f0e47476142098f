"""A piece of a matrix product as rows and channels: which rows it reads, in which order, and which channels of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...graph import Array, Graph, Value
from ...ops.shape import Reshape, Transpose
from .heads import Origin, shaped


@dataclass(frozen=True)
class Grid:
    """The element numbers of a piece, taken apart: number = row * width + channel.

    Attributes:
        row_axes: Axes of the piece along which the row changes, or nothing does.
        channel_axes: Axes along which the channel changes.
        rows: Row of the source by the indices along `row_axes`.
        channels: Channel of the source by the indices along `channel_axes`.
    """

    row_axes: tuple[int, ...]
    channel_axes: tuple[int, ...]
    rows: Array
    channels: Array

    @property
    def in_order(self) -> bool:
        """Whether all rows of the source are read once, in their order."""
        return bool((self.rows.reshape(-1) == np.arange(self.rows.size)).all())

    @property
    def perm(self) -> tuple[int, ...]:
        """The permutation from [rows..., channels...] to the piece."""
        return tuple(int(i) for i in np.argsort((*self.row_axes, *self.channel_axes)))


def grid_of(origin: Origin) -> Grid | None:
    """A piece of a source whose channels come last; None where some axis changes rows and channels."""
    rows, channels = np.divmod(origin.numbers(), max(origin.source.shape[-1], 1))
    axes = range(rows.ndim)
    channel_axes = tuple(axis for axis in axes if _varies(channels, axis))
    row_axes = tuple(axis for axis in axes if axis not in channel_axes)
    if not rows.size or any(_varies(rows, axis) for axis in channel_axes):
        return None
    firsts = tuple(slice(None) if axis in row_axes else 0 for axis in axes)
    others = tuple(0 if axis in row_axes else slice(None) for axis in axes)
    grid = Grid(row_axes, channel_axes, rows[firsts], channels[others])
    count = origin.source.type.size // origin.source.shape[-1]
    whole = grid.rows.size == count and np.array_equal(np.sort(grid.rows, axis=None), np.arange(count))
    return grid if whole else None


def _varies(array: Array, axis: int) -> bool:
    return bool((array != array.take([0], axis)).any())


def strides_of(order: Array) -> list[tuple[int, int]] | None:
    """(size, stride) per digit, first digit first, of the mixed-radix numbers 0 ... that a permutation counts in."""
    flat, digits = order.reshape(-1), list[tuple[int, int]]()
    while flat.size > 1:
        stride = int(flat[1] - flat[0])
        steps = np.diff(flat)
        breaks = np.flatnonzero(steps != stride)
        size = int(breaks[0]) + 1 if breaks.size else flat.size
        if flat.size % size or (flat.reshape(-1, size) != flat[::size, None] + np.arange(size) * stride).any():
            return None
        digits.insert(0, (size, stride))
        flat = flat[::size]
    return digits


def reordered(graph: Graph, value: Value, order: Array, sources: tuple[str, ...]) -> Value | None:
    """Rows of [.., C] in another order, as [.., last axis of the order, C]; None when it is no transposition."""
    digits = strides_of(order)
    if digits is None or any(stride <= 0 for _, stride in digits):
        return None
    width = value.shape[-1]
    source = sorted(digits, key=lambda digit: -digit[1])
    value = shaped(graph, value, (*(size for size, _ in source), width), sources)
    perm = (*(source.index(digit) for digit in digits), len(digits))
    value = graph.add(Transpose(perm), value, name=f"{value.name}.windows", sources=sources)
    return shaped(graph, value, (order.size // order.shape[-1], order.shape[-1], width), sources)


def laid_out(graph: Graph, value: Value, grid: Grid, sources: tuple[str, ...]) -> Value:
    """Rows in the order of the grid, of its channels, in the form of the piece."""
    apart: Value = graph.add(Reshape((*grid.rows.shape, *grid.channels.shape)), value, sources=sources)
    made: Value = graph.add(Transpose(grid.perm), apart, sources=sources)
    return made
