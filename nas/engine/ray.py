"""Workers that are actors of a Ray cluster, on this computer or elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from ...ir.errors import MachineError
from ..problem import Problem
from .crew import Answer, Died, Question, Worker, answer

__all__ = ["Cluster"]


class Cluster:
    """A crew of actors with one CPU each; each has a copy of the problem, and keeps what it caches."""

    def __init__(self, problem: Problem, size: int | None = None, address: str | None = None) -> None:
        """Join the cluster at `address`, or begin one on this computer; `size` is all its CPUs if nothing is said.

        Raises:
            MachineError: Ray is not installed, or there is no cluster at that address.
        """
        try:
            import ray
        except ImportError as error:
            raise MachineError("Ray is not installed", do="pip install 'edgesmith[ray]'") from error
        self._ray: Any = ray
        # Ray would look for a cluster in the environment by itself; this computer is meant where nothing is said.
        own = {} if address else {"num_cpus": size, "include_dashboard": False}
        try:
            self._ray.init(address or "local", log_to_driver=False, logging_level="error", **own)
        except (ConnectionError, RuntimeError, ValueError) as error:
            what = f"there is no Ray cluster at {address or 'this computer'}"
            raise MachineError(what, why=str(error), do="start one with `ray start`, or leave --address out") from error
        self.size = size or max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        self._problem = self._ray.put(problem)
        self._actor = self._ray.remote(num_cpus=1, max_restarts=0)(_Actor)
        self._idle: list[_Remote] = []

    def hire(self) -> Worker:
        """An idle actor, or a new one."""
        return self._idle.pop() if self._idle else _Remote(self._ray, self._actor.remote(self._problem))

    def wait(self, busy: Sequence[Worker]) -> Sequence[Worker]:
        """A future is ready when its answer is there, and when its actor is gone."""
        futures = {each.future: each for each in busy if isinstance(each, _Remote)}
        return [futures[future] for future in self._ray.wait(list(futures))[0]]

    def release(self, worker: Worker) -> None:
        """Keep it for the next question."""
        assert isinstance(worker, _Remote)
        self._idle.append(worker)

    def __enter__(self) -> Self:
        """Keep the connection for the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the cluster; one that was begun here ends, as do the actors."""
        self._ray.shutdown()


class _Actor:
    """What runs in the cluster."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def answer(self, question: Question) -> Answer:
        return answer(self._problem, question)


class _Remote:
    """This end of an actor."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor

    def begin(self, question: Question) -> None:
        self.future = self._actor.answer.remote(question)

    def end(self) -> Answer:
        try:
            found = self._ray.get(self.future)
        except self._ray.exceptions.RayError as error:
            raise Died(" ".join(str(error).split())) from error
        assert isinstance(found, Answer)
        return found
