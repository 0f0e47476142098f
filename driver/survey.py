"""What would become of a model on each target, without compiling it: what is recognised, written, missing, and taken.

Every figure comes from shapes: no data is run, no weight rounded or packed, nothing is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir.errors import BudgetError, EdgesmithError, MachineError, ModelError, Unsupported
from ..lowering import Lack, Outline
from . import figures
from .choices import choose
from .feeds import check_batch, inputs_of
from .front import Progress, Shapes, Values
from .library import STACK_ALLOWANCE
from .queries import find_target

if TYPE_CHECKING:
    from ..ir.graph import Graph
    from ..ir.memory import Plan
    from ..ir.passes.base import Pass
    from ..lowering import Backend
    from ..targets import Target

__all__ = ["check"]

STREAMS = ("int8", "int16")
SPARED = "layers whose rounding costs too much accuracy stay in float, and take more; which they are, only data can say"


@dataclass(frozen=True)
class Way:
    """A way to compile the model, and the targets that share it.

    Attributes:
        backend: The back end.
        dtype: Its arithmetic.
        stream: Precision of tokens between blocks, where the back end has that choice.
        outline: What would be written; None where that cannot be said here.
        memory: Bytes of RAM for activations, and what that figure is.
        devices: The targets.
        why_not: What is missing on this computer to say or to do it.
    """

    backend: str
    dtype: str
    outline: Outline | None
    memory: Mapping[str, Any]
    devices: tuple[Target, ...]
    stream: str = ""
    why_not: str = ""

    @property
    def lacks(self) -> tuple[Lack, ...]:
        """What is missing."""
        return self.outline.lacks if self.outline else ()

    def over(self, device: Target) -> list[dict[str, Any]]:
        """The budgets of a device that are sure to be too small, region by region."""
        if self.backend != "c" or self.outline is None or self.lacks:
            return []
        from ..lowering.c.lower import code_reserve

        inside, outside, code = device.flash_budget, device.external_flash_budget, code_reserve(device)
        rows = [("RAM", self.memory["bytes"] + STACK_ALLOWANCE, device.ram_budget)]
        if inside is not None and outside is not None:  # code stays inside, as many constants as fit beside it
            rows.append(("external flash", self.outline.size - (inside - code), outside))
        else:
            rows.append(("flash", self.outline.size + code, inside))
        return [{"what": what, "needs": n, "budget": most} for what, n, most in rows if most is not None and n > most]

    def takes(self, device: Target) -> bool:
        """Whether it seems to work on a device."""
        return self.outline is not None and not self.lacks and not self.over(device)

    def json(self) -> dict[str, Any]:
        """All of it as plain data."""
        outline = self.outline
        return {
            "backend": self.backend,
            "dtype": self.dtype,
            "stream": self.stream or None,
            "targets": [
                {"name": each.name, "takes": self.takes(each), "over": self.over(each)} for each in self.devices
            ],
            "operators": dict(outline.operators) if outline else {},
            "size": {"bytes": outline.size, "is": outline.size_is} if outline and not self.lacks else None,
            "memory": dict(self.memory) if outline and not self.lacks else None,
            "lacks": [each.json() for each in self.lacks],
            "notes": list(outline.notes) if outline else [],
            "why_not": self.why_not or None,
        }


def check(
    model: str | PathLike[str] | Graph, targets: Sequence[str | Target] = (), shapes: Shapes | None = None,
    values: Values | None = None, progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Say of every target whether it takes a model, and what it would take; all that is missing is named.

    Args:
        model: An `.onnx` file, or a graph; it is only read.
        targets: Names of devices or paths of their files; all of ours if there are none.
        shapes: A full shape for each input with symbolic dimensions.
        values: Inputs that never change, by name: numbers or arrays.
        progress: Called with the name of each stage as it begins.

    Returns:
        Plain data, as docs/json.md has it. `stopped` is the error in which the verb ends if no target takes the model.

    Raises:
        UsageError: An unknown target, or shapes that do not fit.
    """
    from .. import frontend
    from .. import targets as known
    from ..ir.graph import Graph

    say = progress or (lambda stage: None)
    devices = [find_target(name) for name in targets or known.names()]
    name = model.name if isinstance(model, Graph) else Path(model).stem
    say("read the model")
    try:
        graph = model.copy() if isinstance(model, Graph) else frontend.imported(model, shapes, values, pixels=True)
        inputs_of(graph)
    except ModelError as error:
        return {"name": name, "imports": False, "ways": [], "stopped": error.json()}
    say("recognise operators")
    frontend.recognised(graph)
    about = {"name": name, "imports": True, **figures.outline(graph)}
    simplified = _Simplified(graph)
    ways: list[Way] = []
    for backend in dict.fromkeys(device.backend for device in sorted(devices, key=lambda each: each.backend)):
        own = [device for device in devices if device.backend == backend]
        say(f"look at the back ends: {backend}")
        ways += _libraries(simplified, own) if backend == "c" else _translations(simplified, own)
    return {**about, "ways": [way.json() for way in ways], "stopped": _stopped(ways)}


@dataclass
class _Simplified:
    """A recognised graph after the passes of each back end; a pipeline that begins with another's goes on there."""

    graph: Graph
    done: list[tuple[tuple[Pass, ...], Graph]] = field(default_factory=list)

    def by(self, passes: Sequence[Pass]) -> Graph:
        """A copy of its own after these passes."""
        from ..ir.passes.pipelines import run_pipeline

        wanted = tuple(passes)
        begun = [each for each in self.done if wanted[: len(each[0])] == each[0]]
        before, found = max(begun, key=lambda each: len(each[0]), default=((), self.graph))
        if before != wanted:
            found = found.copy()
            run_pipeline(found, wanted)
            self.done.append((wanted, found))
        return found.copy()


def _libraries(simplified: _Simplified, devices: list[Target]) -> Iterator[Way]:
    """The C back end in integers, by the precision of the stream where that makes a difference, and in floats."""
    from ..ir.passes.pipelines import FLOAT_C, INTEGER
    from ..ir.passes.quantise.legalise_integer import KEEP_FLOAT, brought, obstacles
    from ..ir.passes.quantise.outline import outline

    shared = tuple(devices)
    many = _many(simplified.graph)
    prepared = brought(simplified.by(INTEGER))
    missing = [Lack(op, tuple(names), why, KEEP_FLOAT) for (op, why), names in obstacles(prepared).items()]
    if many or missing:
        yield Way("c", "int8", Outline({}, 0, lacks=(*many, *missing)), {}, shared)
    else:
        graphs = {stream: outline(prepared, stream) for stream in STREAMS}
        ways = [_library(graphs[stream], "int8", shared, stream) for stream in STREAMS]
        alike = replace(ways[0], stream="") == replace(ways[1], stream="")
        yield from [replace(ways[0], stream="")] if alike else ways
    yield _library(simplified.by(FLOAT_C), "float32", shared, lacks=many)


def _library(
    graph: Graph, dtype: str, devices: tuple[Target, ...], stream: str = "", lacks: tuple[Lack, ...] = ()
) -> Way:
    """A library of that graph: its plan without a budget is the smallest arena that the planner finds."""
    from ..ir.memory import plan
    from ..lowering.c.outline import outline

    found: Plan = plan(graph)
    made = outline(found)
    made = replace(made, lacks=(*lacks, *made.lacks))
    memory = {"bytes": found.arena_bytes, "is": "the smallest arena; stack and statics come on top"}
    return Way("c", dtype, made, memory, devices, stream)


def _many(graph: Graph) -> tuple[Lack, ...]:
    try:
        check_batch(graph)
    except ModelError as error:
        return (Lack("input", error.where, f"{error.what}: {error.why}", error.do),)
    return ()


def _translations(simplified: _Simplified, devices: list[Target]) -> Iterator[Way]:
    """A back end that writes one file, in its first arithmetic and, where it can, in integers.

    Targets for which it writes the same are together.
    """
    from .. import lowering

    found: list[Way] = []
    dtypes = lowering.load(devices[0].backend).dtypes
    asked = dict.fromkeys((dtypes[0], *(each for each in dtypes if each == "int8")))
    forms: dict[str, list[Target]] = {}
    for device in devices:
        forms.setdefault(repr(sorted(device.format.items())), []).append(device)
    for way in (_translation(simplified, tuple(same), dtype) for dtype in asked for same in forms.values()):
        alike = next((each for each in found if replace(each, devices=()) == replace(way, devices=())), None)
        if alike is None:
            found.append(way)
        else:
            found[found.index(alike)] = replace(alike, devices=(*alike.devices, *way.devices))
    return iter(found)


def _translation(simplified: _Simplified, devices: tuple[Target, ...], dtype: str) -> Way:
    from .. import lowering
    from ..ir.cost import peak

    backend = lowering.load(devices[0].backend)
    options = choose(devices[0], dtype, {"observer": "minmax"} if dtype == "int8" else {}, False).options
    graph = simplified.by(backend.passes(dtype))
    memory = {"bytes": peak(graph), "is": "activations alive at once in the graph's order, in float32"}
    missing = backend.why_not() or ""
    try:
        if dtype == "int8":
            graph = _paired(graph, backend, options)
        outline = backend.outline(lowering.Job(graph, devices[0], dtype, options))
    except MachineError:
        return Way(backend.name, dtype, None, memory, devices, why_not=missing)
    if dtype == "int8":
        outline = replace(outline, size_is="at least", notes=(*outline.notes, SPARED))
    return Way(backend.name, dtype, outline, memory, devices, why_not=missing)


def _paired(graph: Graph, backend: Backend, options: Mapping[str, str]) -> Graph:
    """The graph with pairs where the back end takes integers."""
    from ..ir.passes.quantise.outline import paired
    from ..ir.passes.quantise.qdq import QdqOptions
    from ..lowering import Integers

    if isinstance(backend, Integers):
        return paired(graph, lambda seen: backend.integers(graph, seen, options))
    return paired(graph, lambda seen: QdqOptions())


def _stopped(ways: Sequence[Way]) -> dict[str, Any] | None:
    """The error that stands for all when no target takes the model: the nearest to success."""
    if any(way.takes(device) for way in ways for device in way.devices):
        return None
    error: EdgesmithError
    over = [row for way in ways for device in way.devices for row in way.over(device)]
    lacks = [lack for way in ways for lack in way.lacks]
    if over:
        least = min(over, key=lambda row: row["needs"] - row["budget"])
        why = f"the nearest needs {least['needs']:,} bytes of {least['what']}, its budget is {least['budget']:,}"
        error = BudgetError("the model fits none of the targets", why=why, do="choose a larger device")
    elif lacks:
        where = dict.fromkeys(name for lack in lacks for name in lack.where)
        do = "; ".join(dict.fromkeys(lack.do for lack in lacks if lack.do))
        error = Unsupported("none of the targets takes the model", where=where, do=do)
    else:
        do = "; ".join(dict.fromkeys(way.why_not for way in ways if way.why_not))
        error = MachineError("packages are missing to look at these targets", do=do)
    return error.json()
