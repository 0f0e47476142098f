"""Runs a generated library on this computer: the same C as a shared object, for values in milliseconds."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..ir.errors import InternalError
from ..lowering.c import toolchain
from . import artifact as artifacts
from .runner import Measurement, Runner

__all__ = ["RUNNER", "Host"]


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
        library = artifacts.load(artifact)
        arrays = library.arrays(inputs)
        raw = [np.zeros(tensor.shape, tensor.dtype) for tensor in library.outputs]
        with tempfile.TemporaryDirectory() as folder:
            path = toolchain.compile_shared(library.sources, Path(folder) / f"{library.name}.so")
            entry = ctypes.CDLL(str(path))[library.run]
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (*arrays, *raw)]
        times, first = [], None
        for _ in range(1 + self.repeats):
            began = time.perf_counter()
            status = entry(*pointers)
            times.append((time.perf_counter() - began) * 1e3)
            if status:
                raise InternalError(f"{library.run} returned {status}", where=[library.name])
            first = first or [array.copy() for array in raw]
            if not all(np.array_equal(one, other) for one, other in zip(first, raw, strict=True)):
                raise InternalError("the second run gave another result than the first", where=[library.name])
        outputs, stored = library.results(raw)
        band = min(times[1:]), max(times[1:])
        device = f"this computer ({platform.machine()})"
        return Measurement(self.name, device, "measured", outputs, stored, band, "measured", f"{self.repeats} runs")


RUNNER: Runner = Host()
