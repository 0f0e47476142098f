"""The Core ML back end: the float graph as a ML Program, one op of MIL for one of ours wherever there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import Backend, Job, Option, Outline, Written

if TYPE_CHECKING:
    from ...ir.passes.base import Pass

__all__ = ["BACKEND", "CoreML"]

OPTIONS = {
    "deployment": Option("", ("", "iOS16", "iOS17", "iOS18"), "Oldest system that must run it; the target's if empty."),
    "layout": Option("", ("", "ane", "plain"), "Layout of tokens; the target's if empty. ane: channels first."),
    "image": Option("", (), "Take an image and normalise it: mean=R,G,B;std=R,G,B of colours from 0 to 1."),
    "labels": Option("", (), "Path of a text file of class names, one a line: the model becomes a classifier."),
    "weights": Option("", ("", "int8", "palette6", "palette4"), "Store weights in fewer bits."),
    "author": Option("", (), "Author, for the package's metadata."),
    "description": Option("", (), "Description, for the package's metadata."),
    "version": Option("", (), "Version of the model, for the package's metadata."),
    "license": Option("", (), "License, for the package's metadata."),
}  # fmt: skip


@dataclass(frozen=True)
class CoreML:
    """One `.mlpackage`, which is a folder."""

    name: str = "coreml"
    file: str = "model.mlpackage"
    runner: str = "mil"
    dtypes: tuple[str, ...] = ("float16", "float32")

    @property
    def options(self) -> Mapping[str, Option]:
        """See `OPTIONS`."""
        return OPTIONS

    def why_not(self) -> str | None:
        """What to install when coremltools is missing."""
        from .vendor import why_not

        return why_not()

    def passes(self, dtype: str) -> Sequence[Pass]:
        """Those that leave norms whole: they are single ops here."""
        from ...ir.passes.pipelines import FLOAT_ONNX

        return FLOAT_ONNX

    def outline(self, job: Job) -> Outline:
        """What would be written, by our own account: coremltools takes seconds to load; see `lowering.Backend`."""
        from .write import outline

        return outline(job)

    def write(self, job: Job, path: Path) -> Written:
        """Write the package, and read back what stands in it; see `lowering.Backend`."""
        from .write import write

        return write(job, path)


BACKEND: Backend = CoreML()
