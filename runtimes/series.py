"""Many samples through one build of a generated program: accuracy over hundreds of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import artifact as artifacts
from . import emulator, host, qemu
from .divergence import Program

__all__ = ["program", "stored"]

Array = np.ndarray[Any, np.dtype[Any]]
Feeds = Mapping[str, Array]


def stored(program: Program, samples: Iterable[Feeds]) -> Iterator[dict[str, Array]]:
    """Outputs of each sample as the integers the program writes."""
    names = [tensor.name for tensor in program.library.outputs]
    for feeds in samples:
        arrays = program.library.arrays(feeds)
        raw = program.call(arrays)[0] if isinstance(program, emulator.Program) else program.call(arrays)
        yield dict(zip(names, raw, strict=True))


def program(name: str, folder: Path) -> Program:
    """Build an artifact for the runner of that name."""
    if name == "qemu":
        return qemu.Firmware(artifacts.load(folder))
    return emulator.Program(folder) if name == "emulator" else host.Program(folder)
