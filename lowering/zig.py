"""Zig's C compiler as a Python package: how to call it, and where it keeps what it has built."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from ..ir.errors import MachineError

__all__ = ["cache_folder", "command", "environment"]


def cache_folder() -> Path:
    """Where compilers and built helpers are kept between runs: $EDGESMITH_CACHE, else the user's cache folder.

    Raises:
        MachineError: The folder cannot be made.
    """
    home = os.environ.get("EDGESMITH_CACHE")
    base = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edgesmith"
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what, do = "there is no place for compiled helpers", "set EDGESMITH_CACHE to a folder that can be written"
        raise MachineError(what, where=[str(base)], why=str(error), do=do) from error
    return base


def command() -> tuple[str, ...]:
    """The start of its command line.

    Raises:
        MachineError: It is not installed.
    """
    if importlib.util.find_spec("ziglang") is None:
        raise MachineError("no C compiler: the Python package 'ziglang' is missing", do="pip install ziglang")
    return (sys.executable, "-m", "ziglang", "cc")


def environment() -> dict[str, str]:
    """This process's environment, with zig's caches in our own folder."""
    folder = str(cache_folder() / "zig")
    return dict(os.environ, ZIG_GLOBAL_CACHE_DIR=folder, ZIG_LOCAL_CACHE_DIR=folder)
