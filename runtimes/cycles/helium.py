"""The Cortex-M55: scalars like a Cortex-M33's, and vectors in two beats, after LLVM's published model of the core.

Arm publishes no table. `ARMScheduleM55.td` of LLVM, written at Arm, says: a vector instruction takes two beats, which
overlap with those of another pipe but not of its own; the pipes are loads and stores, integers, and products; addresses
that come from a vector are needed four cycles ahead; two instructions of 16 bits may issue together if one is simple.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .term import Term

if TYPE_CHECKING:
    from .code import Block, Instruction

__all__ = ["terms", "unit"]

ACCESSES, GATHERS, PRODUCTS, OTHERS, LOOPS = "access", "gather", "product", "vector", "loop"
VECTORS = {ACCESSES, GATHERS, PRODUCTS, OTHERS}

WHY = {
    "narrow instructions": (0.5, 1, "two of 16 bits issue together where one of them is simple"),
    "wide instructions": (1, 1, "one cycle each"),
    "late results": (0, 1, "loads, products and saturations take a second cycle if the next instruction waits for it"),
    "further words": (0.5, 1, "lists and pairs of registers move one or two words a cycle"),
    "vector cycles": (1, 1, "one issues a cycle, and two beats in one pipe need two"),
    "further beats": (0, 1, "where the next instruction needs the same pipe, or the result"),
    "gathered addresses": (0, 4, "addresses from a vector are needed four cycles ahead"),
    "ends of loops": (0, 1, "a low-overhead loop that is cached repeats without its last instruction"),
    "taken branches": (1, 3, "no prediction: the pipeline is filled again"),
    "divisions": (1, 11, "2 to 12 cycles, by the operands"),
    "slow floats": (14, 15, "division and square root take 15 or 16 cycles"),
    "float sums of products": (2, 3, "3 or 4 cycles"),
}
"""Cycles that each adds at least and at most, and why."""


def unit(code: bytes) -> str:
    """What kind of Helium instruction or end of a loop four bytes are; "" for any other."""
    if len(code) < 4:
        return ""
    first, second = int.from_bytes(code[:2], "little"), int.from_bytes(code[2:], "little")
    space, coprocessor = first >> 8 & 0xEF, second >> 9 & 7
    if first & 0xFF80 == 0xF000 and second & 0xC001 == 0xC001:
        return LOOPS
    if space in (0xEC, 0xED) and coprocessor == 7:
        if first & 0x01A0 == 0:  # registers of the core to lanes
            return OTHERS
        scattered = first & 0x01A0 == 0x0080 and not second & 0x1000
        return GATHERS if scattered or (first >> 8 == 0xFD and second & 0x1000) else ACCESSES
    if space == 0xEE and coprocessor == 7:
        return PRODUCTS if first & 0x00F0 == 0x00F0 else OTHERS
    return OTHERS if space == 0xEF else ""


def terms(blocks: Iterable[Block]) -> list[Term]:
    """Terms of a run."""
    low: Counter[str] = Counter()
    high: Counter[str] = Counter()
    for block in blocks:
        for name, count in _counts(block.instructions).items():
            low[name] += count * block.count
            high[name] += count * block.count
        low["taken branches"] += block.taken[0]
        high["taken branches"] += block.taken[1]
    return [Term(name, high[name], least * low[name] / high[name], most, why)
            for name, (least, most, why) in WHY.items() if high[name]]  # fmt: skip


def _counts(lines: tuple[Instruction, ...]) -> Counter[str]:
    """How often each rule applies in one pass through a block."""
    found: Counter[str] = Counter()
    units: Counter[str] = Counter()
    for line in lines:
        if line.name in VECTORS:
            units[line.name] += 1
            continue
        if line.name == LOOPS:
            found["ends of loops"] += 1
            continue
        found["narrow instructions" if line.bytes == 2 else "wide instructions"] += 1
        found["late results"] += (line.single and line.loads) or line.multiplies or line.name in ("ssat", "usat")
        found["further words"] += max(0, line.words - 1)
        found["divisions"] += line.name in ("sdiv", "udiv")
        found["slow floats"] += line.name in ("vdiv", "vsqrt")
        found["float sums of products"] += line.name.startswith(("vml", "vfm", "vnml"))
    vectors = sum(units.values())
    least = max(vectors, 2 * (units[ACCESSES] + units[GATHERS]), 2 * units[PRODUCTS])
    found["vector cycles"] += least
    found["further beats"] += 2 * vectors - least
    found["gathered addresses"] += units[GATHERS]
    return found
