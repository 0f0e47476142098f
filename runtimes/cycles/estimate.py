"""From a counted run to a band of cycles: the core's rules, and what memory adds by the bytes that come from where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import dual, single
from .code import decoded
from .term import Term

if TYPE_CHECKING:
    from ...targets import Target
    from ..machine import Machine, Result

__all__ = ["Estimate", "Term", "estimate", "has_rules", "stalls"]

SINGLE = ("cortex-m3", "cortex-m4", "cortex-m33")


@dataclass(frozen=True)
class Estimate:
    """Cycles of one inference as a sum of terms; `because` says what narrowed the band, if anything did."""

    terms: tuple[Term, ...]
    band: tuple[float, float] | None = None
    because: str = ""

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
        return f"{found}; {self.because or 'not calibrated on a board'}. {rules}"

    def milliseconds(self, clock_hz: int) -> tuple[float, float]:
        """The band in time."""
        low, high = self.cycles
        return low * 1e3 / clock_hz, high * 1e3 / clock_hz

    def json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "cycles": list(self.cycles), "core": list(self.core), "stalls": list(self.stalls),
            "because": self.because, "terms": [term.json() for term in self.terms],
        }  # fmt: skip


def has_rules(target: Target) -> bool:
    """Whether rules are stated for the target's core."""
    return target.core.name in SINGLE or target.core.name == "cortex-m7"


def estimate(machine: Machine, result: Result, streams: Mapping[str, int]) -> Estimate:
    """The band of one counted call.

    Args:
        machine: Where it ran; its target has rules.
        result: What was counted.
        streams: Bytes that one inference reads from each region of the target, caches ignored: weights as often as
            tiles need them, operands of products as often as pairs of outputs need them.
    """
    core, blocks = machine.target.core.name, decoded(machine, result.blocks)
    found = dual.terms(blocks) if core == "cortex-m7" else single.terms(core, blocks)
    return Estimate((*found, *stalls(machine.target, streams)))


def stalls(target: Target, streams: Mapping[str, int]) -> list[Term]:
    """What reading these bytes adds: a fill for each line, as the target's regions state it."""
    found = []
    for region in target.regions:
        if (count := streams.get(region.name, 0)) and region.line:
            low, high = region.fill
            why = f"{low:g} to {high:g} cycles for each {region.line} bytes that no cache holds"
            found.append(Term(f"lines from {region.name}", count / region.line, low, high, why, stall=True))
    return found
