"""Where the elements of a tensor lie in a flat buffer: layout ops change only that, and numpy does the arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...ir.graph import Array

__all__ = ["Access", "View", "merged"]


@dataclass(frozen=True)
class Access:
    """An element's place in a flat buffer: `offset` plus the sum of index times stride, over all axes, in elements."""

    offset: int
    strides: tuple[int, ...]

    def __call__(self, *index: object) -> object:
        """The place of an index, of numbers or of TVM's expressions."""
        place: object = self.offset
        for at, stride in zip(index, self.strides, strict=True):
            if stride and not (isinstance(at, int) and at == 0):
                place = place + (at if stride == 1 else at * stride)  # type: ignore[operator]
        return place


@dataclass(frozen=True)
class View:
    """A tensor inside the buffer called `slot`.

    `array` has the tensor's shape and strides over bytes that nobody reads: numpy's own views do the layout ops.
    """

    slot: str
    array: Array
    start: int

    @classmethod
    def whole(cls, slot: str, shape: tuple[int, ...]) -> View:
        """All elements of a buffer, in row-major order."""
        array = np.empty(shape, np.int8)
        return cls(slot, array, _address(array))

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return tuple(self.array.shape)

    @property
    def access(self) -> Access:
        """Place of each element; axes of size 1 have stride 0."""
        strides = tuple(0 if n == 1 else s for n, s in zip(self.array.shape, self.array.strides, strict=True))
        return Access(_address(self.array) - self.start if self.array.size else 0, strides)

    @property
    def row_major(self) -> bool:
        """Whether it is its whole buffer from the start, in order, as far as its size says."""
        return bool(self.array.flags.c_contiguous) and self.access.offset == 0

    def through(self, layout: Callable[[Array], Array]) -> View:
        """What a function of numpy makes of it without copying, such as a transpose or a slice."""
        return View(self.slot, layout(self.array), self.start)

    def reshaped(self, shape: tuple[int, ...]) -> View | None:
        """The same elements in row-major order under another shape; None where no strides can say that."""
        try:
            return self.through(lambda array: np.reshape(array, shape, copy=False))
        except ValueError:
            return None

    def broadcast(self, shape: tuple[int, ...]) -> View:
        """Stretched to a shape as numpy does."""
        return self.through(lambda array: np.broadcast_to(array, shape))


def merged(shape: tuple[int, ...], *accesses: Access) -> tuple[tuple[int, ...], tuple[Access, ...]]:
    """The same elements in the same order over as few axes as all accesses allow."""
    kept = [axis for axis, n in enumerate(shape) if n != 1]
    sizes = [shape[axis] for axis in kept]
    columns = [[access.strides[axis] for access in accesses] for axis in kept]
    axis = 0
    while axis + 1 < len(sizes):
        inner = sizes[axis + 1]
        if all(outer == step * inner for outer, step in zip(columns[axis], columns[axis + 1], strict=True)):
            sizes[axis : axis + 2] = [sizes[axis] * inner]
            del columns[axis]
        else:
            axis += 1
    if not sizes:
        sizes, columns = [1], [[0] * len(accesses)]
    strides = zip(*columns, strict=True)
    return tuple(sizes), tuple(Access(a.offset, tuple(s)) for a, s in zip(accesses, strides, strict=True))


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])
