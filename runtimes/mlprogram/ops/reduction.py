"""Reductions along axes, and orders of elements."""

from __future__ import annotations

import numpy as np

from ..arithmetic import Arithmetic
from .rule import Array, Axes, Rules

__all__ = ["RULES"]


def _every(x: Array, axes: Axes) -> tuple[int, ...]:
    return tuple(range(x.ndim)) if axes is None else axes


def reduce_sum(f: Arithmetic, x: Array, axes: Axes = None, keep_dims: bool = False) -> Array:
    """Sum."""
    return f.sum(x, _every(x, axes), keep_dims)


def reduce_mean(f: Arithmetic, x: Array, axes: Axes = None, keep_dims: bool = False) -> Array:
    """Mean."""
    return f.mean(x, _every(x, axes), keep_dims)


def reduce_max(x: Array, axes: Axes = None, keep_dims: bool = False) -> Array:
    """Largest."""
    return np.asarray(x.max(_every(x, axes), keepdims=keep_dims))


def reduce_min(x: Array, axes: Axes = None, keep_dims: bool = False) -> Array:
    """Smallest."""
    return np.asarray(x.min(_every(x, axes), keepdims=keep_dims))


def reduce_prod(x: Array, axes: Axes = None, keep_dims: bool = False) -> Array:
    """Product."""
    return np.asarray(x.prod(_every(x, axes), keepdims=keep_dims))


def reduce_sum_square(f: Arithmetic, x: Array, axes: Axes = None, keep_dims: bool = False) -> Array:
    """Sum of squares."""
    return f.sum(f.round(x * x), _every(x, axes), keep_dims)


def reduce_l1_norm(f: Arithmetic, x: Array, axes: Axes = None, keep_dims: bool = False) -> Array:
    """Sum of magnitudes."""
    return f.sum(np.abs(x), _every(x, axes), keep_dims)


def reduce_l2_norm(f: Arithmetic, x: Array, axes: Axes = None, keep_dims: bool = False) -> Array:
    """Root of the sum of squares."""
    return np.asarray(np.sqrt(reduce_sum_square(f, x, axes, keep_dims)))


def reduce_log_sum(f: Arithmetic, x: Array, axes: Axes = None, keep_dims: bool = False) -> Array:
    """Logarithm of the sum."""
    return np.asarray(np.log(f.sum(x, _every(x, axes), keep_dims)))


def reduce_log_sum_exp(f: Arithmetic, x: Array, axes: Axes = None, keep_dims: bool = False) -> Array:
    """Logarithm of the sum of exponentials, the largest taken out."""
    among = _every(x, axes)
    most = x.max(among, keepdims=True)
    result = np.log(f.sum(f.round(np.exp(x - most)), among, True)) + most
    return np.asarray(result if keep_dims else np.squeeze(result, among))


def reduce_argmax(x: Array, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Array:
    """Where the largest lies; the first, of equals."""
    return np.asarray(x.argmax(axis, keepdims=keep_dims)).astype(output_dtype)


def reduce_argmin(x: Array, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Array:
    """Where the smallest lies; the first, of equals."""
    return np.asarray(x.argmin(axis, keepdims=keep_dims)).astype(output_dtype)


def cumsum(f: Arithmetic, x: Array, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Array:
    """Running sum."""
    rows = np.moveaxis(x, axis, 0)
    rows = rows[::-1] if reverse else rows
    total, result = np.zeros_like(rows[:1])[0], np.empty_like(rows)
    for index, row in enumerate(rows):
        before, total = total, f.round(total + row) if x.dtype.kind == "f" else total + row
        result[index] = before if exclusive else total
    return np.moveaxis(result[::-1] if reverse else result, 0, axis)


def argsort(x: Array, axis: int = -1, ascending: bool = False) -> Array:
    """Places in order of size; equals keep theirs."""
    return np.argsort(x if ascending else -x, axis, kind="stable").astype(np.int32)


def topk(
    x: Array,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> Array | tuple[Array, Array]:
    """The k largest (smallest, if ascending) and their places; they come in order whether or not that is asked for."""
    del sort
    places = np.take(argsort(x, axis, ascending), range(x.shape[axis] if k == -1 else k), axis)
    values = np.take_along_axis(x, places, axis)
    return (values, places.astype(output_indices_dtype)) if return_indices else values


RULES: Rules = {
    "reduce_sum": reduce_sum,
    "reduce_mean": reduce_mean,
    "reduce_max": reduce_max,
    "reduce_min": reduce_min,
    "reduce_prod": reduce_prod,
    "reduce_sum_square": reduce_sum_square,
    "reduce_l1_norm": reduce_l1_norm,
    "reduce_l2_norm": reduce_l2_norm,
    "reduce_log_sum": reduce_log_sum,
    "reduce_log_sum_exp": reduce_log_sum_exp,
    "reduce_argmax": reduce_argmax,
    "reduce_argmin": reduce_argmin,
    "cumsum": cumsum,
    "argsort": argsort,
    "topk": topk,
}
