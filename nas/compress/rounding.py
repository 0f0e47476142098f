"""Weights to the values of a code, one column after the other: each passes its error on to those that follow.

What is passed on is what makes up for the error best, given how the inputs hang together (GPTQ, arXiv 2210.17323).
"""

from __future__ import annotations

import numpy as np

from ...ir.graph import Array
from ...ir.integer_codes import GROUP, LARGEST_MULTIPLIER
from ...ir.passes.quantise.fit_codes import FIT, coarse

__all__ = ["nearest", "rounded"]

DAMP = 1e-2
"""Of the mean of the covariance's diagonal, added to it, as in the paper's section 3.3."""


def nearest(w: Array, code: str) -> Array:
    """Each weight [N, K] on its own to the nearest value of a code, with the best scale for its row."""
    if code == "int8":
        return w
    wide = w.astype(np.float64)
    scale = coarse(code, wide)[:, None]
    return np.asarray(FIT[code](wide / scale) * scale)


def rounded(w: Array, covariance: Array, code: str) -> Array:
    """Weights [N, K] that a code holds exactly, whose products with inputs of this covariance are near those of `w`."""
    if code == "int8":
        return w
    left = w.astype(np.float64).copy()
    depth = left.shape[1]
    scale = coarse(code, left)
    damped = covariance + np.eye(depth) * max(DAMP * float(np.trace(covariance)) / depth, 1e-12)
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T  # upper: row k says how column k's error is passed on
    made = np.zeros_like(left)
    step = np.ones(len(left))
    for k in range(depth):
        if code == "int4" and k % GROUP == 0:
            step = _multipliers(left[:, k : k + GROUP] / scale[:, None])
        made[:, k] = scale * _value(left[:, k] / scale, code, step)
        error = (left[:, k] - made[:, k]) / factor[k, k]
        left[:, k + 1 :] -= error[:, None] * factor[k, k + 1 :]
    return made


def _value(units: Array, code: str, step: Array) -> Array:
    if code == "int4":
        return np.asarray(np.clip(np.rint(units / step), -8, 7) * step)
    return FIT[code](units[:, None])[:, 0]


def _multipliers(units: Array) -> Array:
    """For each row of a group the multiplier of int4 with the least squared error."""
    steps = np.arange(1, LARGEST_MULTIPLIER + 1, dtype=np.float64)[:, None, None]
    values = np.clip(np.rint(units / steps), -8, 7) * steps
    best = np.argmin(((values - units) ** 2).sum(axis=2), axis=0)
    return np.asarray(best + 1.0)
