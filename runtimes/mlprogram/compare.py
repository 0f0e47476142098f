"""A saved program against the graph it came from, operation by operation, down to the first that spoils the numbers.

Errors add up along a program, so the first large difference need not lie where its cause does. Each operation is
therefore also tried by itself, on the reference's own inputs: what it adds there is its own. All are tried, rather than
half of what remains at a time, since errors need not grow: a later operation may well hide an early one's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.graph import Graph, Value
from ...ir.interpret import trace as reference
from .arithmetic import MODES, Mode, half
from .evaluator import check, constant, prepared, step, trace
from .match import aligned, distance, matched, sanitised
from .package import located, read
from .program import Array, Operation, Program

__all__ = ["Comparison", "Row", "compare"]

EXACT, PLAIN = MODES["float32"], 2.0**-24
UNIT = {"fp16": 2.0**-11, "fp32": PLAIN}
"""Largest relative error of one rounding."""

MEANING = 3e-5
"""Float32 in another order comes this close to the reference, as a share of the largest element; what does not,
computes something else."""

FAR = 32.0
"""An operation is a culprit when it errs this many times more than the rounding of its inputs and output explains."""

ROUNDED_WEIGHTS = 8.0
"""Weights that are stored in half precision move a result by this many roundings at most."""


@dataclass(frozen=True)
class Row:
    """One value that program and graph both have.

    Attributes:
        name: Its name in the program.
        kind: The MIL operation that makes it.
        value: Its name in the graph.
        op: The graph's op that makes it.
        sources: Names of the ONNX nodes that op stands for.
        peak: Largest magnitude of the reference.
        error: Largest difference from the reference, all errors before it included.
        own: What the operation adds by rounding, on the reference's inputs.
        rounding: What rounding of its inputs and its output explains of that.
        meaning: Its difference from the reference in float32, on the reference's inputs.
        verdict: "" if sound; "precision" if `own` is far above `rounding`; "meaning" if it computes something else;
            "weights" if its weights are compressed and therefore others.
    """

    name: str
    kind: str
    value: str
    op: str
    sources: tuple[str, ...]
    peak: float
    error: float
    own: float
    rounding: float
    meaning: float
    verdict: str

    def __str__(self) -> str:
        """A line for people."""
        origin = f" (from {', '.join(self.sources[:3])})" if self.sources else ""
        return f"{self.kind} '{self.name}'{origin}"


@dataclass(frozen=True)
class Comparison:
    """All values that could be compared, in the program's order.

    Attributes:
        rows: One each.
        unmatched: Results of the program that the graph does not have by that name.
    """

    rows: tuple[Row, ...]
    unmatched: tuple[str, ...]

    @property
    def culprit(self) -> Row | None:
        """The first operation that spoils the numbers by itself; None if there is none."""
        return next((row for row in self.rows if row.verdict in ("precision", "meaning")), None)

    @property
    def culprits(self) -> tuple[Row, ...]:
        """All such operations."""
        return tuple(row for row in self.rows if row.verdict in ("precision", "meaning"))

    def json(self) -> dict[str, Any]:
        """Plain data; what is infinite is written as text, since JSON has no infinity."""
        rows = [{key: _plain(part) for key, part in asdict(row).items()} for row in self.rows]
        return {"rows": rows, "culprit": self.culprit and self.culprit.name, "unmatched": list(self.unmatched)}


def _plain(part: Any) -> Any:
    if isinstance(part, float) and not np.isfinite(part):
        return str(part)
    return list(part) if isinstance(part, tuple) else part


def compare(
    package: Path,
    graph: Graph,
    feeds: Mapping[str, Array],
    mode: Mode | str = "declared",
    *,
    names: Mapping[str, str] | None = None,
    pixels: Mapping[str, Array] | None = None,
) -> Comparison:
    """Compare a package with the graph it was written from.

    Args:
        package: A `.mlpackage`, or the folder of an artifact that holds one.
        graph: The graph that the back end was given.
        feeds: Arrays by the graph's input names.
        mode: What the program's arithmetic rounds.
        names: Name in the program by name in the graph; by default those that the artifact's manifest tells.
        pixels: What the program is fed, where that is something else than the graph is fed: images.

    Raises:
        ModelError: The package cannot be read or evaluated.
    """
    path = located(package)
    program = read(path)
    check(program)
    mode = MODES[mode] if isinstance(mode, str) else mode
    known = _recorded(path) if names is None else names
    given = dict(pixels or {})
    for name, array in feeds.items():
        given.setdefault(known.get(name, name if name in program.inputs else sanitised(name)), array)
    pairs = matched(program, graph, known)
    wanted = {id(value) for value in pairs.values()}
    truth = {id(value): array for value, array in reference(graph, feeds) if id(value) in wanted}
    return _Bench(program, given, mode, pairs, truth).run()


def _recorded(package: Path) -> Mapping[str, str]:
    """The names that the manifest beside a package tells."""
    manifest = package.parent / "manifest.json"
    if not manifest.is_file():
        return {}
    details = json.loads(manifest.read_text(encoding="utf-8")).get("details", {})
    return dict(details.get("names", {}))


class _Bench:
    """Where each operation is tried on the reference's inputs."""

    def __init__(
        self,
        program: Program,
        feeds: Mapping[str, Array],
        mode: Mode,
        pairs: Mapping[str, Value],
        truth: Mapping[int, Array],
    ) -> None:
        self.program, self.feeds, self.mode = program, feeds, mode
        self.pairs, self.by_id = pairs, truth
        self.makers = {name: each for each in program.operations for name, _ in each.outputs}
        self.types = {name: type for each in program.operations for name, type in each.outputs}
        self.truth = {
            name: prepared(name, type, feeds, program.features.get(name)) for name, type in program.inputs.items()
        }
        self.errors: dict[str, float] = {}

    def run(self) -> Comparison:
        """Once through the program for the errors that add up, then every operation by itself."""
        made = []
        for name, array in trace(self.program, self.feeds, self.mode):
            if name in self.makers:
                made.append(name)
                self._learn(name, array)
        rows = tuple(self._row(name) for name in made if name in self.errors)
        weights = {each.name for each in self.program.operations if each.kind.startswith("constexpr_")}
        return Comparison(rows, tuple(name for name in made if name not in self.errors and name not in weights))

    def _learn(self, name: str, array: Array) -> None:
        value = self.pairs.get(name)
        ours = None if value is None else aligned(self.by_id[id(value)], array)
        if ours is not None:
            self.truth[name] = ours
            self.errors[name] = distance(array, ours)

    def _row(self, name: str) -> Row:
        operation, value = self.makers[name], self.pairs[name]
        stretch, leaves = self._stretch(operation)
        right, declared = self.truth[name], self.types[name]
        exact = self._evaluate(stretch, leaves, EXACT, name)
        rounded = {key: half(array) if self._rounds(key) else array for key, array in leaves.items()}
        shifted = self._evaluate(stretch, rounded, EXACT, name) if any(map(self._rounds, leaves)) else exact
        inside = any(self._rounds(each) for operation in stretch for each, _ in operation.outputs)
        real = self._evaluate(stretch, rounded, self.mode, name) if inside else shifted
        finite = np.abs(right[np.isfinite(right)]) if right.dtype.kind == "f" else np.zeros(0)
        peak = float(finite.max(initial=0.0))
        halves = declared is not None and self.mode.rounds(declared.dtype)
        rounding = distance(shifted, exact) + (UNIT["fp16"] if halves else PLAIN) * peak
        own, meaning = distance(real, exact), distance(exact, right)
        stored = {declared.dtype if declared else ""} | {_stored(self.program, each) for each in stretch}
        allowed = max(MEANING, ROUNDED_WEIGHTS * (UNIT["fp16"] if "fp16" in stored else PLAIN)) * peak
        packed = any(each.kind.startswith("constexpr_") for each in stretch)
        verdict = ("weights" if packed else "meaning") if meaning > allowed else ""
        verdict = "precision" if own > max(FAR * rounding, meaning) else verdict
        node = value.producer
        op, sources = (type(node.op).__name__, node.sources) if node else ("", ())
        numbers = (peak, self.errors[name], own, rounding, meaning)
        return Row(name, operation.kind, value.name, op, sources, *numbers, verdict)

    def _rounds(self, name: str) -> bool:
        declared = self.types.get(name, self.program.inputs.get(name))
        return declared is not None and self.mode.rounds(declared.dtype)

    def _stretch(self, last: Operation) -> tuple[list[Operation], dict[str, Array]]:
        """The operations from values with a reference up to this one, in order, and these values."""
        inside, leaves, waiting = {last.name}, dict[str, Array](), [last]
        while waiting:
            for name in waiting.pop().reads:
                if name in self.truth:
                    leaves[name] = self.truth[name]
                elif name in self.makers and self.makers[name].name not in inside:
                    inside.add(self.makers[name].name)
                    waiting.append(self.makers[name])
        return [each for each in self.program.operations if each.name in inside], leaves

    def _evaluate(self, stretch: list[Operation], leaves: Mapping[str, Array], mode: Mode, wanted: str) -> Array:
        live = dict(leaves)
        for operation in stretch:
            values = {
                name: live[name] if name in live else constant(self.program, name, mode) for name in operation.reads
            }
            live.update(step(operation, values, mode))
        return live[wanted]


def _stored(program: Program, operation: Operation) -> str:
    """Where an operation reads constants that are stored in half precision, "fp16"."""
    constants = (program.constants[name] for name in operation.reads if name in program.constants)
    return "fp16" if any(array.dtype == np.float16 for array in constants) else ""
