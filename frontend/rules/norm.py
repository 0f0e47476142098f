"""Normalisations."""

from __future__ import annotations

import math

import numpy as np

from ...ir.graph import Value
from ...ir.ops.activation import Abs, Reciprocal, Sqrt
from ...ir.ops.norm import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from ...ir.ops.pool import Mean
from ...ir.ops.shape import Expand
from ..call import Call, Result, rule
from .terms import add, choose, div, equal, mul, sub, total


@rule(
    "LayerNormalization",
    "RMSNormalization",
    "com.microsoft.LayerNormalization",
    "com.microsoft.SimplifiedLayerNormalization",
)
def layer_norm(call: Call) -> Result:
    """Over the last axis; over several, they are joined to one first."""
    x = call.x
    axis, eps = call.axis(call.attr("axis", -1), len(x.shape)), call.attr("epsilon", 1e-5)
    width = math.prod(x.shape[axis:])
    flat = call.reshape(x, (*x.shape[:axis], width))
    vectors = [_full(call, i, x.shape[axis:]) for i in range(1, len(call.operands))]
    kind = LayerNorm if call.node.op_type == "LayerNormalization" else RMSNorm
    y = call.reshape(call.add(kind(eps), flat, *vectors), x.shape)
    if not call.read & (set(call.node.output[1:]) - {""}):
        return y
    call.require(kind is LayerNorm, "its deviation must not be read")
    return y, *_statistics(call, x, tuple(range(axis, len(x.shape))), eps)


def _statistics(call: Call, x: Value, axes: tuple[int, ...], eps: float) -> tuple[Value, Value]:
    """Mean and reciprocal of the standard deviation."""
    mean = call.add(Mean(axes, True), x)
    centred = sub(call, x, mean)
    variance = call.add(Mean(axes, True), mul(call, centred, centred))
    return mean, call.add(Reciprocal(), call.add(Sqrt(), add(call, variance, eps)))


def _full(call: Call, index: int, shape: tuple[int, ...]) -> Value | None:
    """Scale or bias as one number per element of the joined axes."""
    value = call.get(index)
    size = math.prod(shape)
    if value is None or value.shape == (size,):
        return value
    if value.data is not None:
        array = np.broadcast_to(value.data, shape)
        return call.graph.constant(np.ascontiguousarray(array).reshape(-1), value.name)
    call.require(len(value.shape) <= len(shape), "with a scale that differs between rows")
    return call.reshape(value if value.shape == shape else call.add(Expand(shape), value), (size,))


@rule("BatchNormalization")
def batch_norm(call: Call) -> Result:
    """With frozen statistics; in training mode with those of the batch, and the running ones updated."""
    x, eps = call.x, call.attr("epsilon", 1e-5)
    scale, bias, mean, variance = (call[i] for i in range(1, 5))
    call.require(call.flag("spatial", 1), "with statistics per pixel")
    call.require(call.opset >= 7 or call.flag("is_test", 0), "is_test must be set")
    if not call.flag("training_mode", 0):
        call.only_first("statistics")
        result: Value = call.add(BatchNorm(1, eps), x, scale, bias, mean, variance)
        return result
    axes = (0, *range(2, len(x.shape)))
    own = call.add(Mean(axes), x)
    centred = sub(call, x, call.reshape(own, [n if i == 1 else 1 for i, n in enumerate(x.shape)]))
    spread = call.add(Mean(axes), mul(call, centred, centred))
    keep = call.attr("momentum", 0.9)
    pairs = ((mean, own), (variance, spread))
    running = [add(call, mul(call, old, keep), mul(call, new, 1 - keep)) for old, new in pairs]
    return call.add(BatchNorm(1, eps), x, scale, bias, own, spread), *running


@rule("InstanceNormalization")
def instance_norm(call: Call) -> Result:
    """A group per channel."""
    groups = call.x.shape[1]
    result: Value = call.add(GroupNorm(groups, call.attr("epsilon", 1e-5)), call.x, call.get(1), call.get(2))
    return result


@rule("GroupNormalization")
def group_norm(call: Call) -> Result:
    """Scale and bias per channel; before opset 21 per group."""
    x, groups = call.x, call.attr("num_groups")
    scale, bias = call[1], call[2]
    call.demand(groups > 0, f"{groups} groups")
    if call.opset < 21:
        scale, bias = (_per_channel(call, v, x.shape[1] // groups) for v in (scale, bias))
    result: Value = call.add(GroupNorm(groups, call.attr("epsilon", 1e-5)), x, scale, bias)
    return result


def _per_channel(call: Call, value: Value, count: int) -> Value:
    """Each number `count` times."""
    if count == 1:
        return value
    if value.data is not None:
        return call.graph.constant(np.repeat(value.data, count), value.name)
    size = value.type.size
    return call.reshape(call.add(Expand((size, count)), call.reshape(value, (size, 1))), (size * count,))


@rule("LpNormalization")
def lp_norm(call: Call) -> Result:
    """x by its norm along an axis; what has none stays zero."""
    x, p = call.x, call.attr("p", 2)
    axes = (call.axis(call.attr("axis", -1), len(x.shape)),)
    call.require(p in (1, 2), f"with p = {p}")
    size = total(call, call.add(Abs(), x), axes) if p == 1 else call.add(Sqrt(), total(call, mul(call, x, x), axes))
    return div(call, x, choose(call, equal(call, size, 0.0), 1.0, size))


@rule("MeanVarianceNormalization")
def mean_variance_norm(call: Call) -> Result:
    """Centred and divided by the standard deviation, to which ONNX adds 1e-9."""
    x = call.x
    axes = tuple(call.axis(a, len(x.shape)) for a in call.attr("axes", (0, 2, 3)))
    centred = sub(call, x, call.add(Mean(axes, True), x))
    variance = call.add(Mean(axes, True), mul(call, centred, centred))
    return div(call, centred, add(call, call.add(Sqrt(), variance), 1e-9))
