"""Ops that move elements without computing: layout, joining, cutting, resizing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..graph import Array, Type
from ..op import Example, Op, require
from .sampling import sample


def moved(x: Type, shape: tuple[int, ...], axis: int | None = None) -> Type:
    """The type of x's elements laid out anew; a per-channel quantisation survives only if told its new axis."""
    quant = x.quant
    if quant is not None and quant.axis is not None:
        require(axis is not None, f"moving elements would mix the channel scales along axis {quant.axis}")
        quant = dataclasses.replace(quant, axis=axis)
    return Type(x.dtype, shape, quant)


@dataclass(frozen=True)
class Reshape(Op):
    """The same elements in row-major order under another shape."""

    shape: tuple[int, ...]
    inplace: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, x: Type) -> Type:
        """The shape asked for; sizes must agree."""
        same_channels = x.quant is not None and x.quant.axis in (-1, x.rank - 1) and self.shape[-1:] == x.shape[-1:]
        out = moved(x, self.shape, -1 if same_channels else None)
        require(out.size == x.size and all(n >= 0 for n in self.shape), f"{x.shape} does not reshape to {self.shape}")
        return out

    def reference(self, x: Array) -> Array:
        """See the class."""
        return x.reshape(self.shape)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Joining and splitting axes."""
        yield cls((2, 12)), (sample(2, 3, 4),)


@dataclass(frozen=True)
class Transpose(Op):
    """Axes in another order: output axis i is input axis perm[i]."""

    perm: tuple[int, ...]

    def infer(self, x: Type) -> Type:
        """The permuted shape."""
        require(sorted(self.perm) == list(range(x.rank)), f"{self.perm} is no permutation of {x.rank} axes")
        axis = None if x.quant is None or x.quant.axis is None else self.perm.index(x.quant.axis % x.rank)
        return moved(x, tuple(x.shape[i] for i in self.perm), axis)

    def reference(self, x: Array) -> Array:
        """See the class."""
        return np.asarray(x.transpose(self.perm), order="C")

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Three axes round."""
        yield cls((2, 0, 1)), (sample(2, 3, 4),)


@dataclass(frozen=True)
class Concat(Op):
    """Tensors one after the other along `axis`."""

    axis: int

    def infer(self, *types: Type) -> Type:
        """Sizes along the axis add up; all others agree."""
        require(len(types) > 0, "expects at least one operand")
        first, axis = types[0], self.axis % types[0].rank
        for t in types:
            require(t.rank == first.rank and t.dtype == first.dtype, f"{t} does not join {first}")
            pairs = enumerate(zip(t.shape, first.shape, strict=True))
            require(all(a == b for i, (a, b) in pairs if i != axis), f"{t.shape} does not join {first.shape}")
        shape = list(first.shape)
        shape[axis] = sum(t.shape[axis] for t in types)
        require(all(t.quant == first.quant for t in types), "operands are quantised differently; requantise them first")
        return moved(first, tuple(shape), None if first.quant is None else first.quant.axis)

    def reference(self, *arrays: Array) -> Array:
        """See the class."""
        return np.concatenate(arrays, axis=self.axis)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Two and three operands."""
        yield cls(1), (sample(2, 3, 4), sample(2, 1, 4))
        yield cls(-1), (sample(2, 3), sample(2, 4), sample(2, 1))


@dataclass(frozen=True)
class Slice(Op):
    """x[start:end:step] along each of `axes`; bounds are clamped and count from the end when negative, as in Python."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    axes: tuple[int, ...]
    steps: tuple[int, ...]

    def index(self, rank: int) -> tuple[slice, ...]:
        """The numpy index that does it; a stop that a negative step runs past is None."""
        index = [slice(None)] * rank
        for start, end, axis, step in zip(self.starts, self.ends, self.axes, self.steps, strict=True):
            stop = None if step < 0 and end < -(2**30) else end
            index[axis % rank] = slice(start, stop, step)
        return tuple(index)

    def infer(self, x: Type) -> Type:
        """The shape of the slice."""
        require(0 not in self.steps, "steps must not be zero")
        shape = [len(range(*cut.indices(n))) for cut, n in zip(self.index(x.rank), x.shape, strict=True)]
        kept = x.quant is not None and x.quant.axis is not None and shape[x.quant.axis] == x.shape[x.quant.axis]
        return moved(x, tuple(shape), x.quant.axis if kept and x.quant else None)

    def reference(self, x: Array) -> Array:
        """See the class."""
        return np.asarray(x[self.index(x.ndim)], order="C")

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """From the front, from the back, with steps."""
        yield cls((1,), (3,), (1,), (1,)), (sample(2, 5, 3),)
        yield cls((-3, 0), (2**62, 5), (1, 2), (1, 2)), (sample(2, 5, 6),)


COPY = Slice((), (), (), ())
"""Everything of x, in a storage of its own: what makes a value of RAM out of a constant."""


@dataclass(frozen=True)
class Split(Op):
    """Cut along `axis` into pieces of the given sizes."""

    axis: int
    sizes: tuple[int, ...]

    def infer(self, x: Type) -> tuple[Type, ...]:
        """One type per piece."""
        axis = self.axis % x.rank
        fit = min(self.sizes, default=0) >= 0 and sum(self.sizes) == x.shape[axis]
        require(fit, f"pieces {self.sizes} do not add up to {x.shape[axis]}")
        return tuple(moved(x, (*x.shape[:axis], n, *x.shape[axis + 1 :])) for n in self.sizes)

    def reference(self, x: Array) -> tuple[Array, ...]:
        """See the class."""
        return tuple(np.split(x, np.cumsum(self.sizes)[:-1], axis=self.axis))

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Uneven pieces."""
        yield cls(1, (1, 3, 2)), (sample(2, 6, 3),)


@dataclass(frozen=True)
class Gather(Op):
    """The slices of x along `axis` that a tensor of indices names (negative ones count from the end)."""

    axis: int = 0

    def infer(self, x: Type, indices: Type) -> Type:
        """The axis is replaced by the shape of the indices."""
        require(indices.numpy.kind == "i", f"indices must be integers, not {indices.dtype}")
        axis = self.axis % x.rank
        quant_axis = None
        if x.quant is not None and x.quant.axis is not None and x.quant.axis % x.rank > axis:
            quant_axis = x.quant.axis % x.rank + indices.rank - 1
        return moved(x, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), quant_axis)

    def reference(self, x: Array, indices: Array) -> Array:
        """See the class."""
        return np.take(x, indices, axis=self.axis)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """One row, and a table."""
        yield cls(1), (sample(2, 5, 3), np.array(0, np.int64))
        yield cls(0), (sample(6, 2), np.array([[0, 2], [5, -1]], np.int64))


@dataclass(frozen=True)
class Expand(Op):
    """Broadcast to a shape."""

    shape: tuple[int, ...]

    def infer(self, x: Type) -> Type:
        """The shape asked for."""
        pairs = zip(reversed(x.shape), reversed(self.shape), strict=False)
        fits = x.rank <= len(self.shape) and all(a in (1, b) for a, b in pairs)
        require(fits, f"{x.shape} does not broadcast to {self.shape}")
        return moved(x, self.shape)

    def reference(self, x: Array) -> Array:
        """See the class."""
        return np.asarray(np.broadcast_to(x, self.shape), order="C")

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """A row over a batch."""
        yield cls((3, 2, 4)), (sample(1, 4),)


@dataclass(frozen=True)
class Pad(Op):
    """A border of one value: `pads` holds the sizes before each axis, then after each axis (ONNX order)."""

    pads: tuple[int, ...]
    value: float = 0.0

    def infer(self, x: Type) -> Type:
        """Grown by the pads; negative ones crop."""
        require(len(self.pads) == 2 * x.rank, f"{len(self.pads)} pads do not fit rank {x.rank}")
        shape = [n + self.pads[i] + self.pads[i + x.rank] for i, n in enumerate(x.shape)]
        require(min(shape) >= 0, f"the pads {self.pads} crop more than {x.shape} has")
        return x.with_(shape=tuple(shape))

    def reference(self, x: Array) -> Array:
        """See the class."""
        before, after = self.pads[: x.ndim], self.pads[x.ndim :]
        crop = tuple(slice(max(0, -b), n - max(0, -a)) for b, a, n in zip(before, after, x.shape, strict=True))
        grow = [(max(0, b), max(0, a)) for b, a in zip(before, after, strict=True)]
        return np.pad(x[crop], grow, constant_values=self.value)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Growing on some sides."""
        yield cls((0, 0, 1, 2, 0, 0, 0, 3), 1.5), (sample(1, 2, 4, 5),)


@dataclass(frozen=True)
class Resize(Op):
    """Images [B, C, H, W] to `size` pixels; `mode` is nearest or linear, `coordinates` as ONNX names them.

    Source: ONNX operator Resize, attribute coordinate_transformation_mode.
    """

    size: tuple[int, int]
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"

    def infer(self, x: Type) -> Type:
        """The new size."""
        require(x.rank == 4, f"expects rank 4, got {x.shape}")
        require(self.mode in ("nearest", "linear"), f"mode {self.mode} is not known")
        known = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
        require(self.coordinates in known, f"coordinates {self.coordinates} are not known")
        return Type(x.dtype, (*x.shape[:2], *self.size))

    def positions(self, source: int, target: int) -> Array:
        """Where each output pixel lies in the input, as float64 pixel numbers."""
        i = np.arange(target, dtype=np.float64)
        if self.coordinates == "asymmetric":
            return i * source / target
        if self.coordinates == "align_corners":
            return i * (source - 1) / max(target - 1, 1)
        if self.coordinates == "pytorch_half_pixel" and target == 1:
            return np.zeros(1)
        return (i + 0.5) * source / target - 0.5

    def picks(self, source: int, target: int) -> Array:
        """Nearest input pixel of each output pixel."""
        at = self.positions(source, target)
        rules = {
            "floor": np.floor(at),
            "ceil": np.ceil(at),
            "round_prefer_floor": np.ceil(at - 0.5),
            "round_prefer_ceil": np.floor(at + 0.5),
        }
        return np.clip(rules[self.nearest], 0, source - 1).astype(np.int64)

    def reference(self, x: Array) -> Array:
        """See the class."""
        for axis, target in zip((2, 3), self.size, strict=True):
            source = x.shape[axis]
            if self.mode == "nearest":
                x = np.take(x, self.picks(source, target), axis)
                continue
            at = np.clip(self.positions(source, target), 0, source - 1)
            low = np.floor(at).astype(np.int64)
            share = (at - low).reshape([-1 if i == axis else 1 for i in range(4)]).astype(x.dtype)
            x = np.take(x, low, axis) * (1 - share) + np.take(x, np.minimum(low + 1, source - 1), axis) * share
        return np.ascontiguousarray(x)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Twice as large both ways, and smaller."""
        yield cls((8, 6), "linear"), (sample(1, 2, 4, 3),)
        yield cls((8, 6), "nearest", "asymmetric", "floor"), (sample(1, 2, 4, 3),)
        yield cls((3, 5), "linear", "half_pixel"), (sample(1, 2, 6, 7),)
