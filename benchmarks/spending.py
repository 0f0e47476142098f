"""What a command costs, by itself: CPU seconds and peak memory that nothing of its parent is counted into."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20

BETWEEN = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
"""
"""Linux hands a process's peak on to the program that it turns into: a small process has to stand between."""


@dataclass(frozen=True)
class Spent:
    """Exit code, CPU seconds and MiB of a command that has ended."""

    code: int
    seconds: float
    mebibytes: float


def spend(command: Sequence[str]) -> Spent:
    """Run a command, its output on standard error, and say what it took."""
    run = [sys.executable, "-c", BETWEEN, *command]
    code, seconds, kibibytes = json.loads(subprocess.run(run, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return Spent(code, seconds, kibibytes * KIB / MIB)
