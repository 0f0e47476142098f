"""Arithmetic on broadcast operands, and channel-wise affine maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..graph import Array, Type
from ..op import Example, Op, require
from .sampling import sample


def broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """Numpy's broadcast of two shapes, as a ShapeError when there is none."""
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        require(False, f"shapes {a} and {b} do not broadcast")
        raise


@dataclass(frozen=True)
class _Binary(Op):
    """y = fn(a, b), broadcast as in numpy."""

    fn: ClassVar[Callable[..., Any]]
    inplace: ClassVar[tuple[int, ...]] = (0, 1)

    def infer(self, a: Type, b: Type) -> Type:
        """Broadcast shape, common dtype."""
        require(a.dtype == b.dtype != "bool", f"operands have dtypes {a.dtype} and {b.dtype}")
        return Type(a.dtype, broadcast(a.shape, b.shape))

    def reference(self, a: Array, b: Array) -> Array:
        """See the class."""
        return np.asarray(type(self).fn(a, b), dtype=np.result_type(a, b))

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Equal shapes, a scalar, and both sides stretched."""
        yield cls(), (sample(2, 3, low=0.5), sample(2, 3, low=0.5, high=1.5))
        yield cls(), (sample(2, 3, low=0.5), np.full((), 1.5, np.float32))
        yield cls(), (sample(4, 1, 3, low=0.5), sample(2, 1, low=0.5, high=1.5))


class Add(_Binary):
    """a + b."""

    fn = np.add


class Sub(_Binary):
    """a - b."""

    fn = np.subtract


class Mul(_Binary):
    """a * b."""

    fn = np.multiply


class Div(_Binary):
    """a / b; of integers the fraction is cut off."""

    fn = np.divide

    def reference(self, a: Array, b: Array) -> Array:
        """See the class."""
        if a.dtype.kind == "f":
            return super().reference(a, b)
        down = a // b
        return np.asarray(down + ((a % b != 0) & ((a < 0) != (b < 0))), dtype=a.dtype)


class Pow(_Binary):
    """a ** b; of integers the fraction is cut off, which leaves powers of 1 and -1 where b is negative."""

    fn = np.power

    def reference(self, a: Array, b: Array) -> Array:
        """See the class."""
        if b.dtype.kind != "i":
            return super().reference(a, b)
        unit = np.where(np.abs(a) == 1, a, 0)
        powers = np.where(b < 0, np.where(b & 1, unit, np.abs(unit)), a ** np.maximum(b, 0))
        return np.asarray(powers, dtype=a.dtype)


class Minimum(_Binary):
    """The lesser of a and b."""

    fn = np.minimum


class Maximum(_Binary):
    """The greater of a and b."""

    fn = np.maximum


@dataclass(frozen=True)
class Affine(Op):
    """y = a * x + c, with a and c of length C along `axis`: what is left of an inference-time BatchNorm."""

    axis: int = -1
    inplace: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, x: Type, a: Type, c: Type) -> Type:
        """The type of x."""
        channels = x.shape[self.axis]
        fits = a.shape == (channels,) and c.shape == (channels,)
        require(fits, f"expects vectors of {channels}, got {a.shape}, {c.shape}")
        return Type(x.dtype, x.shape)

    def reference(self, x: Array, a: Array, c: Array) -> Array:
        """See the class."""
        return x * along(a, self.axis, x.ndim) + along(c, self.axis, x.ndim)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Channels last and channels first."""
        yield cls(-1), (sample(2, 3, 4), sample(4), sample(4, low=0))
        yield cls(1), (sample(2, 3, 4, 4), sample(3), sample(3, low=0))


def along(vector: Array, axis: int, rank: int) -> Array:
    """A vector reshaped so that it broadcasts along `axis` of a tensor of that rank."""
    return vector.reshape([-1 if i == axis % rank else 1 for i in range(rank)])
