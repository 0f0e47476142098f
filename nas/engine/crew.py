"""Who judges genomes: workers that answer one question at a time, and what happens when one of them dies.

Questions are answered in any order; what a search makes of the answers does not depend on it.
"""

from __future__ import annotations

import pickle
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from types import TracebackType
from typing import Literal, Protocol, Self, TypeAlias

from ...ir.errors import EdgesmithError, MachineError
from ..problem import Costs, Problem
from ..space import Genome

__all__ = ["Answer", "Crew", "Died", "Here", "Pool", "Question", "Worker", "answer", "answered", "ask", "loaded"]

Question: TypeAlias = tuple[Literal["costs", "quality"], Genome]
"""Which method of a problem to call, and with what."""

ATTEMPTS = 2
"""How many workers may die of a question before it counts as failed."""


class Died(Exception):  # noqa: N818  (what became of a worker; it becomes an answer, never reaches a user)
    """A worker ended without an answer; the text says how."""


@dataclass(frozen=True)
class Answer:
    """What a problem said of a genome.

    Attributes:
        value: The costs or the quality; None where there are none.
        why: The reason for that.
        refused: Whether the problem itself said so, by an error of the contract.
    """

    value: Costs | float | None
    why: str = ""
    refused: bool = False


class Worker(Protocol):
    """Somebody who answers one question at a time."""

    def begin(self, question: Question) -> None:
        """Take up a question."""
        ...

    def end(self) -> Answer:
        """Give the answer.

        Raises:
            Died: There will be none.
        """
        ...


class Crew(Protocol):
    """A number of workers who share a problem."""

    size: int

    def hire(self) -> Worker:
        """A worker with nothing to do; at most `size` are busy at a time."""
        ...

    def wait(self, busy: Sequence[Worker]) -> Sequence[Worker]:
        """Those of the busy ones, at least one, whose answer is there or will never come."""
        ...

    def release(self, worker: Worker) -> None:
        """Have a worker back who has answered."""
        ...


def answer(problem: Problem | str, question: Question) -> Answer | str:
    """Ask `problem`; whatever it raises is an answer as well. Without a problem the reason is all there is to say."""
    if isinstance(problem, str):
        return problem
    method, genome = question
    try:
        return Answer(problem.costs(genome) if method == "costs" else float(problem.quality(genome)))
    except EdgesmithError as error:
        return Answer(None, error.text(), refused=True)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return Answer(None, f"{type(error).__name__}: {error} ({PurePath(last.filename).name}, line {last.lineno})")


def loaded(pickled: bytes) -> Problem | str:
    """What a worker has been given to judge by; where it cannot be loaded there, the reason."""
    try:
        problem: Problem = pickle.loads(pickled)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return problem


def answered(found: Answer | str) -> Answer:
    """What a worker says.

    Raises:
        MachineError: It says why it cannot judge anything; no other worker could.
    """
    if isinstance(found, str):
        raise MachineError("workers cannot load what they are to judge", why=found, do="install there what is here")
    return found


def ask(crew: Crew, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
    """Yield the place of each question with its answer, as answers come.

    A question whose worker dies is asked once more, then answered with how the workers died.
    """
    waiting = deque((place, 1) for place in range(len(questions)))
    busy: dict[Worker, tuple[int, int]] = {}
    while waiting or busy:
        while waiting and len(busy) < crew.size:
            worker = crew.hire()
            place, attempt = waiting.popleft()
            busy[worker] = place, attempt
            worker.begin(questions[place])
        for worker in crew.wait(list(busy)):
            place, attempt = busy.pop(worker)
            try:
                found = worker.end()
            except Died as death:
                if attempt < ATTEMPTS:
                    waiting.append((place, attempt + 1))
                    continue
                found = Answer(None, f"{attempt} workers died of it: {death}")
            else:
                crew.release(worker)
            yield place, found


class Pool:
    """What crews of several have in common: whoever has answered is kept for the next question."""

    def __init__(self) -> None:
        """Nobody is there yet: each worker begins when it is first needed."""
        self._idle: list[Worker] = []

    def begun(self) -> Worker:
        """A new worker."""
        raise NotImplementedError

    def hire(self) -> Worker:
        """One that is idle, or a new one."""
        return self._idle.pop() if self._idle else self.begun()

    def release(self, worker: Worker) -> None:
        """Keep it for the next question."""
        self._idle.append(worker)

    def __enter__(self) -> Self:
        """Keep the workers for the block."""
        return self


class Here:
    """A crew of one: this very process."""

    size = 1

    def __init__(self, problem: Problem) -> None:
        """Ask `problem` itself, without a copy."""
        self._problem = problem

    def begin(self, question: Question) -> None:
        """Remember what was asked."""
        self._question = question

    def end(self) -> Answer:
        """Answer now."""
        return answered(answer(self._problem, self._question))

    def hire(self) -> Worker:
        """The only worker."""
        return self

    def wait(self, busy: Sequence[Worker]) -> Sequence[Worker]:
        """It always has time."""
        return busy

    def release(self, worker: Worker) -> None:
        """It stays."""

    def __enter__(self) -> Self:
        """There is nothing to prepare."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There is nothing to clear away."""
