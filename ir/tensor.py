"""What a value is: element type, static shape, and how its integers stand for real numbers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Quant:
    """How integers stand for real numbers: real = scale * (integer - zero_point).

    `scale` is one number, or one per index along `axis`.
    """

    scale: float | tuple[float, ...]
    zero_point: int = 0
    axis: int | None = None

    def scales(self, like: Array) -> Array:
        """The scale, or the scales broadcast along `axis`, in the precision of a real array, float64 for integers."""
        scale = np.asarray(self.scale, like.dtype if like.dtype.kind == "f" else np.float64)
        if self.axis is not None:
            scale = scale.reshape([-1 if i == self.axis % like.ndim else 1 for i in range(like.ndim)])
        return scale

    def dequantise(self, q: Array) -> Array:
        """Real values (float64) of an integer array."""
        return (q.astype(np.float64) - self.zero_point) * self.scales(q)

    def quantise(self, x: Array, dtype: str) -> Array:
        """Nearest integers (ties away from zero), saturated to `dtype`."""
        real = x.astype(np.float64)
        real /= self.scales(real)
        rounded = np.trunc(real + np.copysign(0.5, real)) + self.zero_point
        info = np.iinfo(dtype)
        q: Array = np.clip(rounded, info.min, info.max).astype(dtype)
        return q


@dataclass(frozen=True)
class Type:
    """What a value is: element type (a numpy name), static shape, and its quantisation if it has one."""

    dtype: str
    shape: tuple[int, ...]
    quant: Quant | None = None

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes when stored densely."""
        return self.size * self.numpy.itemsize

    @property
    def numpy(self) -> np.dtype[Any]:
        """The element type as numpy has it."""
        return np.dtype(self.dtype)

    def with_(self, **changes: Any) -> Type:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)
