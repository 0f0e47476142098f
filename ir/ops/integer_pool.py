"""Integer pooling, means and resizing over images with channels last; hanging windows are pads here, not a mode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .. import integer as arithmetic
from .. import integer_ops
from ..graph import Array, Quant, Type
from ..op import Example, Op, require
from .conv import Pads, Pair
from .integer import NARROW, IntegerOp, integers, require_dtype


def _pooled(x: Type, kernel: Pair, strides: Pair, pads: Pads) -> tuple[int, ...]:
    require(x.rank == 4 and x.shape[0] == 1, f"expects one image [1, H, W, C], got {x.shape}")
    size = integer_ops.output_size((x.shape[1], x.shape[2]), kernel, strides, pads)
    require(min(size) > 0, f"the window {kernel} does not fit the padded image {x.shape[1:3]}")
    return (1, *size, x.shape[3])


@dataclass(frozen=True)
class QMaxPool(Op):
    """The greatest pixel of each window; padding never wins, and integers keep their meaning."""

    kernel: Pair
    strides: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)

    def infer(self, x: Type) -> Type:
        """x int8|int16 [1, H, W, C] -> [1, OH, OW, C]."""
        require_dtype("x", x, *NARROW)
        return x.with_(shape=_pooled(x, self.kernel, self.strides, self.pads))

    def reference(self, x: Array) -> Array:
        """See the class."""
        return integer_ops.qmaxpool(x[0], self.kernel, self.strides, self.pads)[None]

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Padded, and strided."""
        yield cls((3, 3), (1, 1), (1, 1, 1, 1)), (integers(1, 6, 5, 3),)
        yield cls((3, 2), (2, 2), (0, 0, 1, 0)), (integers(1, 6, 6, 2),)


@dataclass(frozen=True)
class QAveragePool(IntegerOp):
    """requant(sum of the window's x - x_zero, mults[n]), n being the pixels that count: 1/n is inside mults."""

    kernel: Pair = (1, 1)
    strides: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    count_include_pad: bool = False
    mults: tuple[int, ...] = ()
    pre: int = 0
    x_zero: int = 0

    def infer(self, x: Type) -> Type:
        """x int8|int16 [1, H, W, C] -> [1, OH, OW, C]."""
        require_dtype("x", x, *NARROW)
        area = self.kernel[0] * self.kernel[1]
        require(len(self.mults) == area + 1, f"expects {area + 1} multipliers, got {len(self.mults)}")
        return self.typed(_pooled(x, self.kernel, self.strides, self.pads))

    def reference(self, x: Array) -> Array:
        """See the class."""
        window = (self.kernel, self.strides, np.asarray(self.mults), self.pre, self.pads, self.x_zero)
        return integer_ops.qavgpool(x[0], *window, self.zero, self.bits, self.count_include_pad)[None]

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Border counted and not counted."""
        mults, pre = integer_ops.pool_multipliers(0.9, (3, 3), 9 * 256)
        for counted in (False, True):
            args = ((3, 3), (2, 1), (1, 1, 1, 1), counted, tuple(mults.tolist()), pre, -7)
            yield cls(Quant(0.1, 4), "int8", *args), (integers(1, 6, 5, 3),)


@dataclass(frozen=True)
class QMean(IntegerOp):
    """requant(sum over `axes` of x - x_zero, mult); mult holds 1/count, or not, which makes it a sum."""

    axes: tuple[int, ...] = ()
    keepdims: bool = False
    mult: int = 0
    pre: int = 0
    x_zero: int = 0

    def infer(self, x: Type) -> Type:
        """The reduced shape."""
        require_dtype("x", x, *NARROW)
        axes = {a % x.rank for a in self.axes}
        require(len(axes) == len(self.axes) > 0, f"axes {self.axes} are empty or repeat")
        return self.typed(tuple(1 if i in axes else n for i, n in enumerate(x.shape) if self.keepdims or i not in axes))

    def reference(self, x: Array) -> Array:
        """See the class."""
        bias = -self.x_zero * int(np.prod([x.shape[a] for a in self.axes]))
        return arithmetic.qmean(x, self.axes, self.mult, self.pre, bias, self.zero, self.bits, self.keepdims)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Space of an image, tokens of a sequence."""
        yield cls(Quant(0.1, 2), "int8", (1, 2), True, 2**28, 1, -5), (integers(1, 3, 4, 5),)
        yield cls(Quant(0.1), "int16", (1,), False, 2**29), (integers(1, 7, 3, low=-32768, high=32767, dtype="int16"),)


@dataclass(frozen=True)
class QResize(Op):
    """Images to `size` pixels at x's own scale; attributes as in `Resize`."""

    size: Pair
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"

    def infer(self, x: Type) -> Type:
        """x int8|int16 [1, H, W, C] -> [1, *size, C]."""
        require_dtype("x", x, *NARROW)
        require(x.rank == 4 and x.shape[0] == 1, f"expects one image [1, H, W, C], got {x.shape}")
        require(self.mode in ("nearest", "linear"), f"mode {self.mode} is not known")
        return x.with_(shape=(1, *self.size, x.shape[3]))

    def taps(self, size: Pair) -> tuple[Array, Array]:
        """Where rows and columns come from, for an image of `size`: int16 [n] (nearest) or [n, 3] (linear)."""
        if self.mode == "nearest":
            rows, cols = (
                integer_ops.nearest_taps(size[i], self.size[i], self.coordinates, self.nearest) for i in (0, 1)
            )
        else:
            rows, cols = (integer_ops.linear_taps(size[i], self.size[i], self.coordinates) for i in (0, 1))
        return rows, cols

    def reference(self, x: Array) -> Array:
        """See the class."""
        rows, cols = self.taps((x.shape[1], x.shape[2]))
        resize = integer_ops.resize_nearest if self.mode == "nearest" else integer_ops.resize_bilinear
        return resize(x[0], rows, cols)[None]

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Twice as large both ways, and smaller."""
        yield cls((8, 6), "linear"), (integers(1, 4, 3, 2),)
        yield cls((8, 6), "nearest", "asymmetric", "floor"), (integers(1, 4, 3, 2),)
        yield cls((3, 5), "linear", "align_corners"), (integers(1, 6, 7, 2),)
