"""Real weights to int8 with a scale per output, and the proof that no 32-bit sum can overflow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import ModelError
from ...graph import Array
from ...integer import INT32_MAX, multiplier
from .fit_codes import FIT, coarse

CLIPS = np.linspace(1.0, 0.7, 13)
LIFTS = range(15, -1, -1)
SMALLEST = float(np.finfo(np.float64).tiny)  # in place of 0 where something is divided


@dataclass(frozen=True)
class Fitted:
    """Integer parameters of a product: real = scale[n] * (bias[n] + sum_k w[n, k] x[k]); `bound` limits every sum."""

    w: Array
    bias: Array
    scale: Array
    bound: int

    def multipliers(self, out_scale: Array | float) -> tuple[Array, int]:
        """(mult int32 [N], pre) to the output's scale."""
        try:
            mult, pre = multiplier(self.scale / np.asarray(out_scale), self.bound)
        except OverflowError as error:
            raise ModelError(
                "a layer's output is tiny against its terms, which 32-bit sums cannot hold",
                why=str(error),
                do="give calibration data that reaches it, or compile with --dtype float32",
            ) from None
        return np.broadcast_to(mult, self.bias.shape).copy(), pre


def fit(
    w: Array, bias: Array | None, zero: int, most: int, observer: str = "minmax", code: str = "int8"
) -> Fitted:
    """Quantise a product's weights.

    Args:
        w: Real weights [N, K] times the scale of x (a scale per channel of x multiplies the columns).
        bias: Real [N] or None.
        zero: Zero point of x; its share is folded into the bias.
        most: Greatest |integer| of x.
        code: What the weights are to be stored in, one of `fit_codes.CODES`.
        observer: "minmax" covers the largest weight of each row; "mse" may clip it for less squared error.

    A row whose sum of magnitudes could pass 2^31 gets a coarser scale, until it cannot.

    Raises:
        ModelError: Only zeros would be left of a row: so many weights alike that even 1 for each passes 2^31.
    """
    real = np.asarray(w, np.float64)
    offset = np.zeros(len(real)) if bias is None else np.asarray(bias, np.float64)
    peak = np.abs(real).max(axis=1, initial=0.0)
    rounded = FIT[code]
    scale = coarse(code, real) if code != "int8" else peak * (_clips(real, peak) if observer == "mse" else 1.0) / 127
    scale = np.maximum(scale, np.abs(offset) / 2**29)
    scale = np.where(scale == 0, SMALLEST, scale)
    coarser = np.zeros(len(real), bool)
    while True:
        q = rounded(real / scale[:, None])
        b = np.rint(offset / scale) - zero * q.sum(axis=1)
        reach = np.abs(q).sum(axis=1) * most + np.abs(b)
        over = reach > INT32_MAX
        coarser |= over
        if (coarser & ~q.any(axis=1) & real.any(axis=1)).any():
            raise ModelError(
                "a sum of products is too long for 32 bits",
                why=f"{real.shape[1]:,} weights alike, each times up to {most}: as integers they would all become 0",
                do="split the layer along its inputs, or compile with --dtype float32",
            )
        if not over.any():
            return Fitted(q.astype(np.int8), b.astype(np.int32), scale, int(reach.max(initial=0)))
        scale = np.where(over, scale * np.maximum(1.02, reach / INT32_MAX), scale)


def _clips(real: Array, peak: Array) -> Array:
    """Per row, the share of the largest weight to cover that gives the least squared error."""
    errors = []
    for clip in CLIPS:
        scale = np.maximum(peak * clip / 127, SMALLEST)[:, None]
        errors.append(((np.clip(np.rint(real / scale), -127, 127) * scale - real) ** 2).sum(axis=1))
    return np.asarray(CLIPS[np.argmin(errors, axis=0)])


def fit_affine(a: Array, c: Array, x_scale: float, zero: int, out_scale: float, most: int) -> tuple[Array, Array, int]:
    """(mult, bias, lift) of `integer.qaffine` for y = a * x + c, with as many fraction bits in the bias as fit.

    Where |a| is too small against c for any, it is raised to the least that fits: the error is below 2^-13 of c.
    """
    a, c = np.broadcast_arrays(np.asarray(a, np.float64), np.asarray(c, np.float64))
    least = 0
    while np.abs(a).max(initial=0.0) * x_scale / out_scale * 2.0**-least >= 0.5:
        least += 1
    lift = next((n for n in LIFTS if n >= least and not _too_small(a, c, x_scale, n).any()), least)
    floor = np.abs(c) / (x_scale * 2.0 ** (29 - lift))
    raised = np.where(np.abs(a) < floor, np.copysign(floor, a), a)
    safe = np.where(raised == 0, 1.0, raised)
    bias = np.rint((np.where(raised == 0, 0.0, c / (safe * x_scale)) - zero) * 2.0**lift)
    if (most << lift) + np.abs(bias).max(initial=0) > INT32_MAX:
        do = "fold it into a neighbouring layer, or compile with --dtype float32"
        raise ModelError("a scale and shift per channel leaves 32 bits", do=do)
    mult = np.rint(raised * x_scale / out_scale * 2.0 ** (32 - lift))
    return mult.astype(np.int32), bias.astype(np.int32), lift


def _too_small(a: Array, c: Array, x_scale: float, lift: int) -> Array:
    return np.asarray(np.abs(a) * x_scale * 2.0 ** (29 - lift) < np.abs(c))
