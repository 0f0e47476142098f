"""The operator families; importing this package defines every op class, and the class tree is the registry."""

from ..op import Op
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
    logic,
    norm,
    number,
    pool,
    quant,
    search,
    shape,
    shift,
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
    "logic",
    "norm",
    "number",
    "pool",
    "quant",
    "registry",
    "search",
    "shape",
    "shift",
]


def registry() -> dict[str, type[Op]]:
    """Every concrete op class by name."""
    found: dict[str, type[Op]] = {}
    pending = list(Op.__subclasses__())
    while pending:
        cls = pending.pop()
        pending += cls.__subclasses__()
        if cls.infer is not Op.infer and not cls.__name__.startswith("_"):
            found[cls.__name__] = cls
    return dict(sorted(found.items()))
