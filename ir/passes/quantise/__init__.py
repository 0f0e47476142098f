"""From real numbers to integers: ranges from calibration data, scales, and an integer op for every float one."""

from .convert import Quantised, QuantOptions, convert, cosine, quantise

__all__ = ["QuantOptions", "Quantised", "convert", "cosine", "quantise"]
