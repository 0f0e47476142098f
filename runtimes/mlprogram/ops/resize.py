"""Other spatial sizes: each axis by itself, from a grid of points between the input's elements."""

from __future__ import annotations

import numpy as np

from .rule import Array, Ints, Rules

__all__ = ["RULES"]


def grid(size: int, out: int, mode: str) -> Array:
    """Where the elements of the result lie among those of the input, [out], from 0 to size - 1.

    Source: the documentation of MIL's resize_bilinear.
    """
    places = np.arange(out, dtype=np.float64)
    if mode == "DEFAULT":
        points = places * size / out
    elif mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        middle = (size - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0
        points = places * (size - 1) / (out - 1) if out > 1 else np.full(1, middle)
    elif mode == "UNALIGN_CORNERS":
        points = (places + 0.5) * size / out - 0.5
    elif mode == "OFFSET_CORNERS":
        points = (places + 0.5) * max(1, size - 1) / out
    else:
        raise ValueError(f"there is no sampling mode '{mode}'")
    return np.clip(points, 0, size - 1)


def _linear(x: Array, axis: int, points: Array) -> Array:
    """Between the two elements beside each point, by distance."""
    low = np.floor(points).astype(int)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    share = (points - low).astype(np.float32).reshape(-1, *[1] * (x.ndim - 1 - axis % x.ndim))
    between: Array = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
    return between


def _nearest(x: Array, axis: int, points: Array, mode: str) -> Array:
    """The element at or before each point for DEFAULT, the closest (the later of two) for other modes."""
    shift = 0.0 if mode == "DEFAULT" else 0.5
    return np.asarray(np.take(x, np.minimum(np.floor(points + shift).astype(int), x.shape[axis] - 1), axis))


def resize_bilinear(
    x: Array, target_size_height: int = 1, target_size_width: int = 1, sampling_mode: str = "DEFAULT"
) -> Array:
    """The last two axes by linear interpolation."""
    for axis, out in ((-2, target_size_height), (-1, target_size_width)):
        x = _linear(x, axis, grid(x.shape[axis], out, sampling_mode))
    return x


def resize_nearest_neighbor(x: Array, target_size_height: int, target_size_width: int) -> Array:
    """The last two axes, each element repeated or left out."""
    for axis, out in ((-2, target_size_height), (-1, target_size_width)):
        x = _nearest(x, axis, grid(x.shape[axis], out, "DEFAULT"), "DEFAULT")
    return x


def upsample_bilinear(
    x: Array,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Array:
    """The last two axes by factors; the grid follows from the sizes, not from the factors."""
    half_pixel = not align_corners if half_pixel_centers is None else half_pixel_centers
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if half_pixel else "DEFAULT"
    height, width = int(scale_factor_height * x.shape[-2]), int(scale_factor_width * x.shape[-1])
    return resize_bilinear(x, height, width, mode)


def upsample_nearest_neighbor(x: Array, scale_factor_height: float = 1, scale_factor_width: float = 1) -> Array:
    """The last two axes by factors."""
    height, width = int(scale_factor_height * x.shape[-2]), int(scale_factor_width * x.shape[-1])
    return resize_nearest_neighbor(x, height, width)


def resize(
    x: Array, shape: Ints, resized_dims: int, interpolation_mode: str = "LINEAR", sampling_mode: str = "DEFAULT"
) -> Array:
    """As many of the last axes as asked for; a size of 0 keeps an axis."""
    for axis, out in zip(range(-resized_dims, 0), shape[len(shape) - resized_dims :], strict=True):
        points = grid(x.shape[axis], out or x.shape[axis], sampling_mode)
        linear = interpolation_mode == "LINEAR"
        x = _linear(x, axis, points) if linear else _nearest(x, axis, points, sampling_mode)
    return x


RULES: Rules = {
    "resize_bilinear": resize_bilinear,
    "resize_nearest_neighbor": resize_nearest_neighbor,
    "upsample_bilinear": upsample_bilinear,
    "upsample_nearest_neighbor": upsample_nearest_neighbor,
    "resize": resize,
}
