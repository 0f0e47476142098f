"""The ONNX back end: the float graph after the exact passes, written back in ONNX's own operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import Backend, Job, Option, Written

if TYPE_CHECKING:
    from ...ir.passes.base import Pass

__all__ = ["BACKEND", "Onnx"]


@dataclass(frozen=True)
class Onnx:
    """One `.onnx` file."""

    name: str = "onnx"
    file: str = "model.onnx"
    runner: str = "ort"
    dtypes: tuple[str, ...] = ("float32",)

    @property
    def options(self) -> Mapping[str, Option]:
        """The opset; 23 has Attention and RMSNormalization."""
        return {"opset": Option("21", ("20", "21", "22", "23"), "Version of ONNX's operators.")}

    def why_not(self) -> str | None:
        """Nothing: what it needs is always installed."""
        return None

    def passes(self, dtype: str) -> Sequence[Pass]:
        """Those that leave norms whole: they are single operators here; for integers also those that leave ranges."""
        from ...ir.passes.pipelines import EXACT, FLOAT_ONNX

        return [each for each in FLOAT_ONNX if dtype != "int8" or each in EXACT]

    def write(self, job: Job, path: Path) -> Written:
        """Write the checked model; see `lowering.Backend`."""
        from .write import write

        model = write(job.graph, int(job.options["opset"]))
        path.write_bytes(model.SerializeToString(deterministic=True))
        return Written(dict(sorted(Counter(node.op_type for node in model.graph.node).items())))


BACKEND: Backend = Onnx()
