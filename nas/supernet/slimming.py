"""Slimming: from the largest network down, each time by the step that costs the least quality for what it saves.

Sources: Li et al., EfficientFormer (2022), section 4.2; Li et al., EfficientFormerV2 (2023), section 3.3 for steps that
are judged on inherited weights, and for MES, which joins size and speed in one number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from ...ir.errors import ModelError
from ..problem import Budgets, Candidate, Costs, Problem
from ..space import Genome, key
from .ends import largest

__all__ = ["ALPHAS", "UNITS", "logarithm", "mes", "slim"]

UNITS: Mapping[str, float] = {"flash": 3e6, "latency": 1.0}
"""Three million parameters of one byte, and a millisecond. Source: EfficientFormerV2, section 3.3."""

ALPHAS: Mapping[str, float] = {"flash": 0.5, "latency": 1.0}
"""How much each counts. Source: as above."""

SCORE = 100.0

Weighing = Callable[[Costs], float]


def mes(
    figures: Mapping[str, float], units: Mapping[str, float] = UNITS, alphas: Mapping[str, float] = ALPHAS
) -> float:
    """Mobile efficiency score: 100 times the product of (figure / unit)^-alpha; the higher the better."""
    return SCORE * math.prod(math.pow(figures[name] / units[name], -alpha) for name, alpha in alphas.items())


def logarithm(axes: Mapping[str, float]) -> Weighing:
    """What slimming saves: the fall of sum(alpha * log(cost)), which is what the logarithm of MES gains.

    Args:
        axes: Alpha of each field of `Costs` that counts.
    """
    return lambda costs: sum(alpha * math.log(getattr(costs, axis)) for axis, alpha in axes.items())


def slim(problem: Problem, budgets: Budgets, weigh: Weighing, start: Genome | None = None) -> Iterator[Candidate]:
    """Yield every network on the way from `start`, by default the largest, to one that meets all budgets.

    A step moves one decision to its neighbour. Among the steps that save something, the one is taken that loses the
    least quality for what it saves.

    Raises:
        ModelError: Nothing can be saved any more, and the budgets are not met.
    """
    now = _judged(problem, start or largest(problem.space))
    yield now
    while budgets.excess(now.costs):
        best: tuple[float, str, Candidate] | None = None
        for genome in _neighbours(problem, now.genome):
            saved = weigh(now.costs) - weigh(problem.costs(genome))
            if saved <= 0:
                continue
            there = _judged(problem, genome)
            rank = ((now.quality - there.quality) / saved, key(genome), there)
            best = rank if best is None or rank[:2] < best[:2] else best
        if best is None:
            over = ", ".join(f"{name} by a factor of {by:.2f}" for name, by in budgets.excess(now.costs).items())
            raise ModelError(f"slimming ends before the budgets are met: {over}", do="allow more, or widen the space")
        now = best[2]
        yield now


def _judged(problem: Problem, genome: Genome) -> Candidate:
    return Candidate(genome, problem.costs(genome), problem.quality(genome))


def _neighbours(problem: Problem, genome: Genome) -> Iterator[Genome]:
    """Every genome that one decision, moved to the choice before or behind, makes of this one; each once."""
    space = problem.space
    vector, seen = space.vector(genome), {key(genome)}
    for place, (_, _, choices) in enumerate(space.variables):
        for step in (-1, 1):
            if 0 <= vector[place] + step < len(choices):
                there = space.genome([*vector[:place], vector[place] + step, *vector[place + 1 :]])
                if key(there) not in seen:
                    seen.add(key(there))
                    yield there
