"""What a float graph takes of a device once it is compiled to integers, without compiling it.

Quantiser, planner, emitters and packer are those of a compile, with a few samples for the ranges; what the program's
steps take is known from steps alone, see `costs.steps`. So costs depend on the graph only, and not on what was priced
before. Ranges of more samples may tell two layers apart that share a function here, or the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...ir.cost import cost
from ...ir.graph import Array, Graph
from ...ir.memory import Plan, plan
from ...ir.passes.pipelines import INTEGER, run_pipeline
from ...ir.passes.quantise import QuantOptions, convert
from ...ir.passes.quantise.calibrate import calibrate
from ...lowering.c.call import Call
from ...lowering.c.constants import Constants
from ...lowering.c.lower import emitted, place_constants
from ...lowering.c.rates import rates
from ...lowering.c.steps import joined
from ...targets import Target
from ..costs.latency import milliseconds
from ..costs.part import linked_bytes
from ..costs.steps import StepTable, blank
from ..problem import Costs

__all__ = ["STACK", "Price", "blank"]

STACK = 512
"""Bytes that a plan within a budget leaves for the stack, as a compile's does."""


@dataclass
class Price:
    """Costs of graphs on one device.

    Attributes:
        target: A device that C is compiled for.
        feeds: A few typical inputs, float32 [samples, ...], by name.
        stream: "int8" or "int16", of the tokens between blocks.
        callback: Whether the image comes pixel by pixel where it can.
        ram: The budget that a compile will have, stack included, within which it takes the quickest schedules; without,
            it makes the smallest plan.
        say: Called with a line of text while steps are measured that nobody has measured yet.
    """

    target: Target
    feeds: Mapping[str, Array]
    stream: str = "int8"
    callback: bool = True
    ram: int | None = None
    say: Callable[[str], None] | None = None

    def of(self, graph: Graph) -> Costs:
        """Costs of a float graph: of the program that a compile makes of it.

        `ram` has the exact arena and a bound on the stack, `latency` is the slow end of the band. Of what the device
        cannot hold there is no program: `flash` lacks its code then, and one of the two is more than there is.

        Raises:
            EdgesmithError: It has no integer form, or no kernels, or leaves too little flash for code.
        """
        made = graph.copy()
        run_pipeline(made, INTEGER)
        integers = convert(made, calibrate(made, dict(self.feeds)), QuantOptions(stream=self.stream)).graph
        taken, pool = self._planned(integers), Constants("pool")
        calls, refused = emitted(taken, pool)
        if refused:
            raise joined(refused)
        macs, stored = cost(made).macs, sum(linked_bytes(len(item.data)) for item in pool.items.values())
        if not self.target.regions:
            return Costs(macs, stored, taken.arena_bytes)
        if stack := self._too_large(taken.arena_bytes, stored):
            return Costs(macs, stored, taken.arena_bytes + stack)
        place_constants(pool, self.target)
        found = self._table.of(taken, calls)
        flash, ram = stored + sum(map(_constant_bytes, calls)) + found.code, taken.arena_bytes + found.stack
        band = milliseconds(self.target, found, taken, pool)
        return Costs(macs, flash, ram, found.instructions, band and band[1])

    def __getstate__(self) -> dict[str, Any]:
        """Workers look steps up anew, and tell nobody what they do."""
        return {name: self.__dict__[name] for name in self.__dataclass_fields__} | {"say": None}

    def _planned(self, integers: Graph) -> Plan:
        """The plan that a compile makes."""
        costs = rates(self.target, cost(integers).parameter_bytes)
        least = plan(integers, callback=self.callback, rates=costs)
        if self.ram is None or least.arena_bytes + STACK >= self.ram:
            return least
        return plan(integers, self.ram - STACK, callback=self.callback, rates=costs)

    def _too_large(self, arena: int, stored: int) -> int:
        """The stack that the linker keeps room for, if a device does not hold arena or constants beside it; else 0."""
        from ...runtimes.artifact import stack_bytes

        stack, ram = stack_bytes(self.target), self.target.ram
        room = (self.target.flash_budget or 0) + (self.target.external_flash_budget or 0)
        return stack if ram is not None and (arena + stack > ram.size or stored > room) else 0

    @cached_property
    def _table(self) -> StepTable:
        return StepTable(self.target, self.say)


def _constant_bytes(call: Call) -> int:
    """Bytes of a step's struct of constants."""
    sizes = [8 if ctype == "int64_t" else 4 for ctype, _, _ in call.fields]
    return -(-sum(sizes) // max(sizes)) * max(sizes) if sizes else 0
