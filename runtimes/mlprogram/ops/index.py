"""Elements by their indices: taken, put, or made from them. Indices below zero count from the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .rule import Array, Ints, Rules

__all__ = ["RULES"]

MODES: Mapping[str, Callable[[Array, Array], Array]] = {
    "update": lambda old, new: new,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
}


def gather(x: Array, indices: Array, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False) -> Array:
    """Slices of x along an axis; the first `batch_dims` axes of x and of the indices go together."""
    del validate_indices
    axis %= x.ndim
    if batch_dims == 0:
        return np.take(x, indices.astype(np.int64), axis)
    shared = x.shape[:batch_dims]
    rows = x.reshape(-1, *x.shape[batch_dims:])
    places = indices.reshape(len(rows), *indices.shape[batch_dims:]).astype(np.int64)
    taken = [np.take(row, place, axis - batch_dims) for row, place in zip(rows, places, strict=True)]
    return np.stack(taken).reshape(*shared, *taken[0].shape)


def gather_along_axis(x: Array, indices: Array, axis: int = 0, validate_indices: bool = False) -> Array:
    """Elements of x along an axis, one index for each."""
    del validate_indices
    return np.take_along_axis(x, indices.astype(np.int64), axis)


def gather_nd(x: Array, indices: Array, batch_dims: int = 0, validate_indices: bool = False) -> Array:
    """Slices of x by tuples of indices in the last axis."""
    del validate_indices
    shared = x.shape[:batch_dims]
    rows = x.reshape(-1, *x.shape[batch_dims:])
    places = indices.reshape(len(rows), *indices.shape[batch_dims:]).astype(np.int64)
    taken = [row[tuple(np.moveaxis(place, -1, 0))] for row, place in zip(rows, places, strict=True)]
    return np.stack(taken).reshape(*shared, *taken[0].shape)


def scatter(
    data: Array, indices: Array, updates: Array, axis: int = 0, mode: str = "add", validate_indices: bool = False
) -> Array:
    """A copy of the data with slices along an axis changed, one after the other."""
    del validate_indices
    result = np.moveaxis(data.copy(), axis, 0)
    slices = updates.reshape(*data.shape[:axis], -1, *data.shape[axis % data.ndim + 1 :])
    for place, update in zip(indices.ravel(), np.moveaxis(slices, axis, 0), strict=True):
        result[place] = MODES[mode](result[place], update)
    return np.moveaxis(result, 0, axis)


def scatter_along_axis(
    data: Array, indices: Array, updates: Array, axis: int = 0, mode: str = "add", validate_indices: bool = False
) -> Array:
    """A copy of the data with single elements along an axis changed."""
    del validate_indices
    result = np.moveaxis(data.copy(), axis, 0)
    rows = zip(np.moveaxis(indices, axis, 0), np.moveaxis(updates, axis, 0), strict=True)
    rest = np.indices(result.shape[1:])
    for places, update in rows:
        where = (places, *(part[tuple(map(slice, places.shape))] for part in rest))
        result[where] = MODES[mode](result[where], update)
    return np.moveaxis(result, 0, axis)


def scatter_nd(data: Array, indices: Array, updates: Array, mode: str = "add", validate_indices: bool = False) -> Array:
    """A copy of the data with slices changed by tuples of indices."""
    del validate_indices
    result = data.copy()
    tuples = indices.reshape(-1, indices.shape[-1])
    for place, update in zip(tuples, updates.reshape(len(tuples), *data.shape[indices.shape[-1] :]), strict=True):
        result[tuple(place)] = MODES[mode](result[tuple(place)], update)
    return result


def one_hot(
    indices: Array,
    one_hot_vector_size: int,
    axis: int = -1,
    on_value: Array | None = None,
    off_value: Array | None = None,
) -> Array:
    """A new axis that is on at the index, off elsewhere."""
    on, off = (np.int32(fill) if each is None else each for each, fill in ((on_value, 1), (off_value, 0)))
    places = np.arange(one_hot_vector_size) == np.expand_dims(indices, -1)
    return np.moveaxis(np.where(places, on, off), -1, axis)


def fill(shape: Ints, value: Array | None = None) -> Array:
    """One value everywhere."""
    return np.full(shape, np.float32(0) if value is None else value)


def fill_like(ref_tensor: Array, value: Array | None = None) -> Array:
    """One value in the shape of another tensor."""
    return fill(ref_tensor.shape, value)


def range_1d(start: Array, end: Array, step: Array) -> Array:
    """From start to before end."""
    first, last, by = (float(each) for each in (start, end, step))
    return np.arange(first, last, by).astype(np.result_type(start, step))


def non_zero(x: Array) -> Array:
    """Indices of what is not zero, a row each."""
    return np.argwhere(x).astype(np.int32)


RULES: Rules = {
    "gather": gather,
    "gather_along_axis": gather_along_axis,
    "gather_nd": gather_nd,
    "scatter": scatter,
    "scatter_along_axis": scatter_along_axis,
    "scatter_nd": scatter_nd,
    "one_hot": one_hot,
    "fill": fill,
    "fill_like": fill_like,
    "range_1d": range_1d,
    "non_zero": non_zero,
}
