"""Many samples through one build of a generated program: accuracy over hundreds of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import emulator, host

__all__ = ["program", "stored"]

Array = np.ndarray[Any, np.dtype[Any]]
Feeds = Mapping[str, Array]


def stored(program: emulator.Program | host.Program, samples: Iterable[Feeds]) -> Iterator[dict[str, Array]]:
    """Outputs of each sample as the integers the program writes."""
    names = [tensor.name for tensor in program.library.outputs]
    for feeds in samples:
        arrays = program.library.arrays(feeds)
        raw = program.call(arrays)[0] if isinstance(program, emulator.Program) else program.call(arrays)
        yield dict(zip(names, raw, strict=True))


def program(name: str, folder: Path) -> emulator.Program | host.Program:
    """Build an artifact for the runner of that name."""
    return emulator.Program(folder) if name == "emulator" else host.Program(folder)
