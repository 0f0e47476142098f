"""Workers that are actors of a Ray cluster, on this computer or elsewhere."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from ...ir.errors import MachineError
from ..problem import Problem
from .crew import Answer, Died, Pool, Question, Worker, answer, answered, loaded

__all__ = ["Cluster"]

SECONDS = 5
"""How long a cluster may take to accept a connection."""


class Cluster(Pool):
    """A crew of actors with one CPU each; each has a copy of the problem, and keeps what it caches."""

    def __init__(self, problem: Problem, size: int | None = None, address: str | None = None) -> None:
        """Join the cluster at `address`, or begin one on this computer; `size` is all its CPUs if nothing is said.

        Raises:
            MachineError: Ray is not installed, or there is no cluster at that address.
        """
        super().__init__()
        try:
            import ray
        except ImportError as error:
            raise MachineError("Ray is not installed", do="pip install 'edgesmith[ray]'") from error
        self._ray: Any = ray
        # Ray would look for a cluster in the environment by itself; this computer is meant where nothing is said.
        if address:
            _check(address)
        own = {} if address else {"num_cpus": size, "include_dashboard": False}
        try:
            self._ray.init(address or "local", log_to_driver=False, logging_level="error", **own)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise _nobody(address or "this computer", error) from error
        self.size = size or max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        self._problem = self._ray.put(pickle.dumps(problem))
        self._actor = self._ray.remote(num_cpus=1, max_restarts=0)(_Actor)

    def begun(self) -> Worker:
        """A new actor."""
        return _Remote(self._ray, self._actor.remote(self._problem))

    def wait(self, busy: Sequence[Worker]) -> Sequence[Worker]:
        """A future is ready when its answer is there, and when its actor is gone."""
        futures = {each.future: each for each in busy if isinstance(each, _Remote)}
        return [futures[future] for future in self._ray.wait(list(futures))[0]]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the cluster; one that was begun here ends, as do the actors."""
        self._ray.shutdown()


def _check(address: str) -> None:
    """Find out whether anybody listens at host:port; Ray would try for minutes, and then end the process."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "://" in address:
        return
    try:
        socket.create_connection((host, int(port)), timeout=SECONDS).close()
    except OSError as error:
        raise _nobody(address, error) from error


def _nobody(where: str, error: Exception) -> MachineError:
    do = "start one with `ray start --head`, or leave --address out"
    return MachineError(f"there is no Ray cluster at {where}", why=str(error), do=do)


class _Actor:
    """What runs in the cluster."""

    def __init__(self, pickled: bytes) -> None:
        self._problem = loaded(pickled)

    def answer(self, question: Question) -> Answer | str:
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
        return answered(found)
