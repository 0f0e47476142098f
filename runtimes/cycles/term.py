"""One rule's part of an estimate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Term"]


@dataclass(frozen=True)
class Term:
    """Cycles that one rule adds: `count` times between `low` and `high`.

    Attributes:
        name: What is counted.
        count: How often.
        low, high: Cycles for each, on average over all of them.
        why: The rule.
        stall: Whether the core waits for memory, which depends on the board, instead of working.
    """

    name: str
    count: float
    low: float
    high: float
    why: str
    stall: bool = False

    @property
    def least(self) -> float:
        """Cycles at least."""
        return self.count * self.low

    @property
    def most(self) -> float:
        """Cycles at most."""
        return self.count * self.high

    def json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)
