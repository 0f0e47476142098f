"""Windows that slide over any number of spatial axes: how attributes place them, and windows made of shifted copies."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from ...ir.errors import ModelError
from ...ir.graph import Array, Value
from ...ir.ops.shape import Pad, Slice
from ..call import LARGEST, Call

Sizes = tuple[int, ...]

MOST_SHIFTS = 1024
"""Copies that a window is made of where no op has it."""


@dataclass(frozen=True)
class Window:
    """A window over the spatial axes; all fields have one number per axis."""

    kernel: Sizes
    strides: Sizes
    before: Sizes
    after: Sizes
    dilations: Sizes

    @property
    def plain(self) -> bool:
        """Whether its elements lie side by side."""
        return set(self.dilations) <= {1}

    @property
    def reach(self) -> Sizes:
        """Elements from its first to its last."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def flat(self) -> Window:
        """The same window over images of one row."""
        return Window((1, *self.kernel), (1, *self.strides), (0, *self.before), (0, *self.after), (1, *self.dilations))

    def sizes(self, spatial: Sizes, ceil_mode: bool = False) -> Sizes:
        """Places of the window; in ceil mode the last may hang over if it starts inside the image or first border."""
        found = []
        for axis, size in enumerate(spatial):
            room = size + self.before[axis] + self.after[axis] - self.reach[axis]
            count, rest = divmod(room, self.strides[axis])
            more = ceil_mode and rest > 0 and (count + 1) * self.strides[axis] < size + self.before[axis]
            found.append(count + 1 + int(more))
        return tuple(found)


def window(call: Call, kernel: Sizes | None) -> Window:
    """The window that a node's attributes describe.

    Raises:
        ModelError: They do not fit each other or the operand.
    """
    spatial = call.x.shape[2:]
    rank = len(spatial)
    if not kernel or len(kernel) != rank or rank == 0:
        what = f"{call.node.op_type} '{call.name}': a kernel of {kernel} does not fit an operand of {call.x.shape}"
        raise ModelError(what, where=[call.name])
    call.require(rank <= 3, f"over {rank} axes; at most 3 are")
    ones = (1,) * rank
    strides, dilations = call.attr("strides", ones), call.attr("dilations", ones)
    if len(strides) != rank or len(dilations) != rank or min(*strides, *dilations, *kernel) < 1:
        form = f"strides {strides}, dilations {dilations} and a kernel of {kernel}"
        what = f"{call.node.op_type} '{call.name}' has {form}"
        raise ModelError(what, where=[call.name])
    bare = Window(kernel, strides, (0,) * rank, (0,) * rank, dilations)
    before, after = _borders(call, bare)
    sides = [size + first + last for size, first, last in zip(spatial, before, after, strict=True)]
    call.demand(prod(call.x.shape[:2]) * prod(sides) <= LARGEST, f"with its border the operand has sides of {sides}")
    return Window(kernel, strides, before, after, dilations)


def _borders(call: Call, bare: Window) -> tuple[Sizes, Sizes]:
    mode, rank = call.attr("auto_pad", "NOTSET"), len(bare.kernel)
    if mode in ("NOTSET", ""):
        pads = call.attr("pads", (0,) * (2 * rank))
        if len(pads) != 2 * rank:
            what = f"{call.node.op_type} '{call.name}' has the pads {pads} for {rank} axes"
            raise ModelError(what, where=[call.name])
        return pads[:rank], pads[rank:]
    if mode == "VALID":
        return bare.before, bare.after
    less, more = [], []
    for size, stride, reach in zip(call.x.shape[2:], bare.strides, bare.reach, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + reach - size)
        less.append(total // 2)
        more.append(total - total // 2)
    return (tuple(more), tuple(less)) if mode == "SAME_LOWER" else (tuple(less), tuple(more))


def bordered(call: Call, x: Value, w: Window, spatial: Sizes, value: float) -> Value:
    """x [B, C, ...] with its border, and what the last windows need beyond it."""
    ends = [
        max(0, (out - 1) * w.strides[i] + w.reach[i] - x.shape[2 + i] - w.before[i]) for i, out in enumerate(spatial)
    ]
    pads = (0, 0, *w.before, 0, 0, *ends)
    return call.add(Pad(pads, value), x) if any(pads) else x


def shifts(call: Call, padded: Value, w: Window, spatial: Sizes) -> Iterator[Value]:
    """One tensor per element of the window: what that element sees at all places."""
    count = int(np.prod(w.kernel))
    call.require(count <= MOST_SHIFTS, f"with a window of {count} elements")
    call.require(min(spatial) > 0, "with a window that does not fit its operand")
    axes = tuple(range(2, 2 + len(spatial)))
    for offset in itertools.product(*map(range, w.kernel)):
        starts = tuple(o * d for o, d in zip(offset, w.dilations, strict=True))
        ends = tuple(s + (n - 1) * step + 1 for s, n, step in zip(starts, spatial, w.strides, strict=True))
        yield call.add(Slice(starts, ends, axes, w.strides), padded)


def counts(w: Window, size: Sizes, spatial: Sizes, with_border: bool) -> Array:
    """How many elements of the image (or of it and its declared border) each window sees; [1, 1, ...]."""
    total = np.ones(())
    for axis, places in enumerate(spatial):
        at = np.arange(places)[:, None] * w.strides[axis] + np.arange(w.kernel[axis]) * w.dilations[axis]
        low = 0 if with_border else w.before[axis]
        high = w.before[axis] + size[axis] + (w.after[axis] if with_border else 0)
        total = total[..., None] * ((at >= low) & (at < high)).sum(axis=1)
    return total[None, None]
