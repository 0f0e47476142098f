"""RISC-V microcontrollers: an in-order pipeline that issues one instruction a cycle.

ESP32-C3: four stages, a multiplier and a divider (its technical reference manual, chapter 1). CH32V003's QingKe V2A:
two stages (its processor manual). Neither vendor publishes cycles by instruction; what such a pipeline leaves open is a
band.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from .code import Block
from .term import Term

__all__ = ["NOTE", "terms"]

NOTE = "no table of cycles is published for this core: beyond one cycle each, the bounds are those of any such pipeline"

LOADS = {"lb", "lbu", "lh", "lhu", "lw", "lwsp"}
STORES = {"sb", "sh", "sw", "swsp"}
DIVIDES = {"div", "divu", "rem", "remu"}

RULES: Mapping[str, tuple[float, float, str]] = {
    "instructions": (1, 1, "one cycle each at least"),
    "loads": (0, 1, "a loaded word may come a cycle late"),
    "stores": (0, 1, "a store may hold the memory for a cycle"),
    "products": (0, 1, "a product may come a cycle late"),
    "divisions": (0, 33, "at most one cycle for each bit and one more"),
    "taken branches": (1, 3, "the stages in front are filled again"),
}
"""Cycles that each adds at least and at most, and why."""


def terms(blocks: Iterable[Block]) -> list[Term]:
    """Terms of a run."""
    low: Counter[str] = Counter()
    high: Counter[str] = Counter()
    for block in blocks:
        for line in block.instructions:
            for rule in ("instructions", _rule(line.name)):
                low[rule] += block.count
                high[rule] += block.count
        low["taken branches"] += block.taken[0]
        high["taken branches"] += block.taken[1]
    return [Term(name, high[name], least * low[name] / high[name], most, why)
            for name, (least, most, why) in RULES.items() if high[name]]  # fmt: skip


def _rule(name: str) -> str:
    """What else applies to an instruction of this name."""
    if name in LOADS:
        return "loads"
    if name in STORES:
        return "stores"
    if name in DIVIDES:
        return "divisions"
    return "products" if name.startswith("mul") else ""
