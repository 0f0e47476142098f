"""One job of the Core ML back end from its options to a package on the disk, read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...ir.errors import UsageError
from ...ir.graph import Graph
from ...ir.hollow import hollow
from .. import Job, Outline, Port, Written
from .package import Extras, convert, operations, operators, save, specification
from .program import Form, Program, build, draft
from .sketch import MOVES
from .sketch import operators as sketched

__all__ = ["LAYOUTS", "RELEASES", "outline", "write"]

RELEASES = {"iOS16": 16, "iOS17": 17, "iOS18": 18}
LAYOUTS = ("plain", "ane")
METADATA = {"author": "author", "description": "shortDescription", "version": "versionString", "license": "license"}
"""Our options' names, and Core ML's."""


def write(job: Job, path: Path) -> Written:
    """Write the package.

    Raises:
        Unsupported: Ops, or forms of them, that MIL does not have: all are named.
        UsageError: An option or the target's `format` table asks for something that there is not.
        ModelError: The model does not fit an option, such as class names of another number.
        MachineError: coremltools is missing.
    """
    made = _prepared(job)
    form, extras = made.form, made.extras
    program = build(job.graph, form)
    image, scores = (program.names.get(name, "") for name in (extras.image, extras.scores))
    extras = replace(extras, image=image, scores=scores)
    model = convert(program.mil, form.release, extras)
    if weights := job.options.get("weights", ""):
        from .compress import compressed

        model = compressed(model, weights)
    save(model, path, extras)
    spec = specification(path)
    ports = _ports(job, program, extras, spec.description.predictedProbabilitiesName)
    return Written(operators(spec), made.notes, {**made.details, **_places(program, spec)}, ports, made.changed)


def outline(job: Job) -> Outline:
    """What would be written, without coremltools, which joins and drops ops that move or cast; see `sketch.MOVES`."""
    form = _prepared(job).form
    made = draft(hollow(job.graph), form)
    size = sum(op.nbytes for op in made.ops)
    note = f"{', '.join(sorted(MOVES))}: at most so many, as coremltools joins some"
    return Outline(sketched(made.ops), size, "about", made.lacks, (note,))


@dataclass(frozen=True)
class _Prepared:
    """A job whose graph is ready to be written: how, and what to say of it.

    `changed` is the graph as the options have it, before any repair for float16; None where they change nothing.
    """

    form: Form
    extras: Extras
    changed: Graph | None
    notes: tuple[str, ...]
    details: dict[str, Any]


def _prepared(job: Job) -> _Prepared:
    """Bring the job's graph into the form that its options and its precision ask for."""
    deployment = _choice(job, "deployment", tuple(RELEASES), "iOS18")
    layout = _choice(job, "layout", LAYOUTS, "plain")
    extras, ranges, notes = _dressed(job)
    changed = job.graph.copy() if extras.image or extras.labels else None
    form = Form(RELEASES[deployment], job.dtype, layout == "ane")
    weights = job.options.get("weights", "") or job.dtype
    details: dict[str, Any] = {"deployment": deployment, "layout": layout, "weights": weights}
    if job.dtype == "float16":
        from .half import examine

        lint = examine(job.graph, ranges)
        form = replace(form, kept=frozenset(lint.kept))
        notes += lint.notes(bool(job.ranges))
        details["float16"] = {"measured": bool(job.ranges), "kept": lint.kept, "changed": lint.fixed,
                              "unproven": lint.unproven}  # fmt: skip
    return _Prepared(form, extras, changed, notes, details)


def _ports(job: Job, program: Program, extras: Extras, probabilities: str) -> tuple[Port, ...]:
    """The inputs and outputs that have other names in the package, take pixels, or are probabilities of classes."""
    found = []
    for value in (*job.graph.inputs, *job.graph.outputs):
        port = Port(value.name, program.names.get(value.name, value.name))
        if value in job.graph.inputs and port.name == extras.image:
            from .image import Normalisation

            factor, offset = Normalisation.parse(job.options["image"]).of(value.shape[1])
            port = replace(port, factor=tuple(map(float, factor)), offset=tuple(map(float, offset)))
        if value in job.graph.outputs and port.name == extras.scores:
            port = replace(port, name=probabilities, classes=tuple(extras.labels))
        if port != Port(value.name, value.name):
            found.append(port)
    return tuple(found)


def _choice(job: Job, key: str, known: tuple[str, ...], default: str) -> str:
    """An option, or else what the target says of it."""
    found = str(job.options.get(key, "") or job.target.format.get(key, default))
    if found not in known:
        raise UsageError(f"there is no {key} '{found}'", do=f"choose one of {', '.join(known)}")
    return found


def _dressed(job: Job) -> tuple[Extras, Mapping[str, tuple[float, float]], tuple[str, ...]]:
    """Metadata, image and class names as the options ask for them; the graph is changed for the last two."""
    metadata = {theirs: text for ours, theirs in METADATA.items() if (text := job.options.get(ours, ""))}
    about = {"edgesmith.source": job.graph.name, "edgesmith.target": job.target.name, "edgesmith.dtype": job.dtype}
    extras, ranges, notes = Extras(metadata, about), dict(job.ranges), []
    if job.options.get("image"):
        from .image import PIXELS, Normalisation, fold

        x, said = fold(job.graph, Normalisation.parse(job.options["image"]), job.dtype == "float16")
        extras = replace(extras, image=x.name, grayscale=x.shape[1] == 1)
        ranges = {**ranges, x.name: PIXELS} if ranges else ranges
        notes.append(f"the input is an image of colours from 0 to 255: {said}")
    if job.options.get("labels"):
        from .labels import names, probabilities

        classes = names(Path(job.options["labels"]))
        extras = replace(extras, labels=classes, scores=probabilities(job.graph, len(classes)))
        notes.append("the outputs are the class of the highest score and the probabilities of all")
    return extras, ranges, tuple(notes)


def _places(program: Program, spec: Any) -> dict[str, Any]:
    """Where our values and nodes are in the package: all names that differ, and what each operation stands for."""
    made = {output.name for each in operations(spec) for output in each.outputs}
    made |= {port.name for port in spec.description.input}
    return {
        "specification": spec.specificationVersion,
        "names": {ours: theirs for ours, theirs in program.names.items() if theirs in made and ours != theirs},
        "origins": {name: list(found) for name, found in program.origins.items() if name in made},
    }
