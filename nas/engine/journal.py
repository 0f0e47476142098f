"""The journal of a search: what was found out, a JSON line each, on disk before the search goes on.

Lines are only ever added. A process that is killed, or a disk that is full, leaves at most a torn last line, which is
dropped when the journal is opened again; everything before it counts.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ...ir.errors import MachineError, UsageError

if sys.platform != "win32":
    import fcntl

__all__ = ["FORMAT", "Journal"]

FORMAT = 1
"""Of the lines; a journal of another one is refused."""

AGAIN = "make room and run the same search again: what is finished is kept"


class Journal:
    """An open journal; one process has it at a time."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Open or make the journal at `path`, whose first line says what the search is about.

        Args:
            path: The file; its folder is made.
            header: JSON data by name. A journal with another header belongs to another search.

        Raises:
            UsageError: It cannot be opened, is in use, damaged, or belongs to another search.
            MachineError: It cannot be written.
        """
        self.path = path
        wanted = {"journal": FORMAT, **json.loads(json.dumps(header))}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UsageError("the journal cannot be opened", where=[str(path)], why=str(error)) from error
        self.lines: list[dict[str, Any]] = []
        try:
            self._lock()
            self.lines += self._read(wanted)
        except BaseException:
            self.close()
            raise

    def append(self, line: Mapping[str, Any], durable: bool = True) -> None:
        """Add a line.

        Args:
            line: JSON data.
            durable: Wait until the disk has it. What is quick to find out again need not.

        Raises:
            MachineError: It cannot be written; the journal is as it was before.
        """
        self._write(line, durable)
        self.lines.append(dict(line))

    def _write(self, line: Mapping[str, Any], durable: bool = True) -> None:
        rest = memoryview((json.dumps(line, allow_nan=False) + "\n").encode())
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
            if durable:
                os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, end)
            what = "the journal cannot be written"
            raise MachineError(what, where=[str(self.path)], why=str(error), do=AGAIN) from error

    def close(self) -> None:
        """Let others have it."""
        os.close(self._file)

    def __enter__(self) -> Journal:
        """Keep it open for the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _lock(self) -> None:
        """Take the file for this process; the system lets go of it however the process ends."""
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            do = "wait for it to end, or search in another folder"
            raise UsageError("another search is writing this journal", where=[str(self.path)], do=do) from error

    def _read(self, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Every line but the header; a torn last one is cut off."""
        data = self.path.read_bytes()
        lines = data.splitlines(keepends=True)
        if lines and _parsed(lines[-1]) is None:
            torn = lines.pop()
            os.ftruncate(self._file, len(data) - len(torn))
        if not lines:
            self._write(wanted)
            _sync_folder(self.path.parent)
            return []
        found = [_parsed(line) for line in lines]
        if None in found:
            what = f"line {found.index(None) + 1} of the journal is damaged"
            raise UsageError(what, where=[str(self.path)], do="search in another folder")
        header, *rest = (line for line in found if line is not None)
        if header != wanted:
            raise UsageError(
                "the folder holds the journal of another search", where=[str(self.path)],
                why=_difference(header, wanted), do="give what it was begun with, or another folder",
            )  # fmt: skip
        return rest


def _parsed(line: bytes) -> dict[str, Any] | None:
    """What a whole line says; None for one that was not written to its end."""
    try:
        found = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The first thing that two headers say differently."""
    name = next(name for name in {**here, **there} if there.get(name) != here.get(name))
    return f"its {name} is {json.dumps(there.get(name))}, this search's {json.dumps(here.get(name))}"


def _sync_folder(folder: Path) -> None:
    """Wait until the disk knows of a new file."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
