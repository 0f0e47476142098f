"""Links a generated library as firmware for the board of its target: everything in the chip, nothing set up for it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from ..ir.errors import InternalError, UsageError
from ..lowering import artifact as artifacts
from ..lowering.c import toolchain
from ..targets import Board, Target
from .artifact import Artifact

__all__ = ["Firmware"]

SOURCES = Path(__file__).with_name("firmware")
ENTRY = "es_reset"
HARNESS = 16 * 1024
"""Bytes at the start of flash for vectors, protocol and driver."""


class Firmware:
    """A library as an ELF file for a board, in a folder that goes with this object.

    Attributes:
        image: The file.
        build: Digest of all that it was made of; the board tells the same, or something else is on it.
        board: What the target's file says of it.
    """

    def __init__(self, library: Artifact, target: Target) -> None:
        """Build it.

        Raises:
            UsageError: The target's file describes no board, or a driver that there is none of.
            BudgetError: Arena, inputs and outputs together do not fit the RAM, or weights the internal flash.
            MachineError: The compiler is missing.
        """
        self.board = board_of(target)
        driver = SOURCES / f"uart_{self.board.uart}.c"
        if not driver.is_file():
            known = ", ".join(sorted(path.stem.removeprefix("uart_") for path in SOURCES.glob("uart_*.c")))
            raise UsageError(f"there is no serial driver '{self.board.uart}'", do=f"use one of {known}")
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        sources = [*library.sources, SOURCES / "board.c", driver]
        self.build = _digest(library, [*sources, SOURCES / "uart.h"], _glue(library, self.board, ""))
        glue = folder / "glue.c"
        glue.write_text(_glue(library, self.board, self.build), encoding="utf-8")
        within, harness = _inside(target)
        flags = [
            f"-DES_UART_BASE={self.board.base:#x}u", f"-DES_UART_BAUD={self.board.baud}u",
            f"-DES_UART_CLOCK={self.board.uart_hz or self.board.clock_hz}u", f"-I{SOURCES}",
        ]  # fmt: skip
        self.image = toolchain.compile_elf(
            [*sources, glue], within, folder / f"{library.name}.elf", [ENTRY, library.run, library.arena],
            stack=library.stack_bytes + 256, harness=harness, flags=flags,
        )  # fmt: skip
        sections = toolchain.section_sizes(self.image, within).sections
        if found := sorted({".data", ".bss"} & set(sections)):
            raise InternalError("the library has variables that nothing would initialise", where=found)


def board_of(target: Target) -> Board:
    """The board that a target's file describes.

    Raises:
        UsageError: It describes none.
    """
    if target.board is None:
        do = "add a [board] table to a target file of your own, see docs/board.md"
        raise UsageError(f"nothing is known of a board with {target.name}", do=do)
    return target.board


def _inside(target: Target) -> tuple[Target, tuple[int, int]]:
    """The target without what lies outside the chip, which nobody sets up here, and the flash's start for the harness.

    Vectors have to lie where the core looks for them, at the very start.
    """
    flash = target.of_kind("flash")[0]
    rest = replace(flash, origin=flash.origin + HARNESS, size=flash.size - HARNESS)
    inside = tuple(region for region in target.regions if region.kind not in ("flash", "external_flash"))
    regions = tuple(sorted((*inside, rest), key=lambda region: region.origin))
    return replace(target, regions=regions), (flash.origin, HARNESS)


def _digest(library: Artifact, sources: list[Path], glue: str) -> str:
    headers = sorted({header for source in library.sources for header in source.parent.glob("*.h")})
    whole = b"".join(path.read_bytes() for path in [*sources, *headers])
    return artifacts.digest(whole + glue.encode())


def _glue(library: Artifact, board: Board, build: str) -> str:
    """C that gives the firmware this library's buffers, its call, and this board's registers."""
    count = len(library.inputs)
    tensors = (*library.inputs, *library.outputs)
    names = [f"es_buffer_{i}" for i in range(len(tensors))]
    # ISO C has no empty arrays.
    setup = board.setup or ((0, 0, 0),)
    title = board.title.encode("ascii", "replace").decode().replace("\\", "/").replace('"', "'")
    return "\n".join([
        "#include <stdint.h>",
        '#define STATE static __attribute__((section(".es_arena.firmware"), aligned(8)))',
        *(f"STATE uint8_t {name}[{tensor.nbytes}];" for name, tensor in zip(names, tensors, strict=True)),
        "typedef struct { uint8_t *data; uint32_t size; } es_buffer;",
        f"const es_buffer es_buffers[] = {{{', '.join(f'{{{name}, sizeof {name}}}' for name in names)}}};",
        f"const uint32_t es_input_count = {count}, es_buffer_count = {len(tensors)};",
        f"const uint32_t es_setup_count = {len(board.setup)};",
        "const uint32_t es_setup[][3] = {",
        *(f"    {{{address:#x}u, {clear:#x}u, {bits:#x}u}}," for address, clear, bits in setup),
        "};",
        f'const char es_identity[] = "{build} {title}";',
        f"int {library.run}({', '.join(['const void *'] * count + ['void *'] * len(library.outputs))});",
        f'__attribute__((section(".es_harness"))) int es_call(void) {{ return {library.run}({", ".join(names)}); }}',
        "",
    ])  # fmt: skip
