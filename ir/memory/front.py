"""What memory buys: the plans of a graph from the fastest to the smallest, each the least work for its bytes."""

from __future__ import annotations

from ..errors import BudgetError
from ..graph import Graph
from .network import Network
from .offsets import EFFORT
from .plan import Plan, plan
from .rates import Rates
from .scratch import ALIGN

__all__ = ["front", "thinned"]


def front(
    graph: Graph, budget: int | None = None, *, callback: bool = True, effort: float = EFFORT,
    rates: Rates | None = None,
) -> tuple[Plan, ...]:  # fmt: skip
    """Plans of falling arena and rising work (`Rates.work`): for each the planner was allowed a byte less than before.

    Args:
        graph: As for `plan`.
        budget: Bytes that the largest may have; without, as much as work can be saved with.
        callback: As for `plan`.
        effort: As for `plan`, of each.
        rates: As for `plan`.

    Raises:
        BudgetError: No plan keeps within the budget.
    """
    rates = rates or Rates()
    network = Network(graph, callback, rates.far)
    everything = sum(storage.bytes for storage in network.storages) + sum(
        max((schedule.scratch_bytes for schedule in options), default=0) for options in network.schedules
    )
    found = [plan(graph, everything if budget is None else budget, callback=callback, effort=effort, rates=rates)]
    while found[-1].arena_bytes > max(found[-1].lower_bound, ALIGN):
        try:
            found.append(plan(graph, found[-1].arena_bytes - ALIGN, callback=callback, effort=effort, rates=rates))
        except BudgetError:
            break
    work = [rates.total(each) for each in found]
    return tuple(
        each for each, mine in zip(found, work, strict=True)
        if not any(
            (other.arena_bytes, theirs) != (each.arena_bytes, mine)
            and other.arena_bytes <= each.arena_bytes and theirs <= mine
            for other, theirs in zip(found, work, strict=True)
        )
    )  # fmt: skip


def thinned(plans: tuple[Plan, ...], most: int) -> tuple[Plan, ...]:
    """At most `most` of them, the fastest and the smallest among these, the others evenly between."""
    if len(plans) <= most:
        return plans
    picked = {round(i * (len(plans) - 1) / (most - 1)) for i in range(most)} if most > 1 else {len(plans) - 1}
    return tuple(plans[i] for i in sorted(picked))

