"""A model of a device's latency as data: what each amount of a network's workload costs, and how wrong it has been."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["Errors", "Estimate", "Figure"]

WORKLOADS = Path(__file__).parent / "workloads"


@dataclass(frozen=True)
class Figure:
    """A latency that somebody published.

    Attributes:
        model: The network, under the name that its publisher or PyTorch's model libraries give it.
        family: Networks that are left out together when the model is judged.
        milliseconds: Latency of one inference.
        workload: The network's amounts, in the order of the model's.
        use: What the network is for, where the publisher says so.
    """

    model: str
    family: str
    milliseconds: float
    workload: tuple[float, ...]
    use: str = ""


@dataclass(frozen=True)
class Errors:
    """How wrong estimates were where the network's family was left out of the fit.

    Attributes:
        low, high: Eight of ten latencies lay between these multiples of the estimate.
        median_error, worst_error: As shares of the latency.
    """

    low: float
    high: float
    median_error: float
    worst_error: float

    def __post_init__(self) -> None:
        """Raise `ValueError` for a band that is upside down."""
        if not 0 < self.low <= self.high:
            raise ValueError("an estimate has a band that is upside down")


@dataclass(frozen=True)
class Estimate:
    """Latency as a sum of amounts, fitted to published figures of the device.

    Attributes:
        dtypes: The arithmetics that it holds for.
        runtime: What ran the networks, and on what.
        source: Who published the figures.
        microseconds: Cost of a unit of each amount; amounts that are not named cost nothing.
        errors: Of networks left out of the fit; of those that do not attend, if `attending` is given.
        figures: What it was fitted to.
        attending: Errors of networks left out that attend, where they are judged apart.
    """

    dtypes: tuple[str, ...]
    runtime: str
    source: str
    microseconds: Mapping[str, float] = field(hash=False)
    errors: Errors
    figures: tuple[Figure, ...] = ()
    attending: Errors | None = None

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Estimate:
        """Read it from a target's file; raises `KeyError`, `TypeError` or `ValueError` for another form.

        Figures are rows of a network's name, its family, milliseconds and amounts; or, where the table names
        `networks`, a file of workloads, rows of a name and milliseconds.
        """
        rest = dict(table)
        costs, rows, networks = rest["microseconds"], rest.pop("figures", ()), rest.pop("networks", "")
        if any(cost < 0 for cost in costs.values()):
            raise ValueError("an estimate has a cost below 0")
        figures = _shared(rows, networks, list(costs)) if networks else _own(rows)
        if wrong := [each.model for each in figures if len(each.workload) != len(costs)]:
            raise ValueError(f"{wrong[0]} has not as many amounts as the estimate")
        for key in ("errors", "attending"):
            if key in rest:
                rest[key] = Errors(**rest[key])
        return cls(**{**rest, "dtypes": tuple(rest["dtypes"]), "figures": figures})

    def milliseconds(self, workload: Mapping[str, float]) -> float:
        """The middle of the estimate for one inference; raises `KeyError` for an amount that `workload` lacks."""
        return sum(cost * workload[name] for name, cost in self.microseconds.items()) / 1000

    def band(self, workload: Mapping[str, float]) -> tuple[float, float]:
        """Between which latencies, in milliseconds, a network of a family it was not fitted to is likely to lie."""
        errors = self.attending if self.attending and workload["attentions"] else self.errors
        middle = self.milliseconds(workload)
        return middle * errors.low, middle * errors.high

    @property
    def because(self) -> str:
        """What it rests on, for people."""
        said = f"was {self.errors.median_error:.0%}, the worst {self.errors.worst_error:.0%}"
        if self.attending:
            said += (
                f", and {self.attending.median_error:.0%} and {self.attending.worst_error:.0%} for those that attend"
            )
        return (
            f"fitted to {len(self.figures)} published latencies ({self.runtime}); where a network's family was left "
            f"out of the fit the median error {said}"
        )


def _own(rows: Sequence[Any]) -> tuple[Figure, ...]:
    return tuple(Figure(model, family, ms, tuple(amounts)) for model, family, ms, amounts in rows)


def _shared(rows: Sequence[Any], networks: str, amounts: list[str]) -> tuple[Figure, ...]:
    table = _workloads(networks)
    if table["amounts"] != amounts:
        raise ValueError(f"the estimate's costs are not those of the amounts in workloads/{networks}.toml")
    found = []
    for model, milliseconds in rows:
        family, use, workload = table["networks"][model]
        found.append(Figure(model, family, milliseconds, tuple(workload), use))
    return tuple(found)


@cache
def _workloads(name: str) -> Mapping[str, Any]:
    return tomllib.loads((WORKLOADS / f"{name}.toml").read_text(encoding="utf-8"))
