"""What a library would be made of: a call for each step of a plan, and the bytes of its constants, none packed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ...ir.errors import Unsupported
from ...ir.graph import Array
from ...ir.integer_codes import pair_bytes, smallest
from ...ir.memory import Plan
from ..outline import Lack, Outline, sources
from .constants import Constants
from .lower import emitted

__all__ = ["outline"]


def outline(plan: Plan) -> Outline:
    """The steps by kind, and the flash that their constants take at most: equal ones are stored once in the end."""
    constants = Tally("tally")
    calls, refused = emitted(plan, constants)
    lacks = tuple(_lack(each, plan) for each in refused)
    kinds = dict(sorted(Counter(call.kind for call in calls).items()))
    return Outline(kinds, constants.nbytes, "at most", lacks, ("the code of the kernels comes on top",))


def _lack(refused: Unsupported, plan: Plan) -> Lack:
    """A refusal, with the kinds of op that it is about."""
    nodes = (node for step in plan.steps for node in step.group.nodes)
    kinds = {type(node.op).__name__ for node in nodes if set(sources([node])) & set(refused.where)}
    why = ": ".join(part for part in (refused.what.removeprefix("c: "), refused.why) if part)
    return Lack(", ".join(sorted(kinds)) or "value", refused.where, why, refused.do)


@dataclass
class Tally(Constants):
    """A pool that only counts the bytes of what it is given."""

    total: int = 0

    def add(self, array: Array, what: str, reads: int = 1) -> str:
        """Count an array as it is."""
        return self._counted(array.nbytes)

    def code(self, w: Array) -> str:
        """That of weights which are all alike, as `ir.passes.quantise.outline` leaves them."""
        return smallest(w[:1])

    def matrix(self, w: Array, code: str, what: str, reads: int = 1, blocks: int = 1) -> str:
        """Count an int8 [N, K] weight in a code that holds it."""
        return self._counted(blocks * ((len(w) // blocks + 1) // 2) * pair_bytes(code, w.shape[1]))

    def pairs(self, vector: Array, what: str) -> str:
        """Count an int32 [N] bias or multiplier."""
        return self._counted(4 * (len(vector) + len(vector) % 2))

    def _counted(self, size: int) -> str:
        self.total += size
        return f"{self.prefix}.values"

    @property
    def nbytes(self) -> int:
        """Bytes of all that was counted."""
        return self.total
