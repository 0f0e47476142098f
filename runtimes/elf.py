"""What a run needs to know of a linked file: segments to load, symbols to find, and how floats are passed."""

from __future__ import annotations

import difflib
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..ir.errors import UsageError

__all__ = ["Image", "Symbol", "load"]


@dataclass(frozen=True)
class Symbol:
    """A function or object: its address (functions without the Thumb bit) and its size in bytes."""

    name: str
    address: int
    size: int
    is_function: bool


@dataclass(frozen=True)
class Image:
    """A linked file: `segments` of (address, bytes, bytes to zero after them), symbols by name."""

    path: Path
    segments: tuple[tuple[int, bytes, int], ...]
    symbols: dict[str, Symbol]
    executable: tuple[tuple[int, int], ...] = field(default=())
    has_fpu: bool = False

    def symbol(self, name: str) -> Symbol:
        """The symbol of that name; raises `UsageError` with the closest names."""
        if name in self.symbols:
            return self.symbols[name]
        near = difflib.get_close_matches(name, self.symbols, 5)
        why = f"it has {', '.join(near)}" if near else "nothing in it is called alike; unused code is dropped"
        raise UsageError(f"{self.path.name} has no symbol '{name}'", why=why, do="keep it through `entries`")

    @cached_property
    def _functions(self) -> tuple[list[int], list[Symbol]]:
        ordered = sorted((s for s in self.symbols.values() if s.is_function), key=lambda s: s.address)
        return [symbol.address for symbol in ordered], ordered

    def function_at(self, address: int) -> str:
        """Name of the function an address lies in; the address in hexadecimal where none does."""
        starts, functions = self._functions
        index = bisect_right(starts, address) - 1
        if index >= 0 and address < functions[index].address + max(functions[index].size, 2):
            return functions[index].name
        return f"{address:#010x}"


def load(path: Path) -> Image:
    """Read an ELF file for a Cortex-M core."""
    from elftools.elf.elffile import ELFFile

    with path.open("rb") as stream:
        elf = ELFFile(stream)
        segments, executable = [], []
        for segment in elf.iter_segments("PT_LOAD"):
            address, stored, size = segment["p_vaddr"], segment["p_filesz"], segment["p_memsz"]
            segments.append((address, segment.data(), size - stored))
            if segment["p_flags"] & 1 and stored:
                executable.append((address, address + stored))
        symbols = {}
        table: Any = elf.get_section_by_name(".symtab")
        for entry in table.iter_symbols() if table else ():
            kind = entry["st_info"]["type"]
            if entry.name and not entry.name.startswith("$") and entry["st_shndx"] != "SHN_UNDEF":
                address = entry["st_value"] & ~1 if kind == "STT_FUNC" else entry["st_value"]
                symbols[entry.name] = Symbol(entry.name, address, entry["st_size"], kind == "STT_FUNC")
        tags: Any = elf.get_section_by_name(".ARM.attributes")
        has_fpu = tags is not None and any(
            attribute.tag == "TAG_FP_ARCH" and attribute.value
            for vendor in tags.iter_subsections()
            for part in vendor.iter_subsubsections()
            for attribute in part.iter_attributes()
        )  # fmt: skip
    return Image(path, tuple(segments), symbols, tuple(executable), bool(has_fpu))
