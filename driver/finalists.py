"""What a search leaves: a model file for each network of the front, what they compile to, and a report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..lowering.artifact import Artifact
from .writing import put

if TYPE_CHECKING:
    from ..nas.engine.search import Plan, Result, Round
    from ..nas.problem import Candidate
    from ..targets import Target
    from .questions import Inquiry

__all__ = ["publish"]

FORMAT = 1


def publish(
    inquiry: Inquiry, target: str | Target, plan: Plan, result: Result, out: Path, finalists: int | None, check: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    """Compile the front, write its models, and tell all of it in `result.json` and `report.html`.

    Raises:
        BudgetError: No network of the search meets the budgets once it is compiled.
    """
    from .queries import find_target
    from .report.front import render
    from .settle import Settling, arrange

    device = find_target(target)
    settled = Settling(inquiry, target, device, plan, out, check, say).settle(result, finalists)
    rows = []
    for number, (row, place) in enumerate(zip(settled, arrange(out, settled), strict=True), 1):
        path = Path("front") / f"{number:02d}.onnx"
        put(out / path, row.model)
        compiled = {**_measured(row.made), "accuracy": row.accuracy} if row.made else None
        rows.append({"name": path.stem, **_figures(row.candidate), "model": str(path), "artifact": place,
                     "compiled": compiled, "refused": row.refused})  # fmt: skip
    _sweep(out / "front", {f"{row['name']}.onnx" for row in rows})
    data = {
        "format": FORMAT,
        "name": inquiry.name,
        "target": device.name,
        "quality": inquiry.measure,
        "plan": asdict(plan),
        "judged": len(result.candidates),
        "illegal": result.illegal,
        "failed": [{"genome": dict(genome), "why": why} for genome, why in result.failed],
        "front": rows,
        "history": [_standing(each) for each in result.rounds],
        "candidates": [_figures(each) for each in result.candidates],
    }
    put(out / "result.json", (json.dumps(data, indent=2, allow_nan=False) + "\n").encode())
    put(out / "report.html", render(data, device).encode())
    return {"folder": str(out), **data}


def _figures(candidate: Candidate) -> dict[str, Any]:
    return {"genome": dict(candidate.genome), "quality": candidate.quality, "costs": asdict(candidate.costs)}


def _standing(standing: Round) -> dict[str, Any]:
    """A round for the history."""
    best = standing.front[0].quality if standing.front else None
    counts = {name: getattr(standing, name) for name in ("number", "judged", "illegal", "failed")}
    return {**counts, "front": len(standing.front), "best": best}


def _measured(made: Artifact) -> dict[str, Any]:
    """The compiled figures; those a back end does not have are null."""
    cost = made.manifest["cost"]
    return {
        "ram": made.memory.get("total"),
        "arena": made.memory.get("arena_bytes"),
        "flash": made.flash.get("internal"),
        "file": made.manifest["file"]["bytes"] if "file" in made.manifest else None,
        "macs": cost["macs"],
        "instructions": cost.get("instructions"),
        "latency_ms": cost.get("latency_ms"),
        "latency_kind": cost.get("latency_kind"),
    }


def _sweep(folder: Path, kept: Sequence[str] | set[str]) -> None:
    """Remove models of an earlier front of this search."""
    for path in folder.glob("[0-9][0-9]*.onnx"):
        if path.name not in kept:
            path.unlink()
