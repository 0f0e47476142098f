"""Builds in a process of their own, with a time limit: a crash of TVM's compiler is an error, and leaves nothing."""

from __future__ import annotations

import importlib.util
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ...ir.errors import InternalError, MachineError
from .. import zig
from .build import JOB, RESULT
from .program import Program

__all__ = ["build", "environment", "run"]

LIMIT_SECONDS = 900
"""For a build; the largest models of the zoo take a tenth of it."""


def build(program: Program, path: Path) -> None:
    """Compile a program to a shared object.

    Raises:
        MachineError: TVM or the linker is missing, or the compiler crashed or took too long.
        InternalError: TVM refuses what we wrote.
    """
    if importlib.util.find_spec("tvm") is None:
        raise MachineError("TVM is not installed", do="pip install edgesmith[tvm]")
    link = [*zig.command(), *program.machine.link]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / JOB).write_bytes(pickle.dumps({"program": program, "link": link}))
        run(f"{__package__}.build", [str(folder)], LIMIT_SECONDS)
        shutil.move(folder / RESULT, path)


def run(module: str, arguments: Sequence[str], limit: float) -> str:
    """Run one of our modules in a process of its own; its standard output.

    Raises:
        MachineError: It crashed or took too long.
        InternalError: It ended with an error.
    """
    command = [sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment(), check=False)
    except subprocess.TimeoutExpired as error:
        what, do = f"TVM took longer than {limit:.0f} s", "compile on a faster or less busy computer"
        raise MachineError(what, do=do) from error
    if done.returncode < 0:
        why = f"{signal.Signals(-done.returncode).name}; {_last(done.stderr)}"
        raise MachineError("TVM's compiler crashed", why=why, do="install the pair that edgesmith[tvm] pins")
    if done.returncode:
        raise InternalError("TVM refused the program", why=_last(done.stderr))
    return done.stdout


def environment() -> dict[str, str]:
    """Ours, with our own search path, zig's caches in our folder, and one thread for TVM's kernels."""
    return {
        **zig.environment(),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "TVM_NUM_THREADS": "1",
    }


def _last(text: str) -> str:
    """The end of what a process wrote."""
    return "\n".join(text.strip().splitlines()[-8:])[-2000:]
