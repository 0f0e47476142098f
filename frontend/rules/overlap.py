"""Columns of overlapping windows, added up to the image that they were cut from."""

from __future__ import annotations

import math
from functools import reduce
from itertools import product

from ...ir.graph import Value
from ...ir.ops.shape import Pad, Slice
from ..call import Call, Result, rule
from .conv import with_gaps
from .terms import add
from .window import MOST_SHIFTS, Window


@rule("Col2Im")
def fold_windows(call: Call) -> Result:
    """x [B, C * elements of a window, windows] -> [B, C, ...]: each element of the windows is an image of its own."""
    x, image, w = call.x, call.ints(1, "image_shape"), _window(call)
    places, count = w.sizes(image), math.prod(w.kernel)
    call.require(count <= MOST_SHIFTS, f"with a window of {count} elements")
    fits = (
        len(x.shape) == 3 and min(*image, *places) > 0 and x.shape[1] % count == 0 and x.shape[2] == math.prod(places)
    )
    call.demand(fits, f"{x.shape} are no windows of {w.kernel} over {image}")
    batch, channels = x.shape[0], x.shape[1] // count
    apart = call.reshape(x, (batch, channels, count, x.shape[2]))
    parts: list[Value] = []
    for number, offset in enumerate(product(*map(range, w.kernel))):
        first = [o * d - b for o, d, b in zip(offset, w.dilations, w.before, strict=True)]
        ends = [f + n * s for f, n, s in zip(first, places, w.strides, strict=True)]
        if any(end <= 0 or f >= size for end, f, size in zip(ends, first, image, strict=True)):
            continue  # all of it lies in the border
        own = call.add(Slice((number,), (number + 1,), (2,), (1,)), apart)
        wide = with_gaps(call, call.reshape(own, (batch, channels, *places)), w.strides)
        rest = [size - end for size, end in zip(image, ends, strict=True)]
        parts.append(call.add(Pad((0, 0, *first, 0, 0, *rest)), wide) if any((*first, *rest)) else wide)
    return reduce(lambda a, b: add(call, a, b), parts)


def _window(call: Call) -> Window:
    """What the attributes say of windows over the image."""
    kernel = call.ints(2, "block_shape")
    rank = len(kernel)
    ones, none = (1,) * rank, (0,) * (2 * rank)
    strides, dilations, pads = call.attr("strides", ones), call.attr("dilations", ones), call.attr("pads", none)
    call.require(1 <= rank <= 3, f"over {rank} axes")
    alike = len(strides) == len(dilations) == len(call.ints(1, "image_shape")) == rank and len(pads) == 2 * rank
    sound = alike and min(*kernel, *strides, *dilations) > 0 and min(pads) >= 0
    call.demand(sound, f"strides {strides}, dilations {dilations}, pads {pads} and a window of {kernel}")
    return Window(kernel, strides, pads[:rank], pads[rank:], dilations)
