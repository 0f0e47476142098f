"""Reductions over whole axes, composed of sums, extremes, means and products."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...ir.graph import Value
from ...ir.ops import activation, number, pool
from ..call import Call, Result, rule
from .terms import add, mul, shifted_exp, total

Axes = tuple[int, ...]
Reduction = Callable[[Call, Value, Axes, bool], Value]
"""What an operator makes of x along axes, which stay as size 1 if told."""


def _sum(call: Call, x: Value, axes: Axes, keep: bool) -> Value:
    return total(call, x, axes, keep) if axes else x


def _squares(call: Call, x: Value, axes: Axes, keep: bool) -> Value:
    return _sum(call, mul(call, x, x), axes, keep)


def _sum_of_sizes(call: Call, x: Value, axes: Axes, keep: bool) -> Value:
    return _sum(call, call.add(activation.Abs(), x), axes, keep)


def _root(call: Call, x: Value, axes: Axes, keep: bool) -> Value:
    result: Value = call.add(activation.Sqrt(), _squares(call, x, axes, keep))
    return result


def _log(call: Call, x: Value, axes: Axes, keep: bool) -> Value:
    result: Value = call.add(activation.Log(), _sum(call, x, axes, keep))
    return result


def _log_sum_exp(call: Call, x: Value, axes: Axes, keep: bool) -> Value:
    """Of nothing it is the logarithm of zero; else what is exponentiated is at most zero."""
    if not axes or 0 in x.shape:
        return _log(call, call.add(activation.Exp(), x), axes, keep)
    top, exp = shifted_exp(call, x, axes)
    y = add(call, top, _log(call, exp, axes, True))
    return y if keep else call.reshape(y, _reduced(y, axes, False))


def _reduced(x: Value, axes: Axes, keep: bool) -> list[int]:
    return [1 if i in axes else n for i, n in enumerate(x.shape) if keep or i not in axes]


def _single(op: type[pool._Reduce], neutral: Callable[[str], float] | None = None) -> Reduction:
    """One op; the extreme of nothing is what any number beats, and without a neutral number it is refused."""

    def reduced(call: Call, x: Value, axes: Axes, keep: bool) -> Value:
        if not axes:
            return x
        empty = 0 in (x.shape[axis] for axis in axes)
        call.demand(not empty or neutral is not None, f"there is nothing to reduce in {x.shape}")
        if neutral and empty:
            nothing = np.full(_reduced(x, axes, keep), neutral(x.dtype), x.dtype)
            return call.graph.constant(nothing, f"{call.name}.nothing")
        result: Value = call.add(op(axes, keep), x)
        return result

    return reduced


def _lowest(dtype: str) -> float:
    return -np.inf if np.dtype(dtype).kind == "f" else 0 if dtype == "bool" else int(np.iinfo(dtype).min)


def _highest(dtype: str) -> float:
    return np.inf if np.dtype(dtype).kind == "f" else 1 if dtype == "bool" else int(np.iinfo(dtype).max)


REDUCTIONS: dict[str, Reduction] = {
    "ReduceL1": _sum_of_sizes,
    "ReduceL2": _root,
    "ReduceLogSum": _log,
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": _single(pool.ReduceMax, _lowest),
    "ReduceMean": _single(pool.Mean),
    "ReduceMin": _single(number.ReduceMin, _highest),
    "ReduceProd": _single(number.Prod, lambda dtype: 1),
    "ReduceSum": _sum,
    "ReduceSumSquare": _squares,
}


@rule(*REDUCTIONS)
def reduction(call: Call) -> Result:
    """Axes are an attribute up to opset 17 (12 for the sum) and an operand after."""
    rank = len(call.x.shape)
    axes = tuple(sorted(call.axis(a, rank) for a in call.setting("axes", 1, ()) or ()))
    if not axes and not call.flag("noop_with_empty_axes", 0):
        axes = tuple(range(rank))
    return REDUCTIONS[call.node.op_type](call, call.x, axes, call.flag("keepdims", 1))


@rule("GlobalAveragePool", "GlobalMaxPool")
def global_pool(call: Call) -> Result:
    """A reduction over space that keeps its axes."""
    axes = tuple(range(2, len(call.x.shape)))
    op = pool.Mean(axes, True) if call.node.op_type == "GlobalAveragePool" else pool.ReduceMax(axes, True)
    result: Value = call.add(op, call.x)
    return result
