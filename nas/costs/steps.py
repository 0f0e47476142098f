"""What the steps of a program take of a device: instructions, cycles, stack and code, learnt once and kept on disk.

A step is one C function whose sizes are literals, so that what it takes hardly depends on the program around it. It is
learnt from a program of that step alone, which is linked for the device and run once by the emulator. The compiler
knows the constants of a function that one step calls, and not of one that several share: those are two entries.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ir.errors import MachineError
from ...ir.graph import Array, Graph, Value
from ...ir.memory import Plan, Step
from ...lowering.c.call import Call
from ...lowering.c.lower import Vector, lower
from ...lowering.c.toolchain import HARNESS_ORIGIN, HARNESS_SIZE
from ...targets import Target
from .versions import environment

if TYPE_CHECKING:
    from ...runtimes.isa import Isa

__all__ = ["Program", "StepCosts", "StepTable", "blank"]

HARNESS_END = HARNESS_ORIGIN + HARNESS_SIZE

POINTERS = 3
"""Arguments, at most, that a step has beside its buffers: its constants, and the callback for pixels with its own."""

SPREAD = 8
"""The end of a type's range in standard deviations of what is computed with it."""


@dataclass(frozen=True)
class StepCosts:
    """Of one step.

    Attributes:
        instructions: Of one execution; None where no emulator knows the core. They depend on data hardly or not at all.
        cycles: Least and most that the core works, by its stated rules; None where there are none.
        stack: Bytes of the function and the deepest that it calls.
        frames: Bytes, at most, of the functions that call it.
        code: Bytes of its function.
        calling: Bytes of code that call it.
        helpers: Functions that it shares with others, and the bytes of each.
    """

    instructions: int | None
    cycles: tuple[float, float] | None
    stack: int
    frames: int
    code: int
    calling: int
    helpers: dict[str, int]


@dataclass(frozen=True)
class Program:
    """Of all steps of a network together.

    Attributes:
        instructions: Of one inference; None where no emulator knows the core.
        cycles: Least and most that the core works, without waiting for memory; None where no rules are stated.
        stack: Bytes that are never too few: frames of the functions that call a step are bounded, not known.
        code: Bytes of machine code.
    """

    instructions: int | None
    cycles: tuple[float, float] | None
    stack: int
    code: int


@dataclass
class StepTable:
    """What steps take of one device; entries are made as they are asked for.

    Attributes:
        target: A device of the C back end that the emulator knows.
        say: Called with a line of text before a step is compiled and emulated.
    """

    target: Target
    say: Callable[[str], None] | None = None
    _known: dict[str, StepCosts] = field(default_factory=dict)

    def of(self, plan: Plan, calls: Sequence[Call]) -> Program:
        """What the program of a plan takes.

        Args:
            plan: All steps of a network, or some.
            calls: The code of each, as `lower.emitted` makes it.

        Raises:
            MachineError: There is no compiler or emulator, or no room on disk.
            BudgetError: A step alone is larger than the device.
        """
        shared = Counter(call.signature() for call in calls)
        found = [self._step(plan, call, shared[call.signature()] > 1) for call in calls]
        functions = {call.signature(): each for call, each in zip(calls, found, strict=True)}
        helpers = {name: size for each in found for name, size in each.helpers.items()}
        counts = [each.instructions for each in found if each.instructions is not None]
        bands = [each.cycles for each in found if each.cycles is not None]
        return Program(
            sum(counts) if len(counts) == len(found) else None,
            (sum(low for low, _ in bands), sum(high for _, high in bands)) if len(bands) == len(found) else None,
            max((each.stack for each in found), default=0) + max((each.frames for each in found), default=0),
            sum(each.code for each in functions.values())
            + sum(helpers.values())
            + sum(each.calling for each in found),
        )

    def _step(self, plan: Plan, call: Call, shared: bool) -> StepCosts:
        name = blake2b(repr((call.signature(), shared)).encode(), digest_size=16).hexdigest()
        if name not in self._known:
            path = self._folder / f"{name}.json"
            found = _read(path)
            if found is None:
                if self.say is not None:
                    self.say(f"measure a step: {call.kind} {call.step.name}")
                found = learnt(plan, call, shared, self.target)
                _write(path, found)
            self._known[name] = found
        return self._known[name]

    @cached_property
    def _folder(self) -> Path:
        """Where entries of this device, compiler and version of the kernels lie."""
        from ...lowering.c.toolchain import cache_folder

        return cache_folder() / "steps" / environment(self.target)

    def __getstate__(self) -> dict[str, Any]:
        """Workers look entries up on disk, and tell nobody what they do."""
        return {"target": self.target, "say": None, "_known": {}}


def learnt(plan: Plan, call: Call, shared: bool, target: Target) -> StepCosts:
    """Compile and emulate one step of a plan, which others share the function of or not; what it takes."""
    from ...lowering.c import toolchain
    from ...runtimes import elf, isa
    from ...runtimes.artifact import stack_bytes
    from ...runtimes.stack import stack_bound

    ports, times = _ports(call.step), 2 if shared else 1
    alone = replace(plan, steps=(call.step,) * times, streamed=call.step.schedule.streams)
    with tempfile.TemporaryDirectory() as place:
        folder, path = Path(place), Path(place) / "step.elf"
        part = lower(ports, alone, target, folder, "step", blank(ports))
        prefix, own = part["name"], f"{call.kind}_0"
        sources = [*sorted((folder / "src").glob("*.c")), *(folder / name for name in part["harness"])]
        entries = [part["symbols"]["step"], part["symbols"]["arena"]]
        toolchain.compile_elf(sources, target, path, entries, stack=stack_bytes(target))
        image, deepest = elf.load(path), stack_bound(path, own).bytes
        known = isa.knows(target)
        count, band = _emulated(ports, path, target, part["symbols"]) if known else (None, None)
    code = {each.name: each.size for each in image.functions if not HARNESS_ORIGIN <= each.address < HARNESS_END}
    calling = code.pop(f"{prefix}_step") // times
    frames = _frames(isa.of(target) if known else isa.of_machine(image.machine), call)
    return StepCosts(count, band, deepest, frames, code.pop(own), calling, code)


def _ports(step: Step) -> Graph:
    """What a step reads and makes, as what a program is given and gives."""
    made = Graph("step")
    for value in step.group.inputs:
        made.input(value.name, value.type)
    for value in step.group.outputs:
        made.output(made.constant(np.zeros(value.shape, value.dtype), value.name))
    return made


def _emulated(
    ports: Graph, path: Path, target: Target, symbols: Mapping[str, str]
) -> tuple[int, tuple[float, float] | None]:
    """Instructions of the first step on values as they are in networks, and the band of cycles by rules."""
    from ...runtimes import cycles
    from ...runtimes.machine import Machine

    machine, draw = Machine(target, path), np.random.default_rng(0)
    pointers = [machine.place(_typical(value, draw)) for value in ports.inputs]
    places = [machine.buffer(value.type.nbytes) for value in ports.outputs]
    result = machine.call(symbols["step"], *pointers, *places, 0, 0)
    return result.instructions, cycles.estimate(machine, result, {}).cycles if cycles.has_rules(target) else None


def _typical(value: Value, draw: np.random.Generator) -> Array:
    """Numbers around what stands for zero, so that hardly any result comes to the end of its type, as in networks."""
    kind = np.iinfo(value.type.numpy)
    zero = value.type.quant.zero_point if value.type.quant else 0
    spread = zero + draw.standard_normal(value.shape) * (kind.max / SPREAD)
    return np.clip(np.rint(spread), kind.min, kind.max).astype(kind.dtype)


def _frames(isa: Isa, call: Call) -> int:
    """The most that the functions around a step take: its switch, and the run or the harness and its loop.

    They hand arguments on and compute nothing, so what they keep fits the registers that they may have to save.
    """
    handed = max(0, len(call.arguments) + POINTERS - isa.in_registers)
    return 3 * isa.saved + (4 * handed + 15) // 16 * 16


def blank(graph: Graph) -> Vector:
    """A stored run for programs that nobody tests: all zeros."""
    inputs, outputs = (
        {value.name: np.zeros(value.shape, value.dtype) for value in ports} for ports in (graph.inputs, graph.outputs)
    )
    return Vector(inputs, outputs)


def _read(path: Path) -> StepCosts | None:
    """An entry that is on disk; one that is spoilt is none."""
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
        band = made.pop("cycles")
        return StepCosts(**made, cycles=None if band is None else (band[0], band[1]))
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
        return None


def _write(path: Path, entry: StepCosts) -> None:
    """Keep an entry; other processes see all of it or nothing."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(asdict(entry)) + "\n", encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        do = "make room, or set EDGESMITH_CACHE to a folder that can be written"
        raise MachineError("what a step takes cannot be kept", where=[str(path)], why=str(error), do=do) from error
