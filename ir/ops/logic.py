"""Comparison, selection and change of element type: what masks and runtime conditions are made of.

And, or, exclusive or and negation need no ops of their own: they are selections and comparisons of truth values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..graph import Array, Type
from ..op import Example, Op, require
from .elementwise import broadcast
from .sampling import sample


@dataclass(frozen=True)
class _Comparison(Op):
    """Truth values from two tensors of one element type, broadcast as in numpy."""

    def infer(self, a: Type, b: Type) -> Type:
        """Broadcast shape, bool."""
        require(a.dtype == b.dtype, f"operands have dtypes {a.dtype} and {b.dtype}")
        return Type("bool", broadcast(a.shape, b.shape))

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Equal shapes with ties, and both sides stretched."""
        yield cls(), (np.rint(sample(2, 5)), np.rint(sample(2, 5, high=1.5)))
        yield cls(), (sample(4, 1, 3), sample(2, 1))


class Equal(_Comparison):
    """a == b."""

    def reference(self, a: Array, b: Array) -> Array:
        """See the class."""
        return np.asarray(a == b)


class Less(_Comparison):
    """a < b."""

    def reference(self, a: Array, b: Array) -> Array:
        """See the class."""
        return np.asarray(a < b)


@dataclass(frozen=True)
class Where(Op):
    """a where the condition holds, b elsewhere; all three broadcast as in numpy."""

    def infer(self, condition: Type, a: Type, b: Type) -> Type:
        """Broadcast shape, common dtype of a and b."""
        require(condition.dtype == "bool", f"the condition must be bool, not {condition.dtype}")
        require(a.dtype == b.dtype, f"operands have dtypes {a.dtype} and {b.dtype}")
        return Type(a.dtype, broadcast(condition.shape, broadcast(a.shape, b.shape)))

    def reference(self, condition: Array, a: Array, b: Array) -> Array:
        """See the class."""
        return np.where(condition, a, b)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """A full mask, and a row of it."""
        yield cls(), (sample(2, 3) > 0, sample(2, 3), sample(2, 3, low=5, high=6))
        yield cls(), (sample(4, 1) > 0, sample(1, 3), np.full((), -1e9, np.float32))


@dataclass(frozen=True)
class Cast(Op):
    """The same numbers in another element type; towards integers the fraction is cut off, towards bool 0 is false."""

    dtype: str

    def infer(self, x: Type) -> Type:
        """The shape of x."""
        return Type(self.dtype, x.shape)

    def reference(self, x: Array) -> Array:
        """See the class; a larger integer loses its upper bits."""
        if x.dtype.kind == "f" and np.dtype(self.dtype).kind in "iu":
            x = np.trunc(x).astype(np.int64)
        return x.astype(self.dtype)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Down to integers, up from them, and truth values."""
        yield cls("int32"), (sample(2, 5),)
        yield cls("float32"), (np.arange(-3, 5, dtype=np.int64),)
        yield cls("bool"), (np.array([0, 2, -1], np.float32),)
