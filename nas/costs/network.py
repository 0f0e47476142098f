"""What a network takes, from what its parts take: the greatest RAM, and the sums of constants and products."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..families import Part, Parts, source
from .part import PartCosts, Place, part_costs

__all__ = ["PartTable", "Totals"]


@dataclass(frozen=True)
class Totals:
    """Of a network.

    Attributes:
        macs: Multiply-accumulates of one inference.
        arena: Bytes of the smallest arena that the planner needs.
        constants: Bytes of flash of all constants, without code.
    """

    macs: int
    arena: int
    constants: int


@dataclass
class PartTable:
    """Costs of parts by what they are and where they stand; each is judged once.

    Weights that a network applies twice are counted as random data has them: trained ones may round otherwise.
    """

    stream: str = "int8"
    callback: bool = True
    _known: dict[tuple[Part, Place], PartCosts] = field(default_factory=dict)

    def of(self, chain: Parts) -> Totals:
        """What a network takes that begins with its source.

        Raises:
            EdgesmithError: A part cannot be built, or has no integer form or kernel.
        """
        found = self.parts(chain)
        common: dict[bytes, int] = dict(pair for each in found for pair in each.common)
        constants = sum(each.constants for each in found) + sum(common.values())
        return Totals(sum(each.macs for each in found), max(each.ram for each in found), constants)

    def parts(self, chain: Parts) -> list[PartCosts]:
        """The costs of each part in its place; errors as for `of`."""
        shape: tuple[int, ...] = (1, *source(chain).image)
        found = []
        for index, (_, part) in enumerate(chain):
            place = Place(shape, index == 0, index == len(chain) - 1, self.stream, self.callback)
            if (part, place) not in self._known:
                self._known[part, place] = part_costs(part, place)
            found.append(self._known[part, place])
            shape = found[-1].output
        return found
