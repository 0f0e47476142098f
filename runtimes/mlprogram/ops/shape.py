"""Operations that move elements and compute none."""

from __future__ import annotations

import numpy as np

from .rule import Array, Arrays, Axes, Bools, Ints, Rules, pairs

__all__ = ["RULES"]


def reshape(x: Array, shape: Ints) -> Array:
    """Another shape: 0 keeps a size where the rank stays, -1 is what remains."""
    sizes = [x.shape[axis] if size == 0 and len(shape) == x.ndim else size for axis, size in enumerate(shape)]
    return x.reshape(sizes)


def squeeze(x: Array, axes: Axes = None) -> Array:
    """Without axes of size one; others that are named stay, as in PyTorch."""
    named = range(x.ndim) if axes is None else [axis % x.ndim for axis in axes]
    return np.squeeze(x, tuple(axis for axis in named if x.shape[axis] == 1))


def concat(values: Arrays, axis: int, interleave: bool = False) -> Array:
    """Side by side along an axis, or taking turns."""
    if not interleave:
        return np.concatenate([np.atleast_1d(each) for each in values], axis)
    axis %= values[0].ndim
    shape = list(values[0].shape)
    shape[axis] *= len(values)
    return np.stack(values, axis + 1).reshape(shape)


def stack(values: Arrays, axis: int) -> Array:
    """Side by side along an axis that is new."""
    return np.stack(values, axis)


def split(x: Array, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None) -> Arrays:
    """Parts along an axis, of equal or of given sizes."""
    if split_sizes is None:
        return tuple(np.split(x, num_splits or 1, axis))
    if sum(split_sizes) != x.shape[axis]:
        raise ValueError(f"parts of sizes {split_sizes} do not fill an axis of {x.shape[axis]}")
    return tuple(np.split(x, np.cumsum(split_sizes)[:-1], axis))


def slice_by_index(
    x: Array,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Array:
    """A part by first and last index; masks leave an end open, or take the one element and drop its axis."""
    return x[_cuts(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)]


def _cuts(
    x: Array,
    begin: Ints,
    end: Ints,
    stride: Ints | None,
    begin_mask: Bools | None,
    end_mask: Bools | None,
    squeeze_mask: Bools | None,
) -> tuple[slice | int, ...]:
    open_begin, open_end, single = (mask or (False,) * x.ndim for mask in (begin_mask, end_mask, squeeze_mask))
    steps = stride or (1,) * x.ndim
    cuts: list[slice | int] = []
    for axis in range(x.ndim):
        first = None if open_begin[axis] else begin[axis]
        last = None if open_end[axis] else end[axis]
        cuts.append((first or 0) if single[axis] else slice(first, last, steps[axis]))
    return tuple(cuts)


def slice_by_size(x: Array, begin: Ints, size: Ints) -> Array:
    """A part by first index and size; -1 is all that follows."""
    first = [b % n if b < 0 else b for b, n in zip(begin, x.shape, strict=True)]
    return x[tuple(slice(b, None if s == -1 else b + s) for b, s in zip(first, size, strict=True))]


def slice_update(
    x: Array,
    update: Array,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Array:
    """A copy with one part replaced."""
    result = x.copy()
    result[_cuts(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)] = update
    return result


def pad(x: Array, pad: Ints, mode: str = "constant", constant_val: float = 0.0) -> Array:
    """A border around the last axes."""
    border = [(0, 0)] * (x.ndim - len(pad) // 2) + pairs(pad)
    if mode == "constant":
        return np.pad(x, border, constant_values=np.asarray(constant_val, x.dtype))
    return np.pad(x, border, mode={"reflect": "reflect", "replicate": "edge"}[mode])  # type: ignore[call-overload, no-any-return]


def tile(x: Array, reps: Ints) -> Array:
    """Repeated; 0 keeps an axis as it is."""
    return np.tile(x, [each or 1 for each in reps])


def depth_to_space(x: Array, block_size: int) -> Array:
    """Channels to space, the block's place the slowest part of the channel."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, block_size, block_size, c // block_size**2, h, w)
    return blocks.transpose(0, 3, 4, 1, 5, 2).reshape(n, c // block_size**2, h * block_size, w * block_size)


def space_to_depth(x: Array, block_size: int) -> Array:
    """Space to channels, the inverse of `depth_to_space`."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // block_size, block_size, w // block_size, block_size)
    return blocks.transpose(0, 3, 5, 1, 2, 4).reshape(n, c * block_size**2, h // block_size, w // block_size)


def pixel_shuffle(x: Array, upscale_factor: int) -> Array:
    """Channels to space, the block's place the fastest part of the channel."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, c // upscale_factor**2, upscale_factor, upscale_factor, h, w)
    return blocks.transpose(0, 1, 4, 2, 5, 3).reshape(n, -1, h * upscale_factor, w * upscale_factor)


def pixel_unshuffle(x: Array, downscale_factor: int) -> Array:
    """Space to channels, the inverse of `pixel_shuffle`."""
    n, c, h, w = x.shape
    f = downscale_factor
    return x.reshape(n, c, h // f, f, w // f, f).transpose(0, 1, 3, 5, 2, 4).reshape(n, c * f * f, h // f, w // f)


def space_to_batch(x: Array, block_shape: Ints, paddings: Array) -> Array:
    """Places of a block to images of their own, after a border of zeros."""
    x = np.pad(x, [(0, 0), (0, 0), *map(tuple, paddings.tolist())])
    (n, c, h, w), (p, q) = x.shape, block_shape
    return x.reshape(n, c, h // p, p, w // q, q).transpose(3, 5, 0, 1, 2, 4).reshape(n * p * q, c, h // p, w // q)


def batch_to_space(x: Array, block_shape: Ints, crops: Array) -> Array:
    """The inverse of `space_to_batch`."""
    (n, c, h, w), (p, q) = x.shape, block_shape
    x = x.reshape(p, q, n // (p * q), c, h, w).transpose(2, 3, 4, 0, 5, 1).reshape(n // (p * q), c, h * p, w * q)
    (top, bottom), (left, right) = crops.tolist()
    return x[:, :, top : h * p - bottom, left : w * q - right]


def flatten2d(x: Array, axis: int = 1) -> Array:
    """To a matrix, cut before an axis."""
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


def sliding_windows(x: Array, axis: int, size: int, stride: int = 1) -> Array:
    """All windows along an axis, their place in it before their content."""
    axis %= x.ndim
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis)
    return np.moveaxis(windows[(slice(None),) * axis + (slice(None, None, stride),)], -1, axis + 1)


def band_part(x: Array, lower: int = -1, upper: int = -1) -> Array:
    """Zeros away from the diagonal of the last two axes."""
    rows, columns = np.indices(x.shape[-2:])
    kept = ((rows - columns <= lower) | (lower < 0)) & ((columns - rows <= upper) | (upper < 0))
    return np.where(kept, x, np.zeros((), x.dtype))


def crop(x: Array, crop_height: Ints, crop_width: Ints) -> Array:
    """Without rows and columns at the ends of the last two axes."""
    (top, bottom), (left, right) = crop_height, crop_width
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


RULES: Rules = {
    "transpose": lambda x, perm: x.transpose(perm),
    "expand_dims": lambda x, axes: np.expand_dims(x, tuple(axes.tolist())),
    "stack": stack,
    "shape": lambda x: np.asarray(x.shape, np.int32),
    "reverse": lambda x, axes=None: np.flip(x, None if axes is None else tuple(axes.tolist())),
    "reshape": reshape,
    "squeeze": squeeze,
    "concat": concat,
    "split": split,
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
    "slice_update": slice_update,
    "pad": pad,
    "tile": tile,
    "depth_to_space": depth_to_space,
    "space_to_depth": space_to_depth,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "space_to_batch": space_to_batch,
    "batch_to_space": batch_to_space,
    "flatten2d": flatten2d,
    "sliding_windows": sliding_windows,
    "band_part": band_part,
    "crop": crop,
}
