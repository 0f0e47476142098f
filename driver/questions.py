"""What `search` may be asked: a trained model to compress, or a space of architectures with data to train them on."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.errors import MachineError, UsageError
from . import figures
from .feeds import Source, inputs_of, read, samples

if TYPE_CHECKING:
    from ..ir.graph import Array
    from ..nas.problem import Budgets, Problem
    from ..targets import Target

__all__ = ["LABELS", "SUPERNET", "Inquiry", "architecture", "compression"]

LABELS = "labels"
"""The array of a data file that says of which class each sample is."""

SUPERNET = "supernet"
"""The folder, within that of a search, of the weights that all networks share."""

CALIBRATED, RANGED = 64, 8
"""Training samples that networks are calibrated with when they are compiled, and while what they take is judged."""


@dataclass(frozen=True)
class Inquiry:
    """A problem, and what goes with it.

    Attributes:
        name: Of the model or the space.
        problem: What is searched.
        about: What tells it from others; a journal of other contents is refused.
        measure: What its quality is, in words.
        calibration: What its networks are calibrated with when they are compiled.
        options: Of the back end, when they are compiled.
        held_out: Samples that nothing was chosen or trained by, and the class of each.
    """

    name: str
    problem: Problem
    about: Mapping[str, Any]
    measure: str
    calibration: Source
    options: Mapping[str, Any]
    held_out: tuple[Array, Array] | None = None


def compression(
    model: str | PathLike[str], device: Target, data: Source, labels: Source | None,
    shapes: Mapping[str, tuple[int, ...]] | None, values: Mapping[str, object] | None, ram: int | None,
    say: Callable[[str], None],
) -> Inquiry:  # fmt: skip
    """The question how small a model becomes, and how much of its answers is left.

    Args:
        model: An `.onnx` file.
        device: What it is for.
        data: Typical inputs, as for a compile's calibration; its array `labels`, if there is one, is not among them.
        labels: The class of each sample; without, those in `data`, if there are any.
        shapes: A full shape for each input with symbolic dimensions.
        values: Inputs that never change, by name.
        ram: The budget that compiles of the result will have; without, they make the smallest plan.
        say: Called with the name of the stage.

    Raises:
        ModelError: Model or data cannot be used.
        UsageError: Labels do not fit.
    """
    from .. import frontend
    from ..nas.compress.problem import Compression

    given = read(data)
    graph = frontend.load(model, shapes, values)
    classes = _labels(given, labels)
    arrays = {name: array for name, array in given.items() if name != LABELS}
    rows = samples(arrays, inputs_of(graph), "images")
    feeds = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    about = {
        "model": figures.origin(model)["sha256"],
        "data": _digest(feeds),
        "labels": None if classes is None else _digest({"": classes}),
    }
    problem = Compression(graph, device, feeds, classes, ram=ram)
    problem.price.say = say
    measure = f"minus the divergence ({problem.divergence}) from the model's answers" if classes is None else "accuracy"
    options = {"stream": problem.stream} if device.backend == "c" else {}
    return Inquiry(Path(model).stem, problem, about, f"{measure} on {len(rows)} samples", feeds, options)


def architecture(
    space: str | Path, device: Target, data: str | PathLike[str], out: Path, steps: int, tuning: int, seed: int,
    limits: Budgets, ram: int | None, say: Callable[[str], None],
) -> Inquiry:  # fmt: skip
    """The question which network of a space is best; trains the weights that all of them share.

    Args:
        space: The name of one that is shipped, or a path.
        device: What it is for.
        data: As `nas.data.load` takes it.
        out: The folder of the search.
        steps: Batches to train the shared weights.
        tuning: Batches to train each network of the front on from them.
        seed: Of all training; how the data is split does not depend on it.
        limits: Networks over these are told so without their code being built.
        ram: As for `compression`.
        say: Called with the name of the stage.

    Raises:
        ModelError: The data cannot be used.
        UsageError: There is no such space.
        MachineError: PyTorch is not installed.
    """
    from ..nas import data as sets
    from ..nas.architecture import Architecture
    from ..nas.space import Space

    wide = Space.load(space)
    if importlib.util.find_spec("torch") is None:
        raise MachineError("PyTorch is not installed", do="pip install 'edgesmith[train]'")
    from ..nas.supernet.oneshot import OneShot, fitted
    from ..nas.supernet.train import Recipe

    parts = sets.split(*sets.load(Path(data)), seed=0)
    whole, alone = Recipe(steps, seed=seed), Recipe(tuning, seed=seed, layer_share=0.0)
    judge = OneShot(fitted(wide, parts), parts, out / SUPERNET, whole, alone)
    say("train the weights that all networks share")
    judge.train(say=lambda line: say(f"train the weights that all networks share: {line}"))
    arrays = {"images": parts.train.images, "labels": parts.train.labels, "validation": parts.validation.images}
    about = {"data": _digest(arrays), "training": [str(whole), str(alone)]}
    measure = f"accuracy on {len(parts.validation)} validation samples with shared weights"
    options = {"stream": "int8"} if device.backend == "c" else {}
    pixels = parts.train.first(RANGED).images.astype(np.float32) / 255
    problem = Architecture(judge.space, device, judge, (pixels - parts.mean) / parts.std, "int8", limits, ram, say)
    typical, test = parts.train.first(CALIBRATED).images, (parts.test.images, parts.test.labels)
    return Inquiry(wide.name, problem, about, measure, typical, options, test)


def _labels(given: Mapping[str, Array], labels: Source | None) -> Array | None:
    """Labels from their own file, or from among the data."""
    if labels is None:
        return given.get(LABELS)
    found = read(labels)
    if LABELS in found or len(found) == 1:
        return found.get(LABELS, next(iter(found.values())))
    what = f"the labels' file holds several arrays and none is called {LABELS}"
    raise UsageError(what, where=list(found), do="save the labels alone")


def _digest(arrays: Mapping[str, Array]) -> str:
    """SHA-256 of arrays with their names and shapes."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
