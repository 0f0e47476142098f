"""Who takes part in a measurement: an artifact of ours or anybody's file, opened, fed, and its answer understood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.errors import EdgesmithError, InternalError, MachineError, ModelError, UsageError
from ..ir.graph import Array
from ..lowering import artifact as artifacts
from . import boards
from .execution import load_vectors, own, quantised, real, runner
from .ladder import cosine

if TYPE_CHECKING:
    from ..lowering.artifact import Artifact
    from ..runtimes import Runner
    from ..runtimes.runner import Layer, Session

__all__ = ["Contender", "Difference", "Place", "compare", "enter"]

Feeds = Mapping[str, Array]
Place = str | PathLike[str]


@dataclass
class Contender:
    """One side of a measurement.

    Attributes:
        path: Its folder or file.
        runner: What runs it.
        artifact: Its manifest, unless it is a bare file.
        session: It, loaded; None where nothing is timed.
        feeds: Inputs as it takes them, a mapping for each sample.
    """

    path: Path
    runner: Runner
    artifact: Artifact | None
    session: Session | None = None
    feeds: list[Feeds] = field(default_factory=list)

    def open(self) -> None:
        """Load it.

        Raises:
            ModelError: The runtime refuses it.
            MachineError: Something is missing on this computer, or the device is.
        """
        self.session = self.runner.open(self.path)

    @property
    def loaded(self) -> Session:
        """The session, once it is opened."""
        if self.session is None:
            raise InternalError("something is measured before it is loaded", where=[str(self.path)])
        return self.session

    @property
    def kind(self) -> str:
        """What its figures are worth; a board's session knows better than its runner."""
        return str(getattr(self.session, "kind", self.runner.kind))

    @property
    def because(self) -> str:
        """How a device took its own time; empty where this computer took it."""
        return str(getattr(self.session, "because", ""))

    def close(self) -> None:
        """Give the session back; a device that is gone cannot be taken leave of."""
        if self.session is not None:
            with suppress(EdgesmithError):
                self.session.close()
            self.session = None

    def samples(self) -> list[dict[str, Array]]:
        """Real inputs in the model's own layout: those an artifact keeps, or noise in the shapes that a file tells.

        Raises:
            UsageError: It tells no shapes.
        """
        if self.artifact is not None:
            return [real(each, self.artifact.manifest["inputs"]) for each in load_vectors(self.artifact.folder)[0]]
        takes = getattr(self.session, "inputs", None)
        if takes is None:
            do = "compile the model and measure the artifact; give this file as --vs"
            raise UsageError("the file does not tell what it takes", where=[str(self.path)], do=do)
        draw = np.random.default_rng(0)
        return [{tensor.name: _noise(tensor, draw) for tensor in takes}]

    def feed(self, samples: Sequence[Feeds]) -> bool:
        """Take these samples, if they fit; else, noise of its own. Says whether they fit."""
        try:
            self.feeds = [self._stored(each) for each in samples]
        except _NoFit:
            self.feeds = [self._stored(each) for each in self.samples()]
            return False
        return True

    def _stored(self, sample: Feeds) -> Feeds:
        if self.artifact is not None:
            tensors = self.artifact.manifest["inputs"]
            shapes = {tensor.get("of", tensor["name"]): _in_own_layout(tensor) for tensor in tensors}
            return quantised(_placed(sample, shapes), tensors)
        takes = getattr(self.session, "inputs", None)
        if takes is None:
            return sample
        found = _placed(sample, {tensor.name: tensor.shape for tensor in takes})
        return {tensor.name: tensor.stored(_as_kind(found[tensor.name], tensor.dtype)) for tensor in takes}

    def answer(self) -> dict[str, Array]:
        """Real outputs for the first sample."""
        outputs = self.loaded.run(self.feeds[0])
        if self.artifact is not None:
            return real(outputs, self.artifact.manifest["outputs"])
        translate = getattr(self.session, "real", dict)
        return dict(translate(outputs))

    def layers(self, runs: int) -> tuple[tuple[Layer, ...], str]:
        """Time by operator, or why it is not told; what was measured before is not lost to a device gone meanwhile."""
        try:
            found = self.loaded.layers(self.feeds[0], runs)
        except (MachineError, ModelError) as error:
            return (), error.what
        except KeyboardInterrupt:
            return (), "stopped by hand"
        why = getattr(self.session, "why_no_layers", "") or f"{self.runner.name} does not tell"
        return found, "" if found else why


class _NoFit(Exception):  # noqa: N818  (an outcome, met where it arises)
    """Samples of another model."""


@dataclass(frozen=True)
class Difference:
    """How far two answers to the same input are apart: absolute, as a share of the largest, and as vectors."""

    outputs: int
    max_error: float
    relative: float
    cosine: float


def enter(
    place: Artifact | Place, on: str | None = None, *, strict: bool = True, port: str | None = None, flash: bool = False
) -> Contender:
    """Find out what lies there and what runs it.

    Args:
        place: An artifact, its folder, or a bare file of a format that a back end writes.
        on: Name of the runner; without, the first that works here, emulators of the very device before others.
        strict: Whether it has to be this one, or only if it takes what lies there.
        port: Of the board, where it runs on one.
        flash: Write the firmware to the board first.

    Raises:
        UsageError: Nothing is there, no runner takes it, or the one named has no time to tell.
        MachineError: The runner does not work on this computer.
    """
    from .. import runtimes

    path = Path(place) if isinstance(place, str | PathLike) else place.folder
    if not path.exists():
        raise UsageError("there is no such artifact or file", where=[str(path)])
    bare = not path.is_dir() or not (path / artifacts.MANIFEST).is_file()
    opened = None if bare and _backend(path) else artifacts.load(path)
    backend = _backend(path) if opened is None else str(opened.manifest["backend"])
    asked = on if on and (strict or backend in runtimes.load(on).backends) else None
    if asked is None and opened is not None and backend == "c":
        asked = own(opened)
    found = boards.reached(runner(asked, backend) if asked else _able(backend), port, flash)
    if found.kind == "evaluated":
        what, why = f"'{found.name}' has no latency to measure", "it evaluates, which tells what comes out and not when"
        raise UsageError(what, why=why, do="use `edgesmith run`, or name a device with --on")
    return Contender(path, found, opened)


def _backend(path: Path) -> str:
    """The back end whose files have this suffix."""
    from .. import lowering

    suffixes = {Path(lowering.load(name).file).suffix: name for name in lowering.names()}
    if path.suffix not in suffixes and not path.is_dir():
        known = ", ".join(sorted(suffixes))
        raise UsageError("no runner takes this kind of file", where=[str(path)], do=f"give an artifact or {known}")
    return suffixes.get(path.suffix, "")


def _able(backend: str) -> Runner:
    """The first runner of a back end that works here and has a figure to tell."""
    from .. import runtimes

    every = [runtimes.load(name) for name in runtimes.names()]
    found = sorted((each for each in every if backend in each.backends), key=lambda each: each.kind != "emulated")
    reasons = []
    for each in found:
        if each.kind != "evaluated" and not (why := each.why_not()):
            return each
        reasons.append(f"{each.name}: {'it evaluates only' if each.kind == 'evaluated' else why}")
    raise MachineError(f"nothing here can time artifacts of the {backend} back end", why="; ".join(reasons))


def compare(one: Feeds, other: Feeds) -> Difference | None:
    """Hold two answers against each other, by name or else by place; None where no shapes agree."""
    shared = [name for name in one if name in other]
    named = [(one[name], other[name]) for name in shared]
    found = named or list(zip(one.values(), other.values(), strict=False))
    pairs = [(a.astype(np.float64).ravel(), b.astype(np.float64).ravel()) for a, b in found if a.shape == b.shape]
    if not pairs:
        return None
    errors = [float(np.abs(a - b).max(initial=0.0)) for a, b in pairs]
    spans = [float(np.abs(b).max(initial=0.0)) or 1.0 for _, b in pairs]
    shares = [error / span for error, span in zip(errors, spans, strict=True)]
    return Difference(len(pairs), max(errors), max(shares), min(cosine(a, b) for a, b in pairs))


def _placed(sample: Feeds, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """The sample's arrays under these names, by name or else by place; images turn channels-last where need be."""
    if len(sample) != len(shapes):
        raise _NoFit
    arrays = [sample[name] for name in shapes] if set(sample) == set(shapes) else list(sample.values())
    return {name: _turned(array, shape) for (name, shape), array in zip(shapes.items(), arrays, strict=True)}


def _turned(array: Array, shape: tuple[int, ...]) -> Array:
    for perm in ((0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2)):
        if array.ndim == len(perm) and array.transpose(perm).shape == shape:
            return array.transpose(perm)
    if array.shape != shape:
        raise _NoFit
    return array


def _in_own_layout(tensor: Mapping[str, Any]) -> tuple[int, ...]:
    """Shape of an artifact's tensor as the model that it was made from has it."""
    return tuple(tensor["shape"][axis] for axis in np.argsort(tensor["layout"]))


def _noise(tensor: Any, draw: np.random.Generator) -> Array:
    """Values that every model stands: noise where it takes real numbers, zeros where it takes indices."""
    if np.dtype(tensor.dtype).kind != "f" and tensor.scale is None:
        return np.zeros(tensor.shape, tensor.dtype)
    return np.asarray(draw.standard_normal(tensor.shape), np.float32)


def _as_kind(array: Array, dtype: str) -> Array:
    """Floats of another width."""
    return np.asarray(array, dtype) if np.dtype(dtype).kind == array.dtype.kind == "f" else array
