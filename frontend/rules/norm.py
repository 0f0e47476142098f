"""Normalisations."""

from __future__ import annotations

import math

import numpy as np

from ...ir.graph import Value
from ...ir.ops.norm import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from ..call import Call, Result, rule


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def layer_norm(call: Call) -> Result:
    """Over the last axis; over several, they are joined to one first."""
    x = call.x
    call.only_first("mean and deviation")
    axis = call.axis(call.attr("axis", -1), len(x.shape))
    width = math.prod(x.shape[axis:])
    flat = call.reshape(x, (*x.shape[:axis], width))
    vectors = [_full(call, i, x.shape[axis:]) for i in range(1, len(call.operands))]
    kind = LayerNorm if call.node.op_type == "LayerNormalization" else RMSNorm
    return call.reshape(call.add(kind(call.attr("epsilon", 1e-5)), flat, *vectors), x.shape)


def _full(call: Call, index: int, shape: tuple[int, ...]) -> Value | None:
    value = call.get(index)
    if value is None or value.shape == (math.prod(shape),):
        return value
    array = np.broadcast_to(call.array(index, "scale and bias"), shape)
    return call.graph.constant(np.ascontiguousarray(array).reshape(-1), value.name)


@rule("BatchNormalization")
def batch_norm(call: Call) -> Result:
    """With frozen statistics."""
    call.only_first("statistics")
    call.require(not call.attr("training_mode", 0), "training_mode must be off: export in evaluation mode")
    result: Value = call.add(BatchNorm(1, call.attr("epsilon", 1e-5)), *(call[i] for i in range(5)))
    return result


@rule("InstanceNormalization")
def instance_norm(call: Call) -> Result:
    """A group per channel."""
    groups = call.x.shape[1]
    result: Value = call.add(GroupNorm(groups, call.attr("epsilon", 1e-5)), call.x, call.get(1), call.get(2))
    return result


@rule("GroupNormalization")
def group_norm(call: Call) -> Result:
    """Scale and bias per channel; the form of opset 18, per group, is withdrawn from ONNX."""
    op = GroupNorm(call.attr("num_groups"), call.attr("epsilon", 1e-5))
    result: Value = call.add(op, call.x, call[1], call[2])
    return result
