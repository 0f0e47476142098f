"""Cores that issue one instruction a cycle: Cortex-M0+, M3, M4 and M33, after the tables of their technical manuals.

M3 and M4: Arm 100165 and 100166, table 3-1. M0+: Arm DDI 0484, table 3-1, with the fast multiplier. For the M33 Arm
states less; what a rule leaves open is a band.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .code import DIVIDES, SLOW_FLOATS, Block, Instruction
from .term import Term

if TYPE_CHECKING:
    from collections import Counter

__all__ = ["terms"]

Rule = tuple[float, float, str]
RULES: Mapping[str, Rule] = {
    "instructions": (1, 1, "one cycle each"),
    "first loads": (1, 1, "a load takes a second cycle"),
    "following loads": (0, 1, "a load right behind a load or store may hide its second cycle"),
    "stores": (0, 1, "the write buffer hides a store's second cycle unless it is full"),
    "further words": (1, 1, "lists and pairs of registers take a cycle a word, and one more"),
    "taken branches": (1, 3, "the pipeline is filled again; how soon depends on the target"),
    "divisions": (1, 11, "2 to 12 cycles, by the operands"),
    "long products": (2, 6, "3 to 7 cycles on a Cortex-M3"),
    "sums of products": (1, 1, "2 cycles on a Cortex-M3"),
    "slow floats": (13, 13, "division and square root take 14 cycles"),
    "float sums of products": (2, 2, "3 cycles"),
}
"""Cycles that each adds at least and at most, and why."""

LATER: Mapping[str, Rule] = {
    "first loads": (0, 1, "a load may take a second cycle"),
    "further words": (0, 1, "lists and pairs of registers take a cycle a word; whether one more is not stated"),
    "taken branches": (0, 2, "filled again, or fetched ahead"),
}
"""What differs on a Cortex-M33."""

SMALL: Mapping[str, Rule] = {
    "first loads": (1, 1, "a load takes a second cycle"),
    "following loads": (1, 1, "a load takes a second cycle, whatever stands before it"),
    "stores": (1, 1, "a store takes a second cycle"),
    "further words": (1, 1, "lists of registers take a cycle a word, and one more"),
    "taken branches": (1, 1, "a taken branch takes two cycles"),
    "calls and returns": (1, 1, "BL, and POP with the return address, take a third"),
}
"""What differs on a Cortex-M0+."""

OWN: Mapping[str, Mapping[str, Rule]] = {"cortex-m33": LATER, "cortex-m0plus": SMALL}


def terms(core: str, blocks: Iterable[Block]) -> list[Term]:
    """Terms of a run on a core of this family."""
    from collections import Counter

    low: Counter[str] = Counter()
    high: Counter[str] = Counter()
    for block in blocks:
        found = _counts(core, block.instructions)
        for name, count in found.items():
            low[name] += count * block.count
            high[name] += count * block.count
        low["taken branches"] += block.taken[0]
        high["taken branches"] += block.taken[1]
    rules = {**RULES, **OWN.get(core, {})}
    return [_term(name, low[name], high[name], rules[name]) for name in rules if high[name]]


def _term(name: str, fewest: int, most: int, rule: Rule) -> Term:
    """A count that is a band itself widens the cycles of each: the least of the fewest, the most of the most."""
    low, high, why = rule
    return Term(name, most, low * fewest / most, high, why)


def _counts(core: str, lines: tuple[Instruction, ...]) -> Counter[str]:
    """How often each rule applies in one pass through a block."""
    from collections import Counter

    found: Counter[str] = Counter()
    behind = False
    for line in lines:
        found["instructions"] += 1
        if line.single and line.loads:
            found["following loads" if behind else "first loads"] += 1
        elif line.single:
            found["stores"] += 1
        found["further words"] += line.words
        found["divisions"] += line.name in DIVIDES
        found["slow floats"] += line.name in SLOW_FLOATS
        found["float sums of products"] += line.name.startswith(("vml", "vfm", "vnml"))
        if core == "cortex-m0plus":
            found["calls and returns"] += line.name == "bl" or (line.name == "pop" and line.jumps)
        if core == "cortex-m3" and line.multiplies:
            long = line.name.startswith(("umul", "smul", "umla", "smla"))
            found["long products" if long else "sums of products"] += line.name != "mul"
        behind = line.single
    return found
