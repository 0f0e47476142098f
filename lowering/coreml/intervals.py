"""Between which numbers each value of a graph lies: as measured, or as follows from what is known of its operands."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...ir.graph import Graph, Node, Value
from ...ir.op import Op
from ...ir.ops import activation, conv, elementwise, linear, logic, norm, number, pool, shape
from ...ir.ops.attention import Attention

__all__ = ["MARGIN", "RULES", "UNKNOWN", "Interval", "intervals", "largest"]

Interval = tuple[float, float]
Rule = Callable[[Node, list[Interval]], Interval]

MARGIN = 2.0
"""How much further than on the data seen a value may go on other data."""

UNKNOWN: Interval = (-math.inf, math.inf)


def intervals(graph: Graph, measured: Mapping[str, Interval]) -> dict[Value, Interval]:
    """An interval for every value; unbounded where nothing is known.

    A measured one is widened by `MARGIN`, and cut to the one that follows from its op, which holds for all data.
    """
    found: dict[Value, Interval] = {}
    for value in (*graph.inputs, *graph.constants):
        found[value] = _of_constant(value) if value.data is not None else _widened(measured.get(value.name, UNKNOWN))
    for node in graph.nodes:
        operands = [found[value] for value in node.inputs if value is not None]
        rule = RULES.get(type(node.op))
        proven = rule(node, operands) if rule else UNKNOWN
        proven = UNKNOWN if any(map(math.isnan, proven)) else proven
        for value in node.outputs:
            low, high = _widened(measured.get(value.name, UNKNOWN))
            found[value] = max(low, proven[0]), min(high, proven[1])
    return found


def largest(interval: Interval) -> float:
    """The largest magnitude in it."""
    return max(abs(interval[0]), abs(interval[1]))


def _widened(interval: Interval) -> Interval:
    low, high = interval
    return min(low * MARGIN, low / MARGIN), max(high * MARGIN, high / MARGIN)


def _of_constant(value: Value) -> Interval:
    data = value.array
    return (float(data.min()), float(data.max())) if data.size and data.dtype.kind in "fiu" else UNKNOWN


def _monotone(f: Callable[[float], float]) -> Rule:
    """A function that never falls."""

    def rule(node: Node, x: list[Interval]) -> Interval:
        return f(x[0][0]), f(x[0][1])

    return rule


def _exp(x: float) -> float:
    return math.exp(min(x, 700.0))


def _same(node: Node, x: list[Interval]) -> Interval:
    """Elements of the operands."""
    return min(each[0] for each in x), max(each[1] for each in x)


def _spread(node: Node, x: list[Interval]) -> Interval:
    """A sum of products with weights: at most the largest row of magnitudes times the largest element."""
    weight = node.input(1).data
    if weight is None or not math.isfinite(largest(x[0])):
        return UNKNOWN
    rows = np.abs(weight).reshape(len(weight), -1).sum(axis=1, dtype=np.float64) * largest(x[0])
    bias = node.optional(2)
    if bias is not None and bias.data is None:
        return UNKNOWN
    reach = float((rows + (0 if bias is None else np.abs(bias.array))).max(initial=0.0))
    return -reach, reach


def _normed(node: Node, x: list[Interval]) -> Interval:
    """A norm over n elements: no element is further than the root of n from the mean, in standard deviations."""
    dims = node.output.shape
    group = node.op.groups if isinstance(node.op, norm.GroupNorm) else None
    reach = math.sqrt(dims[-1] if group is None else math.prod(dims[1:]) / group)
    if node.optional(1) is not None:
        reach *= largest(x[1])
    if node.optional(2) is not None:
        reach += largest(x[2])
    return -reach, reach


def _clipped(node: Node, x: list[Interval]) -> Interval:
    assert isinstance(node.op, activation.Clip)
    low, high = np.clip(x[0], node.op.minimum, node.op.maximum)
    return float(low), float(high)


def _product(node: Node, x: list[Interval]) -> Interval:
    corners = [a * b if a and b else 0.0 for a in x[0] for b in x[1]]
    return min(corners), max(corners)


def _weighted(node: Node, x: list[Interval]) -> Interval:
    """Attention gives weighted means of its values."""
    return x[2]


def _gate(least: float) -> Rule:
    """x times something between 0 and 1 that is nearly 1 for large x."""
    return lambda node, x: (least if x[0][0] < 0 else 0.0, max(x[0][1], 0.0))


def _bounded(low: float, high: float) -> Rule:
    return lambda node, x: (low, high)


def _summed(node: Node, x: list[Interval]) -> Interval:
    n = node.input(0).type.size // max(node.output.type.size, 1)
    return x[0][0] * n, x[0][1] * n


def _padded(node: Node, x: list[Interval]) -> Interval:
    value: Any = node.op.attributes().get("value", 0.0)
    return min(x[0][0], value), max(x[0][1], value)


RULES: dict[type[Op], Rule] = {
    **{
        cls: _same
        for cls in (
            shape.Concat, shape.Expand, shape.Reshape, shape.Resize, shape.Slice, shape.Split, shape.Transpose,
            number.ReduceMin, pool.MaxPool, pool.Mean, pool.ReduceMax,
        )
    },
    activation.Abs: lambda node, x: (0.0, largest(x[0])),
    activation.Clip: _clipped,
    activation.Erf: _bounded(-1.0, 1.0),
    activation.Exp: _monotone(_exp),
    activation.Gelu: _gate(-0.2),
    activation.HardSigmoid: _bounded(0.0, 1.0),
    activation.HardSwish: _gate(-0.375),
    activation.Neg: lambda node, x: (-x[0][1], -x[0][0]),
    activation.Relu: _monotone(lambda x: max(x, 0.0)),
    activation.Sigmoid: _bounded(0.0, 1.0),
    activation.Silu: _gate(-0.28),
    activation.Softmax: _bounded(0.0, 1.0),
    activation.Sqrt: _monotone(lambda x: math.sqrt(max(x, 0.0))),
    activation.Tanh: _bounded(-1.0, 1.0),
    Attention: _weighted,
    conv.Conv: _spread,
    conv.PatchEmbed: _spread,
    elementwise.Add: lambda node, x: (x[0][0] + x[1][0], x[0][1] + x[1][1]),
    elementwise.Mul: _product,
    elementwise.Sub: lambda node, x: (x[0][0] - x[1][1], x[0][1] - x[1][0]),
    linear.Linear: _spread,
    logic.Cast: lambda node, x: x[0] if node.input(0).dtype != "bool" else (0.0, 1.0),
    logic.Where: lambda node, x: _same(node, x[1:]),
    norm.GroupNorm: _normed,
    norm.LayerNorm: _normed,
    norm.RMSNorm: _normed,
    pool.AveragePool: _padded,
    pool.Sum: _summed,
    shape.Gather: lambda node, x: x[0],
    shape.Pad: _padded,
}  # fmt: skip
"""What follows for a result from the intervals of its operands; ops that are missing say nothing."""
