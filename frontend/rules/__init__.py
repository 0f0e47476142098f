"""The import rules by family; importing this package fills the table of `frontend.call`."""

from . import activation, arithmetic, attention, conv, linear, norm, pool, shape

__all__ = ["activation", "arithmetic", "attention", "conv", "linear", "norm", "pool", "shape"]
