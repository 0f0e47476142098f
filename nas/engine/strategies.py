"""How a search chooses what to try next: evolution by NSGA-II, or draws that learn nothing, to compare with.

Evolution is pymoo's: its non-dominated sorting, crowding and constrained tournaments are those that papers report, and
its steps can be taken one by one, with everything between them done by whoever likes. Optuna's NSGA-II keeps its trials
in a store of its own and draws from it as they end, so that the order in which workers end decides what comes next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from ...ir.errors import MachineError
from ..space import Genome, Space

__all__ = ["METHODS", "Evolution", "Random", "Strategy", "Trial", "Vector"]

Vector: TypeAlias = tuple[int, ...]
"""The index of each variable's choice, those that the genome does not use among them: they are inherited as well."""

STEP = 0.5
"""Share of mutations that go to a neighbouring choice; the others go anywhere."""


@dataclass(frozen=True)
class Trial:
    """What became of a proposal.

    Attributes:
        vector: The proposal.
        losses: What is to be small: quality negated, and the costs that matter; empty where it is not legal.
        excess: How far it is from being legal, 0 if it is.
    """

    vector: Vector
    losses: tuple[float, ...] = ()
    excess: float = 0.0


class Strategy(Protocol):
    """Proposes and learns, in turns; the same seed and the same answers give the same proposals."""

    def propose(self) -> list[Vector]:
        """A few vectors, perhaps some that were proposed before."""
        ...

    def learn(self, trials: Sequence[Trial]) -> None:
        """Take in what became of proposals, in the order in which they were made."""
        ...


class Random:
    """Draws each decision uniformly, after the genomes to begin with."""

    def __init__(self, space: Space, starts: Sequence[Genome], losses: int, population: int, seed: int) -> None:
        """Propose `population` vectors at a time; `losses` is how many numbers a trial has."""
        self._sizes = np.array([len(choices) for _, _, choices in space.variables])
        self._starts = [space.vector(genome) for genome in starts]
        self._population = population
        self._generator = np.random.default_rng(seed)

    def propose(self) -> list[Vector]:
        """The genomes to begin with once, then draws."""
        starts, self._starts = self._starts, []
        drawn = self._generator.integers(self._sizes, size=(max(1, self._population - len(starts)), len(self._sizes)))
        return [*starts, *(tuple(row) for row in drawn.tolist())]

    def learn(self, trials: Sequence[Trial]) -> None:
        """Nothing."""


class Evolution(Random):
    """NSGA-II: the first generation is drawn, every later one bred from the best known."""

    def __init__(self, space: Space, starts: Sequence[Genome], losses: int, population: int, seed: int) -> None:
        """As `Random`.

        Raises:
            MachineError: pymoo is not installed.
        """
        super().__init__(space, starts, losses, population, seed)
        self._algorithm = _nsga2(self._sizes, losses, population, seed)
        self._losses, self._begun = losses, False

    def propose(self) -> list[Vector]:
        """Children, where there are parents."""
        if not self._begun:
            return super().propose()
        return [tuple(int(index) for index in each.X) for each in self._algorithm.ask()]

    def learn(self, trials: Sequence[Trial]) -> None:
        """Keep the best of parents and children: those that are legal first, then those that are nearly."""
        from pymoo.core.population import Population

        if not trials:
            return
        nothing = (0.0,) * self._losses  # never looked at: what is not legal is ranked by its excess alone
        self._algorithm.tell(infills=Population.new(
            X=np.array([each.vector for each in trials]),
            F=np.array([each.losses or nothing for each in trials]),
            G=np.array([[each.excess] for each in trials]),
        ))  # fmt: skip
        self._begun = True


METHODS: dict[str, type[Random]] = {"evolution": Evolution, "random": Random}


def _nsga2(sizes: Any, losses: int, population: int, seed: int) -> Any:
    """The algorithm, for vectors of indices below `sizes`."""
    try:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.config import Config
        from pymoo.core.mutation import Mutation
        from pymoo.core.problem import Problem
        from pymoo.core.termination import NoTermination
        from pymoo.operators.crossover.ux import UniformCrossover
    except ImportError as error:
        raise MachineError("pymoo is not installed", do="pip install 'edgesmith[search]'") from error

    class Redraw(Mutation):  # type: ignore[misc]
        """Decides about one variable in each child anew."""

        def _do(self, problem: Any, X: Any, *args: Any, random_state: Any = None, **kwargs: Any) -> Any:  # noqa: N803
            chosen = random_state.random(X.shape) < 1 / X.shape[1]
            near = np.clip(X + random_state.choice((-1, 1), X.shape), 0, sizes - 1)
            anew = np.where(random_state.random(X.shape) < STEP, near, random_state.integers(sizes, size=X.shape))
            return np.where(chosen, anew, X)

    Config.warnings["not_compiled"] = False  # pymoo says it on standard output, where --json has the answer
    algorithm = NSGA2(population, crossover=UniformCrossover(vtype=int), mutation=Redraw(), output=None,
                      eliminate_duplicates=False)  # fmt: skip
    problem = Problem(n_var=len(sizes), n_obj=losses, n_ieq_constr=1, xl=0, xu=sizes - 1, vtype=int)
    return algorithm.setup(problem, seed=seed, termination=NoTermination())
