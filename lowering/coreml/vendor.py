"""Apple's package coremltools: whether it is there, and its import, quiet off a Mac and without what it needs not."""

from __future__ import annotations

import importlib
import importlib.util
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

from ...ir.errors import MachineError

__all__ = ["EXTRA", "coremltools", "mil", "optimizer", "quiet", "why_not"]

EXTRA = "pip install edgesmith[coreml]"
FRAMEWORKS = ("torch", "tensorflow", "sklearn", "xgboost")


def why_not() -> str | None:
    """What to install before coremltools can be used; None when it is there."""
    return None if importlib.util.find_spec("coremltools") else EXTRA


@contextmanager
def quiet() -> Iterator[None]:
    """Keep its warnings and progress bars off the screen: what is missing off a Mac is no news to anyone."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR + 1)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _apart() -> Iterator[None]:
    """Let imports in the block find no framework that coremltools could convert from, unless it is loaded already.

    It loads each that is installed, which takes seconds and hundreds of MiB; our programs come from none.
    """
    modules: dict[str, Any] = sys.modules
    hidden = [name for name in FRAMEWORKS if name not in modules]
    modules.update(dict.fromkeys(hidden))  # None: as if it were not there
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]


def coremltools() -> Any:
    """The package. One that was not loaded before cannot convert from `FRAMEWORKS` in this process.

    Raises:
        MachineError: It is not installed, or does not load.
    """
    if missing := why_not():
        raise MachineError("coremltools is not installed", do=missing)
    with quiet(), _apart():
        try:
            found = importlib.import_module("coremltools")
            importlib.import_module("coremltools.libmilstoragepython")
            return found
        except ImportError as error:
            raise MachineError("coremltools does not load", why=str(error), do=EXTRA) from error


def mil() -> Any:
    """Its builder of MIL programs, where names count from nothing again."""
    coremltools()
    with quiet(), _apart():
        found = importlib.import_module("coremltools.converters.mil.mil")
    found.Builder.name_count.clear()
    return found


def optimizer() -> Any:
    """Its ways to store weights in fewer bits."""
    coremltools()
    with quiet(), _apart():
        return importlib.import_module("coremltools.optimize.coreml")
