"""Runs a generated library on an emulated microcontroller: exact instructions, exact memory, estimated time."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import targets
from ..ir.errors import InternalError
from ..lowering.c import toolchain
from . import artifact as artifacts
from .machine import Fault, Machine, Result
from .runner import Measurement, Runner

__all__ = ["RUNNER", "Emulator", "Fault", "Machine", "Result", "run_machine"]


@dataclass(frozen=True)
class Emulator:
    """The runner for every target whose core the emulator knows."""

    name: str = "emulator"

    def why_not(self) -> str | None:
        """Which of the compiler, the emulator and the ELF reader is missing."""
        wanted = {"ziglang": "ziglang", "unicorn": "unicorn", "elftools": "pyelftools"}
        missing = [package for module, package in wanted.items() if importlib.util.find_spec(module) is None]
        return f"pip install {' '.join(missing)}" if missing else None

    def run(self, artifact: Path, inputs: Mapping[str, np.ndarray]) -> Measurement:
        """Build the artifact for its target, run it twice on differently painted memory, and measure.

        Raises:
            Fault: The program did what the device forbids.
            InternalError: The two runs differ, so something is read before it is written.
        """
        library = artifacts.load(artifact)
        target = targets.get(library.target)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{library.name}.elf"
            entries = [library.run, library.arena]
            toolchain.compile_elf(library.sources, target, path, entries, stack=library.stack_bytes)
            machine = Machine(target, path)
            sizes = toolchain.section_sizes(path, target)
        raw, result, arena, stack = run_machine(machine, library, library.arrays(inputs))
        outputs, stored = library.results(raw)
        latency = target.estimate_ms(result.instructions)
        return Measurement(
            self.name, target.title, "emulated", outputs, stored, latency,
            "estimated" if latency else "unknown", target.latency.because if target.latency else "",
            result.instructions, result.per_function, arena, stack, sizes.regions,
        )  # fmt: skip


def run_machine(
    machine: Machine, library: artifacts.Artifact, arrays: list[np.ndarray]
) -> tuple[list[np.ndarray], Result, int, int]:
    """One inference under two opposite paints: outputs, counts, and the exact high-water marks of arena and stack.

    A byte can agree with one paint by chance, never with both. Inputs lie in the camera's read-only region and outputs
    in the application's buffer: neither counts as the library's memory.
    """
    seen: list[tuple[list[np.ndarray], Result]] = []
    touched = np.zeros(machine.image.symbol(library.arena).size, bool)
    for paint in (0, 1):
        machine.release()
        machine.reload()
        machine.paint(library.arena, paint)
        pointers = [machine.place(array) for array in arrays]
        places = [machine.buffer(tensor.nbytes) for tensor in library.outputs]
        result = machine.call(library.run, *pointers, *places, paint=paint)
        if result.value:
            raise InternalError(f"{library.run} returned {result.value}", where=[library.name])
        touched |= machine.touched(library.arena, paint)
        outputs = [
            machine.read(place, int(np.prod(tensor.shape)), tensor.dtype).reshape(tensor.shape)
            for place, tensor in zip(places, library.outputs, strict=True)
        ]
        seen.append((outputs, result))
    (first, result), (second, again) = seen
    if not all(np.array_equal(one, other) for one, other in zip(first, second, strict=True)):
        why = "two runs over different bytes in arena and stack disagree: something is read before it is written"
        raise InternalError("the result depends on what memory held before", where=[library.name], why=why)
    written = np.flatnonzero(touched)
    arena = int(written[-1]) + 1 if written.size else 0
    return first, result, arena, max(result.stack, again.stack)


RUNNER: Runner = Emulator()
