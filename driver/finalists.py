"""What a search leaves: a model file for each network of the front, some of them compiled, and a report."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir.errors import BudgetError, EdgesmithError, MachineError, UsageError
from ..lowering import artifact as artifacts
from ..lowering.artifact import Artifact
from .execution import run
from .stages import compile

if TYPE_CHECKING:
    from ..ir.graph import Array
    from ..nas.engine.search import Plan, Result, Round
    from ..nas.problem import Candidate
    from ..targets import Target
    from .questions import Inquiry

__all__ = ["publish"]

FORMAT = 1


def publish(
    inquiry: Inquiry, target: str | Target, plan: Plan, result: Result, out: Path, finalists: int, check: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    """Write the front's models, compile some, and tell all of it in `result.json` and `report.html`."""
    from .queries import find_target
    from .report.front import render

    device = find_target(target)
    chosen = _spread(len(result.front), finalists)
    rows = []
    for place, candidate in enumerate(result.front):
        name = f"{place + 1:02d}"
        say(f"write the front: {name}")
        model = inquiry.problem.model(candidate.genome)
        path = Path("front") / f"{name}.onnx"
        _put(out / path, model)
        rows.append({"name": name, **_figures(candidate), "model": str(path), "artifact": None, "compiled": None,
                     "refused": None})  # fmt: skip
    _sweep(out / "front", {f"{row['name']}.onnx" for row in rows})
    for place in chosen:
        say(f"compile {rows[place]['name']}")
        rows[place].update(_compiled(inquiry, target, plan, result.front[place], rows[place], out, check))
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
    _put(out / "result.json", (json.dumps(data, indent=2, allow_nan=False) + "\n").encode())
    _put(out / "report.html", render(data, device).encode())
    return {"folder": str(out), **data}


def _spread(count: int, wanted: int) -> list[int]:
    """Places of so many rows of a front, from its best quality to its least cost, evenly between."""
    wanted = min(count, wanted)
    return sorted({round(step * (count - 1) / max(wanted - 1, 1)) for step in range(wanted)})


def _figures(candidate: Candidate) -> dict[str, Any]:
    return {"genome": dict(candidate.genome), "quality": candidate.quality, "costs": asdict(candidate.costs)}


def _standing(standing: Round) -> dict[str, Any]:
    """A round for the history."""
    best = standing.front[0].quality if standing.front else None
    counts = {name: getattr(standing, name) for name in ("number", "judged", "illegal", "failed")}
    return {**counts, "front": len(standing.front), "best": best}


def _compiled(
    inquiry: Inquiry, target: str | Target, plan: Plan, candidate: Candidate, row: Mapping[str, Any], out: Path,
    check: bool,
) -> dict[str, Any]:  # fmt: skip
    """What a compile makes of a row: the artifact and its figures, or why there is none.

    Where RAM is an axis, the program is planned to do with what the row says, if the stack that it turns out to need
    allows that; else it may use all of the budget, as more RAM saves work.
    """
    from .queries import find_target

    folder = out / "compiled" / row["name"]
    model = out / row["model"]
    made = _kept(folder, model, find_target(target))
    rams = [*([candidate.costs.ram] if "ram" in plan.axes else []), plan.budgets.ram]
    while made is None:
        try:
            made = compile(model, target, out=folder, calibration=inquiry.calibration, ram=rams.pop(0), check=check,
                           **inquiry.options)  # fmt: skip
        except EdgesmithError as error:
            if not rams or not isinstance(error, BudgetError):
                return {"refused": error.json()}
    accuracy = _accuracy(made, *inquiry.held_out) if inquiry.held_out else None
    return {"artifact": str(folder.relative_to(out)), "compiled": {**_measured(made), "accuracy": accuracy}}


def _kept(folder: Path, model: Path, device: Target) -> Artifact | None:
    """An artifact that an earlier run of the same search has made of the same model."""
    try:
        found = artifacts.load(folder)
    except UsageError:
        return None
    same = found.manifest["model"]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    return found if same and found.target == device.name else None


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


def _accuracy(made: Artifact, images: Array, labels: Array) -> float:
    """Share of held-out samples that what was compiled puts into their class; a library runs on this computer."""
    on = "host" if made.manifest["backend"] == "c" else None
    scores = next(iter(run(made, on, images, runs=len(images)).outputs.values()))
    return float((scores.reshape(len(labels), -1).argmax(axis=1) == labels).mean())


def _put(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        do = "make room and run the same search again: what is finished is kept"
        raise MachineError("a result cannot be written", where=[str(path)], why=str(error), do=do) from error


def _sweep(folder: Path, kept: Sequence[str] | set[str]) -> None:
    """Remove models of an earlier front of this search."""
    for path in folder.glob("[0-9][0-9]*.onnx"):
        if path.name not in kept:
            path.unlink()
