"""What a run needs to know of a linked file: segments to load, symbols to find, and how floats are passed."""

from __future__ import annotations

import difflib
from bisect import bisect_right
from dataclasses import dataclass
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

    def __contains__(self, address: int) -> bool:
        """Whether an address lies inside."""
        return self.address <= address < self.address + self.size


@dataclass(frozen=True)
class Image:
    """A linked file.

    Attributes:
        path: The file.
        segments: What to load: (address, bytes, number of zero bytes after them).
        symbols: By name; of local ones that share a name, the last.
        functions: By address, those that share a name included.
        executable: Address ranges of code.
        machine: The architecture, as ELF names it: "EM_ARM", "EM_RISCV".
        has_fpu: Whether it was built for a core with a floating-point unit.
    """

    path: Path
    segments: tuple[tuple[int, bytes, int], ...]
    symbols: dict[str, Symbol]
    functions: tuple[Symbol, ...]
    executable: tuple[tuple[int, int], ...]
    machine: str
    has_fpu: bool

    def symbol(self, name: str) -> Symbol:
        """The symbol of that name; raises `UsageError` with the closest names."""
        if name in self.symbols:
            return self.symbols[name]
        near = difflib.get_close_matches(name, self.symbols, 5)
        why = f"it has {', '.join(near)}" if near else "nothing in it is called alike; unused code is dropped"
        raise UsageError(f"{self.path.name} has no symbol '{name}'", why=why, do="keep it through `entries`")

    @cached_property
    def _starts(self) -> list[int]:
        return [function.address for function in self.functions]

    def find_function(self, address: int) -> Symbol | None:
        """The function an address lies in."""
        index = bisect_right(self._starts, address) - 1
        if index >= 0 and address < self.functions[index].address + max(self.functions[index].size, 2):
            return self.functions[index]
        return None

    def function_at(self, address: int) -> str:
        """Name of the function an address lies in; the address in hexadecimal where none does."""
        found = self.find_function(address)
        return found.name if found else f"{address:#010x}"


def load(path: Path) -> Image:
    """Read an ELF file for a microcontroller."""
    from elftools.elf.elffile import ELFFile

    with path.open("rb") as stream:
        elf = ELFFile(stream)
        machine = str(elf["e_machine"])
        segments, executable = [], []
        for segment in elf.iter_segments("PT_LOAD"):
            address, stored, size = segment["p_vaddr"], segment["p_filesz"], segment["p_memsz"]
            segments.append((address, segment.data(), size - stored))
            if segment["p_flags"] & 1 and stored:
                executable.append((address, address + stored))
        symbols: list[Symbol] = []
        table: Any = elf.get_section_by_name(".symtab")
        for entry in table.iter_symbols() if table else ():
            kind = entry["st_info"]["type"]
            if entry.name and not entry.name.startswith("$") and entry["st_shndx"] != "SHN_UNDEF":
                address = entry["st_value"] & ~1 if kind == "STT_FUNC" else entry["st_value"]
                symbols.append(Symbol(entry.name, address, entry["st_size"], kind == "STT_FUNC"))
        tags: Any = elf.get_section_by_name(".ARM.attributes")
        has_fpu = tags is not None and any(
            attribute.tag == "TAG_FP_ARCH" and attribute.value
            for vendor in tags.iter_subsections()
            for part in vendor.iter_subsubsections()
            for attribute in part.iter_attributes()
        )  # fmt: skip
    functions = sorted((s for s in symbols if s.is_function), key=lambda s: (s.address, s.name))
    named = {symbol.name: symbol for symbol in symbols}
    return Image(path, tuple(segments), named, tuple(functions), tuple(executable), machine, bool(has_fpu))
