"""Operators of quantised models: scales are kept, arithmetic on integers becomes arithmetic on what they stand for."""

from __future__ import annotations

import numpy as np

from ...ir.errors import ModelError
from ...ir.graph import Quant, Value
from ...ir.ops import number
from ...ir.ops.activation import Clip
from ...ir.ops.linear import MatMul
from ...ir.ops.pool import ReduceMax
from ...ir.ops.quant import Dequantize, Quantize
from ...ir.ops.shape import Expand, Slice
from ..call import Call, Result, rule
from ..model import dtype_of
from .conv import convolved
from .linear import product
from .terms import add, cast, div, greatest, least, mul, sub, view
from .window import window

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32")


def _along(call: Call, vector: Value, axis: int | None, rank: int) -> Value:
    """A scale or zero point so that it broadcasts along its axis; one per element does."""
    if len(vector.shape) > 1:
        return vector
    if vector.type.size == 1:
        return view(call, vector, ())
    if axis is None:
        what = f"{call.node.op_type} '{call.name}': {vector.type.size} zero points for a single scale"
        raise ModelError(what, where=[call.name], do="export the model again")
    return view(call, vector, tuple(vector.type.size if i == axis else 1 for i in range(rank)))


def _quant(scale: Value, zero: Value | None, axis: int | None) -> Quant | None:
    """Scale and zero point, if they are known and the zero point is one."""
    if scale.data is None or len(scale.shape) > 1 or (zero is not None and (zero.data is None or not zero.data.size)):
        return None
    points = np.zeros(1, np.int64) if zero is None else zero.array.reshape(-1).astype(np.int64)
    if np.any(points != points[0]):
        return None
    if scale.data.size == 1:
        return Quant(float(scale.data.reshape(())), int(points[0]))
    return Quant(tuple(float(s) for s in scale.data.reshape(-1)), int(points[0]), axis)


def _axis(call: Call, x: Value, scale: Value, axis: int) -> int | None:
    if scale.type.size == 1 or (len(scale.shape) > 1 and scale.shape == x.shape):
        return None
    axis = call.axis(axis, len(x.shape))
    call.demand(scale.shape == (x.shape[axis],), f"scales {scale.shape} do not fit axis {axis} of {x.shape}")
    return axis


def to_integers(call: Call, x: Value, scale: Value, zero: Value | None, dtype: str, axis: int = 1) -> Value:
    """Real numbers as integers of a scale."""
    call.require(dtype in INTEGERS, f"to {dtype}")
    along = _axis(call, x, scale, axis)
    quant = _quant(scale, zero, along)
    if quant is not None:
        result: Value = call.add(Quantize(quant, dtype), x)
        return result
    rank, info = len(x.shape), np.iinfo(dtype)
    steps = call.add(number.Round(), div(call, x, _along(call, scale, along, rank)))
    if zero is not None:
        steps = add(call, steps, cast(call, _along(call, zero, along, rank), "float32"))
    return cast(call, call.add(Clip(float(info.min), float(info.max)), steps), dtype)


def to_reals(call: Call, q: Value, scale: Value, zero: Value | None, axis: int = 1) -> Value:
    """What integers of a scale stand for."""
    call.require(q.dtype in INTEGERS and scale.dtype == "float32", f"from {q.dtype} to {scale.dtype}")
    along = _axis(call, q, scale, axis)
    quant = _quant(scale, zero, along)
    if quant is not None:
        result: Value = call.add(Dequantize(quant), q)
        return result
    rank = len(q.shape)
    real = cast(call, q, "float32")
    if zero is not None:
        real = sub(call, real, cast(call, _along(call, zero, along, rank), "float32"))
    return mul(call, real, _along(call, scale, along, rank))


@rule("QuantizeLinear")
def quantize(call: Call) -> Result:
    """The type is that of the zero point."""
    asked = call.attr("output_dtype", 0)
    scale, zero = _scale_and_zero(call)
    dtype = zero.dtype if zero is not None else dtype_of(asked) if asked else "uint8"
    return to_integers(call, cast(call, call.x, "float32"), scale, zero, dtype, call.attr("axis", 1))


@rule("DequantizeLinear")
def dequantize(call: Call) -> Result:
    """Per tensor, along an axis, or in blocks."""
    asked = call.attr("output_dtype", 0)
    call.require(not asked or dtype_of(asked) == "float32", f"to {dtype_of(asked)}")
    return to_reals(call, call.x, *_scale_and_zero(call), call.attr("axis", 1))


def _scale_and_zero(call: Call) -> tuple[Value, Value | None]:
    """The operands of that name; where they are per block, each is repeated for the elements of its block."""
    scale, zero, block = call[1], call.get(2), call.attr("block_size", 0)
    if not block:
        return scale, zero
    axis = call.axis(call.attr("axis", 1), len(call.x.shape))
    size = call.x.shape[axis]
    call.demand(scale.shape[axis : axis + 1] == (-(-size // block),), f"{scale.shape} are no blocks of {call.x.shape}")
    return _repeated(call, scale, axis, size, block), zero and _repeated(call, zero, axis, size, block)


def _repeated(call: Call, x: Value, axis: int, size: int, times: int) -> Value:
    """Each element along the axis several times, `size` in all."""
    before, after = x.shape[: axis + 1], x.shape[axis + 1 :]
    copies = call.add(Expand((*before, times, *after)), view(call, x, (*before, 1, *after)))
    long = call.reshape(copies, (*x.shape[:axis], x.shape[axis] * times, *after))
    return long if long.shape[axis] == size else call.add(Slice((0,), (size,), (axis,), (1,)), long)


@rule("DynamicQuantizeLinear")
def dynamic_quantize(call: Call) -> Result:
    """Scale and zero point from the extremes, so that zero is an integer."""
    x = call.x
    axes = tuple(range(len(x.shape)))
    low, high = (
        bound(call, call.add(op(axes), x), 0.0) for bound, op in ((least, number.ReduceMin), (greatest, ReduceMax))
    )
    scale = div(call, sub(call, high, low), 255.0)
    zero = call.add(number.Round(), call.add(Clip(0.0, 255.0), div(call, sub(call, 0.0, low), scale)))
    steps = add(call, call.add(number.Round(), div(call, x, scale)), zero)
    return cast(call, call.add(Clip(0.0, 255.0), steps), "uint8"), scale, cast(call, zero, "uint8")


@rule("QLinearMatMul")
def quantised_product(call: Call) -> Result:
    """The product of what the integers stand for; the scales of the right side are per column."""
    a = to_reals(call, call[0], call[1], call.get(2), -2)
    b = to_reals(call, call[3], call[4], call.get(5), -1)
    return to_integers(call, product(call, a, b), call[6], call.get(7), call[7].dtype)


def products(call: Call, sums: Value, *scales: Value) -> Value:
    """What sums of products stand for, whose scale is that of their factors multiplied."""
    a, b = scales
    if sums.data is not None and a.data is not None and b.data is not None:
        return call.constant(sums.data * (a.data.reshape(()) * b.data), "bias")
    return mul(call, cast(call, sums, "float32"), mul(call, view(call, a, ()), b))


@rule("QLinearConv")
def quantised_conv(call: Call) -> Result:
    """The convolution of what the integers stand for; the bias has the scale of the products."""
    x = to_reals(call, call[0], call[1], call.get(2))
    weight = to_reals(call, call[3], call[4], call.get(5), 0)
    bias = call.get(8)
    bias = None if bias is None else products(call, bias, call[1], call[4])
    y = convolved(call, x, weight, bias, window(call, weight.shape[2:]), call.attr("group", 1))
    return to_integers(call, y, call[6], call.get(7), call[7].dtype)


def _centred(call: Call, q: Value, zero: Value | None, axis: int) -> Value:
    """Integers less their zero point, as int32."""
    wide = cast(call, q, "int32")
    if zero is None:
        return wide
    point = cast(call, zero, "int32")
    if point.type.size > 1 and len(point.shape) == 1:
        point = _along(call, point, call.axis(axis, len(q.shape)), len(q.shape))
    return sub(call, wide, view(call, point, ()) if point.type.size == 1 else point)


@rule("MatMulInteger")
def integer_product(call: Call) -> Result:
    """In int32, exactly."""
    a, b = _centred(call, call[0], call.get(2), -2), _centred(call, call[1], call.get(3), -1)
    result: Value = call.add(MatMul(), a, b)
    return result


@rule("ConvInteger")
def integer_conv(call: Call) -> Result:
    """In int32, exactly; the border holds the zero point, which is zero once it is taken away."""
    x, weight = _centred(call, call[0], call.get(2), 1), _centred(call, call[1], call.get(3), 0)
    return convolved(call, x, weight, None, window(call, weight.shape[2:]), call.attr("group", 1))
