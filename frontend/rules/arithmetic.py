"""Arithmetic on broadcast operands, and reductions over whole axes."""

from __future__ import annotations

from functools import reduce

import numpy as np

from ...ir.graph import Value
from ...ir.op import Op
from ...ir.ops import activation, elementwise, pool
from ..call import Call, Result, rule

BINARY: dict[str, Op] = {
    "Add": elementwise.Add(),
    "Sub": elementwise.Sub(),
    "Mul": elementwise.Mul(),
    "Div": elementwise.Div(),
}
VARIADIC: dict[str, Op] = {"Sum": elementwise.Add(), "Min": elementwise.Minimum(), "Max": elementwise.Maximum()}


@rule(*BINARY)
def binary(call: Call) -> Result:
    """The op of the same name; integers are shapes and should have folded."""
    _real(call)
    result: Value = call.add(BINARY[call.node.op_type], call[0], call[1])
    return result


@rule("Pow")
def power(call: Call) -> Result:
    """The exponent may be an integer in the file."""
    exponent = call[1]
    if exponent.data is not None and exponent.dtype != call.x.dtype:
        exponent = call.graph.constant(exponent.data.astype(call.x.dtype), exponent.name)
    result: Value = call.add(elementwise.Pow(), call.x, exponent)
    return result


@rule(*VARIADIC)
def variadic(call: Call) -> Result:
    """Operands one after the other."""
    _real(call)
    op = VARIADIC[call.node.op_type]
    return reduce(lambda a, b: call.add(op, a, b), [call[i] for i in range(len(call.operands))])


def _real(call: Call) -> None:
    kinds = {value.dtype for value in call.operands if value is not None}
    call.require(
        not kinds & {"int64", "int32"} or len(kinds) > 1, "integers computed at run time; export with fixed shapes"
    )


@rule("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2", "ReduceSumSquare")
def reduction(call: Call) -> Result:
    """Axes are an attribute up to opset 17 (12 for the sum) and an operand after."""
    x, kind = call.x, call.node.op_type
    axes = call.setting("axes", 1, ())
    if not axes:
        if call.attr("noop_with_empty_axes", 0):
            return x
        axes = tuple(range(len(x.shape)))
    axes = tuple(call.axis(a, len(x.shape)) for a in axes)
    keepdims = bool(call.attr("keepdims", 1))
    if kind in ("ReduceL2", "ReduceSumSquare"):
        x = call.add(elementwise.Mul(), x, x)
    op = {"ReduceMean": pool.Mean, "ReduceMax": pool.ReduceMax}.get(kind, pool.Sum)(axes, keepdims)
    result: Value = call.add(op, x)
    if kind == "ReduceL2":
        result = call.add(activation.Sqrt(), result)
    return result


@rule("GlobalAveragePool", "GlobalMaxPool")
def global_pool(call: Call) -> Result:
    """A reduction over space that keeps its axes."""
    axes = tuple(range(2, len(call.x.shape)))
    op = pool.Mean(axes, True) if call.node.op_type == "GlobalAveragePool" else pool.ReduceMax(axes, True)
    result: Value = call.add(op, call.x)
    return result


@rule("PRelu")
def prelu(call: Call) -> Result:
    """One slope for all elements."""
    slope = call.array(1, "slope")
    call.require(bool(np.all(slope == slope.flat[0])), "slopes must be equal")
    result: Value = call.add(activation.LeakyRelu(float(slope.flat[0])), call.x)
    return result
