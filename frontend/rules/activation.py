"""Functions of one element, and softmax."""

from __future__ import annotations

import math

import numpy as np

from ...ir.graph import Value
from ...ir.op import Op
from ...ir.ops import activation as ops
from ...ir.ops import number
from ...ir.ops.elementwise import broadcast
from ...ir.ops.search import ArgMax
from ..call import Call, Result, rule
from .terms import add, cast, choose, div, equal, greatest, joined, least, less, mul, shifted_exp, sub, total, view

PLAIN: dict[str, Op] = {
    "Abs": ops.Abs(),
    "Cos": number.Cos(),
    "Erf": ops.Erf(),
    "Exp": ops.Exp(),
    "Floor": number.Floor(),
    "HardSwish": ops.HardSwish(),
    "Log": ops.Log(),
    "Neg": ops.Neg(),
    "Reciprocal": ops.Reciprocal(),
    "Relu": ops.Relu(),
    "Round": number.Round(),
    "Sigmoid": ops.Sigmoid(),
    "Sin": number.Sin(),
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
    """SiLU, its gate as steep as alpha says."""
    alpha = call.attr("alpha", 1.0)
    if alpha == 1.0:
        result: Value = call.add(ops.Silu(), call.x)
        return result
    return mul(call, call.x, call.add(ops.Sigmoid(), mul(call, call.x, alpha)))


@rule("Ceil")
def ceil(call: Call) -> Result:
    """The floor from the other side."""
    result: Value = call.add(ops.Neg(), call.add(number.Floor(), call.add(ops.Neg(), call.x)))
    return result


@rule("Sign")
def sign(call: Call) -> Result:
    """1, 0 or -1."""
    x = call.x
    upper = choose(call, less(call, 0, x), call.like(x, 1, "one"), 0)
    return upper if x.dtype.startswith("uint") else choose(call, less(call, x, 0), -1, upper)


def bent(call: Call, x: Value, alpha: float, scale: float = 1.0) -> Value:
    """relu(x) + alpha * (exp(min(x, 0) / scale) - 1): only of the negative part, so that nothing overflows."""
    negative = least(call, x, 0.0)
    negative = negative if scale == 1.0 else div(call, negative, scale)
    return add(call, call.add(ops.Relu(), x), mul(call, sub(call, call.add(ops.Exp(), negative), 1.0), alpha))


@rule("Elu")
def elu(call: Call) -> Result:
    """Exponential below zero."""
    return bent(call, call.x, call.attr("alpha", 1.0))


@rule("Celu")
def celu(call: Call) -> Result:
    """Exponential below zero, with a slope of 1 at zero."""
    alpha = call.attr("alpha", 1.0)
    return bent(call, call.x, alpha, alpha)


@rule("Selu")
def selu(call: Call) -> Result:
    """Exponential below zero, scaled so that layers keep their variance."""
    alpha, gamma = call.attr("alpha", 1.67326319217681884765625), call.attr("gamma", 1.05070102214813232421875)
    return mul(call, bent(call, call.x, alpha), gamma)


def soft_plus(call: Call, x: Value) -> Value:
    """log(1 + exp(x)) as relu(x) + log(1 + exp(-|x|)), which cannot overflow."""
    tail = call.add(ops.Exp(), call.add(ops.Neg(), call.add(ops.Abs(), x)))
    return add(call, call.add(ops.Relu(), x), call.add(ops.Log(), add(call, tail, 1.0)))


@rule("Softplus")
def softplus(call: Call) -> Result:
    """See `soft_plus`."""
    return soft_plus(call, call.x)


@rule("Softsign")
def softsign(call: Call) -> Result:
    """x / (1 + |x|)."""
    return div(call, call.x, add(call, call.add(ops.Abs(), call.x), 1.0))


@rule("Mish")
def mish(call: Call) -> Result:
    """x * tanh(softplus(x))."""
    return mul(call, call.x, call.add(ops.Tanh(), soft_plus(call, call.x)))


@rule("ThresholdedRelu")
def thresholded_relu(call: Call) -> Result:
    """x above alpha, else 0."""
    return choose(call, less(call, call.attr("alpha", 1.0), call.x), call.x, 0.0)


@rule("Shrink")
def shrink(call: Call) -> Result:
    """Nothing within the threshold, and closer to zero outside."""
    x, lambd, bias = call.x, call.attr("lambd", 0.5), call.attr("bias", 0.0)
    call.require(x.dtype == "float32", f"of {x.dtype}")
    above = choose(call, less(call, lambd, x), sub(call, x, bias), 0.0)
    return choose(call, less(call, x, -lambd), add(call, x, bias), above)


@rule("PRelu")
def prelu(call: Call) -> Result:
    """A slope for what is negative; a single one makes it a leaky ReLU."""
    x, slope = call.x, call[1]
    if call.opset < 7 and len(slope.shape) == 1 and len(x.shape) > 1:  # it was one number per channel
        slope = view(call, slope, (slope.shape[0], *(1,) * (len(x.shape) - 2)))
    call.demand(broadcast(x.shape, slope.shape) == x.shape, f"slopes {slope.shape} of operands {x.shape}")
    if slope.data is not None and slope.data.size and np.all(slope.data == slope.data.flat[0]):
        result: Value = call.add(ops.LeakyRelu(float(slope.data.flat[0])), x)
        return result
    return add(call, call.add(ops.Relu(), x), mul(call, least(call, x, 0), slope))


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
    """Bounds are optional operands; before opset 11 they are attributes."""
    x = call.x
    bounds = [call.get(i) for i in (1, 2)]
    if x.dtype != "float32" or any(bound is not None and bound.data is None for bound in bounds):
        y = x if bounds[0] is None else greatest(call, x, bounds[0])
        return y if bounds[1] is None else least(call, y, bounds[1])
    low, high = (
        call.attr(name, default) if bound is None else float(bound.array.reshape(()))
        for bound, name, default in zip(bounds, ("min", "max"), (-math.inf, math.inf), strict=True)
    )
    if (low, high) == (-math.inf, math.inf):
        return x
    result: Value = call.add(ops.Relu() if (low, high) == (0, math.inf) else ops.Clip(low, high), x)
    return result


def _as_rows(call: Call) -> tuple[Value, int]:
    """The operand and the axis that a softmax is over; before opset 13 all axes from `axis` on are one."""
    x = call.x
    rank = len(x.shape)
    axis = call.axis(call.attr("axis", -1 if call.opset >= 13 else 1), rank)
    if axis == rank - 1:
        return x, -1
    return (x, axis) if call.opset >= 13 else (call.reshape(x, joined(x.shape, axis)), -1)


@rule("Softmax")
def softmax(call: Call) -> Result:
    """Along one axis."""
    x, axis = _as_rows(call)
    return call.reshape(call.add(ops.Softmax(axis), x), call.x.shape)


@rule("LogSoftmax")
def log_softmax(call: Call) -> Result:
    """x - max - log(sum(exp(x - max)))."""
    x, axis = _as_rows(call)
    axes = (axis % len(x.shape),)
    top, exp = shifted_exp(call, x, axes)
    rows = sub(call, sub(call, x, top), call.add(ops.Log(), total(call, exp, axes)))
    return call.reshape(rows, call.x.shape)


@rule("Hardmax")
def hardmax(call: Call) -> Result:
    """1 at the first of the greatest along the axis, 0 elsewhere."""
    x, axis = _as_rows(call)
    axis %= len(x.shape)
    places = np.arange(x.shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(x.shape))])
    first = equal(call, call.add(ArgMax(axis), x), call.constant(places, "places", "int64"))
    return call.reshape(cast(call, first, x.dtype), call.x.shape)


@rule("Identity")
def identity(call: Call) -> Result:
    """Nothing."""
    return call.x


@rule("Dropout")
def dropout(call: Call) -> Result:
    """Nothing at inference; the mask says that all is kept."""
    x, training = call.x, call.get(2)
    ratio = call.get(1)
    call.require(call.opset >= 7 or call.flag("is_test", 0), "is_test must be set")
    off = training is None or not call.array(2, "training_mode").any()
    call.require(off or (ratio is not None and not call.array(1, "ratio").any()), "training_mode must be off")
    if len(call.node.output) < 2:
        return x
    return x, call.graph.constant(np.ones(x.shape, np.bool_), f"{call.name}.mask")
