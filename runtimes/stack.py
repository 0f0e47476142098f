"""The deepest stack a function can need, read from its machine code: a bound for every input, not one run's mark."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..ir.errors import InternalError
from . import elf
from .isa import Isa, of_machine

__all__ = ["Bound", "stack_bound"]

SHF_ALLOC = 2  # the ELF format's own number


@dataclass(frozen=True)
class Bound:
    """Bytes of stack a call can need at most, the chain of functions that needs them, and what the bound leaves out.

    Attributes:
        bytes: The bound.
        chain: Functions from the root to the deepest.
        indirect: Functions that call through a pointer; what they call comes on top.
    """

    bytes: int
    chain: tuple[str, ...]
    indirect: tuple[str, ...]


@dataclass(frozen=True)
class _Function:
    name: str
    frame: int
    calls: tuple[int, ...]
    indirect: bool
    unbounded: str


def stack_bound(path: Path, root: str) -> Bound:
    """Bound the stack of `root` over all paths of the call graph.

    A frame is the larger of what the compiler noted (`.stack_sizes`) and the sum of all pushes and subtractions in the
    code, so that inline assembly counts too; a tail call is taken as a call, which can only make the bound larger.

    Raises:
        InternalError: Recursion, or a stack pointer moved by an amount that is only known at run time.
    """
    image = elf.load(path)
    functions = _functions(path, image, of_machine(image.machine))
    deepest: dict[int, tuple[int, tuple[str, ...]]] = {}
    indirect: list[str] = []

    def visit(address: int, above: tuple[int, ...]) -> tuple[int, tuple[str, ...]]:
        if address not in functions:
            raise InternalError("a call leads to code without a symbol", where=[f"{address:#010x}"])
        function = functions[address]
        if function.unbounded:
            why = f"'{function.unbounded}' moves the stack pointer by an amount known at run time only"
            raise InternalError("the stack has no bound", where=[function.name], why=why)
        if address in above:
            why = " -> ".join(functions[caller].name for caller in (*above[above.index(address) :], address))
            raise InternalError("recursion has no bound on its stack", where=[function.name], why=why)
        if address not in deepest:
            if function.indirect:
                indirect.append(function.name)
            below = max((visit(callee, (*above, address)) for callee in function.calls), default=(0, ()))
            deepest[address] = function.frame + below[0], (function.name, *below[1])
        return deepest[address]

    total, chain = visit(image.symbol(root).address, ())
    return Bound(total, chain, tuple(sorted(indirect)))


def _functions(path: Path, image: elf.Image, isa: Isa) -> dict[int, _Function]:
    """Frame and callees of every function of a file, by address."""
    noted, data = _noted(path)
    engine = isa.disassembler()
    found = {}
    for symbol in image.functions:
        lines = _disassemble(engine, symbol.name, _code(image, symbol, data))
        callees, indirect = set(), False
        for line in lines:
            address, returns = isa.calls(line)
            if address is None:
                indirect |= returns
            # Small cores jump far with the instruction that calls: into the middle of a function, it is a jump.
            elif (returns and address == symbol.address) or address not in symbol:
                inside = image.find_function(address)
                callees.add(inside.address if inside else address)
        frame = max(sum(map(isa.lowers, lines)), noted.get(symbol.address, 0))
        found[symbol.address] = _Function(symbol.name, frame, tuple(sorted(callees)), indirect, isa.varies(lines))
    return found


def _disassemble(engine: Any, function: str, parts: list[tuple[int, bytes]]) -> list[Any]:
    """All instructions of a function; the disassembler stops in silence at one it does not know."""
    lines = [line for address, part in parts for line in engine.disasm(part, address)]
    missing = sum(len(part) for _, part in parts) - sum(line.size for line in lines)
    if missing:
        raise InternalError("the disassembler cannot read the code", where=[function], why=f"{missing} bytes left")
    return lines


def _code(image: elf.Image, symbol: elf.Symbol, data: list[tuple[int, bool]]) -> list[tuple[int, bytes]]:
    """The parts of a function that are instructions: literals between them would disassemble to nonsense."""
    end = symbol.address + symbol.size
    for start, content, _ in image.segments:
        if start <= symbol.address < start + len(content):
            # Marks before the function collapse onto its start, where the last of them tells how it begins.
            marks = dict((max(address, symbol.address), is_data) for address, is_data in data if address < end)
            edges = [*sorted(marks.items()), (end, True)]
            return [
                (low, content[low - start : high - start])
                for (low, is_data), (high, _) in pairwise(edges)
                if not is_data and high > low
            ]
    return []


def _noted(path: Path) -> tuple[dict[int, int], list[tuple[int, bool]]]:
    """Frames the compiler noted, by address, and where code (False) and data (True) begin, by address."""
    from elftools.elf.elffile import ELFFile

    frames, marks = {}, []
    with path.open("rb") as stream:
        file = ELFFile(stream)
        section = file.get_section_by_name(".stack_sizes")
        content = section.data() if section is not None else b""
        at = 0
        while at < len(content):
            address = int.from_bytes(content[at : at + 4], "little") & ~1
            at, size, shift = at + 4, 0, 0
            while True:
                byte = content[at]
                size, shift, at = size | (byte & 127) << shift, shift + 7, at + 1
                if byte < 128:
                    break
            frames[address] = size
        table: Any = file.get_section_by_name(".symtab")
        loaded = {index for index, section in enumerate(file.iter_sections()) if section["sh_flags"] & SHF_ALLOC}
        for entry in table.iter_symbols() if table else ():
            if entry.name[:2] in ("$t", "$x", "$d") and entry["st_shndx"] in loaded:
                marks.append((entry["st_value"] & ~1, entry.name[1] == "d"))
    return frames, sorted(marks)
