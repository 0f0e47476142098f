"""Pooling windows and reductions over whole axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..graph import Array, Type
from ..op import Example, Op, require
from .conv import Pads, Pair, out_size, pad_image, windows
from .sampling import sample


@dataclass(frozen=True)
class _Pool(Op):
    """A window of `kernel` pixels moved by `strides` over an image padded by `pads` (top, left, bottom, right)."""

    kernel: Pair
    strides: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    ceil_mode: bool = False

    def infer(self, x: Type) -> Type:
        """x [B, C, H, W] -> [B, C, OH, OW]."""
        require(x.rank == 4, f"expects rank 4, got {x.shape}")
        sound = min(self.kernel) > 0 and min(self.strides) > 0 and min(self.pads) >= 0
        require(sound, f"no window: kernel {self.kernel}, strides {self.strides}, pads {self.pads}")
        sizes = [self._size(x.shape[2 + axis], axis) for axis in (0, 1)]
        require(min(sizes) > 0, f"the window {self.kernel} does not fit the padded image {x.shape[2:]}")
        return Type(x.dtype, (x.shape[0], x.shape[1], *sizes))

    def _size(self, size: int, axis: int) -> int:
        begin, end, stride = self.pads[axis], self.pads[2 + axis], self.strides[axis]
        floor = out_size(size, self.kernel[axis], stride, begin, end)
        rest = (size + begin + end - self.kernel[axis]) % stride
        # A window counts in ceil mode only if it starts inside the image or its leading pad.
        return floor + int(self.ceil_mode and rest > 0 and floor * stride < size + begin)

    def _windows(self, x: Array, value: float) -> Array:
        """The windows as [B, C, OH, OW, KH, KW], the border filled with `value`."""
        out = self.infer(Type(x.dtype.name, x.shape)).shape[2:]
        top, left, bottom, right = self.pads
        more = [max(0, (out[a] - 1) * self.strides[a] + self.kernel[a] - x.shape[2 + a] - self.pads[a]) for a in (0, 1)]
        padded = pad_image(x, (top, left, max(bottom, more[0]), max(right, more[1])), value)
        return windows(padded, self.kernel, self.strides)[:, :, : out[0], : out[1]]

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Padded, strided, and with a last window that hangs over."""
        yield cls((3, 3), (1, 1), (1, 1, 1, 1)), (sample(2, 3, 6, 5),)
        yield cls((2, 2), (2, 2)), (sample(1, 2, 6, 6),)
        yield cls((3, 3), (2, 2), (0, 0, 0, 0), True), (sample(1, 2, 6, 6),)


@dataclass(frozen=True)
class MaxPool(_Pool):
    """The greatest pixel of each window; padding never wins."""

    def reference(self, x: Array) -> Array:
        """See the class."""
        return np.asarray(self._windows(x, -np.inf).max(axis=(4, 5)))


@dataclass(frozen=True)
class AveragePool(_Pool):
    """The mean of each window; with `count_include_pad` the zero border counts as pixels."""

    count_include_pad: bool = False

    def reference(self, x: Array) -> Array:
        """See the class."""
        total = self._windows(x, 0.0).sum(axis=(4, 5))
        ones = np.ones((1, 1, *x.shape[2:]), x.dtype)
        if self.count_include_pad:
            # What hangs over in ceil mode lies outside the declared border and never counts.
            ones = pad_image(ones, self.pads, 1.0)
            inner = AveragePool(self.kernel, self.strides, (0, 0, 0, 0), self.ceil_mode)
            counts = inner._windows(ones, 0.0).sum(axis=(4, 5))
            return np.asarray(total / counts[:, :, : total.shape[2], : total.shape[3]])
        return np.asarray(total / self._windows(ones, 0.0).sum(axis=(4, 5)))


@dataclass(frozen=True)
class _Reduce(Op):
    """One number for all elements along `axes`, which stay as size 1 when `keepdims`."""

    axes: tuple[int, ...]
    keepdims: bool = False
    fn: ClassVar[Callable[..., Any]]

    def infer(self, x: Type) -> Type:
        """The reduced shape."""
        axes = {a % x.rank for a in self.axes}
        require(len(axes) == len(self.axes) > 0, f"axes {self.axes} are empty or repeat")
        shape = [1 if i in axes else n for i, n in enumerate(x.shape) if self.keepdims or i not in axes]
        return Type(x.dtype, tuple(shape))

    def reference(self, x: Array) -> Array:
        """See the class."""
        return np.asarray(type(self).fn(x, axis=self.axes, keepdims=self.keepdims)).astype(x.dtype, copy=False)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Space of an image, tokens of a sequence."""
        yield cls((2, 3), True), (sample(2, 3, 4, 5),)
        yield cls((1,)), (sample(2, 7, 3),)


class Mean(_Reduce):
    """The arithmetic mean; over space this is global average pooling."""

    fn = np.mean


class Sum(_Reduce):
    """The sum."""

    fn = np.sum


class ReduceMax(_Reduce):
    """The greatest element."""

    fn = np.max
