"""The schedules that one model can run by on a device: each built and emulated, RAM beside instructions."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir.errors import InternalError
from . import figures
from .agreement import PROGRAM
from .execution import runner

if TYPE_CHECKING:
    from ..ir.memory import Plan
    from .library import Library

__all__ = ["MOST", "measured", "ranked"]

MOST = 8
"""Schedules that are built and emulated at most: the fastest, the smallest, and what lies evenly between."""


def measured(library: Library, plans: Sequence[Plan]) -> list[dict[str, Any]]:
    """What each plan's program takes, in the order given: bytes of RAM and exact instructions.

    Raises:
        InternalError: A program computes something else than the reference: bits never depend on the schedule.
    """
    rows = []
    for number, plan in enumerate(plans, 1):
        library.say(f"schedules: {number} of {len(plans)}")
        with tempfile.TemporaryDirectory() as place:
            rows.append(_row(library, plan, Path(place)))
    return rows


def _row(library: Library, plan: Plan, folder: Path) -> dict[str, Any]:
    from ..lowering.c.lower import lower
    from ..runtimes import of_target

    part = lower(library.lowered, plan, library.device, folder, library.name, library.vector)
    library.introduce(folder, part)
    sizes, stack = library.build(folder)
    run = runner(of_target(library.device)).run(folder, library.stored[0])
    if not PROGRAM.holds(run.raw, library.wanted[0]):
        raise InternalError("another schedule gives other outputs", where=[library.name], why=outline(plan))
    memory = figures.memory(plan, sizes, stack, run, library.budget)
    return {
        "ram": memory["total"], "arena_bytes": plan.arena_bytes, "stack_bytes": memory["stack_bytes"],
        "instructions": run.instructions, "latency_ms": list(run.latency_ms) if run.latency_ms else None,
        "weight_bytes": plan.weight_bytes, "schedules": outline(plan),
    }  # fmt: skip


def ranked(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By falling RAM, with `over`, the share of instructions beyond the fewest, and `best`: none is better in both."""
    least = min((row["instructions"] for row in rows), default=1)
    return [
        {
            **row,
            "over": row["instructions"] / least - 1,
            "best": not any(
                (other["ram"], other["instructions"]) != (row["ram"], row["instructions"])
                and other["ram"] <= row["ram"] and other["instructions"] <= row["instructions"]
                for other in rows
            ),
        }
        for row in sorted(rows, key=lambda row: (-row["ram"], row["instructions"]))
    ]  # fmt: skip


def outline(plan: Plan) -> str:
    """The steps that have a choice, in words: "11 attention all_heads 24 rows, 12 ffn rows 24"."""
    chosen = Counter(
        (step.group.kind, step.schedule.name, step.schedule.rows) for step in plan.steps if step.schedule.rows
    )
    return ", ".join(f"{count} {kind} {name} of {rows}" for (kind, name, rows), count in chosen.most_common())
