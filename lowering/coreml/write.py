"""One job of the Core ML back end from its options to a package on the disk, read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...ir.errors import UsageError
from .. import Job, Written
from .package import Extras, convert, operations, operators, save, specification
from .program import Form, build

__all__ = ["write"]

RELEASES = {"iOS16": 16, "iOS17": 17, "iOS18": 18}
LAYOUTS = ("plain", "ane")
METADATA = {"author": "author", "description": "shortDescription", "version": "versionString", "license": "license"}
"""Our options' names, and Core ML's."""


def write(job: Job, path: Path) -> Written:
    """Write the package.

    Raises:
        Unsupported: Ops, or forms of them, that MIL does not have: all are named.
        UsageError: An option or the target's `format` table asks for something that there is not.
        MachineError: coremltools is missing.
    """
    deployment = _choice(job, "deployment", tuple(RELEASES), "iOS18")
    layout = _choice(job, "layout", LAYOUTS, "plain")
    form = Form(RELEASES[deployment], job.dtype, layout == "ane")
    program = build(job.graph, form)
    extras = Extras(
        {theirs: text for ours, theirs in METADATA.items() if (text := job.options.get(ours, ""))}, _source(job)
    )
    save(convert(program.mil, form.release, extras), path, extras)
    spec = specification(path)
    return Written(operators(spec), (), _details(program, spec, deployment, layout))


def _choice(job: Job, key: str, known: tuple[str, ...], default: str) -> str:
    """An option, or else what the target says of it."""
    found = str(job.options.get(key, "") or job.target.format.get(key, default))
    if found not in known:
        raise UsageError(f"there is no {key} '{found}'", do=f"choose one of {', '.join(known)}")
    return found


def _source(job: Job) -> dict[str, str]:
    """Where the package comes from, for its metadata."""
    return {"edgesmith.source": job.graph.name, "edgesmith.target": job.target.name, "edgesmith.dtype": job.dtype}


def _details(program: Any, spec: Any, deployment: str, layout: str) -> Mapping[str, Any]:
    """What a reader of the manifest needs to find our values in the package."""
    there = {output.name for each in operations(spec) for output in each.outputs}
    there |= {port.name for port in spec.description.input}
    names = {ours: theirs for ours, theirs in program.names.items() if theirs in there}
    return {
        "deployment": deployment,
        "layout": layout,
        "specification": spec.specificationVersion,
        "names": {ours: theirs for ours, theirs in names.items() if ours != theirs},
    }
