"""Puts firmware on a board with OpenOCD: the scripts for probe and part come from the target's file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ..ir.errors import MachineError, UsageError
from ..targets import Target

__all__ = ["COMMANDS", "command", "flash"]

COMMANDS = ("openocd", "openocd-esp32")
"""Debian's and pip's name of the program."""

SECONDS = 180.0


def command(target: Target, image: Path) -> list[str]:
    """The command line that writes an ELF file, compares it with what the flash then holds, and starts it.

    Raises:
        UsageError: The target's file names no scripts.
        MachineError: OpenOCD is not installed.
    """
    if target.board is None or not target.board.openocd:
        raise UsageError(f"{target.name} names no scripts of OpenOCD", do="add them to [board] in the target's file")
    program = next((path for name in COMMANDS if (path := shutil.which(name))), None)
    if program is None:
        raise MachineError("OpenOCD is not on the path", do="apt install openocd, or pip install openocd-esp32")
    scripts = [part for script in target.board.openocd for part in ("-f", script)]
    # Tcl takes what stands in braces as it is, blanks and backslashes included.
    return [program, *scripts, "-c", f"program {{{image.as_posix()}}} verify reset exit"]


def flash(target: Target, image: Path) -> None:
    """Write firmware into the board's flash and start it.

    Raises:
        MachineError: No probe, no board, or the flash holds something else afterwards; OpenOCD's own words are kept.
    """
    line = command(target, image)
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise MachineError("OpenOCD did not end", why=f"after {SECONDS:.0f} s") from error
    if done.returncode:
        why = "\n".join((done.stdout + done.stderr).strip().splitlines()[-6:]) or f"exit status {done.returncode}"
        do = "connect the board's probe, and see that no other program holds it"
        raise MachineError(f"the firmware could not be written to {target.name}", why=why, do=do)
