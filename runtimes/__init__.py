"""Where artifacts run: one file a runner, found by the `RUNNER` it offers."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..ir.errors import UsageError
from .runner import Measurement, Runner

if TYPE_CHECKING:
    from ..targets import Target

__all__ = ["Measurement", "Runner", "load", "names", "of_target"]


def names() -> tuple[str, ...]:
    """Names of all runners in this folder, whether or not they can run here."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return tuple(file.stem for file in files if "\nRUNNER: Runner = " in file.read_text(encoding="utf-8"))


def load(name: str) -> Runner:
    """The runner of that name; ask its `why_not` before `run`."""
    if name not in names():
        raise UsageError(f"unknown runner '{name}'", do=f"use one of {', '.join(names())}")
    runner: Runner = importlib.import_module(f".{name}", __package__).RUNNER
    return runner


def of_target(target: Target) -> str:
    """Name of the runner for a library that was made for this target: what emulates its core, or this computer."""
    from . import isa

    if not target.regions:
        return "host"
    return "emulator" if isa.knows(target) else "qemu"
