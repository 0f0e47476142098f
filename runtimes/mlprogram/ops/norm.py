"""Normalisations: by statistics given, or by those of the input."""

from __future__ import annotations

import numpy as np

from ..arithmetic import Arithmetic
from .rule import Array, Axes, Rules

__all__ = ["RULES"]


def batch_norm(
    x: Array, mean: Array, variance: Array, gamma: Array | None = None, beta: Array | None = None, epsilon: float = 1e-5
) -> Array:
    """By statistics given for each channel (axis 1)."""
    wide = (-1, *[1] * (x.ndim - 2))
    result = (x - mean.reshape(wide)) / np.sqrt(variance + np.float32(epsilon)).reshape(wide)
    return _affine(result, gamma, beta, wide)


def instance_norm(
    f: Arithmetic, x: Array, gamma: Array | None = None, beta: Array | None = None, epsilon: float = 1e-5
) -> Array:
    """By those of each channel of each image."""
    axes, wide = tuple(range(2, x.ndim)), (-1, *[1] * (x.ndim - 2))
    return _affine(_standardised(f, x, axes, epsilon), gamma, beta, wide)


def layer_norm(
    f: Arithmetic,
    x: Array,
    axes: Axes = None,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: float = 1e-5,
) -> Array:
    """By those along some axes; scale and offset have the sizes of these axes."""
    among = tuple(range(x.ndim)) if axes is None else tuple(sorted(axis % x.ndim for axis in axes))
    wide = tuple(size if axis in among else 1 for axis, size in enumerate(x.shape))
    return _affine(_standardised(f, x, among, epsilon), gamma, beta, wide)


def l2_norm(f: Arithmetic, x: Array, epsilon: float = 1e-6) -> Array:
    """By the root of the sum of squares over the last three axes."""
    return x / np.sqrt(f.sum(f.round(x * x), (-3, -2, -1), keepdims=True) + np.float32(epsilon))


def local_response_norm(
    f: Arithmetic, x: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Array:
    """By the squares of neighbouring channels."""
    squares = np.pad(f.round(x * x), [(0, 0), (size // 2, (size - 1) // 2), *[(0, 0)] * (x.ndim - 2)])
    total = np.zeros_like(x)
    for shift in range(size):
        total = f.round(total + squares[:, shift : shift + x.shape[1]])
    return np.asarray(x / (np.float32(k) + np.float32(alpha / size) * total) ** np.float32(beta))


def _standardised(f: Arithmetic, x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    centred = f.round(x - f.mean(x, axes, keepdims=True))
    variance = f.mean(f.round(centred * centred), axes, keepdims=True)
    return f.round(centred / f.round(np.sqrt(f.round(variance + f.round(np.asarray(epsilon, np.float32))))))


def _affine(x: Array, gamma: Array | None, beta: Array | None, wide: tuple[int, ...]) -> Array:
    x = x if gamma is None else x * gamma.reshape(wide)
    return x if beta is None else x + beta.reshape(wide)


RULES: Rules = {
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "layer_norm": layer_norm,
    "l2_norm": l2_norm,
    "local_response_norm": local_response_norm,
}
