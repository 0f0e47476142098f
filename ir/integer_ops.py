"""Integer operators over space: convolutions, pools, concat, resize; channels last, one image per call.

Same contract as ``integer``. Images are [H, W, C]; pads are (top, left, bottom, right) and hold the zero point of x, so
the compile-time fold of the zero point into the bias covers the border too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .integer import Int, matmul, multiplier, requant, require_int32, saturate

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


def output_size(size: Pair, kernel: Pair, strides: Pair, pads: Pads, dilations: Pair = (1, 1)) -> Pair:
    """Spatial size of a convolution or floor-mode pool."""
    height, width = (
        (size[i] + pads[i] + pads[i + 2] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in (0, 1)
    )
    return height, width


def windows(x: Int, kernel: Pair, strides: Pair, pads: Pads, fill: int, dilations: Pair = (1, 1)) -> Int:
    """All windows of x [H, W, C] as [OH, OW, KH, KW, C], the border holding ``fill``."""
    high, wide = output_size((x.shape[0], x.shape[1]), kernel, strides, pads, dilations)
    framed = np.pad(x, ((pads[0], pads[2]), (pads[1], pads[3]), (0, 0)), constant_values=fill)
    rows = np.arange(high)[:, None] * strides[0] + np.arange(kernel[0]) * dilations[0]
    cols = np.arange(wide)[:, None] * strides[1] + np.arange(kernel[1]) * dilations[1]
    gathered: Int = framed[rows[:, None, :, None], cols[None, :, None, :]]
    return gathered


def qconv(
    x: Int, w: Int, bias: ArrayLike, mult: ArrayLike, pre: int = 0, zero_point: int = 0, bits: int = 8,
    strides: Pair = (1, 1), pads: Pads = (0, 0, 0, 0), groups: int = 1, zero_x: int = 0, dilations: Pair = (1, 1),
    low: int | None = None, high: int | None = None,
) -> Int:
    """x int8|int16 [H, W, C], w int8 [O, KH, KW, C/groups], bias, mult int32 [O] -> [OH, OW, O].

    out = requant(bias + sum window . w); bias includes -zero_x * sum(w) over the whole kernel.
    """
    patches = windows(x, (w.shape[1], w.shape[2]), strides, pads, zero_x, dilations)
    high_, wide = patches.shape[:2]
    per_in, per_out = w.shape[3], w.shape[0] // groups
    acc = np.empty((high_, wide, w.shape[0]), dtype=np.int64)
    for g in range(groups):
        own = patches[..., g * per_in : (g + 1) * per_in].reshape(high_, wide, -1)
        there = slice(g * per_out, (g + 1) * per_out)
        acc[..., there] = matmul(own, w[there].reshape(per_out, -1))
    total = require_int32(acc + np.asarray(bias, dtype=np.int64), "convolution accumulator")
    return requant(total, mult, pre, zero_point, bits, low, high)


def qdepthwise(
    x: Int, w: Int, bias: ArrayLike, mult: ArrayLike, pre: int = 0, zero_point: int = 0, bits: int = 8,
    strides: Pair = (1, 1), pads: Pads = (0, 0, 0, 0), zero_x: int = 0, dilations: Pair = (1, 1),
    low: int | None = None, high: int | None = None,
) -> Int:
    """x int8|int16 [H, W, C], w int8 [KH, KW, C], bias, mult int32 [C] -> [OH, OW, C]; bias as in ``qconv``."""
    patches = windows(x, (w.shape[0], w.shape[1]), strides, pads, zero_x, dilations).astype(np.int64)
    acc = np.einsum("hwijc,ijc->hwc", patches, w.astype(np.int64)) + np.asarray(bias, dtype=np.int64)
    return requant(require_int32(acc, "depthwise accumulator"), mult, pre, zero_point, bits, low, high)


def qmaxpool(x: Int, kernel: Pair, strides: Pair, pads: Pads = (0, 0, 0, 0), dilations: Pair = (1, 1)) -> Int:
    """Largest value of each window; padding never wins. Scale and zero point stay those of x."""
    largest: Int = windows(x, kernel, strides, pads, int(np.iinfo(x.dtype).min), dilations).max(axis=(2, 3))
    return largest


def pool_multipliers(ratio: float, kernel: Pair, bound: int) -> tuple[NDArray[np.int32], int]:
    """(mults, pre) of ``qavgpool``: mults[n] = ratio / n for windows of n values; ratio = scale_x / scale_out."""
    counts = np.arange(1, kernel[0] * kernel[1] + 1)
    mults, pre = multiplier(ratio / counts, bound)
    return np.concatenate([np.zeros(1, np.int32), mults]), pre


def qavgpool(
    x: Int, kernel: Pair, strides: Pair, mults: Int, pre: int = 0, pads: Pads = (0, 0, 0, 0), zero_x: int = 0,
    zero_point: int = 0, bits: int = 8, count_include_pad: bool = False,
) -> Int:
    """requant(sum over the window of (x - zero_x), mults[n]); n = window values, with or without the padding."""
    area = kernel[0] * kernel[1]
    total = (windows(x, kernel, strides, pads, zero_x).astype(np.int64) - zero_x).sum(axis=(2, 3))
    inside = windows(np.ones((*x.shape[:2], 1), np.int8), kernel, strides, pads, 0).sum(axis=(2, 3), dtype=np.int64)
    count = np.full_like(inside, area) if count_include_pad else inside
    return requant(total, mults[count], pre, zero_point, bits)


def rescale(x: Int, mult: int, pre: int = 0, zero_x: int = 0, zero_point: int = 0, bits: int = 8) -> Int:
    """A value at another scale: requant(x - zero_x); what each operand of a concat goes through."""
    return requant(x.astype(np.int64) - zero_x, mult, pre, zero_point, bits)


def qconcat(
    parts: list[Int], mults: list[int], pres: list[int], zeros: list[int], zero_point: int = 0, bits: int = 8,
    axis: int = -1,
) -> Int:
    """Each part rescaled to the common output scale, then joined along ``axis``."""
    scaled = [rescale(x, m, p, z, zero_point, bits) for x, m, p, z in zip(parts, mults, pres, zeros, strict=True)]
    return np.concatenate(scaled, axis=axis)


def source_positions(size_in: int, size_out: int, coordinate: str) -> NDArray[Any]:
    """Source coordinate of each output index under ONNX Resize's ``coordinate_transformation_mode``."""
    out: NDArray[Any] = np.arange(size_out, dtype=np.float64)
    if coordinate == "asymmetric":
        return out * size_in / size_out
    if coordinate == "align_corners":
        return out * (size_in - 1) / max(size_out - 1, 1)
    if coordinate == "half_pixel" or (coordinate == "pytorch_half_pixel" and size_out > 1):
        return (out + 0.5) * size_in / size_out - 0.5
    if coordinate == "pytorch_half_pixel":
        return out * 0.0
    raise ValueError(f"unknown coordinate transformation {coordinate!r}")


def nearest_taps(size_in: int, size_out: int, coordinate: str, rounding: str) -> NDArray[np.int16]:
    """Source index of each output index; ``rounding`` is ONNX Resize's ``nearest_mode``."""
    position = source_positions(size_in, size_out, coordinate)
    rounded = {
        "round_prefer_floor": np.ceil(position - 0.5), "round_prefer_ceil": np.floor(position + 0.5),
        "floor": np.floor(position), "ceil": np.ceil(position),
    }[rounding]
    taps: NDArray[np.int16] = np.clip(rounded, 0, size_in - 1).astype(np.int16)
    return taps


def linear_taps(size_in: int, size_out: int, coordinate: str) -> NDArray[np.int16]:
    """[size_out, 3]: the two source indices and the weight of the second in 1/256, clamped at the border."""
    position = np.clip(source_positions(size_in, size_out, coordinate), 0, size_in - 1)
    fixed = np.rint(position * 256).astype(np.int64)
    first = fixed >> 8
    return np.stack([first, np.minimum(first + 1, size_in - 1), fixed & 255], axis=1).astype(np.int16)


def resize_nearest(x: Int, rows: Int, cols: Int) -> Int:
    """x[rows[i], cols[j]]: exact copies."""
    copied: Int = x[rows[:, None], cols[None, :]]
    return copied


def resize_bilinear(x: Int, rows: Int, cols: Int) -> Int:
    """Two-dimensional linear interpolation by ``linear_taps``, at x's own scale.

    Along a row t = x0 (256 - f) + x1 f; then out = (t0 (256 - g) + t1 g + 2^15) >> 16: exact until the one rounding,
    |t| 256 <= 2^31 even for int16, and a value never leaves the range of its neighbours.
    """
    wide = x.astype(np.int64)
    f = cols[:, 2].astype(np.int64)[None, :, None]
    g = rows[:, 2].astype(np.int64)[:, None, None]
    along: Int = wide[:, cols[:, 0]] * (256 - f) + wide[:, cols[:, 1]] * f
    total: Int = along[rows[:, 0]] * (256 - g) + along[rows[:, 1]] * g + (1 << 15)
    return saturate(require_int32(total, "interpolation") >> 16, 16).astype(x.dtype)
