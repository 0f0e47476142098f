"""Pooling windows and resizing."""

from __future__ import annotations

from ...ir.graph import Value
from ...ir.ops.pool import AveragePool, MaxPool
from ...ir.ops.shape import Resize
from ..call import Call, Result, rule
from .conv import image_window


@rule("MaxPool", "AveragePool")
def pool(call: Call) -> Result:
    """Two-dimensional windows; the positions of the greatest are not kept."""
    call.only_first("indices")
    kernel, strides, pads, dilations = image_window(call, call.attr("kernel_shape"))
    call.require(dilations == (1, 1), "dilated")
    ceil_mode = bool(call.attr("ceil_mode", 0))
    if call.node.op_type == "MaxPool":
        result: Value = call.add(MaxPool(kernel, strides, pads, ceil_mode), call.x)
    else:
        inside = bool(call.attr("count_include_pad", 0))
        result = call.add(AveragePool(kernel, strides, pads, ceil_mode, inside), call.x)
    return result


@rule("Resize")
def resize(call: Call) -> Result:
    """Images to a size, or by whole scales; nearest or linear."""
    x = call.x
    mode = call.attr("mode", "nearest")
    call.require(mode in ("nearest", "linear"), f"mode {mode}; nearest and linear are")
    call.require(len(x.shape) == 4, "only images are resized")
    call.require(not call.attr("antialias", 0), "with antialias")
    axes = tuple(call.axis(a, 4) for a in call.attr("axes", range(4)))
    policy = call.attr("keep_aspect_ratio_policy", "stretch")
    call.require(policy == "stretch", f"with keep_aspect_ratio_policy {policy}")
    shape = list(x.shape)
    if call.get(3) is not None:
        for axis, size in zip(axes, call.ints(3, "sizes"), strict=True):
            shape[axis] = size
    else:
        for axis, scale in zip(axes, call.array(2, "scales"), strict=True):
            scaled = shape[axis] * float(scale)
            call.require(abs(scaled - round(scaled)) < 1e-3, f"by {scale}, which gives no whole size")
            shape[axis] = round(scaled)
    call.require(tuple(shape[:2]) == x.shape[:2], "only height and width are resized")
    coordinates = call.attr("coordinate_transformation_mode", "half_pixel")
    call.require(
        coordinates in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"), f"with {coordinates}"
    )
    if tuple(shape) == x.shape:
        return x
    nearest = call.attr("nearest_mode", "round_prefer_floor")
    result: Value = call.add(Resize((shape[2], shape[3]), mode, coordinates, nearest), x)
    return result
