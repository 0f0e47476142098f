"""Machines of QEMU with a core of ours: their memory, how firmware starts on them, and exact counts of what it ran."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..ir.errors import InternalError, MachineError, UsageError
from ..lowering.c import toolchain
from ..targets import Region, Target
from . import elf, isa

__all__ = ["BOARDS", "COMMAND", "SOURCES", "Board", "build", "counts", "execute", "of", "pieces"]

SOURCES = Path(__file__).with_name("firmware")
COMMAND = "qemu-system-arm"
PACKAGES = {COMMAND: "qemu-system-arm", "qemu-system-riscv32": "qemu-system-misc"}
SECONDS = 600.0
MEBI = 1 << 20
FAILURES = {2: "the library returned an error", 3: "the computer took no file", 4: "the core faulted"}


@dataclass(frozen=True)
class Board:
    """A machine of QEMU: where the harness with the vectors lies, where code, data, constants, and where buffers begin.

    The first two words of the buffers are the paint and the last step; inputs and outputs come behind it.
    """

    machine: str
    harness: tuple[int, int]
    regions: tuple[Region, ...]
    buffers: int
    command: str = COMMAND
    options: tuple[str, ...] = ()


def _mps2(machine: str, code: int, data: int, more: int) -> Board:
    regions = (
        Region("flash", code + 0x10000, 4 * MEBI - 0x10000, "flash"),
        Region("ram", data, 4 * MEBI, "ram"),
        Region("external", more, 14 * MEBI, "external_flash"),
    )
    return Board(machine, (code, 0x10000), regions, more + 14 * MEBI)


def _virt(extensions: str) -> Board:
    """RISC-V: 128 MiB of RAM, which begins with what runs first."""
    start = 0x80000000
    regions = (
        Region("flash", start + 0x10000, 4 * MEBI - 0x10000, "flash"),
        Region("ram", start + 4 * MEBI, 4 * MEBI, "ram"),
        Region("external", start + 8 * MEBI, 64 * MEBI, "external_flash"),
    )
    options = ("-bios", "none", "-cpu", f"rv32,{extensions}")
    return Board("virt", (start, 0x10000), regions, start + 72 * MEBI, "qemu-system-riscv32", options)


M55 = (
    Region("flash", 0x01000000, 2 * MEBI, "flash"),
    Region("ram", 0x21000000, 4 * MEBI, "ram"),
    Region("external", 0x60000000, 64 * MEBI, "external_flash"),
)
BOARDS = {
    "cortex-m3": _mps2("mps2-an385", 0, 0x20000000, 0x21000000),
    "cortex-m4": _mps2("mps2-an386", 0, 0x20000000, 0x21000000),
    "cortex-m7": _mps2("mps2-an500", 0, 0x20000000, 0x60000000),
    "cortex-m33": _mps2("mps2-an505", 0x10000000, 0x38000000, 0x80000000),
    "cortex-m55": Board("mps3-an547", (0, 0x10000), M55, 0x64000000),
    "rv32": _virt("a=off,f=off,d=off"),
    "rv32e": _virt("i=off,e=on,m=off,a=off,f=off,d=off,h=off"),
}
"""By core."""


def of(target: Target) -> Board:
    """The board with a target's core.

    Raises:
        UsageError: There is none.
        MachineError: It is in a program of QEMU's that is not installed.
    """
    if target.core.emulator not in BOARDS:
        known = ", ".join(BOARDS)
        raise UsageError(f"no board of QEMU has the core of {target.name}", why=f"there are {known}")
    board = BOARDS[target.core.emulator]
    if not shutil.which(board.command):
        raise MachineError(f"{board.command} is not on the path", do=f"apt install {PACKAGES[board.command]}")
    return board


def build(
    board: Board, target: Target, sources: Sequence[Path], out: Path, keep: Sequence[str], stack: int,
    flags: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Link sources that define what `firmware/start.c` asks for as firmware of a board, for the target's core."""
    device = replace(target, regions=board.regions)
    files = [*sources, SOURCES / "start.c"]
    return toolchain.compile_elf(
        files, device, out, ["es_reset", *keep], stack=stack, flags=flags, harness=board.harness
    )


def execute(board: Board, image: Path, folder: Path, loads: Sequence[str], name: str) -> str:
    """Run firmware until it stops, its files in `folder`; what the plugin counted.

    Args:
        board: The machine.
        image: The linked file.
        folder: Where files to load lie and files that it writes go.
        loads: What is put into memory first, in QEMU's words.
        name: Of what runs, for errors.

    Raises:
        MachineError: QEMU failed, or took longer than it may.
        InternalError: The core faulted, or the program returned an error.
    """
    command = [board.command, "-M", board.machine, *board.options, "-kernel", str(image), "-display", "none"]
    command += ["-monitor", "none", "-serial", "none", "-semihosting-config", "enable=on,target=native"]
    command += ["-plugin", f"file={_plugin(board.command)},out=blocks"]
    command += [part for load in loads for part in ("-device", load)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"{name} did not end in QEMU", why=f"after {SECONDS:.0f} s") from error
    if done.returncode in FAILURES:
        raise InternalError(f"{name}: {FAILURES[done.returncode]}", where=[board.machine])
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise MachineError("QEMU failed", where=[board.machine], why=why[0])
    return (folder / "blocks").read_text(encoding="ascii")


def counts(board: Board, image: elf.Image, text: str) -> dict[str, int]:
    """Instructions by function, most first, the harness left out."""
    found: Counter[str] = Counter()
    for line in text.splitlines():
        address, instructions, executions = map(int, line.split())
        if any(address in region for region in board.regions):
            found[image.function_at(address)] += instructions * executions
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def pieces(board: Board, image: elf.Image, text: str) -> Iterator[tuple[int, bytes, int]]:
    """Code that ran together, the harness left out: its address, its bytes, how often."""
    length = isa.of_machine(image.machine).length
    for line in text.splitlines():
        address, instructions, executions = map(int, line.split())
        if any(address in region for region in board.regions):
            base, code = next((at, code) for at, code, _ in image.segments if at <= address < at + len(code))
            start = end = address - base
            for _ in range(instructions):
                end += length(code[end : end + 2])
            yield address, code[start:end], executions


def _plugin(command: str) -> Path:
    """The counting plugin, compiled once for each version of its source and interface."""
    source = SOURCES / "plugin.c"
    printed = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"version (\d+)", printed)
    version = 1 if release is None or int(release[1]) < 9 else 2
    key = hashlib.sha256(source.read_bytes() + bytes([version])).hexdigest()[:16]
    path = toolchain.cache_folder() / f"qemu-{key}.so"
    if not path.is_file():
        flags = [f"-DPLUGIN_VERSION={version}", "-Wl,--allow-shlib-undefined"]
        built = toolchain.compile_shared([source], path.with_suffix(f".{os.getpid()}.so"), flags=flags)
        built.replace(path)
    return path
