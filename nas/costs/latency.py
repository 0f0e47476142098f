"""Milliseconds of a network on a microcontroller: cycles of its steps by the core's rules, and waiting for memory."""

from __future__ import annotations

from ...ir.memory import Plan
from ...lowering.c.constants import Constants
from ...lowering.c.lower import place_constants, reads
from ...targets import Target
from .steps import Program

__all__ = ["milliseconds"]


def milliseconds(target: Target, program: Program, plan: Plan, constants: Constants) -> tuple[float, float] | None:
    """The band of an inference as a compile's run on the emulator estimates it; None where nobody states cycles.

    Args:
        target: The device.
        program: What the table of steps says.
        plan: Of the same steps.
        constants: All that they read, packed.

    Raises:
        BudgetError: The constants do not fit the device.
    """
    from ...runtimes.artifact import stack_bytes
    from ...runtimes.cycles import by_region
    from ...runtimes.cycles.estimate import stalls

    if program.cycles is None or not target.clock_hz or target.ram is None:
        return None if program.instructions is None else target.estimate_ms(program.instructions)
    traffic = reads(plan, constants, place_constants(constants, target))
    waits = stalls(target, by_region(target, traffic, target.ram.origin + stack_bytes(target)))
    low, high = program.cycles
    per_cycle = 1e3 / target.clock_hz
    return (low + sum(each.least for each in waits)) * per_cycle, (high + sum(each.most for each in waits)) * per_cycle
