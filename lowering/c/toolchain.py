"""C sources to an ELF for a device or a shared object for this computer, refusing what compilers accept in silence."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...ir.errors import UsageError
from ...targets import Target
from ..zig import cache_folder
from .compilers import Compiler, find, probe, run

__all__ = [
    "Compiler", "Sizes", "cache_folder", "compile_elf", "compile_shared", "find", "linker_script", "probe",
    "section_sizes",
]  # fmt: skip

# Contraction would make the host and the device differ in the last bit; strict aliasing must not depend on -O.
COMMON = ("-std=c11", "-g0", "-ffp-contract=off", "-fno-math-errno", "-fno-strict-aliasing", "-fomit-frame-pointer")
DEVICE = ("-ffreestanding", "-ffunction-sections", "-fdata-sections")
WARNINGS = ("-Wall", "-Wextra", "-Werror=implicit-function-declaration")

SHF_WRITE, SHF_ALLOC, SHT_SYMTAB, SHT_NOBITS, STT_FUNC = 1, 2, 2, 8, 2  # the ELF format's own numbers

# Code that only drives a run (camera, callbacks) lies outside every real region, so that no budget counts it.
HARNESS_ORIGIN, HARNESS_SIZE = 0x68000000, 0x10000


def linker_script(
    target: Target, entries: Sequence[str], stack: int, harness: tuple[int, int] = (HARNESS_ORIGIN, HARNESS_SIZE)
) -> str:
    """The linker script of a target: code and constants in flash, `.es_external` in external flash, the rest in RAM.

    The stack lies at the bottom of RAM and grows towards its edge: too deep a call faults at once instead of writing
    into the arena, and on parts with tightly coupled RAM the stack and the arena's start are the fast bytes.
    """
    ram, flash = target.ram, target.of_kind("flash")
    if ram is None or not flash:
        raise UsageError(f"target {target.name} has no memory map to link for", do="run it on this computer: --on host")
    external = target.of_kind("external_flash")
    memory = [("FLASH", "rx", flash[0].origin, flash[0].size), ("RAM", "rw", ram.origin, ram.size)]
    memory += [("EXTERNAL", "r", external[0].origin, external[0].size)] if external else []
    memory += [("HARNESS", "rwx", *harness)]
    lines = [f"  {name} ({flags}) : ORIGIN = {at:#010x}, LENGTH = {size}" for name, flags, at, size in memory]
    return "\n".join(
        [
            *([f"ENTRY({entries[0]})", f"EXTERN({' '.join(entries)})"] if entries else []),
            "MEMORY {", *lines, "}",
            "SECTIONS {",
            f"  .es_stack (NOLOAD) : {{ es_stack_low = .; . = . + {stack}; es_stack_high = .; }} > RAM",
            "  .es_arena (NOLOAD) : { *(.es_arena .es_arena.*) } > RAM",
            "  .es_harness : { KEEP(*(.es_vectors)) *(.es_harness .es_harness.*) *(.es_harness_data) } > HARNESS",
            "  .text : { KEEP(*(.vectors)) *(.text .text.*) } > FLASH",
            "  .rodata : { *(.rodata .rodata.*) } > FLASH",
            f"  .es_external : {{ *(.es_external .es_external.*) }} > {'EXTERNAL' if external else 'FLASH'}",
            "  .data : { *(.data .data.*) } > RAM AT> FLASH",
            "  .bss (NOLOAD) : { *(.bss .bss.* COMMON) } > RAM",
            "  /DISCARD/ : { *(.ARM.exidx*) *(.ARM.extab*) *(.comment) }",
            "}",
            "",
        ]
    )  # fmt: skip


def _sources(sources: Path | Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The C files and the folders to search for headers, of a folder or a list of files."""
    files = sorted(sources.glob("*.c")) if isinstance(sources, Path) and sources.is_dir() else []
    if not files:
        files = [sources] if isinstance(sources, Path) else [Path(file) for file in sources]
    missing = [str(file) for file in files if not file.is_file()]
    if missing or not files:
        raise UsageError("no C sources to compile", where=missing or [str(sources)])
    return files, sorted({file.parent for file in files})


def _data_digest(files: Iterable[Path], folders: Iterable[Path]) -> tuple[str, ...]:
    """A flag that changes with the data beside sources that use `.incbin`: zig's cache does not see what that reads."""
    if not any(b".incbin" in file.read_bytes() for file in files):
        return ()
    total = hashlib.sha256()
    for path in sorted(path for folder in folders for path in folder.iterdir()):
        if path.is_file() and path.suffix not in (".c", ".h"):
            total.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return (f"-DES_DATA_DIGEST={int(total.hexdigest()[:8], 16)}u",)


def compile_elf(
    sources: Path | Sequence[Path],
    target: Target,
    out: Path,
    entries: Sequence[str] = (),
    *,
    stack: int = 8192,
    optimise: str = "-O3",
    flags: Sequence[str] = (),
    compiler: Compiler | None = None,
    harness: tuple[int, int] = (HARNESS_ORIGIN, HARNESS_SIZE),
) -> Path:
    """Compile and link for a target: no C library, no start-up code, the linker script of the target's memory map.

    Args:
        sources: A folder (all its `*.c`) or a list of files; their folders are searched for headers.
        target: The device.
        out: Path of the ELF file; the linker script is written beside it.
        entries: Symbols to keep, with all that they reach; the rest is dropped.
        stack: Bytes kept for the stack, between the symbols `es_stack_low` and `es_stack_high`.
        optimise: `-O1` or higher: at -O0 zig links a sanitiser's run time of 370 KB.
        flags: More compiler flags, such as `-DNAME=1`.
        compiler: What `find` returns for the target.
        harness: Where code that only drives a run lies: (origin, bytes).

    Returns:
        `out`.

    Raises:
        MachineError: No compiler, a missing feature, or sources that do not compile.
        BudgetError: A memory region is too small.
    """
    compiler = compiler or find(target)
    if optimise == "-O0":
        raise UsageError("-O0 is not supported for a device", why="zig links its sanitiser then", do="-O1 or higher")
    layout = linker_script(target, entries, stack, harness)
    probe(target, compiler)
    files, folders = _sources(sources)
    out.parent.mkdir(parents=True, exist_ok=True)
    script = out.with_suffix(".ld")
    script.write_text(layout, encoding="utf-8")
    # lld drops the symbol table at -Os and -Oz unless debug information is asked for; emulation needs it.
    debug = ("-g",) if optimise in ("-Os", "-Oz") else ()
    command = [*compiler.command, *compiler.target_flags(target), optimise, *COMMON, *debug, *DEVICE, *WARNINGS]
    command += [*(f"-I{folder}" for folder in folders), *_data_digest(files, folders), *flags]
    command += ["-Wl,--gc-sections", f"-Wl,-T,{script}"] + ([f"-Wl,-e,{entries[0]}"] if entries else [])
    command += ["-fstack-size-section"] if compiler.name == "zig" else []
    command += [*map(str, files), *compiler.library_flags(target), "-o", str(out)]
    run(command, what=f"could not build for {target.name}", where=files)
    return out


def compile_shared(
    sources: Path | Sequence[Path],
    out: Path,
    *,
    optimise: str = "-O2",
    flags: Sequence[str] = (),
    compiler: Compiler | None = None,
) -> Path:
    """Compile the same sources into a shared object for this computer, with the same arithmetic; returns `out`."""
    compiler = compiler or find()
    files, folders = _sources(sources)
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [*compiler.command, optimise, *COMMON, *WARNINGS, "-fPIC", "-shared", *flags]
    command += [*(f"-I{folder}" for folder in folders), *_data_digest(files, folders)]
    run([*command, *map(str, files), "-o", str(out)], what="could not build for this computer", where=files)
    return out


@dataclass(frozen=True)
class Sizes:
    """Bytes of a linked file.

    Attributes:
        sections: Address and size by name.
        regions: Summed by memory region of the target.
        functions: Of the code by function, the largest first; of names that stand for one function, the first.
    """

    sections: dict[str, tuple[int, int]]
    regions: dict[str, int]
    functions: dict[str, int]

    @property
    def code(self) -> int:
        """Bytes of machine code with its literals."""
        return self.sections.get(".text", (0, 0))[1]


def section_sizes(elf: Path, target: Target) -> Sizes:
    """What a linked file occupies: initialised data count in RAM and again in flash, where their image lies."""
    image = elf.read_bytes()
    if image[:5] != b"\x7fELF\x01":
        raise UsageError("not a 32-bit ELF file", where=[str(elf)])
    (table,) = struct.unpack_from("<I", image, 32)
    size, count, strings = struct.unpack_from("<HHH", image, 46)
    headers = [struct.unpack_from("<10I", image, table + index * size) for index in range(count)]
    names = headers[strings][4]
    sections: dict[str, tuple[int, int]] = {}
    regions = dict.fromkeys((region.name for region in target.regions), 0)
    flash = target.of_kind("flash")[0].name
    for name, kind, flags, address, _, length, *_ in headers:
        if not flags & SHF_ALLOC or not length:
            continue
        text = image[names + name : image.index(b"\0", names + name)].decode()
        sections[text] = (address, length)
        for region in target.regions:
            regions[region.name] += max(0, min(address + length, region.end) - max(address, region.origin))
        if flags & SHF_WRITE and kind != SHT_NOBITS:
            regions[flash] += length
    symbols = next((each for each in headers if each[1] == SHT_SYMTAB), None)
    functions = _functions(image, symbols, headers[symbols[6]][4], *sections.get(".text", (0, 0))) if symbols else {}
    return Sizes(sections, regions, functions)


def _functions(image: bytes, symbols: tuple[int, ...], names: int, start: int, length: int) -> dict[str, int]:
    """Bytes of every function from `start` on that a symbol table names; one address may have several names."""
    found: dict[int, tuple[str, int]] = {}
    table = image[symbols[4] : symbols[4] + symbols[5]]
    for at, address, size, info, _, _ in struct.iter_unpack("<IIIBBH", table):
        if info & 15 == STT_FUNC and start <= address < start + length and size:
            each = image[names + at : image.index(b"\0", names + at)].decode(), size
            found[address] = min(found.get(address, each), each)
    sizes: Counter[str] = Counter()
    for name, size in found.values():
        sizes[name] += size  # local functions may share a name
    return dict(sizes.most_common())
