"""When two results count as the same: integers bit for bit, floats within a stated bound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..ir.graph import Array
from .ladder import cosine

__all__ = ["FLOAT_TOLERANCE", "PROGRAM", "Agreement", "relative_error", "rounding"]

FLOAT_TOLERANCE = 1e-5
"""Two float32 programs may sum in different orders: this share of the largest output, 80 units in its last place."""

ROUNDING = 4
"""Float32 in another order, with another exponential: this many times the error of one order."""

Outputs = Mapping[str, Array]


@dataclass(frozen=True)
class Agreement:
    """A bound on floats: `error` as a share of the output's largest element, or the least `cosine` of each output."""

    error: float | None = None
    cosine: float | None = None

    def holds(self, one: Outputs, other: Outputs) -> bool:
        """Whether every output of `other`, the reference, is met."""
        return all(self._meets(one[name], other[name]) for name in other)

    def _meets(self, one: Array, other: Array) -> bool:
        if one.shape != other.shape:
            return False
        if other.dtype.kind != "f":
            return np.array_equal(one, other)
        if self.cosine is not None:
            return cosine(one.ravel().astype(np.float64), other.ravel().astype(np.float64)) >= self.cosine
        reach = (self.error or 0.0) * float(np.abs(other).max(initial=0.0))
        return bool(np.all(np.abs(one - other) <= reach))

    @property
    def text(self) -> str:
        """The bound in words."""
        if self.cosine is not None:
            return f"a cosine of at least {self.cosine:g} for every output"
        return f"an error of at most {self.error:.1e} of the output's largest element"

    def json(self) -> dict[str, Any]:
        """Plain data for a manifest; `Agreement(**data)` reads it."""
        return asdict(self)


PROGRAM = Agreement(FLOAT_TOLERANCE)
"""What generated C has to meet."""


def relative_error(single: Outputs, double: Outputs) -> float:
    """Largest error of any output, as a share of that output's largest element."""
    spans = {name: float(np.abs(exact).max(initial=0.0)) or 1.0 for name, exact in double.items()}
    return max(float(np.abs(single[name] - double[name]).max(initial=0.0)) / span for name, span in spans.items())


def rounding(pairs: Iterable[tuple[Outputs, Outputs]], least: float) -> Agreement:
    """The bound on a float32 program, from what the reference gives for samples in single and in double precision."""
    errors = (relative_error(single, double) for single, double in pairs)
    return Agreement(error=max(least, ROUNDING * max(errors)))
