"""Runs a generated library as firmware of an emulated board: the second opinion on counts, and the only one on Helium.

The device's core runs on a board of Arm's that QEMU knows, with that board's memory map: the device's own is the
business of the emulator, which is the default. Values in and out and memory marks go through semihosting, counts
through a plugin of ours, compiled at first use.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import targets
from ..ir.errors import InternalError, UsageError
from . import artifact as artifacts
from . import cycles, elf, isa, qemu_board
from .artifact import Artifact
from .qemu_board import BOARDS, COMMAND, Board
from .runner import Layer, Measurement, Runner, Session

__all__ = ["BOARDS", "COMMAND", "RUNNER", "Board", "Firmware", "Outcome", "Qemu"]

@dataclass(frozen=True)
class Outcome:
    """What one run of the firmware shows: arrays as stored, exact counts, and memory as it was left.

    Attributes:
        outputs: In the library's order.
        per_function: Instructions, most first.
        arena: Its bytes.
        stack: Likewise, from the lowest address.
        paint: What both were filled with.
        blocks: What the plugin counted.
    """

    outputs: list[np.ndarray]
    per_function: dict[str, int]
    arena: np.ndarray
    stack: np.ndarray
    paint: int
    blocks: str = ""

    @property
    def instructions(self) -> int:
        """Of the library, without the harness."""
        return sum(self.per_function.values())

    @property
    def touched(self) -> tuple[np.ndarray, np.ndarray]:
        """Which bytes of arena and stack differ from the paint; take the union over two paints."""
        return self.arena != pattern(self.arena.size, self.paint), self.stack != pattern(self.stack.size, self.paint)


class Firmware:
    """A library linked as firmware for the board that has its core."""

    def __init__(self, library: Artifact) -> None:
        """Build it in a folder that goes with this object.

        Raises:
            UsageError: No board has the target's core.
            MachineError: QEMU or the compiler is missing.
        """
        self.library = library
        self.target = targets.get(library.target)
        self.board = qemu_board.of(self.target)
        self._folder = tempfile.TemporaryDirectory()
        self.folder = Path(self._folder.name)
        self.places = _places(library, self.board.buffers + 64)
        glue = self.folder / "glue.c"
        glue.write_text(self._glue(), encoding="utf-8")
        self.path = qemu_board.build(
            self.board, self.target, [*library.sources, glue], self.folder / f"{library.name}.elf",
            [library.step or library.run, library.arena], library.stack_bytes + 256,
        )  # fmt: skip
        self.image = elf.load(self.path)

    def _glue(self) -> str:
        """C that calls this library and lists what to hand over."""
        library = self.library
        count = len(library.inputs)
        pointers = [f"({'const ' if i < count else ''}void *){place:#x}" for i, place in enumerate(self.places)]
        sizes = [tensor.nbytes for tensor in library.outputs]
        spans = [f'{{"out{i}", (void *){place:#x}, {size}}}' for i, (place, size) in enumerate(
            zip(self.places[count:], sizes, strict=True))]  # fmt: skip
        spans += [f'{{"arena", {library.arena}, sizeof(es_arena_t)}}', '{"stack", es_stack_low, ES_STACK}']
        arena = _arena_bytes(library)
        steps = ("0", f"((const int *){self.board.buffers:#x})[1]") if library.step else ()
        entry = library.step or library.run
        return "\n".join([
            "#include <stdint.h>",
            f"typedef uint8_t es_arena_t[{arena}];",
            f"#define ES_STACK {library.stack_bytes + 256}",
            "typedef struct { const char *file; const void *data; uint32_t size; } es_dump;",
            f"extern char {library.arena}[]; extern uint8_t es_stack_low[];",
            f"int {entry}({', '.join(['const void *'] * count + ['void *'] * len(sizes) + ['int'] * len(steps))});",
            "__attribute__((section(\".es_harness\"))) int es_call(void)",
            f"{{ return {entry}({', '.join((*pointers, *steps))}); }}",
            "#define DATA __attribute__((section(\".es_harness_data\")))",
            f"DATA volatile uint32_t *es_paint = (volatile uint32_t *){self.board.buffers:#x};",
            f"DATA uint8_t *es_arena_bytes = (uint8_t *){library.arena};",
            f"DATA uint32_t es_arena_size = {arena};",
            f"DATA es_dump es_dumps[] = {{{', '.join(spans)}}};",
            f"DATA uint32_t es_dump_count = {len(spans)};",
            "",
        ])  # fmt: skip

    def call(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One inference: stored values in and out."""
        return self.run(arrays).outputs

    def steps(self, arrays: Sequence[np.ndarray]) -> Iterator[list[bytes]]:
        """What each step leaves in the arena; each time from a fresh start, as the board keeps nothing."""
        for number, step in enumerate(self.library.steps):
            arena = self.run(arrays, last=number).arena
            yield [arena[piece.offset : piece.offset + piece.nbytes].tobytes() for piece in step.outputs]

    def run(self, arrays: Sequence[np.ndarray], paint: int = 0, last: int | None = None) -> Outcome:
        """One inference from a fresh start, up to the step `last`; paints 0 and 255 differ in every bit.

        Raises:
            MachineError: QEMU failed, or took longer than it may.
            InternalError: The core faulted, or the library returned an error.
        """
        with tempfile.TemporaryDirectory() as work:
            last = len(self.library.steps) - 1 if last is None else last
            loads = [f"loader,addr={self.board.buffers:#x},data={paint},data-len=4"]
            loads += [f"loader,addr={self.board.buffers + 4:#x},data={max(last, 0)},data-len=4"]
            for number, (array, place) in enumerate(zip(arrays, self.places, strict=False)):
                (Path(work) / f"in{number}").write_bytes(np.ascontiguousarray(array).tobytes())
                loads.append(f"loader,file=in{number},addr={place:#x},force-raw=on")
            blocks = qemu_board.execute(self.board, self.path, Path(work), loads, self.library.name)
            results = [(Path(work) / f"out{i}").read_bytes() for i in range(len(self.library.outputs))]
            arena, stack = (np.fromfile(Path(work) / name, np.uint8) for name in ("arena", "stack"))
        counts = qemu_board.counts(self.board, self.image, blocks)
        outputs = [
            np.frombuffer(data, tensor.dtype).reshape(tensor.shape)
            for data, tensor in zip(results, self.library.outputs, strict=True)
        ]
        return Outcome(outputs, counts, arena, stack, paint, blocks)

    def estimate(self, outcome: Outcome) -> cycles.Estimate | None:
        """The band of cycles of a run on the device; None where no rules are stated for its core."""
        ram = self.target.ram
        if ram is None or not cycles.has_rules(self.target):
            return None
        # On the device the linker puts the arena behind the stack, at the bottom of RAM.
        streams = cycles.by_region(self.target, self.library.reads, ram.origin + self.library.stack_bytes)
        pieces = qemu_board.pieces(self.board, self.image, outcome.blocks)
        return cycles.estimate_code(self.target, isa.of_machine(self.image.machine), pieces, streams)


def _arena_bytes(library: Artifact) -> int:
    """Bytes of the arena, as its header says."""
    header = "".join(path.read_text(encoding="utf-8") for path in sorted((library.folder / "src").glob("*.h")))
    found = re.search(r"#define \w+_ARENA_BYTES\s+(\d+)", header)
    if not found:
        raise UsageError("the library's header names no size of its arena", where=[str(library.folder)])
    return int(found[1])


def _places(library: Artifact, first: int) -> list[int]:
    """Addresses of inputs and outputs, a cache line apart."""
    places = []
    for tensor in (*library.inputs, *library.outputs):
        places.append(first)
        first += -(-tensor.nbytes // 64) * 64
    return places


def pattern(size: int, paint: int) -> np.ndarray:
    """The paint of `firmware/start.c`."""
    state, found = 0x9E3779B9, np.empty(size, np.uint8)
    for index in range(size):
        state ^= state << 13 & 0xFFFFFFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFFFFFF
        found[index] = (state >> 24) ^ paint
    return found


class Loaded:
    """A session in QEMU: each run is a fresh start of the firmware."""

    def __init__(self, artifact: Path) -> None:
        """Build the firmware."""
        self.firmware = Firmware(artifacts.load(artifact))
        self.device = f"{self.firmware.target.core.name} on {self.firmware.board.machine}"

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference: stored values in and out."""
        library = self.firmware.library
        return library.results(self.firmware.run(library.arrays(inputs)).outputs)[1]

    def layers(self, inputs: Mapping[str, np.ndarray], runs: int) -> tuple[Layer, ...]:
        """None: counts know no time."""
        return ()

    def close(self) -> None:
        """Nothing: the firmware goes with the session."""


@dataclass(frozen=True)
class Qemu:
    """The runner for cores that a board of QEMU has."""

    name: str = "qemu"
    backends: tuple[str, ...] = ("c",)
    kind: str = "emulated"

    def why_not(self) -> str | None:
        """Whether the program is there."""
        return None if shutil.which(COMMAND) else "apt install qemu-system-arm (or your system's package of it)"

    def open(self, artifact: Path) -> Session:
        """Build the firmware."""
        return Loaded(artifact)

    def run(self, artifact: Path, inputs: Mapping[str, np.ndarray]) -> Measurement:
        """Build the firmware, run it on two paints, and compare.

        Raises:
            InternalError: The two runs differ: something is read before it is written.
        """
        firmware = Firmware(artifacts.load(artifact))
        arrays = firmware.library.arrays(inputs)
        first, second = (firmware.run(arrays, paint) for paint in (0, 255))
        if not all(np.array_equal(one, other) for one, other in zip(first.outputs, second.outputs, strict=True)):
            raise InternalError("the result depends on what memory held before", where=[firmware.library.name])
        arena, stack = (np.flatnonzero(one | other) for one, other in zip(first.touched, second.touched, strict=True))
        outputs, stored = firmware.library.results(first.outputs)
        estimated = firmware.estimate(first)
        latency, because = cycles.latency(firmware.target, first.instructions, estimated)
        return Measurement(
            self.name, f"{firmware.target.core.name} on {firmware.board.machine}", "emulated", outputs, stored,
            latency, "estimated" if latency else "unknown", because, first.instructions,
            first.per_function, (), int(arena[-1]) + 1 if arena.size else 0,
            int(first.stack.size - stack[0]) if stack.size else 0, {}, estimated,
        )  # fmt: skip


RUNNER: Runner = Qemu()
