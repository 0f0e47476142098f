"""Weights in fewer bits, as Core ML stores them: integers with a scale per channel, or indices into a palette."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ir.graph import Array
from .vendor import optimizer, quiet

__all__ = ["KINDS", "LEAST", "compressed", "palette"]

KINDS = ("int8", "palette6", "palette4")
LEAST = 2048
"""Constants with fewer elements than this stay as they are: biases, norms, tables."""

ROUNDS, BINS = 40, 512


def compressed(model: Any, kind: str) -> Any:
    """The model with its large weights in that form; arithmetic stays as it was."""
    tools = optimizer()
    with quiet():
        if kind == "int8":
            each = tools.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", weight_threshold=LEAST)
            return tools.linear_quantize_weights(model, config=tools.OptimizationConfig(global_config=each))
        bits = int(kind.removeprefix("palette"))
        each = tools.OpPalettizerConfig(
            mode="custom", lut_function=lambda weight: palette(np.asarray(weight), bits), weight_threshold=LEAST
        )
        return tools.palettize_weights(model, config=tools.OptimizationConfig(global_config=each))


def palette(weight: Array, bits: int) -> tuple[Array, Array]:
    """The 2**bits numbers that are nearest to a weight's elements in the mean square, and each element's index.

    Lloyd's iteration on the sorted elements; no chance is involved. It starts from levels as dense as the cube root of
    the elements' density, which many levels come to in the end (Panter and Dite, Proc. IRE 1951): from plain quantiles,
    those in the tails would take hundreds of rounds to get there.
    """
    count = 2**bits
    flat = np.sort(weight.reshape(-1).astype(np.float64))
    sums = np.concatenate([[0.0], np.cumsum(flat)])
    heights, edges = np.histogram(flat, BINS)
    shares = np.concatenate([[0.0], np.cumsum(np.cbrt(heights))])
    centres = np.unique(np.interp((np.arange(count) + 0.5) / count * shares[-1], shares, edges))
    for _ in range(ROUNDS):
        ends = np.concatenate([[0], np.searchsorted(flat, (centres[1:] + centres[:-1]) / 2), [flat.size]])
        sizes = np.diff(ends)
        means = np.where(sizes > 0, np.diff(sums[ends]) / np.maximum(sizes, 1), centres)
        if np.array_equal(means, centres):
            break
        centres = means
    lut = np.concatenate([centres, np.full(count - centres.size, centres[-1])]).astype(weight.dtype)
    indices = np.searchsorted((centres[1:] + centres[:-1]) / 2, weight.reshape(-1).astype(np.float64))
    return lut, indices.astype(np.uint8)
