"""Files of a result that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from ..ir.errors import MachineError

__all__ = ["put"]


def put(path: Path, data: bytes) -> None:
    """Write a file.

    Raises:
        MachineError: There is no room, or no right to.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        do = "make room and run the same search again: what is finished is kept"
        raise MachineError("a result cannot be written", where=[str(path)], why=str(error), do=do) from error
