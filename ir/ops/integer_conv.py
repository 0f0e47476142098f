"""Integer convolutions over images with channels last, and the patch embedding as one matrix product per patch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .. import integer_ops
from ..graph import Array, Quant, Type
from ..op import Example, require
from .conv import Pads, Pair
from .integer import LEAST, MOST, IntegerOp, integers, require_channels, require_dtype


def _image(x: Type) -> None:
    require_dtype("x", x, "int8")
    require(x.rank == 4 and x.shape[0] == 1, f"expects one image [1, H, W, C], got {x.shape}")


@dataclass(frozen=True)
class QConv(IntegerOp):
    """requant(bias[o] + sum window * w[o], mult[o]), clamped to [low, high].

    The border holds `x_zero`, the integer that means 0; bias contains -x_zero * sum(w[o]). `groups == C` is depthwise.
    """

    strides: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilations: Pair = (1, 1)
    groups: int = 1
    x_zero: int = 0
    pre: int = 0
    low: int = LEAST
    high: int = MOST

    def infer(self, x: Type, w: Type, bias: Type, mult: Type) -> Type:
        """x int8 [1, H, W, C], w int8 [O, KH, KW, C/groups], bias and mult int32 [O] -> [1, OH, OW, O]."""
        _image(x)
        require_dtype("w", w, "int8")
        require(w.rank == 4 and x.shape[3] == w.shape[3] * self.groups, f"x {x.shape} does not fit weight {w.shape}")
        require(w.shape[0] % self.groups == 0, f"{w.shape[0]} outputs do not divide into {self.groups} groups")
        require_channels(w.shape[0], bias=bias, mult=mult)
        image, kernel = (x.shape[1], x.shape[2]), (w.shape[1], w.shape[2])
        size = integer_ops.output_size(image, kernel, self.strides, self.pads, self.dilations)
        require(min(size) > 0, f"the kernel {kernel} does not fit the padded image {image}")
        return self.typed((1, *size, w.shape[0]))

    def reference(self, x: Array, w: Array, bias: Array, mult: Array) -> Array:
        """See the class."""
        common = (bias, mult, self.pre, self.zero, self.bits, self.strides, self.pads)
        end = (self.x_zero, self.dilations, self.low, self.high)
        if self.groups == x.shape[3] == w.shape[0]:
            taps = np.ascontiguousarray(w[..., 0].transpose(1, 2, 0))
            return integer_ops.qdepthwise(x[0], taps, *common, *end)[None]
        return integer_ops.qconv(x[0], w, *common, self.groups, *end)[None]

    def macs(self, x: Type, w: Type, bias: Type, mult: Type) -> int:
        """Output pixels times weights."""
        out = self.infer(x, w, bias, mult)
        return out.shape[1] * out.shape[2] * w.size

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Strided and padded unevenly, grouped with a fused clamp, depthwise and dilated, two outputs per channel."""
        bias, mult = integers(4, low=-3000, high=3000, dtype="int32"), integers(4, low=2**20, high=2**23, dtype="int32")
        x = integers(1, 7, 6, 4)
        weight = integers(4, 3, 3, 4, low=-127)
        yield cls(Quant(0.1, -7), "int8", (2, 2), (1, 0, 1, 2), x_zero=5), (x, weight, bias, mult)
        yield cls(Quant(0.1), "int8", groups=2, low=0, high=60), (x, weight[:, :2, :2, :2], bias, mult)
        yield cls(Quant(0.1), "int16", (1, 1), (2, 2, 2, 2), (2, 2), 4, -3), (x, weight[..., :1], bias, mult)
        yield cls(Quant(0.1), "int8", groups=2), (x[..., :2], weight[..., :1], bias, mult)


@dataclass(frozen=True)
class QPatchEmbed(IntegerOp):
    """A convolution whose stride is its kernel, read as tokens row by row: requant(bias + patch . w, mult)."""

    patch: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    x_zero: int = 0
    pre: int = 0

    def infer(self, x: Type, w: Type, bias: Type, mult: Type) -> Type:
        """x int8 [1, H, W, C], w int8 [E, PH, PW, C], bias and mult int32 [E] -> [1, N, E]."""
        require(w.shape[1:3] == self.patch, f"the weight {w.shape} does not cover patches of {self.patch}")
        _, high, wide, channels = self._conv().infer(x, w, bias, mult).shape
        return self.typed((1, high * wide, channels))

    def reference(self, x: Array, w: Array, bias: Array, mult: Array) -> Array:
        """See the class."""
        return self._conv().reference(x, w, bias, mult).reshape(1, -1, w.shape[0])

    def macs(self, x: Type, w: Type, bias: Type, mult: Type) -> int:
        """Those of the convolution."""
        return self._conv().macs(x, w, bias, mult)

    def _conv(self) -> QConv:
        return QConv(self.quant, self.dtype, self.patch, self.pads, x_zero=self.x_zero, pre=self.pre)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """An image that divides into patches, and one that is padded."""
        bias, mult = integers(6, low=-3000, high=3000, dtype="int32"), integers(6, low=2**18, high=2**22, dtype="int32")
        yield cls(Quant(0.1), "int16", (4, 4)), (integers(1, 8, 12, 3), integers(6, 4, 4, 3, low=-127), bias, mult)
        padded = cls(Quant(0.1), "int8", (3, 3), (0, 0, 1, 2), 9)
        yield padded, (integers(1, 5, 7, 2), integers(6, 3, 3, 2, low=-127), bias, mult)
