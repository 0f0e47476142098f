"""The operator families; importing this package defines every op class."""

from . import (
    activation,
    attention,
    conv,
    elementwise,
    integer,
    integer_attention,
    integer_conv,
    integer_elementwise,
    integer_norm,
    integer_pool,
    linear,
    norm,
    pool,
    quant,
    shape,
)

__all__ = [
    "activation",
    "attention",
    "conv",
    "elementwise",
    "integer",
    "integer_attention",
    "integer_conv",
    "integer_elementwise",
    "integer_norm",
    "integer_pool",
    "linear",
    "norm",
    "pool",
    "quant",
    "shape",
]
