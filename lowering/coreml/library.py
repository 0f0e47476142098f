"""The one door to coremltools: whether it is there, and its import without the noise it makes off a Mac."""

from __future__ import annotations

import importlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

from ...ir.errors import MachineError

__all__ = ["EXTRA", "coremltools", "mil", "optimizer", "quiet", "why_not"]

EXTRA = "pip install edgesmith[coreml]"


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


def coremltools() -> Any:
    """The package.

    Raises:
        MachineError: It is not installed, or does not load.
    """
    if missing := why_not():
        raise MachineError("coremltools is not installed", do=missing)
    with quiet():
        try:
            found = importlib.import_module("coremltools")
            importlib.import_module("coremltools.libmilstoragepython")
            return found
        except ImportError as error:
            raise MachineError("coremltools does not load", why=str(error), do=EXTRA) from error


def mil() -> Any:
    """Its builder of MIL programs, where names count from nothing again."""
    coremltools()
    with quiet():
        found = importlib.import_module("coremltools.converters.mil.mil")
    found.Builder.name_count.clear()
    return found


def optimizer() -> Any:
    """Its ways to store weights in fewer bits."""
    coremltools()
    with quiet():
        return importlib.import_module("coremltools.optimize.coreml")
