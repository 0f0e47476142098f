"""Observers: which interval of the observed numbers the integers should cover."""

from __future__ import annotations

import numpy as np

from ...errors import UsageError
from ...graph import Array, Quant
from .calibrate import Statistics

OBSERVERS = ("minmax", "percentile", "mse")
OUTSIDE = 1e-4  # share of all elements that the percentile observer gives up, both ends together
SMALLEST = float(np.finfo(np.float32).tiny)  # below it float32 loses digits
SHRINKS = np.linspace(1.0, 0.2, 33)


def interval(stats: Statistics, observer: str, bits: int = 8, symmetric: bool = False) -> tuple[float, float]:
    """The interval [low, high] to cover; it contains 0.

    Args:
        stats: What was seen.
        observer: "minmax" covers everything; "percentile" gives up the rarest extremes; "mse" minimises the mean
            squared error of rounding plus clipping on the histogram.
        bits: Width of the integers (matters to "mse").
        symmetric: Make low = -high.
    """
    if observer not in OBSERVERS:
        raise UsageError(f"unknown observer '{observer}'", do=f"choose one of {', '.join(OBSERVERS)}")
    low, high = (-stats.largest, stats.largest) if symmetric else (min(stats.low, 0.0), max(stats.high, 0.0))
    if observer == "minmax" or not stats.counts.any():
        return low, high
    if observer == "percentile":
        return _percentile(stats, low, high, symmetric)
    errors = [_error(stats, low * shrink, high * shrink, bits) for shrink in SHRINKS]
    best = float(SHRINKS[int(np.argmin(errors))])
    return low * best, high * best


def _percentile(stats: Statistics, low: float, high: float, symmetric: bool) -> tuple[float, float]:
    share = np.cumsum(stats.counts) / stats.counts.sum()
    edges = (np.arange(len(share)) + 1) * (2 * stats.reach / len(share)) - stats.reach
    width = edges[1] - edges[0]
    least = max(low, float(edges[np.searchsorted(share, OUTSIDE / 2)] - width))
    most = min(high, float(edges[np.searchsorted(share, 1 - OUTSIDE / 2)]))
    if symmetric:
        most = max(-least, most)
        return -most, most
    return min(least, 0.0), max(most, 0.0)


def _error(stats: Statistics, low: float, high: float, bits: int) -> float:
    """Expected squared error per element: a uniform rounding error inside, the distance to the end outside."""
    step = (high - low) / (2**bits - 1)
    centres = stats.centres()
    beyond = centres - np.clip(centres, low, high)
    return float((stats.counts * np.where(beyond == 0, step * step / 12, beyond * beyond)).sum())


def extent(largest: float) -> float:
    """The magnitude a scale has to cover: as small as float32 is exact; 1 for a tensor of zeros."""
    return max(largest, SMALLEST) if largest > 0 else 1.0


def asymmetric(low: float, high: float) -> Quant:
    """int8 over [low, high], which must contain 0: real zero is an integer, so that padding is exact."""
    scale = extent(high - low) / 255
    return Quant(scale, int(np.clip(round(-128 - low / scale), -128, 127)))


def channel_ratios(stats: Statistics, whole: Quant) -> Array:
    """What scale each channel would need for itself, as a share of that of the tensor, at the same zero point.

    At least 1/16: a channel that was nearly silent in calibration may still speak.
    """
    assert isinstance(whole.scale, float) and stats.lows is not None and stats.highs is not None
    above, below = max(127 - whole.zero_point, 1), max(whole.zero_point + 128, 1)
    scales = np.maximum(stats.highs / above, -stats.lows / below)
    assert stats.channels is not None
    margin = stats.channels / np.maximum(np.maximum(-stats.lows, stats.highs), SMALLEST)
    return np.asarray(np.clip(scales * margin / whole.scale, 1 / 16, 1.0))


def symmetric(largest: float, most: int) -> Quant:
    """Integers -most..most over [-largest, largest]."""
    return Quant(extent(largest) / most)


def per_channel(largest: Array, most: int) -> Quant:
    """One symmetric scale for each index of the last axis; a silent channel gets a millionth of the loudest."""
    floor = extent(float(np.max(largest)) * 1e-6)
    return Quant(tuple((np.maximum(largest, floor) / most).tolist()), 0, -1)
