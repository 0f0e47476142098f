"""Arithmetic on broadcast operands."""

from __future__ import annotations

from functools import reduce

import numpy as np

from ...ir.graph import Value
from ...ir.op import Op
from ...ir.ops import activation, elementwise, number
from ...ir.ops.linear import MatMul
from ..call import Call, Result, rule
from .terms import axis_last, cast, choose, div, less, pair, power, turn

BINARY: dict[str, Op] = {
    "Add": elementwise.Add(),
    "Sub": elementwise.Sub(),
    "Mul": elementwise.Mul(),
    "Div": elementwise.Div(),
}
VARIADIC: dict[str, Op] = {"Sum": elementwise.Add(), "Min": elementwise.Minimum(), "Max": elementwise.Maximum()}


@rule(*BINARY)
def binary(call: Call) -> Result:
    """The op of the same name."""
    result: Value = call.add(BINARY[call.node.op_type], *pair(call))
    return result


@rule("Pow")
def raised(call: Call) -> Result:
    """The result has the type of the base, whatever that of the exponent."""
    base, exponent = pair(call)
    if base.dtype != "float32" and exponent.dtype == "float32":
        return cast(call, power(call, cast(call, base, "float32"), exponent), base.dtype)
    wide = np.result_type(base.dtype, exponent.dtype).name if base.dtype != "float32" else base.dtype
    return cast(call, power(call, cast(call, base, wide), cast(call, exponent, wide)), base.dtype)


@rule("Mod")
def remainder(call: Call) -> Result:
    """With the sign of the divisor, or with `fmod` that of the dividend."""
    a, b = call[0], call[1]
    if not call.flag("fmod", 0) or a.dtype.startswith("uint"):
        result: Value = call.add(number.Mod(), a, b)
        return result
    size = call.add(number.Mod(), call.add(activation.Abs(), a), call.add(activation.Abs(), b))
    return choose(call, less(call, a, 0), call.add(activation.Neg(), size), size)


@rule(*VARIADIC)
def variadic(call: Call) -> Result:
    """Operands one after the other."""
    op = VARIADIC[call.node.op_type]
    return reduce(lambda a, b: call.add(op, a, b), [call[i] for i in range(len(call.operands))])


@rule("Mean")
def mean(call: Call) -> Result:
    """Of tensors, element by element."""
    count = len(call.operands)
    total = reduce(lambda a, b: call.add(elementwise.Add(), a, b), [call[i] for i in range(count)])
    return total if count == 1 else div(call, total, count)


@rule("CumSum")
def running_sum(call: Call) -> Result:
    """A product with a triangle of ones."""
    axis = call.axis(int(call.array(1, "axis").reshape(())), len(call.x.shape))
    rows, back = axis_last(call, call.x, axis)
    size = rows.shape[-1]
    call.require(size <= 4096, f"over {size} elements")
    triangle = np.triu(np.ones((size, size)), 1 if call.flag("exclusive", 0) else 0)
    triangle = triangle.T if call.flag("reverse", 0) else triangle
    matrix = call.constant(triangle, "triangle", rows.dtype)
    product = call.add(MatMul(), call.reshape(rows, (1, size)) if len(rows.shape) == 1 else rows, matrix)
    return turn(call, call.reshape(product, rows.shape), back)
