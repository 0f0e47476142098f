"""From an artifact to what it computes and costs: samples in, real values out, compared bit for bit where asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.errors import MachineError, UsageError
from ..ir.graph import Array, Graph, Quant
from ..lowering import artifact as artifacts
from . import boards, culprits, cycles, profiles
from .agreement import PROGRAM, Agreement
from .feeds import Input, Source, samples

if TYPE_CHECKING:
    from ..lowering.artifact import Artifact
    from ..runtimes import Measurement, Runner
    from ..runtimes.divergence import Divergence
    from ..runtimes.mlprogram import Comparison

__all__ = ["VECTORS", "Outcome", "load_vectors", "quantised", "real", "run", "runner", "save_vectors"]

VECTORS = "vectors.npz"
VALUES_SHOWN = 4096
PIXELS = (0, 255)
"""The colours that an image can have."""

Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class Outcome:
    """Several samples on one runner.

    Attributes:
        artifact: What ran.
        measurement: Cost and outputs of the first sample.
        outputs: Real values of all samples, stacked along a new first axis, by output name.
        raw: The same as the integers the program wrote.
        equal: Samples whose integers equal those of `against`; None unless asked for.
        against: "reference" (the integer reference, as the compile kept it) or "host" (the same C on this computer).
        divergence: The first step that goes wrong, where samples differ and it can be told.
        comparison: Every operation of a file against the graph it was written from, on the first sample that differs,
            else on the first; None unless asked for, and where the runner does not show operations.
        profile: Where the instructions of the first sample go; None unless asked for.
    """

    artifact: Artifact
    measurement: Measurement
    outputs: dict[str, Array]
    raw: dict[str, Array] = field(repr=False)
    equal: int | None = None
    against: str = ""
    divergence: Divergence | None = None
    comparison: Comparison | None = None
    profile: dict[str, Any] | None = None

    @property
    def samples(self) -> int:
        """How many ran."""
        return len(next(iter(self.outputs.values())))

    def json(self) -> dict[str, Any]:
        """Plain data; `docs/json.md` says what each key means."""
        found = self.measurement
        classes = {each.get("of"): each.get("classes", ()) for each in self.artifact.manifest["outputs"]}
        return {
            "artifact": self.artifact.name,
            "target": self.artifact.target,
            "dtype": self.artifact.manifest["dtype"],
            "runner": found.runner,
            "device": found.device,
            "kind": found.kind,
            "samples": self.samples,
            "latency_ms": list(found.latency_ms) if found.latency_ms else None,
            "latency_kind": found.latency_kind,
            "latency_because": found.latency_because,
            "estimate": found.estimate.json() if found.estimate else None,
            "instructions": found.instructions,
            "functions": found.per_function,
            "arena_bytes": found.arena_high_water,
            "stack_bytes": found.stack_high_water,
            "regions": found.regions,
            "equal": self.equal,
            "against": self.against or None,
            "bound": _bound(self.artifact).text if self.against and self.artifact.manifest["backend"] != "c" else None,
            "divergence": self.divergence.json() if self.divergence else None,
            "comparison": self.comparison.json() if self.comparison else None,
            "profile": self.profile,
            "outputs": {name: _described(array, classes.get(name, ())) for name, array in self.outputs.items()},
        }


def _described(array: Array, names: Sequence[str]) -> dict[str, Any]:
    """Shape, a line for people, and the values unless they are many."""
    found = array.reshape(len(array), -1).argmax(1)[:12]
    classes = ", ".join(names[index] if names else str(index) for index in found) + (", ..." if len(array) > 12 else "")
    span = f"from {array.min():.4g} to {array.max():.4g}"
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "summary": f"largest at {classes}; {span}",
        "values": array.tolist() if array.size <= VALUES_SHOWN else None,
    }


def run(
    artifact: Artifact | str | PathLike[str], on: str | None = None, inputs: Source | None = None, *,
    runs: int = 1, check: bool = False, profile: bool = False, arithmetic: str | None = None,
    save: str | PathLike[str] | None = None, port: str | None = None, flash: bool = False,
    calibrate: str | PathLike[str] | None = None, calibration: str | PathLike[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Outcome:  # fmt: skip
    """Run an artifact.

    Args:
        artifact: What `compile` returned, or its folder.
        on: A runner that takes the artifact: "emulator" (for C if nothing is said) or "host"; back ends that translate
            have one of their own, such as "ort" or "litert".
        inputs: As for `compile`'s calibration. Without, the samples that the compile kept.
        runs: How many samples at most.
        check: Compare the integers bit for bit, with the integer reference for the samples kept, else with the host;
            an artifact that is no program is compared with the reference only. Where the runner shows operations,
            each is compared as well.
        profile: Tell where the instructions of the first sample go; on the emulator only.
        arithmetic: What an evaluator rounds to float16, one of `runtimes.mlprogram.MODES`; "declared" by default.
        save: Write the real outputs to this `.npz`; it must not exist.
        port: Of the board: a serial port, or a URL of pyserial.
        flash: Write the firmware to the board first, with OpenOCD.
        calibrate: Write what a board measured beside what was estimated to this file; it must not exist.
        calibration: Narrow the emulator's estimate by such a file.
        progress: Called with the name of each stage.

    Raises:
        UsageError: No artifact, no such runner or arithmetic, or `save` exists.
        ModelError: The inputs do not fit.
        MachineError: The runner lacks something on this computer.
    """
    say = progress or (lambda stage: None)
    opened = artifacts.load(Path(artifact) if isinstance(artifact, str | PathLike) else artifact.folder)
    device = boards.reached(runner(on or own(opened), opened.manifest["backend"]), port, flash)
    device = culprits.narrowed(device, arithmetic) if arithmetic else device
    _require_vacant(save)
    _require_sense(opened, device, profile, calibrate, calibration)
    graph = culprits.kept(opened.folder) if check else None
    feeds, wanted = _feeds(opened, inputs, runs, graph)
    if check:
        _require_reference(opened, wanted)
    outcome, raw = _ran(opened, device, feeds, say)
    if check:
        outcome = _checked(outcome, device, feeds, raw, wanted, graph, say)
    outcome = _weighed(outcome, feeds[0], profile, calibrate, calibration, say)
    if save is not None:
        np.savez(save, allow_pickle=False, **outcome.outputs)
    return outcome


def _require_vacant(save: str | PathLike[str] | None) -> None:
    """Refuse to write over a file."""
    if save is not None and Path(save).exists():
        raise UsageError("the file to save to exists", where=[str(save)], do="choose another name, or remove it")


def _require_sense(
    artifact: Artifact, device: Runner, profile: bool, calibrate: str | PathLike[str] | None,
    calibration: str | PathLike[str] | None,
) -> None:  # fmt: skip
    """Refuse to profile or calibrate where the runner cannot."""
    if profile:
        profiles.require_countable(artifact, device)
    cycles.require(device, Path(calibrate) if calibrate else None, Path(calibration) if calibration else None)


def _weighed(
    outcome: Outcome, stored: Feeds, profile: bool, calibrate: str | PathLike[str] | None,
    calibration: str | PathLike[str] | None, say: Callable[[str], None],
) -> Outcome:  # fmt: skip
    """The outcome with a profile and a narrower band, and a calibration file, where asked for."""
    artifact = outcome.artifact
    if profile:
        say("profile")
        outcome = replace(outcome, profile=profiles.profiled(artifact, stored))
    if calibration:
        measurement = cycles.narrowed(artifact, outcome.measurement, Path(calibration))
        outcome = replace(outcome, measurement=measurement)
    if calibrate:
        say("calibrate")
        cycles.calibrate(artifact, outcome.measurement, stored, Path(calibrate))
    return outcome


def _ran(
    artifact: Artifact, device: Runner, feeds: Sequence[Feeds], say: Callable[[str], None]
) -> tuple[Outcome, list[Feeds]]:
    """Cost of the first sample, and what every sample gives: real values, and those stored."""
    say(f"run on the {device.name}: 1 of {len(feeds)}")
    measurement = device.run(artifact.folder, feeds[0])
    raw = [measurement.raw, *_rest(artifact, device, feeds, say)]
    return _outcome(artifact, measurement, raw), raw


def _checked(
    outcome: Outcome, device: Runner, feeds: Sequence[Feeds], raw: Sequence[Feeds], wanted: Sequence[Feeds],
    graph: Graph | None, say: Callable[[str], None],
) -> Outcome:  # fmt: skip
    """The outcome with what a check adds; outputs are those wanted, or else the host's."""
    artifact, against = outcome.artifact, "reference" if wanted else "host"
    say(f"compare with the {against}")
    equal = _equal(artifact, raw, wanted or _every(artifact, runner("host"), feeds))
    outcome = replace(outcome, equal=sum(equal), against=against)
    wrong = None if all(equal) else feeds[equal.index(False)]
    if wrong is not None:
        say("look for the first step that differs")
        outcome = replace(outcome, divergence=_divergence(artifact, device.name, feeds[0] if wanted else None, wrong))
    if graph is not None:
        say("compare every operation")
        outcome = replace(outcome, comparison=_compared(artifact, device, graph, wrong or feeds[0]))
    return outcome


def _bound(artifact: Artifact) -> Agreement:
    """How close floats must come; a translation states its own bound."""
    stated = artifact.manifest.get("agreement")
    return Agreement(**stated) if stated else PROGRAM


def _equal(artifact: Artifact, raw: Iterable[Feeds], wanted: Iterable[Feeds]) -> list[bool]:
    """Which samples agree."""
    bound = _bound(artifact)
    return [bound.holds(one, other) for one, other in zip(raw, wanted, strict=True)]


def _computed(artifact: Artifact, graph: Graph, stored: Feeds) -> Feeds:
    """What the graph that an artifact keeps computes, as the file gives it."""
    from ..ir.interpret import run

    found = run(graph, culprits.graph_feeds(stored, artifact.manifest["inputs"]))
    return quantised(found, artifact.manifest["outputs"])


def _compared(artifact: Artifact, on: Runner, graph: Graph, stored: Feeds) -> Comparison | None:
    """Every operation against the graph that the artifact keeps."""
    feeds, names = culprits.graph_feeds(stored, artifact.manifest["inputs"]), artifact.manifest["details"]["names"]
    return culprits.compared(on, artifact.folder, graph, feeds, names)


def _require_reference(artifact: Artifact, wanted: Sequence[Feeds]) -> None:
    """Refuse a check that has nothing to compare with: another computer's file has no host, as C has."""
    if not wanted and artifact.manifest["backend"] != "c":
        what, why = "there is nothing to compare own inputs with", "the reference is kept for the artifact's samples"
        raise UsageError(what, why=why, do="leave --inputs or --check out")


def own(artifact: Artifact) -> str:
    """Name of the runner that an artifact is for: its back end's, or what emulates its device."""
    from .. import lowering, runtimes, targets
    from ..runtimes import artifact as libraries

    backend = str(artifact.manifest["backend"])
    if backend != "c":
        return lowering.load(backend).runner
    return runtimes.of_target(targets.get(libraries.load(artifact.folder).target))


def runner(name: str, backend: str = "c") -> Runner:
    """The runner of that name, known to take the back end's artifacts and to work here."""
    from .. import runtimes

    found = runtimes.load(name)
    if backend not in found.backends:
        able = [each for each in runtimes.names() if backend in runtimes.load(each).backends]
        raise UsageError(f"'{name}' does not run artifacts of the {backend} back end", do=f"use {' or '.join(able)}")
    if why_not := found.why_not():
        raise MachineError(f"the {name} cannot run here", do=why_not)
    return found


def _rest(artifact: Artifact, on: Runner, feeds: Sequence[Feeds], say: Callable[[str], None]) -> Iterator[Feeds]:
    """Outputs of all samples but the first, from one more build."""
    for number, outputs in enumerate(_every(artifact, on, feeds[1:]) if feeds[1:] else (), 2):
        say(f"run on the {on.name}: {number} of {len(feeds)}")
        yield outputs


def _every(artifact: Artifact, on: Runner, feeds: Sequence[Feeds]) -> Iterator[Feeds]:
    session = on.open(artifact.folder)
    try:
        for each in feeds:
            yield session.run(each)
    finally:
        session.close()


def _divergence(artifact: Artifact, on: str, kept: Feeds | None, wrong: Feeds) -> Divergence | None:
    """The first step that differs: from the reference on the first sample kept, or from the host on a wrong one."""
    from ..runtimes import divergence, series

    if artifact.manifest["backend"] != "c":
        return None
    program = series.program(on, artifact.folder)
    if kept and (found := divergence.first(program, program.library.arrays(kept))):
        return found
    if on == "host":
        return None
    arrays = program.library.arrays(wrong)
    return divergence.first(program, arrays, divergence.digests(series.program("host", artifact.folder), arrays))


def _outcome(artifact: Artifact, measurement: Measurement, raw: Sequence[Feeds]) -> Outcome:
    values = [real(each, artifact.manifest["outputs"]) for each in raw]
    outputs, stored = ({name: np.stack([one[name] for one in all]) for name in all[0]} for all in (values, raw))
    return Outcome(artifact, measurement, outputs, stored)


def real(stored: Feeds, tensors: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    """What runs gives or takes for one sample as float32 real values in the model's own names and layout."""
    result = {}
    for tensor in tensors:
        quant, array = _quant(tensor), stored[tensor["name"]]
        values = array if quant is None else quant.dequantise(array).astype(np.float32)
        values = values[None] if tensor.get("classes") else values
        values = values.transpose(np.argsort(tensor["layout"]))
        if tensor.get("factor"):
            factor, offset = _by_channel(tensor)
            values = (values * factor + offset).astype(np.float32)
        result[tensor.get("of", tensor["name"])] = values
    return result


def _feeds(
    artifact: Artifact, inputs: Source | None, runs: int, graph: Graph | None
) -> tuple[list[Feeds], list[Feeds]]:
    """Integers to feed, and the outputs they must give where those are known, or the graph that gives them."""
    if inputs is None:
        feeds, wanted = load_vectors(artifact.folder)
        return feeds[:runs], wanted[:runs]
    model = [Input(**entry) for entry in artifact.manifest["model"]["inputs"]]
    given = samples(inputs, model, "images")[:runs]
    own: list[Feeds] = [quantised(each, artifact.manifest["inputs"]) for each in given]
    return own, [] if graph is None else [_computed(artifact, graph, each) for each in own]


def quantised(feeds: Feeds, tensors: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    """Real values in the model's own names and layout as what runs takes them."""
    result = {}
    for tensor in tensors:
        quant, array = _quant(tensor), feeds[tensor.get("of", tensor["name"])]
        if tensor.get("factor"):
            factor, offset = _by_channel(tensor)
            array = np.clip(np.round((array - offset) / factor), *PIXELS).astype(np.float32)
        array = array.transpose(tensor["layout"])
        array = array[0] if tensor.get("classes") else array
        result[tensor["name"]] = array if quant is None else quant.quantise(array, tensor["dtype"])
    return result


def _by_channel(tensor: Mapping[str, Any]) -> tuple[Array, Array]:
    """How an image's numbers are normalised, to be broadcast along its second axis."""
    factor, offset = (np.asarray(tensor[key], np.float32).reshape(1, -1, 1, 1) for key in ("factor", "offset"))
    return factor, offset


def _quant(tensor: Mapping[str, Any]) -> Quant | None:
    scale = tensor["scale"]
    if scale is None:
        return None
    many = isinstance(scale, list)
    return Quant(tuple(scale) if many else scale, tensor["zero_point"] or 0, -1 if many else None)


def save_vectors(folder: Path, feeds: Sequence[Feeds], wanted: Sequence[Feeds]) -> None:
    """Keep samples as integers, with the integer reference's outputs, in the artifact."""
    arrays = {f"in.{name}": np.stack([each[name] for each in feeds]) for name in feeds[0]}
    arrays |= {f"out.{name}": np.stack([each[name] for each in wanted]) for name in wanted[0]}
    np.savez(folder / VECTORS, allow_pickle=False, **arrays)


def load_vectors(folder: Path) -> tuple[list[Feeds], list[Feeds]]:
    """The samples kept, and their outputs."""
    with np.load(folder / VECTORS, allow_pickle=False) as file:
        arrays = dict(file)
    return _rows(arrays, "in."), _rows(arrays, "out.")


def _rows(arrays: Mapping[str, Array], prefix: str) -> list[Feeds]:
    columns = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
    count = len(next(iter(columns.values())))
    return [{name: column[i] for name, column in columns.items()} for i in range(count)]
