"""The operator families; importing this package defines every op class."""

from . import activation, attention, conv, elementwise, linear, norm, pool, quant, shape

__all__ = ["activation", "attention", "conv", "elementwise", "linear", "norm", "pool", "quant", "shape"]
