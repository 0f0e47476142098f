"""Loads TVM once, then does each job in a fork of itself: jobs start at once and alike, and a crash ends only one.

`python -m ...server` reads a folder a line, does the job that lies there, and writes a line with its exit status.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from pathlib import Path

__all__ = ["JOB", "LOG"]

JOB, LOG = "job.pickle", "log.txt"


def work(folder: Path) -> int:
    """Do the job in this process, whose output becomes the log; the exit status."""
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    try:
        pickle.loads((folder / JOB).read_bytes()).do(folder)
    except BaseException:  # whatever it is, the parent reads of it in the log
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    return 0


def serve() -> None:
    """Until nobody asks any more."""
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            os._exit(work(Path(line.rstrip("\n"))))
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        print(status, flush=True)


if __name__ == "__main__":
    # TVM's bridge loads PyTorch wherever it is installed, for which nothing here has a use.
    sys.modules["torch"] = None  # type: ignore[assignment]
    from tvm import relax  # noqa: F401

    serve()
