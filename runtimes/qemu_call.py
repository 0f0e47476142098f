"""Calls of single functions on QEMU's boards, as `Machine` makes them, for cores that no other emulator knows."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..ir.errors import UsageError
from ..targets import Target
from . import elf, qemu_board

__all__ = ["Caller", "Count"]

GLUE = """\
#include <stdint.h>
#define HARNESS __attribute__((section(".es_harness")))
#define DATA __attribute__((section(".es_harness_data")))
typedef struct {{ const char *file; const void *data; uint32_t size; }} es_dump;
typedef void es_function({parameters});
typedef struct {{ uint32_t paint; es_function *function; uint32_t size; int arguments[{most}]; }} es_frame;
static const es_frame *const frame = (const es_frame *){buffers:#x};
DATA volatile uint32_t *es_paint = (volatile uint32_t *){buffers:#x};
DATA uint8_t *es_arena_bytes = 0;
DATA uint32_t es_arena_size = 0;
DATA es_dump es_dumps[] = {{{{"buffers", (void *){first:#x}, 0}}}};
DATA uint32_t es_dump_count = 1;
HARNESS int es_call(void)
{{
    es_dumps[0].size = frame->size;
    frame->function({arguments});
    return 0;
}}
"""
MOST = 32
"""Arguments that a call can have; those beyond a function's own are ignored by it."""
STACK = 8192


@dataclass(frozen=True)
class Count:
    """Executed instructions of a call, in all and by function, most first."""

    instructions: int
    per_function: dict[str, int]


class Caller:
    """Functions linked as firmware, and the buffers that their arguments point to."""

    def __init__(self, target: Target, sources: Sequence[Path], entries: Sequence[str], flags: Sequence[str] = ()):
        """Build the firmware in a folder that goes with this object.

        Raises:
            UsageError: No board has the target's core.
            MachineError: QEMU or the compiler is missing.
        """
        self.board = qemu_board.of(target)
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        self._first = self.board.buffers + 4 * (3 + MOST) + 63 & ~63
        glue = folder / "glue.c"
        glue.write_text(GLUE.format(
            buffers=self.board.buffers, first=self._first, most=MOST, parameters=", ".join(["int"] * MOST),
            arguments=", ".join(f"frame->arguments[{i}]" for i in range(MOST)),
        ))  # fmt: skip
        path = qemu_board.build(self.board, target, [*sources, glue], folder / "calls.elf", entries, STACK, flags)
        self.image = elf.load(path)
        self._bytes = bytearray()

    def release(self) -> None:
        """Give back all buffers."""
        self._bytes.clear()

    def buffer(self, size: int) -> int:
        """Address of `size` fresh bytes, on a boundary of 64."""
        at = len(self._bytes)
        self._bytes += bytes(size + 63 & ~63)
        return self._first + at

    def write(self, where: int, array: np.ndarray) -> None:
        """Copy an array into buffers."""
        data = np.ascontiguousarray(array).tobytes()
        self._bytes[where - self._first : where - self._first + len(data)] = data

    def read(self, where: int, count: int, dtype: str = "uint8") -> np.ndarray:
        """`count` items of a numpy type from buffers, as the last call left them."""
        return np.frombuffer(bytes(self._bytes), dtype, count, where - self._first)

    def call(self, function: str, *arguments: int) -> Count:
        """Run a function from a fresh start of the board; its value is not read.

        Raises:
            MachineError: QEMU failed.
            InternalError: The core faulted.
        """
        if len(arguments) > MOST:
            raise UsageError(f"{function} has {len(arguments)} arguments", why=f"calls have {MOST} at most")
        thumb = self.image.machine == "EM_ARM"
        words = [0, self.image.symbol(function).address | thumb, len(self._bytes), *arguments]
        frame = np.array(words + [0] * (3 + MOST - len(words)), np.int64).astype(np.uint32)
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work)
            head = frame.tobytes().ljust(self._first - self.board.buffers, b"\0")
            (folder / "memory").write_bytes(head + self._bytes)
            loads = [f"loader,file=memory,addr={self.board.buffers:#x},force-raw=on"]
            blocks = qemu_board.execute(self.board, self.image.path, folder, loads, function)
            self._bytes[:] = (folder / "buffers").read_bytes()
        per_function = qemu_board.counts(self.board, self.image, blocks)
        return Count(sum(per_function.values()), per_function)
