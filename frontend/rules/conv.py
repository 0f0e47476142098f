"""Convolutions over images."""

from __future__ import annotations

import numpy as np

from ...ir.errors import ModelError
from ...ir.graph import Array, Value
from ...ir.ops.conv import Conv
from ...ir.ops.shape import Pad
from ..call import Call, Result, rule

Pads = tuple[int, int, int, int]


def window_pads(
    call: Call, kernel: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int] = (1, 1)
) -> Pads:
    """(top, left, bottom, right) from pads or auto_pad."""
    mode = call.attr("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        pads: Pads = call.attr("pads", (0, 0, 0, 0))
        return pads
    if mode == "VALID":
        return 0, 0, 0, 0
    before, after = [], []
    for axis in (0, 1):
        size, reach = call.x.shape[2 + axis], (kernel[axis] - 1) * dilations[axis] + 1
        total = max(0, (-(-size // strides[axis]) - 1) * strides[axis] + reach - size)
        less, more = total // 2, total - total // 2
        before.append(more if mode == "SAME_LOWER" else less)
        after.append(less if mode == "SAME_LOWER" else more)
    return before[0], before[1], after[0], after[1]


def image_window(call: Call, kernel: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int], Pads, tuple[int, int]]:
    """Kernel, strides, pads and dilations of a window over an image."""
    call.require(len(kernel) == 2 and len(call.x.shape) == 4, f"over {len(call.x.shape) - 2} axes; images have 2")
    size = (kernel[0], kernel[1])
    strides, dilations = call.attr("strides", (1, 1)), call.attr("dilations", (1, 1))
    if min(strides) < 1 or min(dilations) < 1:
        raise ModelError(
            f"{call.node.op_type} '{call.name}' has strides {strides} and dilations {dilations}", where=[call.name]
        )
    return size, strides, window_pads(call, size, strides, dilations), dilations


@rule("Conv")
def conv(call: Call) -> Result:
    """Over images, grouped or not; a signal is an image of one row."""
    weight = call[1]
    if len(call.x.shape) == len(weight.shape) == 3:
        return _signal(call)
    call.require(weight.data is not None, "its weights must be constants")
    _, strides, pads, dilations = image_window(call, weight.shape[2:])
    result: Value = call.add(Conv(strides, pads, dilations, call.attr("group", 1)), call.x, weight, call.get(2))
    return result


def _signal(call: Call) -> Result:
    weight = call.array(1, "weights")
    call.require(call.attr("auto_pad", "NOTSET") == "NOTSET", "over a signal, with auto_pad")
    (begin, end), (stride,), (dilation,) = (
        call.attr(k, d) for k, d in (("pads", (0, 0)), ("strides", (1,)), ("dilations", (1,)))
    )
    op = Conv((1, stride), (0, begin, 0, end), (1, dilation), call.attr("group", 1))
    row = call.graph.constant(weight[:, :, None], call[1].name)
    image = call.add(op, call.reshape(call.x, (*call.x.shape[:2], 1, call.x.shape[2])), row, call.get(2))
    return call.reshape(image, (*image.shape[:2], image.shape[3]))


@rule("ConvTranspose")
def conv_transpose(call: Call) -> Result:
    """A convolution of the image with zeros put between its pixels, the kernel turned by half a turn."""
    x, weight = call.x, call.array(1, "weights")
    (kh, kw), strides, pads, dilations = image_window(call, weight.shape[2:])
    call.require(dilations == (1, 1) and call.attr("output_shape") is None, "dilated, or with a given output size")
    call.require(call.attr("auto_pad", "NOTSET") == "NOTSET", "with auto_pad")
    more = call.attr("output_padding", (0, 0))
    groups = call.attr("group", 1)
    kernel = np.ascontiguousarray(_turned(weight, groups))
    b, c, h, w = x.shape
    if strides != (1, 1):
        between = call.reshape(x, (b, c, h, 1, w, 1))
        between = call.add(Pad((0,) * 6 + (0, 0, 0, strides[0] - 1, 0, strides[1] - 1)), between)
        x = call.reshape(between, (b, c, h * strides[0], w * strides[1]))
    borders = (
        kh - 1 - pads[0],
        kw - 1 - pads[1],
        kh - strides[0] - pads[2] + more[0],
        kw - strides[1] - pads[3] + more[1],
    )
    if min(borders) < 0:
        x = call.add(Pad((0, 0, borders[0], borders[1], 0, 0, borders[2], borders[3])), x)
        borders = (0, 0, 0, 0)
    constant = call.graph.constant(kernel, call[1].name)
    result: Value = call.add(Conv((1, 1), borders, (1, 1), groups), x, constant, call.get(2))
    return result


def _turned(weight: Array, groups: int) -> Array:
    """[I, O/g, KH, KW] of a transposed convolution as [O, I/g, KH, KW] of the plain one."""
    split = weight.reshape(groups, -1, *weight.shape[1:]).transpose(0, 2, 1, 3, 4)[..., ::-1, ::-1]
    return split.reshape(-1, *split.shape[2:])
