"""Short words for what rules compose: arithmetic, comparison and logic of values and plain numbers."""

from __future__ import annotations

import math

import numpy as np

from ...ir.graph import Value
from ...ir.op import Op
from ...ir.ops import elementwise
from ...ir.ops.activation import Exp
from ...ir.ops.logic import Cast, Equal, Less, Where
from ...ir.ops.pool import ReduceMax, Sum
from ...ir.ops.shape import Reshape, Transpose
from ..call import Call

Term = Value | float

NUMBERS = ("float32", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "bool")
"""Element types that the graph computes with."""


def _apply(call: Call, op: Op, a: Term, b: Term) -> Value:
    if isinstance(a, Value):
        b = b if isinstance(b, Value) else call.like(a, b, "number")
    else:
        assert isinstance(b, Value)
        a = call.like(b, a, "number")
    result: Value = call.add(op, a, b)
    return result


def pair(call: Call) -> tuple[Value, Value]:
    """Two operands that broadcast; up to opset 6 the second is laid along the axes of the first from `axis` on."""
    a, b = call[0], call[1]
    axis = call.attr("axis")
    if call.opset >= 7 or axis is None:
        return a, b
    after = len(a.shape) - call.axis(axis, len(a.shape)) - len(b.shape)
    return a, view(call, b, (*b.shape, *(1,) * after))


def add(call: Call, a: Term, b: Term) -> Value:
    """a + b."""
    return _apply(call, elementwise.Add(), a, b)


def sub(call: Call, a: Term, b: Term) -> Value:
    """a - b."""
    return _apply(call, elementwise.Sub(), a, b)


def mul(call: Call, a: Term, b: Term) -> Value:
    """a * b."""
    return _apply(call, elementwise.Mul(), a, b)


def div(call: Call, a: Term, b: Term) -> Value:
    """a / b."""
    return _apply(call, elementwise.Div(), a, b)


def power(call: Call, a: Term, b: Term) -> Value:
    """a ** b."""
    return _apply(call, elementwise.Pow(), a, b)


def least(call: Call, a: Term, b: Term) -> Value:
    """The lesser of a and b."""
    return _apply(call, elementwise.Minimum(), a, b)


def greatest(call: Call, a: Term, b: Term) -> Value:
    """The greater of a and b."""
    return _apply(call, elementwise.Maximum(), a, b)


def less(call: Call, a: Term, b: Term) -> Value:
    """a < b."""
    return _apply(call, Less(), a, b)


def equal(call: Call, a: Term, b: Term) -> Value:
    """a == b."""
    return _apply(call, Equal(), a, b)


def choose(call: Call, condition: Value, a: Term, b: Term) -> Value:
    """a where the condition holds, else b."""
    if not isinstance(b, Value):
        assert isinstance(a, Value)
        b = call.like(a, b, "number")
    elif not isinstance(a, Value):
        a = call.like(b, a, "number")
    result: Value = call.add(Where(), condition, a, b)
    return result


def both(call: Call, a: Value, b: Value) -> Value:
    """a and b: where a holds, b decides."""
    return choose(call, a, b, a)


def either(call: Call, a: Value, b: Value) -> Value:
    """a or b: where a does not hold, b decides."""
    return choose(call, a, a, b)


def contrary(call: Call, a: Value) -> Value:
    """Not a."""
    return equal(call, a, False)


def cast(call: Call, x: Value, dtype: str) -> Value:
    """x in another element type; a constant is converted at once."""
    if x.dtype == dtype:
        return x
    if x.data is not None:
        return call.graph.constant(np.asarray(Cast(dtype).reference(x.data)), f"{x.name}.{dtype}")
    result: Value = call.add(Cast(dtype), x)
    return result


def turn(call: Call, x: Value, perm: tuple[int, ...]) -> Value:
    """x with its axes in another order; a constant is moved at once."""
    if perm == tuple(range(len(perm))):
        return x
    if x.data is not None:
        return call.graph.constant(np.ascontiguousarray(x.data.transpose(perm)), f"{x.name}.T")
    result: Value = call.add(Transpose(perm), x)
    return result


def view(call: Call, x: Value, shape: tuple[int, ...]) -> Value:
    """x under another shape; a constant is reshaped at once."""
    if x.shape == shape:
        return x
    if x.data is not None:
        return call.graph.constant(x.data.reshape(shape), x.name)
    result: Value = call.add(Reshape(shape), x)
    return result


def axis_last(call: Call, x: Value, axis: int) -> tuple[Value, tuple[int, ...]]:
    """x with one axis moved to the end, and the permutation that brings it back."""
    rank = len(x.shape)
    perm = (*(i for i in range(rank) if i != axis), axis)
    return turn(call, x, perm), tuple(int(i) for i in np.argsort(perm))


def total(call: Call, x: Value, axes: tuple[int, ...], keepdims: bool = True) -> Value:
    """The sum along axes."""
    result: Value = call.add(Sum(axes, keepdims), x)
    return result


def shifted_exp(call: Call, x: Value, axes: tuple[int, ...]) -> tuple[Value, Value]:
    """The greatest along the axes, and exp(x - greatest), which cannot overflow."""
    top: Value = call.add(ReduceMax(axes, True), x)
    exp: Value = call.add(Exp(), sub(call, x, top))
    return top, exp


def joined(shape: tuple[int, ...], axis: int) -> tuple[int, int]:
    """Sizes of the matrix that a tensor is when split before an axis."""
    return math.prod(shape[:axis]), math.prod(shape[axis:])
