"""Where elements are rather than what they are: the greatest few along an axis, and writing to given places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..graph import Array, Type
from ..op import Example, Op, require
from .sampling import sample


@dataclass(frozen=True)
class ArgMax(Op):
    """Index (int64) of the greatest element along `axis`, the first of equal ones; the axis stays as size 1."""

    axis: int

    def infer(self, x: Type) -> Type:
        """The axis reduced to 1."""
        axis = self.axis % x.rank
        require(x.shape[axis] > 0, f"nothing is the greatest of none along axis {axis}")
        return Type("int64", (*x.shape[:axis], 1, *x.shape[axis + 1 :]))

    def reference(self, x: Array) -> Array:
        """See the class."""
        return np.asarray(np.argmax(x, axis=self.axis, keepdims=True), np.int64)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Classes of a batch, and a middle axis."""
        yield cls(-1), (sample(3, 7),)
        yield cls(1), (sample(2, 5, 3),)


@dataclass(frozen=True)
class TopK(Op):
    """The `count` greatest elements along `axis`, in that order, and their indices (int64); of equal ones the first."""

    count: int
    axis: int = -1

    def infer(self, x: Type) -> tuple[Type, Type]:
        """Two tensors with `count` elements along the axis."""
        axis = self.axis % x.rank
        require(0 <= self.count <= x.shape[axis], f"{x.shape[axis]} elements have no {self.count} greatest")
        shape = (*x.shape[:axis], self.count, *x.shape[axis + 1 :])
        return Type(x.dtype, shape), Type("int64", shape)

    def reference(self, x: Array) -> tuple[Array, Array]:
        """See the class."""
        # Sorting the reversed axis upwards and reading it backwards keeps equal elements in their order.
        size = x.shape[self.axis]
        order = size - 1 - np.flip(np.argsort(np.flip(x, self.axis), self.axis, kind="stable"), self.axis)
        chosen = np.take(order, np.arange(self.count), self.axis)
        return np.take_along_axis(x, chosen, self.axis), chosen.astype(np.int64)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Best classes, ties, and a middle axis."""
        yield cls(3), (sample(2, 7),)
        yield cls(2), (np.array([[1, 2, 2, 0, 2]], np.float32),)
        yield cls(2, 1), (sample(2, 5, 3),)


REDUCTIONS = {"none": None, "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


@dataclass(frozen=True)
class Scatter(Op):
    """x with rows along axis 0 overwritten by updates, or combined with them: row indices[i] takes updates[i].

    With reduction "none" indices must not repeat.
    """

    reduction: str = "none"

    def infer(self, x: Type, indices: Type, updates: Type) -> Type:
        """x [N, ...], indices [M] of integers, updates [M, ...] -> the type of x."""
        require(self.reduction in REDUCTIONS, f"reduction {self.reduction} is not known")
        require(indices.numpy.kind == "i" and indices.rank == 1, f"indices must be a list of integers, not {indices}")
        fits = updates.shape == (*indices.shape, *x.shape[1:]) and updates.dtype == x.dtype
        require(fits, f"updates {updates} do not fit {x} at {indices.shape} places")
        return Type(x.dtype, x.shape)

    def reference(self, x: Array, indices: Array, updates: Array) -> Array:
        """See the class."""
        y, combine = x.copy(), REDUCTIONS[self.reduction]
        if combine is None:
            y[indices] = updates
        else:
            combine.at(y, indices, updates)
        return y

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Overwriting rows, and adding twice to one."""
        yield cls(), (sample(5, 3), np.array([4, 1], np.int64), sample(2, 3))
        yield cls("add"), (sample(6), np.array([2, 2, 5], np.int64), sample(3))
