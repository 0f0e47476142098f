"""The stages in order, from an ONNX file to an artifact: the only file that knows them all."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.errors import BudgetError, InternalError, UsageError
from . import figures
from .execution import quantised, real, runner, same, save_vectors
from .feeds import Input, Source, inputs_of, samples, synthetic
from .ladder import Ladder
from .queries import find_target, own_file

if TYPE_CHECKING:
    from ..ir.graph import Array, Graph
    from ..ir.memory import Plan
    from ..ir.passes.base import Pass
    from ..lowering.artifact import Artifact
    from ..lowering.c.toolchain import Sizes
    from ..runtimes import Measurement
    from ..targets import Target

__all__ = ["Compilation", "compile", "load"]

Progress = Callable[[str], None]
Shapes = Mapping[str, tuple[int, ...]]

NOISE_SAMPLES = 8
REFERENCE_SAMPLES = 64
LOOK_MACS, LOOK_SAMPLES = 400_000_000, 16
"""What one rung of numpy may cost decides how many samples it sees, LOOK_SAMPLES at most."""

STACK_ALLOWANCE = 512
"""Bytes of stack the planner leaves room for; what the program really needs is checked after the build."""


def load(model: str | PathLike[str], shapes: Shapes | None = None) -> Graph:
    """Read an ONNX model as a graph of recognised operators; `print(edgesmith.ir.text.show(graph))` shows it.

    Args:
        model: An `.onnx` file; it is only read.
        shapes: A full shape for each input with symbolic dimensions.

    Raises:
        ModelError: The file cannot be used, or holds operators that are unknown here (all are named).
    """
    from .. import frontend

    return frontend.load(model, shapes)


def compile(
    model: str | PathLike[str] | Graph,
    target: str | Target,
    *,
    out: str | PathLike[str],
    calibration: Source | None = None,
    shapes: Shapes | None = None,
    ram: int | None = None,
    dtype: str = "int8",
    stream: str = "auto",
    check: bool = True,
    progress: Progress | None = None,
) -> Artifact:
    """Turn a model into a C library that fits a device, and prove that it computes what was meant.

    Args:
        model: An `.onnx` file, or what `load` returned.
        target: Name of a device, a path to a `.toml` file of your own, or a `Target`.
        out: Folder for the artifact. It appears when everything is done; an artifact that lay there is replaced.
        calibration: Typical inputs: a path to `.npz` or `.npy`, a mapping of arrays, or one array. Without, noise.
        shapes: A full shape for each input with symbolic dimensions.
        ram: Bytes of RAM for arena, stack and statics instead of the target's own budget.
        dtype: Arithmetic of the program: "int8" (quantised weights and activations) or "float32" (the model's own).
        stream: Precision of an int8 program's tokens between blocks: "int8", "int16", or "auto" for what accuracy and
            budget say.
        check: Also run the result on this computer and in the emulator, and compare with the reference: integers bit
            for bit, float32 within `execution.FLOAT_TOLERANCE`.
        progress: Called with the name of each stage as it begins.

    Raises:
        ModelError: The model or the data cannot be used (exit code 3).
        BudgetError: It does not fit (4).
        MachineError: A tool is missing here (5).
        UsageError: Unknown target or dtype, or `out` holds something else than an artifact (2).
    """
    from ..lowering.artifact import check_vacant

    place = Path(out)
    check_vacant(place)
    device, own = find_target(target), own_file(target)
    if device.backend != "c":
        raise UsageError(f"no back end compiles for '{device.name}' yet", do="see: edgesmith targets")
    if dtype not in ("int8", "float32"):
        raise UsageError(f"no program computes in '{dtype}'", do="choose int8 or float32")
    job = Compilation(device, ram or device.ram_budget, dtype, stream, check, progress or (lambda stage: None), own)
    job.read(model, shapes or {}, calibration)
    job.simplify()
    job.quantise()
    job.plan_memory()
    return job.write(place)


@dataclass
class Compilation:
    """One compile on its way: each stage leaves its result here for the next."""

    device: Target
    budget: int | None
    dtype: str
    stream: str
    check: bool
    say: Progress
    own_target: Path | None = None
    ladder: Ladder = field(default_factory=Ladder)

    def read(self, model: str | PathLike[str] | Graph, shapes: Shapes, calibration: Source | None) -> None:
        """Import the model and the data; ONNX Runtime's outputs are what everything later is held against."""
        from .. import frontend
        from ..ir.graph import Graph
        from ..runtimes import series

        self.say("read the model")
        path = None if isinstance(model, Graph) else Path(model)
        self.graph = model.copy() if isinstance(model, Graph) else frontend.imported(model, shapes)
        self.name = path.stem if path else self.graph.name
        self.origin = figures.origin(path)
        self.inputs: list[Input] = inputs_of(self.graph)
        self.noise = calibration is None
        if calibration is None:
            self.data = synthetic(self.inputs, NOISE_SAMPLES)
        else:
            self.data = samples(calibration, self.inputs, "calibration")
        self.looks = self.data[: figures.looks(self.graph, LOOK_MACS, LOOK_SAMPLES)]
        if path is not None:
            self.say("run it in ONNX Runtime")
            self.ladder.climb("ONNX Runtime", list(series.onnx(path, self.data[:REFERENCE_SAMPLES])))
        self._look("imported graph" if path else "graph as given")

    def simplify(self) -> None:
        """Recognise operators, then apply the exact passes; each that changes something is a rung."""
        from .. import frontend
        from ..ir.passes.pipelines import EXACT, FLOAT_C, run_pipeline

        self.say("recognise operators")
        frontend.recognised(self.graph)
        self._look("recognised operators")
        self.say("apply exact passes")
        run_pipeline(self.graph, EXACT if self.dtype == "int8" else FLOAT_C, on_step=self._passed)

    def _passed(self, done: Pass, rewrites: int, graph: Graph) -> None:
        self._look(f"{done.name} ({rewrites})")

    def _look(self, rung: str) -> None:
        from ..ir.interpret import run

        self.ladder.climb(rung, [run(self.graph, feeds) for feeds in self.looks])

    def quantise(self) -> None:
        """Measure ranges on the data and turn the graph into integers; a float32 program stays as it is."""
        from ..ir.passes.quantise import QuantOptions, convert
        from ..ir.passes.quantise.calibrate import calibrate

        if self.dtype == "float32":
            self.lowered, self.stream = self.graph, self.dtype
            return
        self.say("calibrate")
        stacked = {each.name: np.concatenate([feeds[each.name] for feeds in self.data]) for each in self.inputs}
        calibration = calibrate(self.graph, stacked, lambda done, of: self.say(f"calibrate: {done} of {of}"))
        self.say("quantise")
        self.quantised = convert(self.graph, calibration, QuantOptions(stream=self.stream))
        self.lowered = self.quantised.graph

    def plan_memory(self) -> None:
        """Plan within the budget; a stream that was free to choose gives up precision before it gives up."""
        from ..ir.passes.quantise import QuantOptions, convert

        self.say("plan memory")
        try:
            self.plan = self._planned()
        except BudgetError:
            if self.stream != "auto" or self.quantised.options.stream == "int8":
                raise
            self.quantised = convert(self.graph, self.quantised.calibration, QuantOptions(stream="int8"))
            self.lowered = self.quantised.graph
            self.plan = self._planned()
        if self.dtype == "int8":
            self.stream = self.quantised.options.stream

    def _planned(self) -> Plan:
        from ..ir.memory import plan

        if self.budget is None:
            return plan(self.lowered)
        kept = f"{STACK_ALLOWANCE} of the budget's {self.budget:,} bytes are kept for the stack"
        if self.budget <= STACK_ALLOWANCE:
            raise BudgetError("the RAM budget leaves nothing for activations", why=kept, do="give a larger --ram")
        try:
            return plan(self.lowered, self.budget - STACK_ALLOWANCE)
        except BudgetError as error:
            why = f"{error.why}; {kept}"
            raise BudgetError(error.what, where=error.where, why=why, do=error.do) from error

    def write(self, place: Path) -> Artifact:
        """Generate the library in a folder of its own, judge it, and only then put it where it belongs."""
        from ..ir.memory.picture import svg
        from ..lowering import artifact
        from ..lowering.c.lower import lower
        from .report import render

        self._reference()
        with artifact.staging(place) as folder:
            self.say("generate C")
            part = lower(self.lowered, self.plan, self.device, folder, self.name, self.vector)
            save_vectors(folder, self.stored, self.wanted)
            if self.own_target is not None:
                (folder / self.own_target.name).write_bytes(self.own_target.read_bytes())
            (folder / artifact.MANIFEST).write_text(json.dumps(self._interface(part)), encoding="utf-8")
            manifest = self._judge(folder, part)
            page = render(manifest, self.device, svg(self.plan))
            (folder / "report.html").write_text(page, encoding="utf-8")
            artifact.seal(folder, manifest)
        return artifact.load(place)

    def _reference(self) -> None:
        """What the graph that is lowered computes: the truth that generated code must meet, integers bit for bit."""
        from ..ir.interpret import run
        from ..lowering.c.lower import Vector

        self.say("run the reference")
        ports = (*self.lowered.inputs, *self.lowered.outputs)
        layouts = {value.name: tuple(range(value.type.rank)) for value in ports}
        if self.dtype == "int8":
            layouts |= {value.name: layout for value, layout in self.quantised.twins.values()}
        self.takes = figures.tensors(self.lowered.inputs, layouts)
        self.gives = figures.tensors(self.lowered.outputs, layouts)
        self.stored = [quantised(feeds, self.takes) for feeds in self.looks]
        self.vector = Vector.of(self.lowered, self.stored[0])
        self.wanted = [self.vector.outputs, *(run(self.lowered, feeds) for feeds in self.stored[1:])]
        rung = f"integer reference, {self.stream} stream" if self.dtype == "int8" else "float32 reference"
        self.ladder.climb(rung, [real(each, self.gives) for each in self.wanted])

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
        }

    def _judge(self, folder: Path, part: Mapping[str, Any]) -> dict[str, Any]:
        """Build, measure, compare, hold against the budgets; the whole manifest."""
        sizes, stack = self._build(folder, part)
        run = self._verify(folder, part) if self.check else None
        memory = figures.memory(self.plan, sizes, stack, run, self.budget)
        flash = figures.flash(sizes, self.device)
        figures.check_fit(memory, flash, self.device)
        return {
            **self._interface(part),
            "model": {**self.origin, "inputs": [each.json() for each in self.inputs]},
            "dtype": self.dtype,
            "stream": self.stream,
            "calibration": {"source": "noise" if self.noise else "data", "samples": len(self.data)},
            "columns": figures.columns(memory, flash),
            "memory": memory,
            "flash": flash,
            "cost": figures.cost(self.lowered, part["steps"], run),
            "verification": self.ladder.json(),
            "versions": figures.versions(),
        }

    def _build(self, folder: Path, part: Mapping[str, Any]) -> tuple[Sizes | None, int | None]:
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
        from ..runtimes import series

        self.say("run on this computer")
        feeds = [quantised(each, self.takes) for each in self.data[:REFERENCE_SAMPLES]]
        self._equal("C on this computer", list(series.stored(series.program("host", folder), feeds)), "host", folder)
        if not self.device.regions:
            return None
        self.say(f"run on the emulated {self.device.name}")
        run = runner("emulator").run(folder, self.stored[0])
        self._equal(f"C on the emulated {self.device.name}", [run.raw], "emulator", folder)
        if run.arena_high_water != self.plan.high_water:
            raise InternalError(
                "the program used another amount of memory than planned", where=[self.name],
                why=f"planned to touch {self.plan.high_water} bytes of arena, measured {run.arena_high_water}",
            )  # fmt: skip
        return run

    def _equal(self, rung: str, outputs: Sequence[Mapping[str, Array]], on: str, folder: Path) -> None:
        from ..runtimes import divergence, series

        pairs = list(zip(outputs, self.wanted, strict=False))
        equal = sum(same(one, other) for one, other in pairs)
        bits = equal == len(pairs) if self.dtype == "int8" else None
        self.ladder.climb(rung, [real(each, self.gives) for each in outputs], bits)
        if equal < len(pairs):
            program = series.program(on, folder)
            found = divergence.first(program, program.library.arrays(self.stored[0]))
            where = str(found) if found else "no step of the first sample"
            why = f"{len(pairs) - equal} of {len(pairs)} samples differ; first divergence: {where}"
            raise InternalError(f"{rung} does not equal the reference", where=[self.name], why=why)
