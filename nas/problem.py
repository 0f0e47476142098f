"""What a search is about: a space, what each candidate costs, what it is worth, and the budgets it has to meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

from .space import Genome, Space

__all__ = ["Budgets", "Candidate", "Costs", "Problem", "front"]


@dataclass(frozen=True)
class Costs:
    """What a network takes of its device; None where a device has no such figure.

    Attributes:
        macs: Multiply-accumulates of one inference.
        flash: Bytes of weights, constants and code.
        ram: Bytes of the arena that the memory planner needs at least, and the stack's allowance.
        instructions: Instructions of one inference, emulated layer by layer.
        latency: Milliseconds of one inference: the middle of an estimate.
    """

    macs: int
    flash: int | None = None
    ram: int | None = None
    instructions: int | None = None
    latency: float | None = None


@dataclass(frozen=True)
class Budgets:
    """The most that a network may take, in the units of `Costs`; None is no limit."""

    macs: int | None = None
    flash: int | None = None
    ram: int | None = None
    instructions: int | None = None
    latency: float | None = None

    def excess(self, costs: Costs) -> dict[str, float]:
        """By what factor `costs` exceed each budget they do not meet; empty where they meet all.

        A budget for something that `costs` do not tell cannot be met.
        """
        over = {}
        for field in fields(self):
            most, taken = getattr(self, field.name), getattr(costs, field.name)
            if most is not None and (taken is None or taken > most):
                over[field.name] = float("inf") if taken is None or most == 0 else taken / most
        return over


class Problem(Protocol):
    """One question to search: which genome of `space` is best within the budgets. Workers get a pickled copy."""

    @property
    def space(self) -> Space:
        """What it chooses from."""
        ...

    def starts(self) -> Sequence[Genome]:
        """Genomes worth beginning with: the model as given, the smallest of the space."""
        ...

    def costs(self, genome: Genome) -> Costs:
        """What it takes, by the real planner and packer; quick, as the search asks it of many that are not legal.

        Raises:
            EdgesmithError: No network comes of this genome; the search counts it as illegal, with the reason.
        """
        ...

    def quality(self, genome: Genome) -> float:
        """What it is worth, the higher the better; slow, deterministic, and asked of legal genomes only."""
        ...

    def model(self, genome: Genome) -> bytes:
        """The network as a serialised ONNX model, ready for `edgesmith.compile`."""
        ...


@dataclass(frozen=True)
class Candidate:
    """A legal genome with what it takes and what it is worth."""

    genome: Genome
    costs: Costs
    quality: float

    def dominates(self, other: Candidate, axes: Sequence[str]) -> bool:
        """Whether it is nowhere worse than `other` and somewhere better, in quality and in the `axes` of the costs."""
        mine, theirs = self._losses(axes), other._losses(axes)
        return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))

    def _losses(self, axes: Sequence[str]) -> tuple[float, ...]:
        return (-self.quality, *(float(getattr(self.costs, axis)) for axis in axes))


def front(candidates: Sequence[Candidate], axes: Sequence[str]) -> list[Candidate]:
    """The candidates that no other dominates, the best quality first; of equals the earliest."""
    kept: list[Candidate] = []
    for each in candidates:
        equal = any(each._losses(axes) == other._losses(axes) for other in kept)
        if not equal and not any(other.dominates(each, axes) for other in candidates):
            kept.append(each)
    return sorted(kept, key=lambda each: each._losses(axes))
