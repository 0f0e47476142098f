"""The search itself: rounds of proposals, those that are legal judged, every answer kept, a front in the end.

A round waits for all its answers before anything is learnt of them, so that the order in which workers end decides
nothing. A search that was broken off is run again from its beginning, with the journal for answers: it comes to the
point where it was, and goes on as if nothing had happened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...ir.errors import ModelError, UsageError
from ..problem import Budgets, Candidate, Costs, Problem, front
from ..space import Genome, key
from .crew import Answer, Crew, Here, Question, ask
from .journal import Journal
from .strategies import METHODS, Trial, Vector

__all__ = ["Miss", "Plan", "Result", "Round", "search"]

LOOKS = 8
"""How many populations a round may look at to fill one with legal genomes, once the search knows any."""

ROUNDS = 4
"""A search ends after so many times the rounds it would take if every genome were legal."""

HOPELESS = 1e3
"""Excess of a genome of which no network comes, or that failed; as a factor on a budget nobody comes near it."""


@dataclass(frozen=True)
class Plan:
    """How to search.

    Attributes:
        budgets: What a legal network takes at most.
        axes: Names of the costs that are to be small beside the quality that is to be great.
        seed: Of every draw.
        generations: With `population`, how many qualities are asked for at most: their product.
        population: Genomes that are bred from.
        method: One of `METHODS`.
    """

    budgets: Budgets
    axes: tuple[str, ...]
    seed: int = 0
    generations: int = 20
    population: int = 32
    method: str = "evolution"


@dataclass(frozen=True)
class Miss:
    """A genome that is not legal: with costs above some budget, or with the reason why no network comes of it."""

    genome: Genome
    costs: Costs | None
    over: Mapping[str, float]
    why: str = ""

    @property
    def excess(self) -> float:
        """How far it is from being legal: the sum of the logarithms of the factors on each budget."""
        return sum(math.log(min(factor, HOPELESS)) for factor in self.over.values()) if self.over else HOPELESS


@dataclass(frozen=True)
class Round:
    """Where a search stands after a round.

    Attributes:
        number: From 1.
        judged, of: Genomes whose quality is known, and how many it may become.
        illegal, failed: Genomes that did not get so far.
        front: The best so far.
    """

    number: int
    judged: int
    of: int
    illegal: int
    failed: int
    front: tuple[Candidate, ...]


@dataclass
class Result:
    """What a search found.

    Attributes:
        candidates: Every legal genome that was judged, in the order of the proposals.
        front: Those of them that no other dominates, the best quality first.
        closest: The genome nearest to being legal among those that are not, if costs of any are known.
        illegal: How many were not legal.
        refused: Why no network came of the first for which that is so.
        failed: Each genome that could not be judged, with the reason.
        rounds: How it went.
    """

    candidates: list[Candidate] = field(default_factory=list)
    front: list[Candidate] = field(default_factory=list)
    closest: Miss | None = None
    illegal: int = 0
    refused: str = ""
    failed: list[tuple[Genome, str]] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)


def search(
    problem: Problem, plan: Plan, *, journal: Path, crew: Crew | None = None, about: Mapping[str, Any] | None = None,
    progress: Callable[[Round], None] | None = None,
) -> Result:  # fmt: skip
    """Search for the best genomes within the budgets.

    Args:
        problem: What to search.
        plan: How.
        journal: The file that keeps every answer. Where it exists, what it tells is not asked again.
        crew: Who judges; without, this process.
        about: JSON data that tells this problem from others with the same space; kept in the journal.
        progress: Called as qualities become known, and after each round.

    Raises:
        UsageError: The plan makes no sense, or the journal belongs to another search.
        ModelError: In one round nothing could be judged.
        MachineError: The journal cannot be written, or a package is missing.
    """
    _check(plan)
    header = {**(about or {}), "space": _identity(problem), "plan": asdict(plan)}
    with Journal(journal, header) as kept:
        return _Search(problem, plan, kept, crew or Here(problem), progress or (lambda _: None)).run()


class _Search:
    """One search on its way."""

    def __init__(
        self, problem: Problem, plan: Plan, journal: Journal, crew: Crew, progress: Callable[[Round], None]
    ) -> None:
        self.space, self.plan, self.journal, self.crew, self.progress = problem.space, plan, journal, crew, progress
        self.of = plan.generations * plan.population
        self.named = {*plan.axes, *(name for name, most in asdict(plan.budgets).items() if most is not None)}
        self.known = dict(_answers(journal.lines))
        self.seen: set[str] = set()
        self.result = Result()
        starts = problem.starts()
        self.strategy = METHODS[plan.method](self.space, starts, 1 + len(plan.axes), plan.population, plan.seed)

    def run(self) -> Result:
        """All rounds."""
        for number in range(1, ROUNDS * self.plan.generations + 1):
            legal, misses = self._round()
            if not legal and not misses:
                break  # the space holds nothing new
            trials = self._judged(number, legal)
            misses.sort(key=lambda each: each.excess)
            self.strategy.learn([*trials, *misses[: self.plan.population]])
            self.result.rounds.append(self._standing(number))
            self.progress(self.result.rounds[-1])
            if len(self.result.candidates) + len(self.result.failed) >= self.of:
                break
        return self.result

    def _round(self) -> tuple[list[tuple[Vector, Genome, Costs]], list[Trial]]:
        """Look for a population of new legal genomes; also what was met that is not legal."""
        room = self.of - len(self.result.candidates) - len(self.result.failed)
        wanted = min(self.plan.population, room)
        legal: list[tuple[Vector, Genome, Costs]] = []
        misses: list[Trial] = []
        for _ in range(LOOKS):
            fresh = self._fresh(self.strategy.propose())
            for (vector, genome), found in zip(fresh, self._ask("costs", [genome for _, genome in fresh]), strict=True):
                if len(legal) == wanted:
                    break  # the rest may be proposed again
                self.seen.add(key(genome))
                miss = self._miss(genome, found)
                if miss:
                    misses.append(Trial(vector, excess=miss.excess))
                else:
                    assert isinstance(found.value, Costs)
                    legal.append((vector, genome, found.value))
            if len(legal) == wanted or not (legal or self.result.candidates):
                break
        return legal, misses

    def _fresh(self, vectors: Sequence[Vector]) -> list[tuple[Vector, Genome]]:
        """Those whose genomes have not been looked at, each once."""
        fresh: dict[str, tuple[Vector, Genome]] = {}
        for vector in vectors:
            genome = self.space.genome(vector)
            if key(genome) not in self.seen:
                fresh.setdefault(key(genome), (vector, genome))
        return list(fresh.values())

    def _miss(self, genome: Genome, found: Answer) -> Miss | None:
        """Why a genome is not legal, and the closest one kept; None for one that is."""
        costs = found.value if isinstance(found.value, Costs) else None
        over = self.plan.budgets.excess(costs) if costs else {}
        over = {name: factor for name, factor in over.items() if getattr(costs, name) is not None}
        lacking = [name for name in sorted(self.named) if costs and getattr(costs, name) is None]
        if lacking and not over:  # of what is over a budget anyway not all is asked
            what = f"nothing is known of {', '.join(lacking)} here"
            raise UsageError(what, do="choose other axes and budgets, or another target")
        if costs and not over:
            return None
        miss = Miss(genome, costs, over, found.why)
        self.result.illegal += 1
        self.result.refused = self.result.refused or found.why
        if costs and (self.result.closest is None or miss.excess < self.result.closest.excess):
            self.result.closest = miss
        return miss

    def _judged(self, number: int, legal: Sequence[tuple[Vector, Genome, Costs]]) -> list[Trial]:
        """Ask for the quality of each, and take it into the result."""
        trials, news, failures = [], [], len(self.result.failed)
        answers = self._ask("quality", [genome for _, genome, _ in legal], number)
        for (vector, genome, costs), found in zip(legal, answers, strict=True):
            if not isinstance(found.value, float):
                self.result.failed.append((genome, found.why))
                trials.append(Trial(vector, excess=HOPELESS))
                continue
            candidate = Candidate(genome, costs, found.value)
            news.append(candidate)
            trials.append(Trial(vector, (-found.value, *(float(getattr(costs, axis)) for axis in self.plan.axes))))
        self.result.candidates += news
        self.result.front = front([*self.result.front, *news], self.plan.axes)
        failed = self.result.failed[failures:]
        if legal and len(failed) == len(legal):
            what = f"none of the {len(failed)} networks of round {number} could be judged"
            do = "mend it and run the same search again: what is finished is kept, what failed is tried anew"
            raise ModelError(what, where=[str(self.journal.path)], why=failed[0][1], do=do)
        return trials

    def _ask(self, method: Any, genomes: Sequence[Genome], number: int = 0) -> list[Answer]:
        """Answers in the order of `genomes`; what the journal does not know is asked of the crew, and kept."""
        found = {place: self.known.get((method, key(genome))) for place, genome in enumerate(genomes)}
        places = [place for place, each in found.items() if each is None]
        questions: list[Question] = [(method, genomes[place]) for place in places]
        ready = len(self.result.candidates) + len(found) - len(places)
        for index, each in ask(self.crew, questions):
            each = _finite(each)
            self.journal.append({"genome": genomes[places[index]], **_line(method, each)}, durable=method == "quality")
            found[places[index]] = each
            if method == "quality":
                ready += each.value is not None
                self.progress(self._standing(number, ready))
        return [each for each in found.values() if each is not None]

    def _standing(self, number: int, judged: int | None = None) -> Round:
        """Where the search is now."""
        result = self.result
        known = len(result.candidates) if judged is None else judged
        return Round(number, known, self.of, result.illegal, len(result.failed), tuple(result.front))


def _check(plan: Plan) -> None:
    """Refuse a plan that makes no sense."""
    if plan.population < 2 or plan.generations < 1:
        raise UsageError("a search needs a population of 2 at least, and a generation")
    if plan.method not in METHODS:
        raise UsageError(f"there is no method '{plan.method}'", do=f"use {' or '.join(METHODS)}")
    known = list(Costs.__dataclass_fields__)
    if wrong := [axis for axis in plan.axes if axis not in known]:
        raise UsageError(f"'{wrong[0]}' is no axis of a search", do=f"use some of {', '.join(known)}")
    if len(set(plan.axes)) < len(plan.axes):
        raise UsageError("an axis is given twice", where=plan.axes)


def _identity(problem: Problem) -> dict[str, Any]:
    """The space as JSON data."""
    space = problem.space
    genes = [[gene.name, list(gene.choices), gene.count] for gene in space.genes]
    return {"name": space.name, "family": space.family, "settings": dict(space.settings), "genes": genes}


def _finite(found: Answer) -> Answer:
    """A quality that is no number is none."""
    if isinstance(found.value, float) and not math.isfinite(found.value):
        return Answer(None, f"its quality is {found.value}")
    return found


def _line(method: str, found: Answer) -> dict[str, Any]:
    """What the journal keeps of an answer."""
    if found.value is None:
        return {"refused" if method == "costs" and found.refused else "failed": found.why}
    return {method: asdict(found.value) if isinstance(found.value, Costs) else found.value}


def _answers(lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[tuple[str, str], Answer]]:
    """The answers that a journal keeps, by question; what failed is asked again."""
    for line in lines:
        name = key(line["genome"])
        if "costs" in line:
            yield ("costs", name), Answer(Costs(**line["costs"]))
        elif "refused" in line:
            yield ("costs", name), Answer(None, line["refused"], refused=True)
        elif "quality" in line:
            yield ("quality", name), Answer(float(line["quality"]))
