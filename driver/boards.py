"""How a board is reached: the serial port, and whether firmware is written to it first, as the user says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..ir.errors import UsageError

if TYPE_CHECKING:
    from ..runtimes import Runner

__all__ = ["is_board", "reached"]


def is_board(runner: Runner) -> bool:
    """Whether it is the runner for boards."""
    return runner.name == "board"


def reached(runner: Runner, port: str | None, flash: bool) -> Runner:
    """The runner for boards with its port, or any other runner where nothing was said of one.

    Raises:
        UsageError: A port, or firmware to be written, for a runner that has neither.
    """
    if port is None and not flash:
        return runner
    from ..runtimes.board import Board

    if not isinstance(runner, Board):
        do = "add --on board, or leave --port and --flash out"
        raise UsageError(f"'{runner.name}' is not reached through a serial port", do=do)
    return replace(runner, port=port or "", flash=flash)
