"""The import rules by family; importing this package fills the table of `frontend.call`."""

from . import (
    activation,
    arithmetic,
    attention,
    conv,
    einsum,
    grid,
    linear,
    logic,
    norm,
    pool,
    quant,
    reduction,
    resize,
    search,
    shape,
)

__all__ = [
    "activation",
    "arithmetic",
    "attention",
    "conv",
    "einsum",
    "grid",
    "linear",
    "logic",
    "norm",
    "pool",
    "quant",
    "reduction",
    "resize",
    "search",
    "shape",
]
