"""How far to let each channel have its own scale when the weights that read it must take that scale in.

A finer scale rounds a quiet channel more precisely, but makes its weights small beside those of other channels, which
share one scale per row; so neither extreme is right. The exponent between them is chosen by predicted noise. Related:
Nagel et al., Data-Free Quantization Through Weight Equalization, 2019; Xiao et al., SmoothQuant, 2023, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...graph import Array, Node, Quant
from ...ops import conv
from . import observers
from .calibrate import Statistics

EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
WORTHWHILE = 0.95


def balanced(stats: Statistics, whole: Quant, readers: Sequence[Node]) -> Quant:
    """int8 with a scale per channel of the last axis, or `whole` where that is about as good.

    Args:
        stats: With extremes and power per channel.
        whole: Scale and zero point for the tensor.
        readers: The `Linear` or `Conv` nodes that read the value as their input 0.
    """
    assert isinstance(whole.scale, float)
    ratios = observers.channel_ratios(stats, whole)
    candidates = [whole.scale * ratios**exponent for exponent in EXPONENTS]
    noise = [sum(noise_of(reader, scales, stats) for reader in readers) for scales in candidates]
    best = int(np.argmin(noise))
    return (
        whole if noise[best] > WORTHWHILE * noise[0] else Quant(tuple(candidates[best].tolist()), whole.zero_point, -1)
    )


def noise_of(reader: Node, scales: Array, stats: Statistics) -> float:
    """Predicted noise-to-signal power of a product from rounding its int8 operands, uniform and independent.

    With channels of x in groups, w [g, O, I, taps] and steps s: rounding x adds sum w^2 s^2 / 12; rounding the weights
    w s, whose step is that of their row, adds step^2 / 12 for every integer of x, squared.
    """
    assert stats.power is not None
    groups = reader.op.groups if isinstance(reader.op, conv.Conv) else 1
    weight = reader.input(1).array.astype(np.float64)
    w = weight.reshape(groups, len(weight) // groups, len(scales) // groups, -1)
    steps, power = scales.reshape(groups, 1, -1), (stats.power / stats.rows).reshape(groups, 1, -1)
    squares = np.square(w).sum(axis=3)
    from_x = (squares * steps**2).sum() / 12
    row_step = (np.abs(w).max(axis=3) * steps).max(axis=2) / 127
    from_w = (row_step**2 / 12 * (power / steps**2).sum(axis=2) * w.shape[3]).sum()
    return float((from_x + from_w) / max(float((squares * power).sum()), 1e-30))
