"""Fits a device's latency model to published figures, and judges it on families of networks that it has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..ir.errors import UsageError
from ..targets.estimate import Errors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..targets.estimate import Estimate, Figure

__all__ = ["HEXAGON", "NEURAL_ENGINE", "Fit", "fit", "leave_out", "refit"]

NEURAL_ENGINE = {
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

HEXAGON = {
    "whole": 50.0,
    "gates": 5.0,
    "tiles": 0.12,
    "linear": 0.15,
    "depthwise": 0.5,
    "attentions": 20.0,
    "scores": 20.0,
    "weights": 15.0,
    "arithmetic": 10.0,
    "elements": 10.0,
    "input": 500.0,
    "output": 500.0,
}
"""The same for floats on Qualcomm's: inputs and outputs are converted an element at a time, by its vector units."""

TRUST = 0.03
"""How firmly the prior holds: a cost that is e times off counts as much as an error of 3 % of one figure."""

INTEGER_SHARE, INTEGER_TRUST = 1 / 3, 0.1
"""Int8 costs are sought around a third of the same device's float costs, more firmly: there are fewer figures."""

OUTLIER = 0.1
"""Relative errors beyond this count in proportion, not by their squares: some networks hit what no amount tells of."""

FEW = 5
"""Of fewer errors than this the band is from end to end."""


@dataclass(frozen=True)
class Fit:
    """A fitted model and how it did on networks whose family was left out.

    Attributes:
        microseconds: Cost of a unit of each amount.
        left_out: Estimate over figure, less 1, for each figure.
    """

    microseconds: Mapping[str, float]
    left_out: NDArray[np.float64]

    def errors(self, which: Sequence[bool] | None = None) -> Errors:
        """Band, median and worst error of all figures, or of those that `which` marks."""
        left_out = self.left_out if which is None else self.left_out[np.array(which)]
        tail = 0.1 if len(left_out) >= FEW else 0.0
        low, high = np.quantile(1 / (1 + left_out), (tail, 1 - tail))
        sizes = np.abs(left_out)
        return Errors(float(low), float(high), float(np.median(sizes)), float(np.max(sizes)))


def fit(
    figures: Sequence[Figure], prior: Mapping[str, float] = NEURAL_ENGINE, trust: float = TRUST
) -> dict[str, float]:
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


def leave_out(
    figures: Sequence[Figure], prior: Mapping[str, float] = NEURAL_ENGINE, floats: Sequence[Figure] = ()
) -> Fit:
    """Fit all figures; and each family's by all others, to see how far a network that is new may be off.

    Where the figures are of int8, `floats` are the same device's in float: their fit, without the family too, is the
    prior.
    """

    def without(family: str | None) -> dict[str, float]:
        def rest(rows: Sequence[Figure]) -> list[Figure]:
            return [each for each in rows if each.family != family]

        if not floats:
            return fit(rest(figures), prior)
        costs = fit(rest(floats), prior)
        return fit(rest(figures), {name: cost * INTEGER_SHARE for name, cost in costs.items()}, INTEGER_TRUST)

    errors = np.zeros(len(figures))
    for family in {each.family for each in figures}:
        costs = np.array(list(without(family).values()))
        for place, each in enumerate(figures):
            if each.family == family:
                errors[place] = costs @ np.array(each.workload) / (each.milliseconds * 1000) - 1
    return Fit(without(None), errors)


def refit(estimates: Sequence[Estimate]) -> list[Fit]:
    """Fit each of a device's models anew by its own figures, the first one of floats."""
    fits = []
    for each in estimates:
        prior = HEXAGON if list(each.microseconds) == list(HEXAGON) else NEURAL_ENGINE
        fits.append(leave_out(each.figures, prior, estimates[0].figures if each is not estimates[0] else ()))
    return fits
