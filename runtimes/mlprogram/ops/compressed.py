"""Weights that are stored smaller than they are read, and values that pass through integers."""

from __future__ import annotations

import numpy as np

from ..weights import unpack
from .rule import Array, Ints, Rules

__all__ = ["RULES"]


def quantize(
    input: Array, scale: Array, output_dtype: str, zero_point: Array | None = None, axis: int | None = None
) -> Array:
    """Integers: divided by the scale, rounded (halves to even), shifted, saturated."""
    limits = np.iinfo(output_dtype)
    steps = np.round(input / _along(scale, input, axis))
    shifted = steps if zero_point is None else steps + _along(zero_point, input, axis).astype(np.float32)
    return np.clip(shifted, limits.min, limits.max).astype(output_dtype)


def dequantize(input: Array, scale: Array, zero_point: Array | None = None, axis: int | None = None) -> Array:
    """Real values: shifted, times the scale."""
    real = input.astype(np.float32)
    shifted = real if zero_point is None else real - _along(zero_point, input, axis).astype(np.float32)
    return shifted * _along(scale, input, axis)


def affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: int) -> Array:
    """A weight of integers with a scale for each slice along an axis (iOS 16)."""
    return dequantize(quantized_data, scale, zero_point, axis)


def blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """A weight of integers with a scale for each block (iOS 18)."""
    real = data.astype(np.float32)
    shifted = real if offset is None else real - _blocks(offset, data.shape).astype(np.float32)
    return shifted * _blocks(scale, data.shape)


def lut_to_dense(indices: Array, lut: Array, shape: Ints | None = None, vector_axis: int | None = None) -> Array:
    """A weight of indices into a table: packed bits (iOS 16), or a table (of vectors) for each block (iOS 18)."""
    if shape is not None:
        bits = len(lut).bit_length() - 1
        return lut[unpack(indices, "uint8", bits, int(np.prod(shape)))].reshape(shape)
    tables = lut
    for axis, size in enumerate(indices.shape):
        tables = tables.repeat(size // lut.shape[axis], axis)
    vectors = np.take_along_axis(tables, indices.astype(np.int64)[..., None, None], -2)[..., 0, :]
    if lut.shape[-1] == 1 or vector_axis is None:
        return vectors[..., 0]
    axis = vector_axis % indices.ndim
    sizes = [size * (lut.shape[-1] if at == axis else 1) for at, size in enumerate(indices.shape)]
    return np.moveaxis(vectors, -1, axis + 1).reshape(sizes)


def sparse_to_dense(nonzero_data: Array, mask: Array, shape: Ints | None = None) -> Array:
    """A weight that keeps only what is not zero, with a bit for each element."""
    kept = mask if shape is None else unpack(mask, "uint8", 1, int(np.prod(shape))).reshape(shape)
    dense = np.zeros(kept.shape, nonzero_data.dtype)
    dense[kept != 0] = nonzero_data
    return dense


def lut_to_sparse(
    indices_mask: Array, indices_nonzero_data: Array, lut: Array, vector_axis: int | None = None
) -> tuple[Array, Array]:
    """Mask and elements of a sparse weight whose elements are indices into a table."""
    dense = lut_to_dense(sparse_to_dense(indices_nonzero_data, indices_mask), lut, None, vector_axis)
    mask = indices_mask if vector_axis is None else indices_mask.repeat(lut.shape[-1], vector_axis)
    return mask, dense[mask != 0]


def sparse_blockwise_shift_scale(
    data_mask: Array, nonzero_data: Array, scale: Array, offset: Array | None = None
) -> tuple[Array, Array]:
    """Mask and elements of a sparse weight whose elements are integers with a scale for each block."""
    dense = blockwise_shift_scale(sparse_to_dense(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask != 0]


def constexpr_cast(source_val: Array, output_dtype: str) -> Array:
    """A weight stored as half and read as float32, which is what it already is here."""
    if output_dtype != "fp32":
        raise ValueError(f"a weight is never cast to {output_dtype}")
    return source_val


def _along(parameter: Array, x: Array, axis: int | None) -> Array:
    """One parameter, or one for each slice along an axis, in a shape that meets x."""
    if parameter.ndim == 0 or axis is None:
        return parameter
    return parameter.reshape([-1 if at == axis % x.ndim else 1 for at in range(x.ndim)])


def _blocks(parameter: Array, shape: Ints) -> Array:
    """Each parameter repeated over its block."""
    for axis, size in enumerate(shape):
        if size % parameter.shape[axis]:
            raise ValueError(f"blocks of {parameter.shape} do not fill {shape}")
        parameter = parameter.repeat(size // parameter.shape[axis], axis)
    return parameter


RULES: Rules = {
    "quantize": quantize,
    "dequantize": dequantize,
    "constexpr_affine_dequantize": affine_dequantize,
    "constexpr_blockwise_shift_scale": blockwise_shift_scale,
    "constexpr_lut_to_dense": lut_to_dense,
    "constexpr_sparse_to_dense": sparse_to_dense,
    "constexpr_lut_to_sparse": lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": sparse_blockwise_shift_scale,
    "constexpr_cast": constexpr_cast,
}
