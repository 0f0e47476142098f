"""The front of a search as compiled: figures that were planned give way to those of programs, until all of it stands.

A network whose program turns out to be over a budget leaves the front, and what it kept off may come back.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir.errors import BudgetError, EdgesmithError, UsageError
from ..lowering import artifact as artifacts
from ..lowering.artifact import Artifact
from .execution import run
from .stages import compile
from .writing import put

if TYPE_CHECKING:
    from ..ir.graph import Array
    from ..nas.engine.search import Plan, Result
    from ..nas.problem import Candidate, Costs
    from ..targets import Target
    from .questions import Inquiry

__all__ = ["Row", "Settling", "arrange"]

DRAFTS = ".drafts"
"""The folder of models whose place on the front is not known yet."""

COMPILED = "compiled"


@dataclass(frozen=True)
class Row:
    """A network of the front.

    Attributes:
        candidate: Its costs are those of its program, where there is one.
        model: ONNX.
        made: What a compile made of it.
        accuracy: Of that on held-out samples, where there are any.
        refused: The error, where it does not compile.
        over: The budgets that its program does not meet, each with the factor.
    """

    candidate: Candidate
    model: bytes
    made: Artifact | None = None
    accuracy: float | None = None
    refused: Mapping[str, Any] | None = None
    over: Mapping[str, float] | None = None


@dataclass
class Settling:
    """Compiles what stands on a front.

    Attributes:
        inquiry: What was searched.
        target: As the user named it.
        device: The same.
        plan: How it was searched.
        out: The search's folder.
        check: Whether what is compiled is also run and compared.
        say: Called with the name of each stage.
    """

    inquiry: Inquiry
    target: str | Target
    device: Target
    plan: Plan
    out: Path
    check: bool
    say: Callable[[str], None]

    def settle(self, result: Result, finalists: int | None) -> list[Row]:
        """The front; of its rows all are compiled, or so many, from the best quality to the least cost.

        Raises:
            BudgetError: Every network that was planned within the budgets is over one of them once it is compiled.
        """
        from ..nas.problem import front
        from ..nas.space import key

        rows: dict[str, Row] = {}
        left = {key(each.genome): each for each in result.candidates}
        while True:
            best = front(list(left.values()), self.plan.axes)
            chosen = best if finalists is None else [best[place] for place in spread(len(best), finalists)]
            fresh = [each for each in chosen if key(each.genome) not in rows]
            for each in fresh:
                name = key(each.genome)
                rows[name] = self._row(each)
                left[name] = rows[name].candidate
                if rows[name].over:
                    del left[name]
            if not left:
                raise self._none([row for row in rows.values() if row.over])
            if not fresh:
                return [rows.get(key(each.genome)) or Row(each, self._model(each)) for each in best]

    def _model(self, candidate: Candidate) -> bytes:
        self.say("write the front")
        return self.inquiry.problem.model(candidate.genome)

    def _row(self, candidate: Candidate) -> Row:
        """Compile a network.

        Where RAM is an axis, the program is planned to do with what the search says, if that can be; else it may use
        all of the budget, as more RAM saves work.
        """
        model = self._model(candidate)
        digest = hashlib.sha256(model).hexdigest()
        name = f"{self.inquiry.name}_{digest[:8]}"
        path, folder = self.out / DRAFTS / f"{name}.onnx", self.out / COMPILED / digest[:16]
        put(path, model)
        self.say(f"compile {name}")
        made = self._kept(digest)
        rams = [*([candidate.costs.ram] if "ram" in self.plan.axes else []), self.plan.budgets.ram]
        while made is None:
            try:
                made = compile(path, self.target, out=folder, calibration=self.inquiry.calibration, ram=rams.pop(0),
                               check=self.check, **self.inquiry.options)  # fmt: skip
            except EdgesmithError as error:
                if not rams or not isinstance(error, BudgetError):
                    over = {error.what: 1.0} if isinstance(error, BudgetError) else None
                    return Row(candidate, model, refused=error.json(), over=over)
        costs = compiled_costs(made, candidate.costs)
        accuracy = _accuracy(made, *self.inquiry.held_out) if self.inquiry.held_out else None
        return Row(replace(candidate, costs=costs), model, made, accuracy, None, self.plan.budgets.excess(costs))

    def _kept(self, digest: str) -> Artifact | None:
        """What an earlier run of the same search has made of the same model, wherever it stood on that front."""
        for folder in sorted((self.out / COMPILED).glob("*")):
            try:
                found = artifacts.load(folder)
            except UsageError:
                continue
            if found.manifest["model"]["sha256"] == digest and found.target == self.device.name:
                return found
        return None

    def _none(self, rows: Sequence[Row]) -> BudgetError:
        """That no program meets the budgets."""
        what = f"none of {len(rows)} networks that were planned within the budgets meets them once it is compiled"
        first = rows[0]
        why = first.refused["what"] if first.refused else f"the best takes {asdict(first.candidate.costs)}"
        return BudgetError(what, why=why, do="give larger budgets, or search longer in the same folder")


def spread(count: int, wanted: int) -> list[int]:
    """Places of so many rows of a front, from its best quality to its least cost, evenly between."""
    wanted = min(count, wanted)
    return sorted({round(step * (count - 1) / max(wanted - 1, 1)) for step in range(wanted)})


def compiled_costs(made: Artifact, planned: Costs) -> Costs:
    """The costs of a program; what a back end or an unchecked compile does not tell stays as planned.

    Of a band of milliseconds the slow end counts where its ends are bounds, on microcontrollers.
    """
    if made.manifest["backend"] != "c" or made.flash["internal"] is None:
        return planned
    cost = made.manifest["cost"]
    flash = made.flash["internal"] + made.flash["external"]
    latency = cost["latency_ms"][1] if cost["latency_ms"] else planned.latency
    return replace(planned, ram=made.memory["total"], flash=flash,
                   instructions=cost["instructions"] or planned.instructions, latency=latency)  # fmt: skip


def arrange(out: Path, rows: Sequence[Row]) -> list[str | None]:
    """Bring the artifacts of a front to places named after its rows, and remove those of others; where they are.

    They are named after their models in between, so that a search that is broken off here finds them again.
    """
    folder, places = out / COMPILED, [_place(out, row) for row in rows]
    for row, place in zip(rows, places, strict=True):
        if row.made is not None and place is not None and row.made.folder != place:
            row.made.folder.rename(place)
    for stale in set(folder.glob("*")) - set(places):
        shutil.rmtree(stale)
    found: list[str | None] = []
    for number, place in enumerate(places, 1):
        name = folder / f"{number:02d}"
        if place is not None:
            place.rename(name)
        found.append(str(name.relative_to(out)) if place is not None else None)
    shutil.rmtree(out / DRAFTS, ignore_errors=True)
    return found


def _place(out: Path, row: Row) -> Path | None:
    """Where a row's artifact lies while its number is not known."""
    return out / COMPILED / hashlib.sha256(row.model).hexdigest()[:16] if row.made is not None else None


def _accuracy(made: Artifact, images: Array, labels: Array) -> float:
    """Share of held-out samples that what was compiled puts into their class; a library runs on this computer."""
    on = "host" if made.manifest["backend"] == "c" else None
    scores = next(iter(run(made, on, images, runs=len(images)).outputs.values()))
    return float((scores.reshape(len(labels), -1).argmax(axis=1) == labels).mean())
