"""A model of a device's latency as data: what each amount of a network's workload costs, and how wrong it has been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Estimate", "Figure"]


@dataclass(frozen=True)
class Figure:
    """A latency that somebody published.

    Attributes:
        model: The network, under the name that PyTorch's model libraries give it.
        family: Networks that are left out together when the model is judged.
        milliseconds: Latency of one inference.
        workload: The network's amounts, in the order of the model's.
    """

    model: str
    family: str
    milliseconds: float
    workload: tuple[float, ...]


@dataclass(frozen=True)
class Estimate:
    """Latency as a sum of amounts, fitted to published figures of the device.

    Attributes:
        dtypes: The arithmetics that it holds for.
        runtime: What ran the networks, and on what.
        source: Who published the figures.
        microseconds: Cost of a unit of each amount; amounts that are not named cost nothing.
        low, high: Eight of ten latencies lay between these multiples of the estimate, where the network's family was
            left out of the fit.
        median_error, worst_error: Of the same estimates, as shares of the latency.
        figures: What it was fitted to.
        others: Figures of networks that it was not fitted to, as `apart` says why.
    """

    dtypes: tuple[str, ...]
    runtime: str
    source: str
    microseconds: Mapping[str, float] = field(hash=False)
    low: float
    high: float
    median_error: float
    worst_error: float
    figures: tuple[Figure, ...] = ()
    others: tuple[Figure, ...] = ()
    apart: str = ""

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Estimate:
        """Read it from a target's file; raises `KeyError`, `TypeError` or `ValueError` for another form."""
        figures, others = _figures(table.get("figures", ())), _figures(table.get("others", ()))
        made = cls(**{**table, "dtypes": tuple(table["dtypes"]), "figures": figures, "others": others})
        if not 0 < made.low <= made.high or any(cost < 0 for cost in made.microseconds.values()):
            raise ValueError("an estimate has a band that is upside down, or a cost below 0")
        if wrong := [each.model for each in (*figures, *others) if len(each.workload) != len(made.microseconds)]:
            raise ValueError(f"{wrong[0]} has not as many amounts as the estimate")
        return made

    def milliseconds(self, workload: Mapping[str, float]) -> float:
        """The middle of the estimate for one inference; raises `KeyError` for an amount that `workload` lacks."""
        return sum(cost * workload[name] for name, cost in self.microseconds.items()) / 1000

    def band(self, workload: Mapping[str, float]) -> tuple[float, float]:
        """Between which latencies, in milliseconds, a network of a family it was not fitted to is likely to lie."""
        middle = self.milliseconds(workload)
        return middle * self.low, middle * self.high

    @property
    def because(self) -> str:
        """What it rests on, for people."""
        return (
            f"fitted to {len(self.figures)} published latencies ({self.runtime}); where a network's family was left "
            f"out of the fit the median error was {self.median_error:.0%}, the worst {self.worst_error:.0%}"
        )


def _figures(rows: Sequence[Any]) -> tuple[Figure, ...]:
    return tuple(Figure(model, family, ms, tuple(amounts)) for model, family, ms, amounts in rows)
