"""Fits a device's latency model to published figures, and judges it on families of networks that it has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..ir.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..targets.estimate import Figure

__all__ = ["PRIOR", "Fit", "fit", "leave_out"]

PRIOR = {
    "whole": 300.0,
    "operators": 1.0,
    "gates": 20.0,
    "multiplies": 0.17,
    "depthwise": 1.0,
    "products": 1.0,
    "scores": 10.0,
    "weights": 20.0,
    "activations": 1.0,
}
"""Microseconds that a unit of each amount costs before any figure is seen: some tera-operations and 100 GB a second."""

TRUST = 0.03
"""How firmly the prior holds: a cost that is e times off counts as much as an error of 3 % of one figure."""

OUTLIER = 0.1
"""Relative errors beyond this count in proportion, not by their squares: some networks hit what no amount tells of."""


@dataclass(frozen=True)
class Fit:
    """A fitted model and how it did on networks whose family was left out.

    Attributes:
        microseconds: Cost of a unit of each amount.
        left_out: Estimate over figure, less 1, for each figure.
    """

    microseconds: Mapping[str, float]
    left_out: NDArray[np.float64]

    @property
    def median_error(self) -> float:
        """Half of the errors are smaller."""
        return float(np.median(np.abs(self.left_out)))

    @property
    def worst_error(self) -> float:
        """The greatest error."""
        return float(np.max(np.abs(self.left_out)))

    @property
    def band(self) -> tuple[float, float]:
        """Multiples of an estimate between which eight of ten figures lie."""
        low, high = np.quantile(1 / (1 + self.left_out), (0.1, 0.9))
        return float(low), float(high)

    def within(self, error: float) -> float:
        """Share of the figures that are met to `error`."""
        return float(np.mean(np.abs(self.left_out) <= error))


def fit(figures: Sequence[Figure], prior: Mapping[str, float] = PRIOR, trust: float = TRUST) -> dict[str, float]:
    """Find the cost of each amount, in microseconds, such that the figures' relative errors are small.

    Costs are positive, as their logarithms are what is fitted; where the figures do not tell, the prior does.

    Raises:
        UsageError: There are fewer than two figures.
    """
    from scipy.optimize import least_squares

    if len(figures) < 2:
        raise UsageError("a latency model needs two figures at least", do="add figures to the target's file")
    amounts = np.array([each.workload for each in figures])
    wanted = np.array([each.milliseconds for each in figures]) * 1000
    start = np.log(list(prior.values()))

    def residuals(logs: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([np.log(amounts @ np.exp(logs) / wanted), trust * (logs - start)])

    def slopes(logs: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = amounts * np.exp(logs)
        return np.vstack([parts / parts.sum(axis=1, keepdims=True), trust * np.eye(len(logs))])

    found = least_squares(residuals, start, jac=slopes, loss="soft_l1", f_scale=OUTLIER).x
    return {name: float(cost) for name, cost in zip(prior, np.exp(found), strict=True)}


def leave_out(figures: Sequence[Figure], prior: Mapping[str, float] = PRIOR, trust: float = TRUST) -> Fit:
    """Fit all figures; and each family's by all others, to see how far a network that is new may be off."""
    errors = np.zeros(len(figures))
    for family in {each.family for each in figures}:
        costs = np.array(list(fit([each for each in figures if each.family != family], prior, trust).values()))
        for place, each in enumerate(figures):
            if each.family == family:
                errors[place] = costs @ np.array(each.workload) / (each.milliseconds * 1000) - 1
    return Fit(fit(figures, prior, trust), errors)
