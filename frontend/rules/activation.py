"""Functions of one element, and softmax."""

from __future__ import annotations

import math

from ...ir.graph import Value
from ...ir.op import Op
from ...ir.ops import activation as ops
from ..call import Call, Result, rule
from ..model import dtype_of

PLAIN: dict[str, Op] = {
    "Abs": ops.Abs(),
    "Erf": ops.Erf(),
    "Exp": ops.Exp(),
    "HardSwish": ops.HardSwish(),
    "Log": ops.Log(),
    "Neg": ops.Neg(),
    "Reciprocal": ops.Reciprocal(),
    "Relu": ops.Relu(),
    "Sigmoid": ops.Sigmoid(),
    "Sqrt": ops.Sqrt(),
    "Tanh": ops.Tanh(),
}


@rule(*PLAIN)
def unary(call: Call) -> Result:
    """The op of the same name."""
    result: Value = call.add(PLAIN[call.node.op_type], call.x)
    return result


@rule("Gelu")
def gelu(call: Call) -> Result:
    """Exact or by tanh."""
    result: Value = call.add(ops.Gelu(call.attr("approximate", "none")), call.x)
    return result


@rule("Swish")
def swish(call: Call) -> Result:
    """SiLU."""
    call.require(call.attr("alpha", 1.0) == 1.0, "alpha must be 1")
    result: Value = call.add(ops.Silu(), call.x)
    return result


@rule("HardSigmoid")
def hard_sigmoid(call: Call) -> Result:
    """Slope and offset are attributes."""
    result: Value = call.add(ops.HardSigmoid(call.attr("alpha", 0.2), call.attr("beta", 0.5)), call.x)
    return result


@rule("LeakyRelu")
def leaky_relu(call: Call) -> Result:
    """The slope is an attribute."""
    result: Value = call.add(ops.LeakyRelu(call.attr("alpha", 0.01)), call.x)
    return result


@rule("Clip")
def clip(call: Call) -> Result:
    """Bounds are optional operands."""
    low, high = (
        float(call.array(i, "bounds").reshape(())) if call.get(i) is not None else default
        for i, default in ((1, -math.inf), (2, math.inf))
    )
    if (low, high) == (-math.inf, math.inf):
        return call.x
    result: Value = call.add(ops.Relu() if (low, high) == (0, math.inf) else ops.Clip(low, high), call.x)
    return result


@rule("Softmax")
def softmax(call: Call) -> Result:
    """Before opset 13 all axes from `axis` on are one."""
    x = call.x
    axis = call.axis(call.attr("axis", -1 if call.opset >= 13 else 1), len(x.shape))
    if call.opset >= 13 or axis == len(x.shape) - 1:
        result: Value = call.add(ops.Softmax(axis - len(x.shape) if axis == len(x.shape) - 1 else axis), x)
        return result
    flat = call.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))
    return call.reshape(call.add(ops.Softmax(-1), flat), x.shape)


@rule("Identity", "Dropout")
def identity(call: Call) -> Result:
    """Nothing at inference."""
    training = call.get(2)
    call.only_first("mask")
    call.require(
        training is None or (training.data is not None and not training.data.any()), "training_mode must be off"
    )
    return call.x


@rule("Cast", "CastLike")
def cast(call: Call) -> Result:
    """Only to the type that it has already."""
    target = dtype_of(call.attr("to", 0)) if call.node.op_type == "Cast" else call[1].dtype
    call.require(target == call.x.dtype, f"from {call.x.dtype} to {target}: real numbers must stay float32")
    return call.x
