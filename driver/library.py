"""The stages of the C back end: integers, a memory plan, a program that is built, measured and held to its budgets."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.errors import BudgetError, InternalError, UsageError
from . import figures
from .agreement import FLOAT_TOLERANCE, PROGRAM, rounding
from .execution import quantised, real, runner, save_vectors
from .feeds import check_batch
from .front import REFERENCE_SAMPLES, Front
from .reasons import codes, placement

if TYPE_CHECKING:
    from ..ir.graph import Array
    from ..ir.memory import Plan, Rates
    from ..ir.passes.quantise import QuantOptions
    from ..lowering.artifact import Artifact
    from ..lowering.c.toolchain import Sizes
    from ..runtimes import Measurement
    from ..targets import Target

__all__ = ["STACK_ALLOWANCE", "Library", "budget"]

POOR_COSINE = 0.98
"""Below this cosine with the float outputs on the data given, a compile says that it lost too much."""

STACK_ALLOWANCE = 512
"""Bytes of stack the planner leaves room for; what the program really needs is checked after the build."""


def budget(device: Target, ram: int | None) -> int | None:
    """Bytes of RAM that the program may take.

    Raises:
        UsageError: The device does not have that much.
    """
    if ram is None or device.ram is None:
        return device.ram_budget if ram is None else ram
    if ram > device.ram.size:
        raise UsageError(f"{device.name} has {device.ram.size:,} bytes of RAM, not {ram:,}", do="give a smaller --ram")
    return ram


@dataclass(kw_only=True)
class Library(Front):
    """A compile to a C library: from the simplified graph over integers and a memory plan to a program."""

    budget: int | None
    allowance: int = STACK_ALLOWANCE
    needed: int = 0

    def admit(self) -> None:
        """A library runs one inference on one sample; packagings that nobody knows are not found out at the end."""
        from ..lowering.c import packaging

        check_batch(self.graph)
        self.packages = packaging.chosen(self.choices.options["package"])

    def finish(self, place: Path) -> Artifact:
        """All stages after reading, in order."""
        from ..ir.passes.pipelines import FLOAT_C, INTEGER

        self.simplify(INTEGER if self.choices.dtype == "int8" else FLOAT_C)
        self.quantise()
        self.plan_memory()
        return self.write(place)

    @property
    def options(self) -> QuantOptions:
        """How to quantise."""
        from ..ir.passes.quantise import QuantOptions

        given = self.choices.options
        return QuantOptions(stream=given["stream"], observer=given["observer"], code=given["weights"])

    @property
    def stream(self) -> str:
        """Precision of the tokens between blocks."""
        return "float32" if self.choices.dtype == "float32" else self.quantised.options.stream

    def quantise(self) -> None:
        """Measure ranges on the data and turn the graph into integers; a float32 program stays as it is."""
        from ..ir.passes.quantise import convert
        from ..ir.passes.quantise.calibrate import calibrate

        if self.choices.dtype == "float32":
            self.lowered = self.graph
            return
        self.say("calibrate")
        stacked = {each.name: np.concatenate([feeds[each.name] for feeds in self.data]) for each in self.inputs}
        calibration = calibrate(self.graph, stacked, lambda done, of: self.say(f"calibrate: {done} of {of}"))
        self.say("quantise")
        self.quantised = convert(self.graph, calibration, self.options)
        self.lowered = self.quantised.graph

    def plan_memory(self) -> None:
        """Plan within the budget; a stream that was free to choose gives up precision before it gives up."""
        from ..ir.passes.quantise import convert

        self.say("plan memory")
        try:
            self.plan = self._planned()
        except BudgetError:
            if not self._may_narrow:
                raise
            narrow = replace(self.options, stream="int8")
            self.quantised = convert(self.graph, self.quantised.calibration, narrow)
            self.lowered = self.quantised.graph
            self.plan = self._planned()

    @property
    def _may_narrow(self) -> bool:
        return self.choices.options["stream"] == "auto" and self.stream == "int16"

    @property
    def rates(self) -> Rates:
        """What memory costs the device, for a graph with these constants."""
        from ..ir.cost import cost
        from ..lowering.c.rates import rates

        return rates(self.device, cost(self.lowered).parameter_bytes)

    def _planned(self) -> Plan:
        from ..ir.memory import plan

        callback = self.choices.options["image"] == "callback"
        if self.budget is None:
            return plan(self.lowered, callback=callback, rates=self.rates)
        try:
            return plan(self.lowered, self.budget - self.allowance, callback=callback, rates=self.rates)
        except BudgetError as error:
            if not self._may_narrow:
                least = plan(self.lowered, callback=callback, rates=self.rates)
                if least.arena_bytes < self.budget:
                    return least  # the stack may do with less than the allowance: the build tells
            kept = f"{self.allowance} of the budget's {self.budget:,} bytes are kept for the stack"
            why = f"{error.why}; {kept}"
            raise BudgetError(error.what, where=error.where, why=why, do=error.do) from error

    def write(self, place: Path) -> Artifact:
        """Generate the library; where its stack turns out to be more than was left for it, plan once more."""
        try:
            return self._written(place)
        except BudgetError:
            before = self.plan
            if self.needed <= self.allowance:
                raise
            self.allowance = self.needed
            self.plan_memory()
            if self.plan.to_json() == before.to_json():
                raise
        return self._written(place)

    def _written(self, place: Path) -> Artifact:
        """Generate the library in a folder of its own, judge it, and only then put it where it belongs."""
        from ..ir.memory.picture import svg
        from ..lowering import artifact
        from ..lowering.c.lower import lower
        from .report import render

        self._reference()
        with artifact.staging(place) as folder:
            self.say("generate C")
            part = lower(self.lowered, self.plan, self.device, folder, self.name, self.vector, self.packages)
            save_vectors(folder, self.stored, self.wanted)
            self.introduce(folder, part)
            manifest = self._judge(folder, part)
            manifest["schedules"] = self._schedules()
            page = render(manifest, self.device, svg(self.plan))
            (folder / "report.html").write_text(page, encoding="utf-8")
            artifact.seal(folder, manifest)
        return artifact.load(place)

    def _schedules(self) -> list[dict[str, Any]] | None:
        """What the other schedules would take, where that was asked for."""
        from ..ir.memory import front, thinned
        from . import schedules

        if self.choices.options["schedules"] != "all":
            return None
        if not self.device.regions:
            raise UsageError(f"{self.device.name} counts no instructions", do="leave --schedules out")
        room = max(self.device.ram_budget or 0, self.budget or 0) - STACK_ALLOWANCE
        callback = self.choices.options["image"] == "callback"
        plans = front(self.lowered, room, callback=callback, rates=self.rates)
        return schedules.ranked(schedules.measured(self, thinned(plans, schedules.MOST)))

    def _reference(self) -> None:
        """What the graph that is lowered computes: the truth that generated code must meet, integers bit for bit."""
        from ..ir.interpret import run
        from ..lowering.c.lower import Vector

        self.say("run the reference")
        layouts = self._layouts()
        self.takes = figures.tensors(self.lowered.inputs, layouts)
        self.gives = figures.tensors(self.lowered.outputs, layouts)
        self.stored = [quantised(feeds, self.takes) for feeds in self.looks]
        self.vector = Vector.of(self.lowered, self.stored[0])
        self.wanted = [self.vector.outputs, *(run(self.lowered, feeds) for feeds in self.stored[1:])]
        rung = f"integer reference, {self.stream} stream" if self.choices.dtype == "int8" else "float32 reference"
        self.ladder.climb(rung, [real(each, self.gives) for each in self.wanted])
        self.agreement = PROGRAM
        if self.choices.dtype == "float32":
            exact = [run(self.lowered, feeds, "float64") for feeds in self.stored]
            self.agreement = rounding(zip(self.wanted, exact, strict=True), FLOAT_TOLERANCE)

    def _layouts(self) -> dict[str, tuple[int, ...]]:
        """The axes of the model's own inputs and outputs in the order in which the program has them."""
        ports = (*self.lowered.inputs, *self.lowered.outputs)
        if self.choices.dtype == "float32":
            return {value.name: tuple(range(value.type.rank)) for value in ports}
        own, twins = self.quantised.source, self.quantised.twins
        pairs = zip((*own.inputs, *own.outputs), ports, strict=True)
        return {new.name: twins[old.name][1] for old, new in pairs}

    def introduce(self, folder: Path, part: Mapping[str, Any]) -> None:
        """Write what runners need beside the sources: the interface, and the file of a target of the user's own."""
        from ..lowering import artifact

        if self.own_target is not None:
            (folder / self.own_target.name).write_bytes(self.own_target.read_bytes())
        (folder / artifact.MANIFEST).write_text(json.dumps(self._interface(part)), encoding="utf-8")

    def _interface(self, part: Mapping[str, Any]) -> dict[str, Any]:
        """What runners need to know."""
        return {
            "name": part["name"],
            "backend": self.device.backend,
            "target": self.device.name,
            "target_file": self.own_target.name if self.own_target else None,
            "inputs": self.takes,
            "outputs": self.gives,
            "symbols": part["symbols"],
            "harness": part["harness"],
            "steps": part["steps"],
            "reads": part["reads"],
        }

    def _judge(self, folder: Path, part: Mapping[str, Any]) -> dict[str, Any]:
        """Build, measure, compare, hold against the budgets; the whole manifest."""
        sizes, stack = self.build(folder)
        flash = figures.flash(sizes, self.device)
        self._check(figures.memory(self.plan, sizes, stack, None, self.budget), flash)
        run = self._verify(folder, part) if self.choices.check else None
        memory = figures.memory(self.plan, sizes, stack, run, self.budget)
        self._check(memory, flash)
        return {
            **self._interface(part),
            "model": {**self.origin, "inputs": [each.json() for each in self.inputs]},
            "dtype": self.choices.dtype,
            "stream": self.stream,
            "agreement": self.agreement.json(),
            "calibration": {"source": "noise" if self.noise else "data", "samples": len(self.data)},
            "columns": figures.columns(memory, flash),
            "memory": memory,
            "flash": flash,
            "cost": figures.cost(self.lowered, part["steps"], run),
            "verification": self.ladder.json(),
            "notes": self._notes(),
            "reasons": self._reasons(),
            "versions": figures.versions(),
        }

    def _check(self, memory: Mapping[str, Any], flash: Mapping[str, Any]) -> None:
        """Hold what the program needs against the budgets."""
        self.needed = memory["total"] - memory["arena_bytes"]
        figures.check_fit(memory, flash, self.device)

    def _notes(self) -> list[str]:
        """What the user should know before trusting the program."""
        if self.choices.dtype == "float32":
            return []
        last = self.ladder.rungs[-1]
        lossy = last.cosine is not None and last.cosine < POOR_COSINE
        advice = "try --stream int16, another --observer, more calibration data, or --dtype float32"
        poor = f"integers lose much of this model: cosine {last.cosine:.4f} with the float outputs; {advice}"
        return [*self.quantised.notes, *([poor] if lossy else [])]

    def _reasons(self) -> list[str]:
        """Why memory and codes were chosen as they were."""
        coded = codes(self.plan, self.device) if self.choices.dtype == "int8" else []
        return placement(self.plan, self.rates, self.device) + coded

    def build(self, folder: Path) -> tuple[Sizes | None, int | None]:
        """Sections of the linked program and the bound on its stack; None for a computer, which has no such limits."""
        from ..lowering.c import toolchain
        from ..runtimes import artifact
        from ..runtimes.stack import stack_bound

        if not self.device.regions:
            return None, None
        self.say(f"build for {self.device.name}")
        library = artifact.load(folder)
        entry = f"{library.name}_run"  # what an application calls; the harness is not part of the library
        with tempfile.TemporaryDirectory() as build:
            elf = Path(build) / f"{self.name}.elf"
            toolchain.compile_elf(library.sources, self.device, elf, [entry, library.arena], stack=library.stack_bytes)
            return toolchain.section_sizes(elf, self.device), stack_bound(elf, entry).bytes

    def _verify(self, folder: Path, part: Mapping[str, Any]) -> Measurement | None:
        """Run the program on this computer and in the emulator; both must give what the reference gives."""
        from ..runtimes import of_target, series

        self.say("run on this computer")
        feeds = [quantised(each, self.takes) for each in self.data[:REFERENCE_SAMPLES]]
        self._equal("C on this computer", list(series.stored(series.program("host", folder), feeds)), "host", folder)
        if not self.device.regions:
            return None
        self.say(f"run on the emulated {self.device.name}")
        on = of_target(self.device)
        run = runner(on).run(folder, self.stored[0])
        self._equal(f"C on the emulated {self.device.name}", [run.raw], on, folder)
        # Helium's tiles of int8 take half of what is planned, which is for int16: there the plan is a bound.
        touched, narrow = run.arena_high_water or 0, "mve" in self.device.core.features
        if touched > self.plan.high_water or (touched < self.plan.high_water and not narrow):
            raise InternalError(
                "the program used another amount of memory than planned", where=[self.name],
                why=f"planned to touch {self.plan.high_water} bytes of arena, measured {run.arena_high_water}",
            )  # fmt: skip
        return run

    def _equal(self, rung: str, outputs: Sequence[Mapping[str, Array]], on: str, folder: Path) -> None:
        from ..runtimes import divergence, series

        pairs = list(zip(outputs, self.wanted, strict=False))
        equal = sum(self.agreement.holds(one, other) for one, other in pairs)
        bits = equal == len(pairs) if self.choices.dtype == "int8" else None
        self.ladder.climb(rung, [real(each, self.gives) for each in outputs], bits)
        if equal < len(pairs):
            program = series.program(on, folder)
            found = divergence.first(program, program.library.arrays(self.stored[0]))
            where = str(found) if found else "no step of the first sample"
            why = f"{len(pairs) - equal} of {len(pairs)} samples differ; first divergence: {where}"
            raise InternalError(f"{rung} does not equal the reference", where=[self.name], why=why)
