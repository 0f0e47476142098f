"""What one run on a board says of the rules: estimates of other programs keep only what agrees with it.

Where a rule's cycles lie between its ends is unknown, but the same on the same board. A run fixes the sum of all: the
band of another program is the least and the most that its own sum can be then, a linear program whose only constraint
makes it a fractional knapsack.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...ir.errors import UsageError
from .estimate import Estimate
from .term import Term

__all__ = ["Calibration", "load"]


@dataclass(frozen=True)
class Calibration:
    """A run on a board beside the estimate of the same inference.

    Attributes:
        target: What it was compiled for.
        board: Who answered.
        clock_hz: The board's clock during the run; below the target's own, memory made it wait less.
        full_hz: The target's clock.
        cycles: Fewest and most measured.
        terms: The estimate.
    """

    target: str
    board: str
    clock_hz: int
    full_hz: int
    cycles: tuple[float, float]
    terms: tuple[Term, ...]

    def json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "target": self.target, "board": self.board, "clock_hz": self.clock_hz, "full_hz": self.full_hz,
            "cycles": list(self.cycles), "terms": [term.json() for term in self.terms],
        }  # fmt: skip

    def narrow(self, estimate: Estimate) -> Estimate:
        """The estimate with the band that agrees with the board.

        A board that the rules do not allow scales the band by how far it lies outside.
        """
        own = Estimate(tuple(self._as_run(term) for term in self.terms)).cycles
        low, high = estimate.cycles
        if self.cycles[0] > own[1] or self.cycles[1] < own[0]:
            end, mine = (high, own[1]) if self.cycles[0] > own[1] else (low, own[0])
            band = end * self.cycles[0] / mine, end * self.cycles[1] / mine
            because = f"scaled by a run on {self.board}, which lies outside of what the rules allow"
            return replace(estimate, band=band, because=because)
        ends = (max(self.cycles[0], own[0]) - own[0], min(self.cycles[1], own[1]) - own[0])
        freedom = {term.name: term.most - term.least for term in map(self._as_run, self.terms) if self._told(term)}
        rest = sum(term.most - term.least for term in map(self._as_run, self.terms) if not self._told(term))
        band = (
            low + self._extreme(estimate, freedom, max(0.0, ends[0] - rest), most=False),
            low + self._extreme(estimate, freedom, ends[1], most=True),
        )
        return replace(estimate, band=band, because=f"narrowed by a run on {self.board}")

    def _told(self, term: Term) -> bool:
        """Whether the run says anything of a term: not of waiting for memory at another clock."""
        return not term.stall or self.clock_hz == self.full_hz

    def _as_run(self, term: Term) -> Term:
        """A term as it was on the board: at a lower clock memory may not have made it wait at all."""
        return term if self._told(term) else replace(term, low=0.0)

    def _extreme(self, estimate: Estimate, freedom: dict[str, float], spent: float, *, most: bool) -> float:
        """Cycles above the estimate's least when the terms of the run add up to `spent` above theirs."""
        total = 0.0
        gains = []
        for term in estimate.terms:
            mine = term.most - term.least
            if not freedom.get(term.name):
                total += mine if most else 0.0
            else:
                gains.append((mine / freedom[term.name], freedom[term.name]))
        known = {term.name for term in estimate.terms}
        gains += [(0.0, size) for name, size in freedom.items() if name not in known]
        for gain, size in sorted(gains, reverse=most):
            used = min(size, spent)
            total += gain * used
            spent -= used
        return total


def load(path: Path) -> Calibration:
    """Read a file that `run --calibrate` wrote.

    Raises:
        UsageError: It is none.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        low, high = data.pop("cycles")
        terms = tuple(Term(**entry) for entry in data.pop("terms"))
        return Calibration(**data, cycles=(low, high), terms=terms)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        do = "make one with `edgesmith run --on board --calibrate FILE`"
        raise UsageError("not a calibration file", where=[str(path)], why=str(error), do=do) from error
