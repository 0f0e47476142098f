"""Convolutions over signals, images and volumes, plain and transposed: all become convolutions of images."""

from __future__ import annotations

from functools import reduce

import numpy as np

from ...ir.errors import ModelError
from ...ir.graph import Array, Value
from ...ir.ops.conv import Conv
from ...ir.ops.shape import Pad, Slice
from ..call import Call, Result, rule
from .terms import add, turn, view
from .window import Sizes, Window, window


@rule("Conv")
def conv(call: Call) -> Result:
    """Grouped or not, over one to three axes."""
    weight = call[1]
    return convolved(call, call.x, weight, call.get(2), window(call, weight.shape[2:]), call.attr("group", 1))


def convolved(call: Call, x: Value, weight: Value, bias: Value | None, w: Window, groups: int) -> Value:
    """x [B, C, ...] under weights [O, C/groups, ...]: a signal is an image of one row, a volume a sum over depth."""
    if len(w.kernel) == 3:
        return _volume(call, x, weight, bias, w, groups)
    if len(w.kernel) == 1:
        row = view(call, weight, (*weight.shape[:2], 1, *weight.shape[2:]))
        image = convolved(call, call.reshape(x, (*x.shape[:2], 1, *x.shape[2:])), row, bias, w.flat(), groups)
        return call.reshape(image, (*image.shape[:2], *image.shape[3:]))
    (sy, sx), (top, left), (bottom, right), (dy, dx) = w.strides, w.before, w.after, w.dilations
    if min(*w.before, *w.after) < 0:
        x = call.add(Pad((0, 0, top, left, 0, 0, bottom, right)), x)
        top = left = bottom = right = 0
    result: Value = call.add(Conv((sy, sx), (top, left, bottom, right), (dy, dx), groups), x, weight, bias)
    return result


def _volume(call: Call, x: Value, weight: Value, bias: Value | None, w: Window, groups: int) -> Value:
    """For each plane of the kernel a convolution of images, the planes it meets taken as a batch."""
    depth = w.sizes(x.shape[2:])[0]
    if depth < 1:
        raise ModelError(f"Conv '{call.name}': the kernel is deeper than its operand", where=[call.name])
    pads = (0, 0, w.before[0], 0, 0, 0, 0, w.after[0], 0, 0)
    padded = call.add(Pad(pads), x) if any(pads) else x
    planes = turn(call, padded, (0, 2, 1, 3, 4))
    flat = Window(*(sizes[1:] for sizes in (w.kernel, w.strides, w.before, w.after, w.dilations)))
    parts: list[Value] = []
    for k in range(w.kernel[0]):
        start = k * w.dilations[0]
        cut = Slice((start,), (start + (depth - 1) * w.strides[0] + 1,), (1,), (w.strides[0],))
        met = call.add(cut, planes)
        images = call.reshape(met, (met.shape[0] * depth, *met.shape[2:]))
        parts.append(convolved(call, images, _plane(call, weight, k), None if parts else bias, flat, groups))
    total = reduce(lambda a, b: add(call, a, b), parts)
    return turn(call, call.reshape(total, (x.shape[0], depth, *total.shape[1:])), (0, 2, 1, 3, 4))


def _plane(call: Call, weight: Value, k: int) -> Value:
    if weight.data is not None:
        return call.graph.constant(np.ascontiguousarray(weight.data[:, :, k]), f"{weight.name}.{k}")
    cut = call.add(Slice((k,), (k + 1,), (2,), (1,)), weight)
    return call.reshape(cut, (*weight.shape[:2], *weight.shape[3:]))


@rule("ConvTranspose")
def conv_transpose(call: Call) -> Result:
    """A convolution of the image with zeros put between its elements, the kernel turned by half a turn."""
    x, weight = call.x, call[1]
    w = window(call, weight.shape[2:])
    groups, more = call.attr("group", 1), call.attr("output_padding", (0,) * len(w.kernel))
    if weight.shape[0] != x.shape[1] or weight.shape[0] % groups:
        what = f"ConvTranspose '{call.name}': {weight.shape} in {groups} groups does not fit {x.shape}"
        raise ModelError(what, where=[call.name])
    before, after = _cropped(call, w, more)
    wide = with_gaps(call, x, w.strides)
    inner = tuple(reach - 1 for reach in w.reach)
    placed = Window(
        w.kernel,
        (1,) * len(inner),
        tuple(i - b for i, b in zip(inner, before, strict=True)),
        tuple(i - a + m - (s - 1) for i, a, m, s in zip(inner, after, more, w.strides, strict=True)),
        w.dilations,
    )
    return convolved(call, wide, _turned(call, weight, groups), call.get(2), placed, groups)


def _cropped(call: Call, w: Window, more: Sizes) -> tuple[Sizes, Sizes]:
    """What is cut off the full result: the pads, or what leads to the output size that is asked for."""
    mode, asked = call.attr("auto_pad", "NOTSET"), call.attr("output_shape")
    same = mode in ("SAME_UPPER", "SAME_LOWER")
    if asked is None and not same:
        return w.before, w.after
    rank = len(w.kernel)
    spatial = call.x.shape[2:]
    targets = asked[-rank:] if asked else tuple(n * s for n, s in zip(spatial, w.strides, strict=True))
    full = [s * (n - 1) + r + m for n, s, r, m in zip(spatial, w.strides, w.reach, more, strict=True)]
    over = [f - t for f, t in zip(full, targets, strict=True)]
    half, rest = tuple(o // 2 for o in over), tuple(o - o // 2 for o in over)
    return (half, rest) if mode == "SAME_UPPER" else (rest, half)


def with_gaps(call: Call, x: Value, strides: Sizes) -> Value:
    """x with strides - 1 zeros after each element."""
    if set(strides) <= {1}:
        return x
    apart = call.reshape(x, (*x.shape[:2], *(size for n in x.shape[2:] for size in (n, 1))))
    zeros = (0, 0, *(size for s in strides for size in (0, s - 1)))
    padded = call.add(Pad((*(0,) * len(zeros), *zeros)), apart)
    return call.reshape(padded, (*x.shape[:2], *(n * s for n, s in zip(x.shape[2:], strides, strict=True))))


def _turned(call: Call, weight: Value, groups: int) -> Value:
    """[I, O/g, ...] of a transposed convolution as [O, I/g, ...] of the plain one, each kernel by half a turn."""
    inputs, outputs, *kernel = weight.shape
    axes = tuple(range(3, 3 + len(kernel)))
    grouped = (groups, inputs // groups, outputs, *kernel)
    final = (groups * outputs, inputs // groups, *kernel)
    if weight.data is not None:
        array: Array = np.flip(weight.data.reshape(grouped).swapaxes(1, 2), axes)
        return call.graph.constant(np.ascontiguousarray(array).reshape(final), weight.name)
    split = turn(call, call.reshape(weight, grouped), (0, 2, 1, *axes))
    backwards = Slice((-1,) * len(axes), (-(2**31),) * len(axes), axes, (-1,) * len(axes))
    return call.reshape(call.add(backwards, split), final)
