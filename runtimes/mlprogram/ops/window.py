"""Sliding windows over the spatial axes: the sizes that padding rules give, and a view of each tap."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from .rule import Array, Ints, pairs

__all__ = ["Pads", "padded", "padding", "taps"]

Pads = list[tuple[int, int]]


def padding(kind: str, pad: Ints | None, sizes: Ints, kernel: Sequence[int], strides: Ints, dilations: Ints) -> Pads:
    """Elements before and after each spatial axis.

    Args:
        kind: "valid", "custom", "same" (an odd element goes after) or "same_lower" (before).
        pad: Before and after for each axis, for "custom" only; others ignore it.
        sizes: Spatial sizes of the input.
        kernel: Taps by axis.
        strides: Steps by axis.
        dilations: Distance of taps by axis.
    """
    if kind == "valid":
        return [(0, 0)] * len(sizes)
    if kind == "custom":
        return pairs(pad) if pad is not None else [(0, 0)] * len(sizes)
    if kind not in ("same", "same_lower"):
        raise ValueError(f"there is no padding '{kind}'")
    result = []
    for size, taps_, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + (taps_ - 1) * dilation + 1 - size)
        result.append((total // 2, total - total // 2) if kind == "same" else (total - total // 2, total // 2))
    return result


def padded(x: Array, pads: Pads, value: float) -> Array:
    """x [N, C, ...] with a border of one value around its spatial axes."""
    if not any(map(any, pads)):
        return x
    return np.pad(x, [(0, 0), (0, 0), *pads], constant_values=value)


def taps(
    x: Array, kernel: Sequence[int], strides: Ints, dilations: Ints, out: Sequence[int]
) -> Iterator[tuple[Ints, Array]]:
    """For each place in the kernel: its index, and what of x [N, C, ...] lies under it in all windows."""
    for place in itertools.product(*map(range, kernel)):
        cuts = (
            slice(i * dilation, i * dilation + (size - 1) * stride + 1, stride)
            for i, dilation, stride, size in zip(place, dilations, strides, out, strict=True)
        )
        yield place, x[(slice(None), slice(None), *cuts)]
