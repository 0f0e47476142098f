"""Workers that are processes of this computer, one thread each: where one dies, the others and the search go on."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from types import TracebackType

from ..problem import Problem
from .crew import Answer, Died, Pool, Question, Worker, answer, answered, loaded

__all__ = ["Local"]

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Variables that say how many threads libraries begin; sums depend on it in their last bits, and so does a search."""

SPAWN = multiprocessing.get_context("spawn")


class Local(Pool):
    """A crew of processes; each has a copy of the problem from the start, and keeps what it caches."""

    def __init__(self, problem: Problem, size: int) -> None:
        """Begin no process yet."""
        super().__init__()
        self.size = size
        self._problem = pickle.dumps(problem)
        self._all: list[_Process] = []

    def begun(self) -> Worker:
        """A new process."""
        self._all = [each for each in self._all if each.alive]
        self._all.append(_Process(self._problem))
        return self._all[-1]

    def wait(self, busy: Sequence[Worker]) -> Sequence[Worker]:
        """A pipe has something to say when an answer is in it, and when its process is gone."""
        pipes = {each.pipe: each for each in busy if isinstance(each, _Process)}
        return [pipes[pipe] for pipe in wait(list(pipes)) if isinstance(pipe, Connection)]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process, whatever it does."""
        for each in self._all:
            each.stop()


class _Process:
    """One process and this end of the pipe to it."""

    def __init__(self, problem: bytes) -> None:
        self.pipe, other = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_serve, args=(other, problem), daemon=True)
        with _one_thread():
            self._process.start()
        other.close()

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def begin(self, question: Question) -> None:
        with suppress(OSError):  # it has died since; the pipe says so when it is asked for the answer
            self.pipe.send(question)

    def end(self) -> Answer:
        try:
            found = self.pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            raise Died(_death(self._process.exitcode)) from error
        return answered(found)

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(pipe: Connection, pickled: bytes) -> None:
    """Answer until the search's process closes its end, or is gone itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    problem = loaded(pickled)
    with suppress(EOFError, OSError):
        while True:
            pipe.send(answer(problem, pipe.recv()))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let processes that start within the block have one thread each: there are as many of them as cores."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _death(code: int | None) -> str:
    """How a process ended, in words."""
    if code is not None and code < 0:
        return f"signal {-code} ({signal.Signals(-code).name})"
    return f"exit code {code}"
