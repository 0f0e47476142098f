"""Convolutions in one to three dimensions, and their transposes."""

from __future__ import annotations

import math

import numpy as np

from ..arithmetic import Arithmetic
from .rule import Array, Ints, Rules
from .window import padded, padding, taps

__all__ = ["RULES"]


def conv(
    f: Arithmetic,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Array:
    """x [N, C, ...] with weight [O, C / groups, ...]: windows as columns, one matrix product a group."""
    spatial, kernel = x.ndim - 2, weight.shape[2:]
    strides, dilations = strides or (1,) * spatial, dilations or (1,) * spatial
    x = padded(x, padding(pad_type, pad, x.shape[2:], kernel, strides, dilations), 0)
    out = [
        (size - (k - 1) * dilation - 1) // stride + 1
        for size, k, dilation, stride in zip(x.shape[2:], kernel, dilations, strides, strict=True)
    ]
    if weight.shape[1] * groups != x.shape[1]:
        raise ValueError(f"{x.shape[1]} channels in {groups} groups do not meet a weight of shape {weight.shape}")
    if weight.shape[1] == 1:
        result = _depthwise(f, x, weight, strides, dilations, out)
    else:
        columns = np.stack([part for _, part in taps(x, kernel, strides, dilations, out)], 2)
        columns = columns.reshape(len(x), groups, -1, math.prod(out))
        result = f.matmul(weight.reshape(groups, weight.shape[0] // groups, -1), columns)
        result = result.reshape(len(x), weight.shape[0], *out)
    return result if bias is None else result + bias.reshape(-1, *[1] * spatial)


def _depthwise(f: Arithmetic, x: Array, weight: Array, strides: Ints, dilations: Ints, out: list[int]) -> Array:
    """Each channel by itself, tap by tap; a channel may have several outputs."""
    each = weight.shape[0] // x.shape[1]
    total = np.zeros((len(x), weight.shape[0], *out), np.float32)
    by_tap = np.moveaxis(weight[:, 0], 0, -1)
    for place, part in taps(x, weight.shape[2:], strides, dilations, out):
        factor = by_tap[place].reshape(-1, *[1] * len(out))
        total = f.round(total + (part if each == 1 else part.repeat(each, 1)) * factor)
    return total


def conv_transpose(
    f: Arithmetic,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    pad: Ints | None = None,
    output_shape: Ints | None = None,
    pad_type: str = "valid",
    strides: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Array:
    """x [N, C, ...] with weight [C, O / groups, ...]: every input element spreads the kernel, then pads are cut off."""
    spatial, kernel = x.ndim - 2, weight.shape[2:]
    strides, dilations = strides or (1,) * spatial, dilations or (1,) * spatial
    whole = [
        (size - 1) * stride + (k - 1) * dilation + 1
        for size, stride, k, dilation in zip(x.shape[2:], strides, kernel, dilations, strict=True)
    ]
    if pad_type == "same":
        pads = [max(0, size - n * stride) for size, n, stride in zip(whole, x.shape[2:], strides, strict=True)]
        begin, out = [each // 2 for each in pads], [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
    else:
        cuts = padding(pad_type, pad, x.shape[2:], kernel, strides, dilations)
        begin, out = [before for before, _ in cuts], [size - sum(cut) for size, cut in zip(whole, cuts, strict=True)]
    out = list(output_shape[2:]) if output_shape is not None else out
    channels = weight.shape[1] * groups
    room = [max(size, b + n) for size, b, n in zip(whole, begin, out, strict=True)]
    total = np.zeros((len(x), channels, *room), np.float32)
    flat = x.reshape(len(x), groups, x.shape[1] // groups, -1)
    split = weight.reshape(groups, x.shape[1] // groups, weight.shape[1], *kernel)
    by_tap = np.moveaxis(split, (0, 1, 2), (-3, -1, -2))
    for place, target in taps(total, kernel, strides, dilations, x.shape[2:]):
        target[...] = f.round(target + f.matmul(by_tap[place], flat).reshape(len(x), channels, *x.shape[2:]))
    total = total[(slice(None), slice(None), *(slice(b, b + n) for b, n in zip(begin, out, strict=True)))]
    return total if bias is None else total + bias.reshape(-1, *[1] * spatial)


RULES: Rules = {"conv": conv, "conv_transpose": conv_transpose}
