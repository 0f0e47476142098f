"""Pooling windows and resizing."""

from __future__ import annotations

import numpy as np

from ...ir.graph import Array, Value
from ...ir.ops.linear import Linear
from ...ir.ops.pool import AveragePool, MaxPool
from ...ir.ops.shape import Resize, Transpose
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
        inside = any(pads) and bool(call.attr("count_include_pad", 0))  # without a border there is nothing to count
        result = call.add(AveragePool(kernel, strides, pads, ceil_mode, inside), call.x)
    return result


@rule("Resize")
def resize(call: Call) -> Result:
    """Images to a size, or by scales that give whole sizes."""
    x = call.x
    mode = call.attr("mode", "nearest")
    call.require(mode in ("nearest", "linear", "cubic"), f"mode {mode}")
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
    if mode == "cubic":
        call.require(not call.attr("exclude_outside", 0), "cubic with exclude_outside")
        return _cubic(call, Resize((shape[2], shape[3]), "linear", coordinates))
    nearest = call.attr("nearest_mode", "round_prefer_floor")
    result: Value = call.add(Resize((shape[2], shape[3]), mode, coordinates, nearest), x)
    return result


def _cubic(call: Call, op: Resize) -> Result:
    """A matrix along the width, then one along the height: cubic interpolation is linear in the pixels."""
    x = call.x
    for axis in (1, 0):
        matrix = _cubic_matrix(op, x.shape[3], op.size[axis], call.attr("cubic_coeff_a", -0.75))
        x = call.add(Linear(), x, call.constant(matrix, "columns" if axis else "rows"))
        x = call.add(Transpose((0, 1, 3, 2)), x)
    return x


def _cubic_matrix(op: Resize, source: int, target: int, a: float) -> Array:
    """Weights [target, source] of the four pixels around each position. Source: Keys 1981, equation 15."""
    at = op.positions(source, target)
    base = np.floor(at)
    matrix = np.zeros((target, source))
    for offset in (-1, 0, 1, 2):
        d = np.abs(at - base - offset)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        pixel = np.clip(base + offset, 0, source - 1).astype(np.int64)
        np.add.at(matrix, (np.arange(target), pixel), np.where(d <= 1, near, far))
    return matrix
