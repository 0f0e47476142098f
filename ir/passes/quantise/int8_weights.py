"""Weights as int8 with a symmetric scale for each output: the scales that lose least, and what pairs may come to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...graph import Array, Quant

__all__ = ["MOST_BIAS", "TINY", "Weights", "rounded", "single"]

SHARES = np.linspace(1.0, 0.6, 13)
"""Of the largest weight, what the integers reach to."""
ROOMY = np.linspace(2.0, 0.7, 27)
"""The same where pairs are limited: a coarser scale lets them be."""
MOST = 127
MOST_PAIR = 128
"""255 times that fits 16 bits."""
MOST_BIAS = 2.0**30
TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Weights:
    """Integers and what they mean."""

    integers: Array
    quant: Quant


def rounded(w: Array, floor: Array | float = 0.0, clip: bool = True, pairs: bool = False) -> Weights:
    """Round weights [N, ...] to int8.

    Args:
        w: Real weights, output first.
        floor: Least scale of each output.
        clip: Let the largest weights of an output saturate where that makes the squared error of all less.
        pairs: Keep two weights of neighbouring inputs (of axis 1) so small that 255 times either sign's sum fits 16
            bits. Processors with AVX2 and without VNNI add two products of eight bits in 16 (VPMADDUBSW) and saturate.
    """
    rows = np.moveaxis(w, 1, -1) if w.ndim > 2 else w
    shape, rows = rows.shape, np.asarray(rows, np.float64).reshape(len(w), -1)
    peak = np.abs(rows).max(axis=1, initial=0.0)
    best, least = np.zeros(rows.shape), np.full(len(rows), np.inf)
    scales = np.ones(len(rows))
    for share in ROOMY if pairs else SHARES if clip else SHARES[:1]:
        scale = _usable(np.maximum(peak * share / MOST, floor))
        q = np.clip(np.rint(rows / scale[:, None]), -MOST, MOST)
        q = _fitting(q) if pairs else q
        error = ((q * scale[:, None] - rows) ** 2).sum(axis=1)
        better = error < least
        best[better], least[better], scales[better] = q[better], error[better], scale[better]
    integers = best.astype(np.int8).reshape(shape)
    integers = np.ascontiguousarray(np.moveaxis(integers, -1, 1) if w.ndim > 2 else integers)
    return Weights(integers, Quant(tuple(scales.tolist()), 0, 0))


def single(quant: Quant) -> Quant:
    """Scales as float32 holds them, none so small that its reciprocal is infinite."""
    scales = np.maximum(np.asarray(quant.scale, np.float32), np.float32(TINY))
    return Quant(tuple(scales.tolist()) if scales.ndim else float(scales), quant.zero_point, quant.axis)


def _usable(scale: Array) -> Array:
    """As float32 holds them; outputs of zeros get 1."""
    return np.where(scale == 0, 1.0, np.maximum(scale, TINY)).astype(np.float32).astype(np.float64)


def _fitting(q: Array) -> Array:
    """Integers [N, K] of which no two neighbours of one sign sum to more than `MOST_PAIR`: both give way alike."""
    even = q.shape[1] // 2 * 2
    made = q.copy()
    first, second = made[:, :even:2], made[:, 1:even:2]
    over = np.where(first * second > 0, np.maximum(np.abs(first + second) - MOST_PAIR, 0), 0)
    first -= np.copysign(np.ceil(over / 2), first)
    second -= np.copysign(np.floor(over / 2), second)
    return made
