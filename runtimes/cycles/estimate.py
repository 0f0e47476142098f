"""From a counted run to a band of cycles: the core's rules, and what memory adds by the bytes that come from where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import dual, helium, riscv, single
from .code import Piece, decoded
from .term import Term

if TYPE_CHECKING:
    from ...targets import Target
    from ..isa import Isa
    from ..machine import Machine, Result

__all__ = ["Estimate", "Term", "estimate", "estimate_code", "has_rules", "latency", "stalls"]

SINGLE = ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m33")
RISCV = ("rv32imc", "rv32ec")


@dataclass(frozen=True)
class Estimate:
    """Cycles of one inference as a sum of terms; `because` says what narrowed the band, if anything did.

    `note`: what the terms rest on or leave out.
    """

    terms: tuple[Term, ...]
    band: tuple[float, float] | None = None
    because: str = ""
    note: str = ""

    @property
    def cycles(self) -> tuple[float, float]:
        """The band: what the rules leave open, or what a calibration left of it."""
        return self.band or (sum(term.least for term in self.terms), sum(term.most for term in self.terms))

    @property
    def core(self) -> tuple[float, float]:
        """Without waiting for memory."""
        work = [term for term in self.terms if not term.stall]
        return sum(term.least for term in work), sum(term.most for term in work)

    @property
    def stalls(self) -> tuple[float, float]:
        """Waiting for memory only."""
        waits = [term for term in self.terms if term.stall]
        return sum(term.least for term in waits), sum(term.most for term in waits)

    @property
    def reason(self) -> str:
        """Where the band comes from, in a sentence."""
        (low, high), (idle, idlest) = self.core, self.stalls
        rules = "; ".join(f"{term.name}: {term.why}" for term in self.terms)
        waits = f", and {idle / 1e6:,.1f} to {idlest / 1e6:,.1f} M of waiting for memory" if idlest else ""
        found = f"{low / 1e6:,.1f} to {high / 1e6:,.1f} M cycles of the core{waits}"
        return f"{found}; {self.because or 'not calibrated on a board'}. {rules}{self.note and '. ' + self.note}"

    def milliseconds(self, clock_hz: int) -> tuple[float, float]:
        """The band in time."""
        low, high = self.cycles
        return low * 1e3 / clock_hz, high * 1e3 / clock_hz

    def json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "cycles": list(self.cycles), "core": list(self.core), "stalls": list(self.stalls),
            "because": self.because, "note": self.note, "terms": [term.json() for term in self.terms],
        }  # fmt: skip


def has_rules(target: Target) -> bool:
    """Whether rules are stated for the target's core."""
    return target.core.name in (*SINGLE, *RISCV, "cortex-m7", "cortex-m55")


def estimate(machine: Machine, result: Result, streams: Mapping[str, int]) -> Estimate:
    """The band of one counted call.

    Args:
        machine: Where it ran; its target has rules.
        result: What was counted.
        streams: Bytes that one inference reads from each region of the target, caches ignored: weights as often as
            tiles need them, operands of products as often as pairs of outputs need them.
    """
    pieces = (
        (address, machine.read(address, size).tobytes(), count)
        for (address, size), count in result.blocks.items() if not machine.is_harness(address)
    )  # fmt: skip
    return estimate_code(machine.target, machine.isa, pieces, streams)


def estimate_code(target: Target, isa: Isa, pieces: Iterable[Piece], streams: Mapping[str, int]) -> Estimate:
    """The band of code that was counted elsewhere, for a core with rules; `streams` as in `estimate`."""
    core, blocks = target.core.name, decoded(isa, pieces)
    if core in RISCV:
        found = riscv.terms(blocks)
    elif core == "cortex-m55":
        found = helium.terms(blocks)
    else:
        found = dual.terms(blocks) if core == "cortex-m7" else single.terms(core, blocks)
    notes = [riscv.NOTE] if core in RISCV else []
    waits = " and ".join(region.name for region in target.regions if region.wait_states and not region.line)
    if waits:
        notes.append(f"waiting for {waits} is not in the band: the target states no cost of a line")
    return Estimate((*found, *stalls(target, streams)), note="; ".join(notes))


def latency(target: Target, instructions: int, estimated: Estimate | None) -> tuple[tuple[float, float] | None, str]:
    """A band of milliseconds and its reasons: by rules for the core, else by the target's cycles per instruction."""
    if estimated is not None and target.clock_hz:
        return estimated.milliseconds(target.clock_hz), estimated.reason
    model = target.latency
    return target.estimate_ms(instructions), model.because if model else ""


def stalls(target: Target, streams: Mapping[str, int]) -> list[Term]:
    """What reading these bytes adds: a fill for each line, as the target's regions state it."""
    found = []
    for region in target.regions:
        if (count := streams.get(region.name, 0)) and region.line:
            low, high = region.fill
            why = f"{low:g} to {high:g} cycles for each {region.line} bytes that no cache holds"
            found.append(Term(f"lines from {region.name}", count / region.line, low, high, why, stall=True))
    return found
