"""Runs a generated library on this computer: the same C as a shared object, for values in milliseconds."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..ir.errors import InternalError
from ..lowering.c import toolchain
from . import artifact as artifacts
from .runner import Layer, Measurement, Runner, Session

__all__ = ["RUNNER", "Host", "Program"]

DEVICE = f"this computer ({platform.machine()})"


class Program:
    """A generated library, built for this computer once and called as often as needed: many images, one compilation."""

    def __init__(self, artifact: Path) -> None:
        """Build the artifact in this folder and load it."""
        self.library = artifacts.load(artifact)
        with tempfile.TemporaryDirectory() as folder:
            path = toolchain.compile_shared(self.library.sources, Path(folder) / f"{self.library.name}.so")
            self._loaded = ctypes.CDLL(str(path))

    def call(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One inference: stored values in, in the entry's order, and fresh arrays of stored values out."""
        raw = self._room()
        self._call(self.library.run, *_pointers(arrays), *_pointers(raw))
        return raw

    def steps(self, arrays: Sequence[np.ndarray]) -> Iterator[list[bytes]]:
        """One inference step by step: what each has made, before a later one takes over its bytes."""
        library, raw = self.library, self._room()
        arena = ctypes.addressof(ctypes.c_char.in_dll(self._loaded, library.arena))
        for number, step in enumerate(library.steps):
            self._call(library.step, *_pointers(arrays), *_pointers(raw), number, number)
            yield [ctypes.string_at(arena + piece.offset, piece.nbytes) for piece in step.outputs]

    def times(self, arrays: Sequence[np.ndarray]) -> list[float]:
        """One inference step by step: milliseconds of each."""
        raw, found = self._room(), []
        for number in range(len(self.library.steps)):
            began = time.perf_counter()
            self._call(self.library.step, *_pointers(arrays), *_pointers(raw), number, number)
            found.append((time.perf_counter() - began) * 1e3)
        return found

    def _room(self) -> list[np.ndarray]:
        return [np.zeros(tensor.shape, tensor.dtype) for tensor in self.library.outputs]

    def _call(self, symbol: str, *arguments: ctypes.c_void_p | int) -> None:
        if status := self._loaded[symbol](*arguments):
            raise InternalError(f"{symbol} returned {status}", where=[self.library.name])


def _pointers(arrays: Sequence[np.ndarray]) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(array.ctypes.data) for array in arrays]


class Loaded:
    """A session on this computer: stored values in and out."""

    device = DEVICE

    def __init__(self, artifact: Path) -> None:
        """Build the artifact in this folder and load it."""
        self.program = Program(artifact)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference."""
        library = self.program.library
        return library.results(self.program.call(library.arrays(inputs)))[1]

    def layers(self, inputs: Mapping[str, np.ndarray], runs: int) -> tuple[Layer, ...]:
        """Time by step of the program."""
        library = self.program.library
        times = np.median([self.program.times(library.arrays(inputs)) for _ in range(runs)], axis=0)
        return tuple(Layer(step.name, step.kind, float(ms)) for step, ms in zip(library.steps, times, strict=True))

    def close(self) -> None:
        """Nothing: a shared object stays loaded as long as the process lives."""


@dataclass(frozen=True)
class Host:
    """The runner for this computer; after one run to warm up, the time is that of `repeats` runs."""

    name: str = "host"
    backends: tuple[str, ...] = ("c",)
    kind: str = "measured"
    repeats: int = 5

    def why_not(self) -> str | None:
        """What is missing."""
        return None if importlib.util.find_spec("ziglang") else "pip install ziglang"

    def open(self, artifact: Path) -> Session:
        """Build the artifact for this computer."""
        return Loaded(artifact)

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
        return Measurement(self.name, DEVICE, "measured", outputs, stored, band, "measured", f"{self.repeats} runs")


RUNNER: Runner = Host()
