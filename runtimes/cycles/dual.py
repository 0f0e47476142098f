"""The Cortex-M7, which issues up to two instructions a cycle in order: a scoreboard per block, under two sets of rules.

Arm publishes no timing. The rules are what others observed and what LLVM's model of the core says; where these leave
something open, or nobody measured it, one set takes it for the program and the other against it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .code import DIVIDES, SIMD, SLOW_FLOATS, Block, Instruction
from .term import Term

__all__ = ["scoreboard", "terms"]

DIVISION, FLOAT_DIVISION = (3, 12), (14, 16)
MISPREDICTED = 8
LEFT_OPEN = "loaded words wait a cycle, one access a cycle, sums are not forwarded, operands of shifts are needed early"


@dataclass(frozen=True)
class Rules:
    """What is taken for the program, or against it.

    Attributes:
        end: 0 for the program, 1 against it: which end of a band counts.
        two_accesses: Two loads, or a load and a store, issue together.
        forwards: A sum of products can be added to in the next cycle.
        early: Registers that pass the shifter are needed a cycle before others.
        load: Cycles until a loaded word can be used.
    """

    end: int
    load: int
    two_accesses: bool
    forwards: bool
    early: bool


FOR, AGAINST = Rules(0, 1, True, True, False), Rules(1, 2, False, False, True)


def terms(blocks: Iterable[Block]) -> list[Term]:
    """Terms of a run."""
    certain = doubtful = 0
    taken = [0, 0]
    rare = 0
    for block in blocks:
        least = scoreboard(block.instructions, FOR)
        certain += block.count * least
        doubtful += block.count * max(0, scoreboard(block.instructions, AGAINST) - least)
        taken = [sum(pair) for pair in zip(taken, block.taken, strict=True)]
        rare += block.rare
    found = [
        Term("issue cycles", certain, 1, 1, "two a cycle wherever operands and units allow it"),
        Term("doubtful cycles", doubtful, 0, 1, LEFT_OPEN),
        Term("taken branches", taken[1], 0, 1, "a branch that is predicted may still lose a cycle"),
        Term("unusual branches", rare, 0, MISPREDICTED, "refilling the pipeline where the prediction fails"),
    ]
    return [term for term in found if term.count]


def scoreboard(lines: Iterable[Instruction], rules: Rules) -> int:
    """Cycles from the first issue of a block to the one behind its last, with nothing left over from before."""
    ready: dict[str, int] = {}
    sums: dict[str, int] = {}
    cycle, issued = 0, list[Instruction]()
    for line in lines:
        at = max((_needed(line, register, ready, sums, rules) for register in line.reads), default=0)
        if at > cycle:
            cycle, issued = at, []
        if issued and (len(issued) == 2 or not _pairs(issued[0], line, rules)):
            cycle, issued = cycle + 1, []
        issued.append(line)
        for register in line.writes:
            ready[register] = cycle + _latency(line, rules)
            sums[register] = cycle + 1 if line.accumulates and rules.forwards else ready[register]
        busy = _occupies(line, rules)
        if busy > 1:
            cycle, issued = cycle + busy, []
    return cycle + (1 if issued else 0)


def _needed(line: Instruction, register: str, ready: dict[str, int], sums: dict[str, int], rules: Rules) -> int:
    """When an operand can be used at the earliest."""
    if register in line.accumulates:
        return sums.get(register, 0)
    return ready.get(register, 0) + (rules.early and register in line.shifted and register in ready)


def _latency(line: Instruction, rules: Rules) -> int:
    """Cycles from issue until a result can be used."""
    if line.loads:
        return rules.load
    if line.multiplies:
        return 2
    if line.name in DIVIDES:
        return DIVISION[rules.end]
    return FLOAT_DIVISION[rules.end] if line.name in SLOW_FLOATS else 1


def _occupies(line: Instruction, rules: Rules) -> int:
    """Cycles in which nothing else issues: lists move two words a cycle at best, one at worst."""
    if line.words <= 2:
        return 1
    return (line.words + 1) // 2 if rules.end == 0 else line.words


def _pairs(older: Instruction, younger: Instruction, rules: Rules) -> bool:
    """Whether two neighbours issue together; that the younger does not wait for the older is known already."""
    if older.jumps or older.writes & younger.writes - {"cpsr"}:
        return False
    if younger.multiplies or younger.name in SIMD or younger.name in DIVIDES:
        return False  # only the older slot leads to these units
    if older.shifts and younger.shifts:
        return False
    accesses = [line for line in (older, younger) if line.loads or line.stores]
    if len(accesses) == 2:
        return rules.two_accesses and not all(line.stores for line in accesses)
    return True
