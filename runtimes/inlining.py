"""Which functions of the source each address came from: the chains of inlined calls that debug information tells."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Inlining", "load"]

FUNCTIONS = ("DW_TAG_subprogram", "DW_TAG_inlined_subroutine")
Span = tuple[int, int, tuple[str, ...]]


@dataclass(frozen=True)
class Inlining:
    """Stretches of code and the chain of each: `starts[i]` to `starts[i + 1]` came through `chains[i]`."""

    starts: tuple[int, ...]
    chains: tuple[tuple[str, ...], ...]

    def chain(self, address: int) -> tuple[str, ...]:
        """Names of functions, from the one that is really called to the innermost; empty where nothing is known."""
        index = bisect_right(self.starts, address) - 1
        return self.chains[index] if index >= 0 else ()


def load(path: Path) -> Inlining:
    """Read the debug information of a linked file; one built without has no chains."""
    from elftools.elf.elffile import ELFFile

    spans: list[Span] = []
    with path.open("rb") as stream:
        file = ELFFile(stream)
        if file.has_dwarf_info():
            dwarf = file.get_dwarf_info()
            for unit in dwarf.iter_CUs():
                for die in unit.get_top_DIE().iter_children():
                    _collect(dwarf, die, (), spans)
    return _flatten(spans)


def _collect(dwarf: Any, die: Any, above: tuple[str, ...], spans: list[Span]) -> None:
    """All functions at and below an entry; an inner one comes after the one that it was inlined into."""
    if die.tag in FUNCTIONS:
        above = (*above, _name(die))
        spans += [(low, high, above) for low, high in _ranges(dwarf, die) if high > low]
    for child in die.iter_children():
        _collect(dwarf, child, above, spans)


def _name(die: Any) -> str:
    """The function's name, which an inlined copy takes from its origin."""
    while "DW_AT_name" not in die.attributes and "DW_AT_abstract_origin" in die.attributes:
        die = die.get_DIE_from_attribute("DW_AT_abstract_origin")
    name = die.attributes.get("DW_AT_name")
    return name.value.decode() if name else ""


def _ranges(dwarf: Any, die: Any) -> list[tuple[int, int]]:
    """The addresses [low, high) of an entry, which may lie in several pieces."""
    from elftools.dwarf.descriptions import describe_form_class
    from elftools.dwarf.ranges import BaseAddressEntry

    attributes = die.attributes
    if "DW_AT_ranges" in attributes:
        base = die.cu.get_top_DIE().attributes.get("DW_AT_low_pc")
        start = base.value if base else 0
        found = []
        for entry in dwarf.range_lists().get_range_list_at_offset(attributes["DW_AT_ranges"].value, die.cu):
            if isinstance(entry, BaseAddressEntry):
                start = entry.base_address
            else:
                shift = 0 if entry.is_absolute else start
                found.append((entry.begin_offset + shift, entry.end_offset + shift))
        return found
    if "DW_AT_low_pc" not in attributes or "DW_AT_high_pc" not in attributes:
        return []
    low, high = attributes["DW_AT_low_pc"].value, attributes["DW_AT_high_pc"]
    return [(low, low + high.value if describe_form_class(high.form) == "constant" else high.value)]


def _flatten(spans: list[Span]) -> Inlining:
    """Nested spans as stretches that follow each other, each with its innermost chain."""
    edges = sorted({edge for low, high, _ in spans for edge in (low, high)})
    places = {edge: index for index, edge in enumerate(edges)}
    chains: list[tuple[str, ...]] = [()] * len(edges)
    for low, high, chain in sorted(spans, key=lambda span: len(span[2])):
        for index in range(places[low], places[high]):
            chains[index] = chain
    return Inlining(tuple(edges), tuple(chains))
