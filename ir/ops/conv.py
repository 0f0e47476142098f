"""Convolutions over images (channels first), and the patch embedding that turns an image into tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..graph import Array, Type
from ..op import Example, Op, require
from .sampling import sample

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


def windows(x: Array, kernel: Pair, strides: Pair, dilations: Pair = (1, 1)) -> Array:
    """Every kernel window of x [B, C, H, W] as a view [B, C, OH, OW, KH, KW]."""
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(2, 3))
    return view[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]


def pad_image(x: Array, pads: Pads, value: float = 0.0) -> Array:
    """x [B, C, H, W] with (top, left, bottom, right) border pixels of one value."""
    top, left, bottom, right = pads
    if not any(pads):
        return x
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)


def out_size(size: int, kernel: int, stride: int, begin: int, end: int, dilation: int = 1) -> int:
    """Output pixels of a window sliding along one axis."""
    return (size + begin + end - (kernel - 1) * dilation - 1) // stride + 1


@dataclass(frozen=True)
class Conv(Op):
    """2-D cross-correlation with zero padding; pads are (top, left, bottom, right)."""

    strides: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilations: Pair = (1, 1)
    groups: int = 1

    def infer(self, x: Type, w: Type, b: Type | None = None) -> Type:
        """x [B, C, H, W], w [O, C/groups, KH, KW], b [O] -> [B, O, OH, OW]."""
        require(x.rank == 4 and w.rank == 4, f"expects rank 4, got {x.shape} and {w.shape}")
        fits = x.shape[1] == w.shape[1] * self.groups
        require(fits, f"{x.shape[1]} channels do not fit weight {w.shape} in {self.groups} groups")
        require(w.shape[0] % self.groups == 0, f"{w.shape[0]} outputs do not divide into {self.groups} groups")
        require(b is None or b.shape == w.shape[:1], f"bias must be ({w.shape[0]},)")
        sound = min(self.strides) > 0 and min(self.dilations) > 0 and min(self.pads) >= 0 and min(w.shape[2:]) > 0
        require(sound, f"no window: kernel {w.shape[2:]}, {self}")
        h, width = (
            out_size(x.shape[2 + i], w.shape[2 + i], self.strides[i], self.pads[i], self.pads[2 + i], self.dilations[i])
            for i in (0, 1)
        )
        require(h > 0 and width > 0, f"the kernel {w.shape[2:]} does not fit the padded image {x.shape[2:]}")
        return Type(x.dtype, (x.shape[0], w.shape[0], h, width))

    def reference(self, x: Array, w: Array, b: Array | None = None) -> Array:
        """See the class."""
        view = windows(pad_image(x, self.pads), (w.shape[2], w.shape[3]), self.strides, self.dilations)
        batch, _, h, width = view.shape[:4]
        outputs, depth = w.shape[0] // self.groups, w.shape[1]
        columns = view.reshape(batch, self.groups, depth, h, width, *w.shape[2:])
        columns = columns.transpose(1, 0, 3, 4, 2, 5, 6).reshape(self.groups, batch * h * width, -1)
        weights = w.reshape(self.groups, outputs, -1)
        y = np.matmul(columns, weights.transpose(0, 2, 1))
        y = y.reshape(self.groups, batch, h, width, outputs).transpose(1, 0, 4, 2, 3).reshape(batch, -1, h, width)
        return np.ascontiguousarray(y if b is None else y + b[:, None, None])

    def macs(self, x: Type, w: Type, b: Type | None = None) -> int:
        """Output pixels times weights."""
        out = self.infer(x, w, b)
        return out.shape[0] * out.shape[2] * out.shape[3] * w.size

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Strided, padded unevenly, grouped, depthwise, dilated."""
        yield cls((2, 2), (1, 1, 1, 1)), (sample(2, 3, 9, 8), sample(4, 3, 3, 3), sample(4))
        yield cls((1, 1), (0, 1, 2, 0), groups=2), (sample(1, 4, 6, 6), sample(6, 2, 3, 3), None)
        yield cls((1, 1), (2, 2, 2, 2), (2, 2), 4), (sample(1, 4, 7, 7), sample(4, 1, 3, 3), sample(4))


@dataclass(frozen=True)
class PatchEmbed(Op):
    """A convolution whose stride is its kernel, read as tokens: each patch is one row of a matrix product.

    Tokens run row by row over the patch grid. Source: Dosovitskiy et al., An Image is Worth 16x16 Words, section 3.1.
    """

    patch: Pair
    pads: Pads = (0, 0, 0, 0)

    def infer(self, x: Type, w: Type, b: Type | None = None) -> Type:
        """x [B, C, H, W], w [E, C, PH, PW], b [E] -> [B, N, E]."""
        require(w.shape[2:] == self.patch, f"the weight {w.shape} does not cover patches of {self.patch}")
        image = self._conv().infer(x, w, b)
        return Type(x.dtype, (image.shape[0], image.shape[2] * image.shape[3], image.shape[1]))

    def reference(self, x: Array, w: Array, b: Array | None = None) -> Array:
        """See the class."""
        y = self._conv().reference(x, w, b)
        return np.ascontiguousarray(y.reshape(*y.shape[:2], -1).transpose(0, 2, 1))

    def macs(self, x: Type, w: Type, b: Type | None = None) -> int:
        """Those of the convolution."""
        return self._conv().macs(x, w, b)

    def _conv(self) -> Conv:
        return Conv(strides=self.patch, pads=self.pads)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """An image that divides into patches, and one that is padded."""
        yield cls((4, 4)), (sample(2, 3, 8, 12), sample(5, 3, 4, 4), sample(5))
        yield cls((3, 3), (0, 0, 1, 2)), (sample(1, 2, 5, 7), sample(4, 2, 3, 3), None)
