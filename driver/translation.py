"""The stages of a back end that translates: one file in its format, run by its runner, held against the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir.errors import InternalError, MachineError, ModelError
from . import culprits, figures
from .agreement import Agreement, rounding
from .execution import quantised, real, save_vectors
from .front import REFERENCE_SAMPLES, Front
from .ladder import Ladder, Rung

if TYPE_CHECKING:
    from ..ir.graph import Array
    from ..lowering import Job, Written
    from ..lowering.artifact import Artifact
    from ..runtimes import Runner

__all__ = ["Translation"]

LEAST_TOLERANCE = 1e-4
"""Runtimes have exponentials of their own."""

BOUNDS = {"float16": 0.999, "dynamic": 0.95, "int8": 0.99}
"""Least cosine with the reference of an output computed in other numbers. That reference already rounds to int8 where
the graph says so; the integers of dynamic ranges it does not know, so that bound also holds their loss."""

POOR_COSINE = 0.99
"""Below this cosine with the float outputs on the data given, a compile says that it lost too much."""


@dataclass(kw_only=True)
class Translation(Front):
    """A compile to one file.

    Where an option makes the file compute something else than the model, its rungs start anew from their own reference.
    """

    rungs_before: list[Rung] = field(default_factory=list)

    def finish(self, place: Path) -> Artifact:
        """Simplify, write the file in a folder of its own, judge it, and only then put it where it belongs."""
        from .. import lowering, runtimes
        from ..lowering import artifact
        from .report import render

        self.backend = lowering.load(self.device.backend)
        if missing := self.backend.why_not():
            raise MachineError(f"the {self.backend.name} back end lacks a package", do=missing)
        self.simplify(self.backend.passes(self.choices.dtype))
        self.forecast = figures.forecast(self.graph, self.device.estimate(self.choices.dtype))
        self.quantise()
        with artifact.staging(place) as folder:
            file = folder / self.backend.file
            self.say(f"write {file.name}")
            written = self.backend.write(self._job(), file)
            self._reference(written)
            save_vectors(folder, self.stored, self.wanted)
            if self.own_target is not None:
                (folder / self.own_target.name).write_bytes(self.own_target.read_bytes())
            if runtimes.load(self.backend.runner).kind == "evaluated":
                culprits.keep(folder, self.computed)
            if self.choices.check:
                self._verify(file, written)
            manifest = self._manifest(file, written)
            (folder / "report.html").write_text(render(manifest, self.device), encoding="utf-8")
            artifact.seal(folder, manifest)
        return artifact.load(place)

    def quantise(self) -> None:
        """Put pairs of Quantize and Dequantize where int8 arithmetic shall be, and costs the outputs little."""
        from ..ir.passes.quantise.balance_layers import balance_layers, channel_axes
        from ..ir.passes.quantise.mixed_precision import quantise_within
        from ..ir.passes.quantise.observe import observe
        from ..ir.passes.quantise.qdq import QdqOptions, measured
        from ..lowering import Integers

        self.kept: dict[str, str] = {}
        self.said: list[str] = []
        if self.choices.dtype != "int8":
            return
        observer = self.choices.options["observer"]
        self.say("balance channels")
        axes = channel_axes(self.graph)
        balance_layers(self.graph, observe(self.graph, self.looks, axes, only=axes), observer)
        self._look("balanced channels")
        self.say("calibrate")
        seen = observe(self.graph, self.data, only=measured(self.graph))
        self.say("quantise")
        options = QdqOptions(observer=observer)
        if isinstance(self.backend, Integers):
            options = self.backend.integers(self.graph, seen, self.choices.options)
        made = quantise_within(self.graph, seen, options, self.looks)
        self.graph, self.kept = made.graph, made.notes.kept
        if made.spared:
            layers = len(made.notes.quantised) + len(made.notes.weights_only) + len(made.notes.kept)
            self.said.append(
                f"{len(made.spared)} of {layers} layers stay in float for accuracy; details.kept names them"
            )

    def _job(self) -> Job:
        """What the back end is given."""
        from ..ir.passes.quantise.observe import ranges
        from ..lowering import Job

        narrow = self.choices.dtype == "float16"
        seen = ranges(self.graph, self.looks) if narrow else {}
        return Job(self.graph.copy(), self.device, self.choices.dtype, self.choices.options, seen)

    def _reference(self, written: Written) -> None:
        """What the graph that was written computes, and how close the file must come."""
        from ..ir.interpret import run

        self.say("run the reference")
        self.computed = graph = written.graph or self.graph
        layouts = {value.name: tuple(range(value.type.rank)) for value in (*graph.inputs, *graph.outputs)}
        self.takes = figures.tensors(graph.inputs, layouts, written.ports)
        self.gives = figures.tensors(graph.outputs, layouts, written.ports)
        self.stored = [quantised(feeds, self.takes) for feeds in self.looks]
        plain = [{**tensor, "name": tensor["of"], "layout": layouts[tensor["of"]]} for tensor in self.takes]
        feeds = [quantised(each, plain) for each in self.looks]
        found = [run(graph, each) for each in feeds]
        self.wanted = [quantised(each, self.gives) for each in found]
        self.agreement = self._bound(found[0], lambda: run(graph, feeds[0], "float64"))
        rung = "int8 reference" if self.choices.dtype == "int8" else "float32 reference"
        if written.graph is not None:
            self.rungs_before, self.ladder = self.ladder.rungs, Ladder()
            rung += " with the options' changes"
        self.ladder.climb(rung, found)

    def _bound(self, single: Mapping[str, Array], double: Callable[[], Mapping[str, Array]]) -> Agreement:
        """What may differ in the arithmetic asked for."""
        if self.choices.dtype != "float32":
            return Agreement(cosine=BOUNDS[self.choices.dtype])
        return rounding([(single, double())], LEAST_TOLERANCE)

    def _verify(self, file: Path, written: Written) -> None:
        """Run the file; it must give what the reference gives, or else the operation at fault is looked for."""
        from .. import runtimes

        runner = runtimes.load(self.backend.runner)
        if missing := runner.why_not():
            raise MachineError(f"{file.name} cannot be checked here", why=missing, do="install it, or give --no-check")
        self.say(f"run {file.name} on {runner.name}")
        more = [] if runner.kind == "evaluated" else self.data[len(self.looks) : REFERENCE_SAMPLES]
        session = runner.open(file)
        try:
            outputs = [session.run(feeds) for feeds in (*self.stored, *(quantised(each, self.takes) for each in more))]
        finally:
            session.close()
        held = [self.agreement.holds(one, other) for one, other in zip(outputs, self.wanted, strict=False)]
        fault = "" if all(held) else self._fault(file, written, runner, self.stored[held.index(False)])
        try:
            rung = self.ladder.climb(f"{file.name} on {runner.name}", [real(each, self.gives) for each in outputs])
        except ModelError as error:
            raise ModelError(error.what, where=error.where, why=f"{error.why}{fault}", do=error.do) from error
        if not all(held):
            why = f"error {rung.max_error:.2e}, cosine {rung.cosine:.6f}, where the bound is {self.agreement.text}"
            what = f"{file.name} does not compute what the reference does"
            raise InternalError(what, where=[self.name], why=f"{why}{fault}")

    def _fault(self, file: Path, written: Written, runner: Runner, stored: Mapping[str, Array]) -> str:
        """The first operation that spoils a sample, in words, if the runner shows operations."""
        self.say("look for the operation at fault")
        feeds, names = culprits.graph_feeds(stored, self.takes), written.details.get("names", {})
        found = culprits.fault(culprits.compared(runner, file, self.computed, feeds, names))
        return f"; {found}" if found else ""

    def _manifest(self, file: Path, written: Written) -> dict[str, Any]:
        """All that is known of the file; nothing of memory or instructions, which depend on what runs it."""
        sizes = [each.stat().st_size for each in ([file] if file.is_file() else file.rglob("*")) if each.is_file()]
        return {
            "name": self.name,
            "backend": self.device.backend,
            "target": self.device.name,
            "target_file": self.own_target.name if self.own_target else None,
            "inputs": self.takes,
            "outputs": self.gives,
            "model": {**self.origin, "inputs": [each.json() for each in self.inputs]},
            "dtype": self.choices.dtype,
            "options": dict(self.choices.options),
            "calibration": {"source": "noise" if self.noise else "data", "samples": len(self.data)},
            "file": {"name": file.name, "bytes": sum(sizes), "operators": dict(written.operators)},
            "agreement": self.agreement.json(),
            "cost": {**figures.work(self.graph), **self.forecast},
            "verification": [*(each.json() for each in self.rungs_before), *self.ladder.json()],
            "notes": [*self.said, *written.notes, *self._poor()],
            "details": {"kept": self.kept, **written.details} if self.kept else dict(written.details),
            "versions": figures.versions(),
        }

    def _poor(self) -> list[str]:
        """Whether small numbers cost too much."""
        last = self.ladder.rungs[-1].cosine
        if self.choices.dtype == "float32" or last is None or last >= POOR_COSINE:
            return []
        advice = "give typical --calibration data, another --observer, or --dtype float32"
        return [f"{self.choices.dtype} loses much of this model: cosine {last:.4f} with the float outputs; {advice}"]
