"""Jobs for TVM in processes of their own, with a time limit: a crash of its compiler becomes an error, no more."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import pickle
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Lock
from typing import Protocol

from ...ir.errors import InternalError, MachineError
from .. import zig
from .build import RESULT, Build
from .program import Program
from .server import JOB, LOG

__all__ = ["Job", "Server", "build", "run"]

LIMIT_SECONDS = 900.0
"""For a build; the largest models of the zoo take a tenth of it."""

INSTALL = "pip install edgesmith[tvm]"


class Job(Protocol):
    """Something to do in a child; it is pickled on its way."""

    def do(self, folder: Path) -> None:
        """Do it, and leave the results in the folder."""


def build(program: Program, path: Path) -> None:
    """Compile a program to a shared object.

    Raises:
        MachineError: TVM or the linker is missing, or the compiler crashed or took too long.
        InternalError: TVM refuses what we wrote.
    """
    if importlib.util.find_spec("tvm") is None:
        raise MachineError("TVM is not installed", do=INSTALL)
    job = Build(program, (*zig.command(), *program.machine.link))
    with tempfile.TemporaryDirectory() as folder:
        run(job, Path(folder), LIMIT_SECONDS)
        shutil.move(Path(folder) / RESULT, path)


def run(job: Job, folder: Path, limit: float) -> None:
    """Do a job in a child; its results lie in the folder afterwards.

    Raises:
        MachineError: It crashed or took longer than `limit` seconds.
        InternalError: It ended with an error.
    """
    (folder / JOB).write_bytes(pickle.dumps(job))
    with _LOCK:
        status = _server().ask(folder, limit)
    log = folder / LOG
    why = _last(log.read_text(encoding="utf-8", errors="replace")) if log.is_file() else ""
    if status < 0:
        why = f"{signal.Signals(-status).name}; {why}" if why else signal.Signals(-status).name
        raise MachineError("TVM's compiler crashed", why=why, do=f"{INSTALL}, whose pair of packages works together")
    if status:
        raise InternalError("TVM refused the program", why=why)


class Server:
    """A child that has TVM loaded, and forks for each job."""

    def __init__(self) -> None:
        """Start it; it ends when this process does."""
        path = os.pathsep.join(each for each in sys.path if each)
        more = {"PYTHONPATH": path, "TVM_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={**zig.environment(), **more}, start_new_session=True,
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        """Whether it can take a job."""
        return self.process.poll() is None

    def ask(self, folder: Path, limit: float) -> int:
        """Exit status of the job in a folder; negative is the signal that ended it.

        Raises:
            MachineError: The limit passed, or TVM cannot even be loaded.
        """
        asked, told = self.process.stdin, self.process.stdout
        assert asked is not None and told is not None
        with contextlib.suppress(BrokenPipeError):  # then it has ended, which the empty answer tells
            asked.write(f"{folder}\n".encode())
            asked.flush()
        if not select.select([told], [], [], limit)[0]:
            self.kill()
            what, do = f"TVM took longer than {limit:.0f} s", "try a faster or less busy computer"
            raise MachineError(what, do=do)
        line = told.readline()
        if not line:
            self.process.wait()
            assert self.process.stderr is not None
            why = _last(self.process.stderr.read().decode(errors="replace"))
            raise MachineError("TVM cannot be loaded", why=why, do=INSTALL)
        return int(line)

    def close(self) -> None:
        """Let it end."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it and the job it is at."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


_LOCK = Lock()
_RUNNING: list[Server] = []


def _server() -> Server:
    """The one of this process; started when first needed, and again after it was killed."""
    if not _RUNNING or not _RUNNING[0].alive:
        _RUNNING[:] = [Server()]
        atexit.register(_RUNNING[0].close)
    return _RUNNING[0]


def _last(text: str) -> str:
    """The end of what a process wrote."""
    return "\n".join(text.strip().splitlines()[-8:])[-2000:]
