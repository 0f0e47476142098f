"""Pooling: largest, mean and root of the sum of squares of each window."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..arithmetic import Arithmetic
from .rule import Array, Ints, Rules
from .window import Pads, padded, padding, taps

__all__ = ["RULES"]

Fold = Callable[[Array, Array], Array]


def max_pool(
    x: Array,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Array:
    """The largest; a border never wins."""
    kernel, strides, pads, out = _frame(x, kernel_sizes, pad_type, strides, pad, ceil_mode)
    return _fold(x, kernel, strides, pads, out, -np.inf, np.maximum)


def avg_pool(
    f: Arithmetic,
    x: Array,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    ceil_mode: bool = False,
    exclude_padding_from_average: bool = False,
) -> Array:
    """The mean; the border counts as zeros unless excluded, and what `ceil_mode` adds past it never counts."""
    kernel, strides, pads, out = _frame(x, kernel_sizes, pad_type, strides, pad, ceil_mode)
    add: Fold = lambda total, part: f.round(total + part)  # noqa: E731
    total = _fold(x, kernel, strides, pads, out, 0, add)
    there = np.ones((1, 1, *x.shape[2:]), np.float32)
    if not exclude_padding_from_average:
        there, pads = padded(there, pads, 1), [(0, 0)] * len(pads)
    return total / _fold(there, kernel, strides, pads, out, 0, np.add)


def l2_pool(
    f: Arithmetic,
    x: Array,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Array:
    """Root of the sum of squares."""
    kernel, strides, pads, out = _frame(x, kernel_sizes, pad_type, strides, pad, ceil_mode)
    add: Fold = lambda total, part: f.round(total + part)  # noqa: E731
    return np.sqrt(_fold(f.round(x * x), kernel, strides, pads, out, 0, add))


def _frame(
    x: Array, kernel: Ints, pad_type: str, strides: Ints | None, pad: Ints | None, ceil_mode: bool
) -> tuple[Ints, Ints, Pads, list[int]]:
    """Kernel, strides, border and spatial sizes of the result, as PyTorch has them."""
    strides = strides or (1,) * len(kernel)
    pads = padding(pad_type, pad, x.shape[2:], kernel, strides, (1,) * len(kernel))
    out = []
    for size, k, stride, (before, after) in zip(x.shape[2:], kernel, strides, pads, strict=True):
        room = size + before + after - k
        windows = (room + stride - 1 if ceil_mode else room) // stride + 1
        if ceil_mode and (windows - 1) * stride >= size + before and before + after > 0:
            windows -= 1
        out.append(windows)
    return kernel, strides, pads, out


def _fold(x: Array, kernel: Ints, strides: Ints, pads: Pads, out: list[int], border: float, join: Fold) -> Array:
    """Join all taps of each window, one after the other."""
    needed = [(n - 1) * stride + k for n, stride, k in zip(out, strides, kernel, strict=True)]
    sizes = [size + sum(pad) for size, pad in zip(x.shape[2:], pads, strict=True)]
    reach = [max(0, need - size) for need, size in zip(needed, sizes, strict=True)]
    room = padded(x, [(before, after + more) for (before, after), more in zip(pads, reach, strict=True)], border)
    parts = (part for _, part in taps(room, kernel, strides, (1,) * len(kernel), out))
    total = next(parts)
    for part in parts:
        total = join(total, part)
    return total


RULES: Rules = {"max_pool": max_pool, "avg_pool": avg_pool, "l2_pool": l2_pool}
