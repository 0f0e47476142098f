"""Sampling at positions that are data: the elements around each position, weighted by their distance."""

from __future__ import annotations

import itertools
import math
from functools import reduce

import numpy as np

from ...ir.graph import Value
from ...ir.ops.activation import Abs, Clip
from ...ir.ops.number import Floor, Mod, Round
from ...ir.ops.shape import Gather, Slice, Transpose
from ..call import Call, Result, rule
from .search import strides
from .terms import add, both, cast, choose, less, mul, sub

CUBIC = -0.75
MODES = {"bilinear": "linear", "bicubic": "cubic"}


@rule("GridSample")
def grid_sample(call: Call) -> Result:
    """x [B, C, ...] read at grid [B, ..., n], whose last axis has the position along the last spatial axis first."""
    x, grid = call[0], call[1]
    mode = MODES.get(call.attr("mode", "linear"), call.attr("mode", "linear"))
    border = call.attr("padding_mode", "zeros")
    aligned = call.flag("align_corners", 0)
    spatial = x.shape[2:]
    call.demand(grid.shape[-1] == len(spatial), f"positions of {grid.shape[-1]} numbers for {len(spatial)} axes")
    call.demand(bool(spatial) and 0 not in spatial, "an empty image")
    call.require(mode in ("nearest", "linear", "cubic") and border in ("zeros", "border", "reflection"), f"by {mode}")
    places = [_positions(call, grid, i, size, mode, border, aligned) for i, size in enumerate(spatial)]
    taps = [_taps(call, at, mode) for at in places]
    parts = []
    for corner in itertools.product(*taps):
        value = _read(call, x, [tap for tap, _ in corner], border, aligned)
        for _, weight in corner:
            if weight is not None:
                value = mul(call, value, call.reshape(weight, (weight.shape[0], 1, *weight.shape[1:])))
        parts.append(value)
    return reduce(lambda a, b: add(call, a, b), parts)


def _positions(call: Call, grid: Value, axis: int, size: int, mode: str, border: str, aligned: bool) -> Value:
    """[B, ...] places along one axis: -1 and 1 are the outer elements, or their outer edges."""
    last = len(grid.shape) - 1
    column = last and grid.shape[-1] - 1 - axis
    raw = call.reshape(call.add(Slice((column,), (column + 1,), (last,), (1,)), grid), grid.shape[:-1])
    factor, shift = ((size - 1) / 2, (size - 1) / 2) if aligned else (size / 2, (size - 1) / 2)
    at = add(call, mul(call, raw, factor), shift)
    at = call.add(Round(), at) if mode == "nearest" else at
    low, high = (0.0, size - 1.0) if aligned else (-0.5, size - 0.5)
    if border == "border":
        return choose(call, _outside(call, at, low, high), call.add(Clip(0.0, size - 1.0), at), at)
    return _reflected(call, at, low, high) if border == "reflection" else at


def _outside(call: Call, at: Value, low: float, high: float) -> Value:
    """Truth values: before the first or behind the last."""
    inside = both(call, less(call, math.nextafter(low, -math.inf), at), less(call, at, math.nextafter(high, math.inf)))
    return choose(call, inside, call.constant(False, "no", "bool"), True)


def _reflected(call: Call, at: Value, low: float, high: float) -> Value:
    """Positions mirrored at both ends until they lie between them: a triangle wave."""
    span = high - low
    if span == 0:
        return mul(call, at, 0.0)
    wave = call.add(Mod(), sub(call, at, low), call.like(at, 2 * span, "period"))
    return add(call, sub(call, span, call.add(Abs(), sub(call, wave, span))), low)


def _taps(call: Call, at: Value, mode: str) -> list[tuple[Value, Value | None]]:
    """The elements that a position is made of along one axis, each with its weight."""
    if mode == "nearest":
        return [(call.add(Round(), at), None)]
    base = call.add(Floor(), at)
    share = sub(call, at, base)
    if mode == "linear":
        return [(base, sub(call, 1.0, share)), (add(call, base, 1.0), share)]
    return [(add(call, base, float(o)), _cubic(call, share, o)) for o in (-1, 0, 1, 2)]


def _cubic(call: Call, share: Value, offset: int) -> Value:
    """Weight of the element `offset` places from the one before. Source: Keys 1981, equation 15."""
    a = CUBIC
    d = sub(call, share, float(offset)) if offset <= 0 else sub(call, float(offset), share)
    if offset in (0, 1):
        inner = sub(call, mul(call, d, a + 2), a + 3)
        return add(call, mul(call, mul(call, inner, d), d), 1.0)
    inner = add(call, mul(call, sub(call, mul(call, d, a), 5 * a), d), 8 * a)
    return sub(call, mul(call, inner, d), 4 * a)


def _read(call: Call, x: Value, taps: list[Value], border: str, aligned: bool) -> Value:
    """The elements at whole positions, one per axis; beyond the border it decides. -> [B, C, ...]."""
    batch, channels, *spatial = x.shape
    numbers, seen = None, None
    for tap, size, step in zip(taps, spatial, strides(tuple(spatial)), strict=True):
        if border == "zeros":
            within = both(call, less(call, -0.5, tap), less(call, tap, size - 0.5))
            seen = within if seen is None else both(call, seen, within)
        elif border == "reflection":
            low, high = (0.0, size - 1.0) if aligned else (-0.5, size - 0.5)
            tap = _reflected(call, tap, low, high)
        part = mul(call, cast(call, call.add(Clip(0.0, size - 1.0), tap), "int64"), step)
        numbers = part if numbers is None else add(call, numbers, part)
    assert numbers is not None
    images = np.arange(batch).reshape(-1, *(1,) * (len(numbers.shape) - 1)) * math.prod(spatial)
    numbers = add(call, numbers, call.constant(images, "images", "int64"))
    rank = len(spatial)
    rows = call.add(Transpose((0, *range(2, 2 + rank), 1)), x)
    rows = call.reshape(rows, (batch * math.prod(spatial), channels))
    value: Value = call.add(Gather(0), rows, numbers)
    value = call.add(Transpose((0, len(numbers.shape), *range(1, len(numbers.shape)))), value)
    if seen is None:
        return value
    return choose(call, call.reshape(seen, (seen.shape[0], 1, *seen.shape[1:])), value, 0.0)
