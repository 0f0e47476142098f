"""Runs a generated library on an emulated microcontroller: exact instructions, exact memory, estimated time."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import targets
from ..ir.errors import InternalError
from ..lowering.c import toolchain
from . import artifact as artifacts
from . import cycles, inlining
from .kinds import is_shared
from .machine import Fault, Machine, Result
from .runner import Layer, Measurement, Runner, Session

__all__ = ["RUNNER", "Emulator", "Fault", "Machine", "Profile", "Program", "Result"]


@dataclass(frozen=True)
class Profile:
    """What two inferences over differently painted memory show.

    Attributes:
        raw: Outputs as stored.
        result: Counts of the inference that ran whole.
        arena: Highest arena byte that was written, plus one.
        stack: Deepest stack byte that was written.
        per_step: Instructions of each step, from the inference that ran step by step.
    """

    raw: list[np.ndarray]
    result: Result
    arena: int
    stack: int
    per_step: tuple[int, ...]


class Program:
    """A generated library, built for its target and loaded into the emulator once, called as often as needed."""

    def __init__(self, artifact: Path, *, strict: bool = False, debug: bool = False) -> None:
        """Build the artifact in this folder; `strict` as in `Machine`.

        With `debug` the same code comes with word of what was inlined where, and shared functions are counted by
        caller.
        """
        self.library = artifacts.load(artifact)
        self.target = targets.get(self.library.target)
        entries = [self.library.run, self.library.arena]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{self.library.name}.elf"
            flags = ["-g1"] if debug else []
            stack = self.library.stack_bytes
            toolchain.compile_elf(self.library.sources, self.target, path, entries, stack=stack, flags=flags)
            self.machine = Machine(self.target, path, strict=strict)
            if debug:
                self.inlining = inlining.load(path)
                self.machine.share([f for f in self.machine.image.functions if is_shared(f.name)])
            self.sizes = toolchain.section_sizes(path, self.target)

    def call(self, arrays: Sequence[np.ndarray], *, paint: int = 0) -> tuple[list[np.ndarray], Result]:
        """One inference from a fresh start, on a freshly painted arena and stack: stored values in and out, and counts.

        Inputs lie in the camera's read-only region and outputs in the application's buffer: neither counts as the
        library's memory.
        """
        machine, library = self.machine, self.library
        pointers, places = self._prepare(arrays, paint)
        result = machine.call(library.run, *pointers, *places, paint=paint)
        if result.value:
            raise InternalError(f"{library.run} returned {result.value}", where=[library.name])
        return self._outputs(places), result

    def estimate(self, result: Result) -> cycles.Estimate | None:
        """The band of cycles of a counted inference; None where no rules are stated for the core."""
        if not cycles.has_rules(self.target):
            return None
        streams = cycles.by_region(self.target, self.library.reads, self.machine.address(self.library.arena))
        return cycles.estimate(self.machine, result, streams)

    def steps(self, arrays: Sequence[np.ndarray]) -> Iterator[tuple[list[bytes], Result]]:
        """One inference step by step: what each has made, before a later one takes over its bytes, and its counts."""
        yield from self._stepped(*self._prepare(arrays, 0), paint=0)

    def _stepped(
        self, pointers: Sequence[int], places: Sequence[int], *, paint: int
    ) -> Iterator[tuple[list[bytes], Result]]:
        machine, library = self.machine, self.library
        arena = machine.address(library.arena)
        for number, step in enumerate(library.steps):
            result = machine.call(library.step, *pointers, *places, number, number, paint=paint)
            yield [machine.read(arena + piece.offset, piece.nbytes).tobytes() for piece in step.outputs], result

    def _prepare(self, arrays: Sequence[np.ndarray], paint: int) -> tuple[list[int], list[int]]:
        """A fresh start: addresses of the inputs, and of room for the outputs."""
        self.machine.release()
        self.machine.reload()
        self.machine.paint(self.library.arena, paint)
        pointers = [self.machine.place(array) for array in arrays]
        return pointers, [self.machine.buffer(tensor.nbytes) for tensor in self.library.outputs]

    def _outputs(self, places: Sequence[int]) -> list[np.ndarray]:
        """What the program wrote to its outputs."""
        return [
            self.machine.read(place, int(np.prod(tensor.shape)), tensor.dtype).reshape(tensor.shape)
            for place, tensor in zip(places, self.library.outputs, strict=True)
        ]

    def measure(self, arrays: Sequence[np.ndarray]) -> Profile:
        """Two inferences under opposite paints, the second step by step where the library has steps.

        A byte can agree with one paint by chance, never with both.

        Raises:
            InternalError: The two disagree, so something is read before it is written.
        """
        first, result = self.call(arrays, paint=0)
        touched = self.machine.touched(self.library.arena, 0)
        second, steps = self._again(arrays)
        touched |= self.machine.touched(self.library.arena, 1)
        if not all(np.array_equal(one, other) for one, other in zip(first, second, strict=True)):
            why = "two runs over different bytes in arena and stack disagree: something is read before it is written"
            raise InternalError("the result depends on what memory held before", where=[self.library.name], why=why)
        written = np.flatnonzero(touched)
        arena = int(written[-1]) + 1 if written.size else 0
        per_step = tuple(step.instructions for step in steps) if self.library.steps else ()
        return Profile(first, result, arena, max(each.stack for each in (result, *steps)), per_step)

    def _again(self, arrays: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[Result]]:
        """The second inference: its outputs, and the counts of its steps, or of the whole where it has none."""
        if not self.library.steps:
            outputs, result = self.call(arrays, paint=1)
            return outputs, [result]
        pointers, places = self._prepare(arrays, 1)
        steps = [result for _, result in self._stepped(pointers, places, paint=1)]
        return self._outputs(places), steps


class Loaded:
    """A session on an emulated device: stored values in and out."""

    def __init__(self, artifact: Path) -> None:
        """Build the artifact in this folder for its target and load it."""
        self.program = Program(artifact)
        self.device = self.program.target.title

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference."""
        library = self.program.library
        return library.results(self.program.call(library.arrays(inputs))[0])[1]

    def layers(self, inputs: Mapping[str, np.ndarray], runs: int) -> tuple[Layer, ...]:
        """None: an emulator counts instructions and knows no time."""
        return ()

    def close(self) -> None:
        """Nothing: the machine goes with the session."""


@dataclass(frozen=True)
class Emulator:
    """The runner for every target whose core the emulator knows."""

    name: str = "emulator"
    backends: tuple[str, ...] = ("c",)
    kind: str = "emulated"

    def why_not(self) -> str | None:
        """Which of the compiler, the emulator and the ELF reader is missing."""
        wanted = {"ziglang": "ziglang", "unicorn": "unicorn", "elftools": "pyelftools"}
        missing = [package for module, package in wanted.items() if importlib.util.find_spec(module) is None]
        return f"pip install {' '.join(missing)}" if missing else None

    def open(self, artifact: Path) -> Session:
        """Build the artifact for its target."""
        return Loaded(artifact)

    def run(self, artifact: Path, inputs: Mapping[str, np.ndarray]) -> Measurement:
        """Build the artifact for its target, run it twice on differently painted memory, and measure.

        Raises:
            Fault: The program did what the device forbids.
            InternalError: The two runs differ.
        """
        program = Program(artifact)
        found = program.measure(program.library.arrays(inputs))
        result = found.result
        outputs, stored = program.library.results(found.raw)
        estimated = program.estimate(result)
        latency, because = cycles.latency(program.target, result.instructions, estimated)
        return Measurement(
            self.name, program.target.title, "emulated", outputs, stored, latency,
            "estimated" if latency else "unknown", because, result.instructions, result.per_function, found.per_step,
            found.arena, found.stack, program.sizes.regions, estimated,
        )  # fmt: skip


RUNNER: Runner = Emulator()
