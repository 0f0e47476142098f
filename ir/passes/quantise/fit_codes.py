"""Real weights to the few values that a code holds: int4 with a multiplier per group, powers of two, and ternary.

Each function takes weights in units of their row's scale and gives the nearest int8 values that the code can store
(see `ir.integer_codes`). Sources: group-wise 4 bits as in GPTQ (arXiv 2210.17323, section 5), shift weights as in
ShiftAddViT (arXiv 2306.06446, section 4.1), ternary weights as in TWN (arXiv 1605.04711).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...graph import Array
from ...integer_codes import GROUP, LARGEST_MULTIPLIER, SHIFTS

__all__ = ["CODES", "FIT", "coarse"]

UNITS = {"int4": 7 * LARGEST_MULTIPLIER, "shift": 64, "ternary": 1}
"""Largest value of each code."""

PEAKS = {
    "int4": np.unique(np.outer(np.arange(1, 9), np.arange(1, LARGEST_MULTIPLIER + 1))),
    "shift": np.array([64]),
    "ternary": np.array([1]),
}
"""What the largest weight of a row may be in units of its scale."""

WHOLE = 1e-3
"""How near to whole numbers weights are that somebody has rounded and stored in single precision."""

CLIPS = np.geomspace(1.0, 0.35, 22)
"""Shares of a row's largest weight that its largest code may stand for."""


def _int8(units: Array) -> Array:
    return np.clip(np.rint(units), -127, 127)


def _int4(units: Array) -> Array:
    """Every group takes the multiplier with the least squared error."""
    n, k = units.shape
    groups = np.pad(units, ((0, 0), (0, -k % GROUP))).reshape(n, -1, GROUP)
    best, least = np.zeros_like(groups), np.full(groups.shape[:2], np.inf)
    for m in range(1, LARGEST_MULTIPLIER + 1):
        values = np.clip(np.rint(groups / m), -8, 7) * m
        error = ((values - groups) ** 2).sum(2)
        best[error < least] = values[error < least]
        least = np.minimum(least, error)
    return best.reshape(n, -1)[:, :k]


def _shift(units: Array) -> Array:
    """The nearest of 0 and the powers of two, where a tie goes to the smaller."""
    levels = np.sort(SHIFTS[1:8]).astype(np.float64)
    edges = np.concatenate([[0.5], (levels[1:] + levels[:-1]) / 2])
    nearest = np.concatenate([[0.0], levels])[np.searchsorted(edges, np.abs(units))]
    return np.asarray(np.copysign(nearest, units))


def _ternary(units: Array) -> Array:
    return np.clip(np.rint(units), -1, 1)


FIT: dict[str, Callable[[Array], Array]] = {"int8": _int8, "int4": _int4, "shift": _shift, "ternary": _ternary}
CODES = tuple(FIT)


def coarse(code: str, real: Array) -> Array:
    """The scale of each row [N] of real weights [N, K] with the least squared error in a code.

    Weights that a code holds as they are, up to a scale, keep that scale: who has rounded well is not rounded again.
    """
    peak = np.maximum(np.abs(real).max(axis=1, initial=0.0), np.finfo(np.float64).tiny)
    scales = peak * CLIPS[:, None] / UNITS[code]
    errors = [((FIT[code](real / scale[:, None]) * scale[:, None] - real) ** 2).sum(axis=1) for scale in scales]
    best = np.take_along_axis(scales, np.argmin(errors, axis=0)[None], axis=0)[0]
    for value in PEAKS[code]:
        units = real / peak[:, None] * value
        whole = np.flatnonzero(np.abs(units - np.rint(units)).max(axis=1, initial=0.0) < WHOLE)
        if whole.size:
            held = whole[(FIT[code](units[whole]) == np.rint(units[whole])).all(axis=1)]
            best[held] = peak[held] / value
    return np.asarray(best)
