"""Runs a generated library on this computer: the same C as a shared object, for values in milliseconds."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..ir.errors import InternalError
from ..lowering.c import toolchain
from . import artifact as artifacts
from .runner import Measurement, Runner

__all__ = ["RUNNER", "Host", "Program"]


class Program:
    """A generated library, built for this computer once and called as often as needed: many images, one compilation."""

    def __init__(self, artifact: Path) -> None:
        """Build the artifact in this folder and load it."""
        self.library = artifacts.load(artifact)
        with tempfile.TemporaryDirectory() as folder:
            path = toolchain.compile_shared(self.library.sources, Path(folder) / f"{self.library.name}.so")
            self._entry = ctypes.CDLL(str(path))[self.library.run]

    def call(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One inference: stored values in, in the entry's order, and fresh arrays of stored values out."""
        raw = [np.zeros(tensor.shape, tensor.dtype) for tensor in self.library.outputs]
        if status := self._entry(*(ctypes.c_void_p(array.ctypes.data) for array in (*arrays, *raw))):
            raise InternalError(f"{self.library.run} returned {status}", where=[self.library.name])
        return raw


@dataclass(frozen=True)
class Host:
    """The runner for this computer; after one run to warm up, the time is that of `repeats` runs."""

    name: str = "host"
    repeats: int = 5

    def why_not(self) -> str | None:
        """What is missing."""
        return None if importlib.util.find_spec("ziglang") else "pip install ziglang"

    def run(self, artifact: Path, inputs: Mapping[str, np.ndarray]) -> Measurement:
        """Build the artifact for this computer and run it.

        Raises:
            InternalError: The library reports an error, or its repeats disagree.
        """
        program = Program(artifact)
        arrays = program.library.arrays(inputs)
        raw = program.call(arrays)
        times = []
        for _ in range(self.repeats):
            began = time.perf_counter()
            again = program.call(arrays)
            times.append((time.perf_counter() - began) * 1e3)
            if not all(np.array_equal(one, other) for one, other in zip(raw, again, strict=True)):
                raise InternalError("a second run gave another result than the first", where=[program.library.name])
        outputs, stored = program.library.results(raw)
        band = min(times), max(times)
        device = f"this computer ({platform.machine()})"
        return Measurement(self.name, device, "measured", outputs, stored, band, "measured", f"{self.repeats} runs")


RUNNER: Runner = Host()
