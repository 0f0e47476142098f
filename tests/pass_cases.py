"""A register of small graphs by name: those that a pass changes, and those that it leaves alone for a reason."""

from __future__ import annotations

from collections.abc import Callable

from edgesmith.ir.graph import Graph
from edgesmith.ir.passes.base import Pass

Make = Callable[..., Graph]


class Cases:
    """What one file of cases registers."""

    def __init__(self) -> None:
        self.changed: dict[str, tuple[Pass, Make]] = {}
        self.kept: dict[str, tuple[Pass, str, Make]] = {}

    def applies(self, p: Pass) -> Callable[[Make], Make]:
        """Register a graph that a pass changes; the function takes a Net and whether optional biases are there."""
        return lambda make: self.changed.setdefault(make.__name__, (p, make))[1]

    def refuses(self, p: Pass, reason: str) -> Callable[[Make], Make]:
        """Register a graph that a pass leaves alone, with a part of the reason it gives."""
        return lambda make: self.kept.setdefault(make.__name__, (p, reason, make))[2]
