"""What a pass is: a named change of the graph that states whether it is exact and what data it needs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from ..graph import Graph
from ..rewrite import Rule, rewrite


@dataclass(frozen=True)
class Pass:
    """Base of all passes. Fields of a subclass are its options; `rules` is enough for a pure rewrite.

    `exact`: equal to rounding on every input. `needs`: "none", "calibration" or "training".
    """

    exact: ClassVar[bool] = True
    needs: ClassVar[str] = "none"
    rules: ClassVar[tuple[Rule, ...]] = ()

    @property
    def name(self) -> str:
        """The class name in snake case, as command lines have it."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    def apply(self, graph: Graph) -> int:
        """Change the graph; returns the number of rewrites (0: nothing to do, so a second run returns 0)."""
        return rewrite(graph, self.rules)
