"""What reading memory costs a device, beside a multiply-accumulate: from where weights come, and which RAM is fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .group import Group
from .schedule import Schedule
from .traffic import streams

if TYPE_CHECKING:
    from .plan import Plan

__all__ = ["Rates"]

FAR = 2.0
"""From this rate on weights lie so far away that tiles of a hundred rows and more pay."""


@dataclass(frozen=True)
class Rates:
    """Costs in multiply-accumulates that would take as long; the default is that of a device nothing is known of.

    Attributes:
        weight: A byte of weights, read from flash.
        operand: A byte of a product's operand, read from RAM that is not fast and that no data cache holds.
        fast: Bytes at the arena's start that lie in fast RAM.
        cache: Bytes of the data cache.
    """

    weight: float = 1.0
    operand: float = 0.0
    fast: int = 0
    cache: int = 0

    @property
    def far(self) -> bool:
        """Whether reading weights less often is worth much memory."""
        return self.weight >= FAR

    def work(self, group: Group, schedule: Schedule) -> float:
        """What a schedule costs beyond its products, its scratch lying at the arena's start."""
        return self.fetching(schedule) + self.waiting(group, schedule, 0)

    def total(self, plan: Plan) -> float:
        """What a whole plan costs beyond its products."""
        return sum(
            self.fetching(step.schedule) + self.waiting(step.group, step.schedule, step.scratch) for step in plan.steps
        )

    def fetching(self, schedule: Schedule) -> float:
        """Work done again, and weights read from flash."""
        return schedule.extra_macs + self.weight * schedule.weight_bytes

    def waiting(self, group: Group, schedule: Schedule, scratch: int) -> float:
        """Operands read from slow RAM, with the scratch at this offset."""
        return self.operand * self.slow(group, schedule, scratch) if self.operand else 0.0

    def slow(self, group: Group, schedule: Schedule, scratch: int) -> float:
        """Bytes of operands that come from slow RAM: of pieces beyond the fast bytes, unless the cache holds them."""
        total = 0.0
        for stream in streams(group, schedule):
            piece = schedule.piece(stream.piece)
            if stream.held > self.cache // 2:
                beyond = min(piece.bytes, max(0, scratch + piece.offset + piece.bytes - self.fast))
                total += stream.read * beyond / piece.bytes
        return total
