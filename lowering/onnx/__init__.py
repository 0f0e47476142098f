"""The ONNX back end: the graph after the exact passes, real or with QDQ pairs, in ONNX's own operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import Backend, Job, Option, Outline, Written

if TYPE_CHECKING:
    from ...ir.graph import Graph
    from ...ir.passes.base import Pass
    from ...ir.passes.quantise.observe import Observed
    from ...ir.passes.quantise.qdq import QdqOptions

__all__ = ["BACKEND", "Onnx"]

REAL = frozenset(
    ("Attention", "Erf", "Exp", "Gelu", "GroupNorm", "HardSwish", "LayerNorm", "RMSNorm", "Silu", "Softmax", "Tanh")
)
"""Ops between layers of which QDQ pairs make no integer kernel."""


@dataclass(frozen=True)
class Onnx:
    """One `.onnx` file."""

    name: str = "onnx"
    file: str = "model.onnx"
    runner: str = "ort"
    dtypes: tuple[str, ...] = ("float32", "int8")

    @property
    def options(self) -> Mapping[str, Option]:
        """The opset; 23 has Attention and RMSNormalization."""
        return {"opset": Option("21", ("20", "21", "22", "23"), "Version of ONNX's operators.")}

    def why_not(self) -> str | None:
        """Nothing: what it needs is always installed."""
        return None

    def passes(self, dtype: str) -> Sequence[Pass]:
        """Those that leave norms whole: they are single operators here; for integers also those that leave ranges."""
        from ...ir.passes.pipelines import FLOAT_ONNX, INTEGER_ONNX

        return INTEGER_ONNX if dtype == "int8" else FLOAT_ONNX

    def outline(self, job: Job) -> Outline:
        """What would be written; see `lowering.Backend`."""
        from .write import outline

        return outline(job.graph, int(job.options["opset"]))

    def integers(self, graph: Graph, seen: Observed, options: Mapping[str, str]) -> QdqOptions:
        """Weights that no processor's int8 products saturate on; only convolutions need integers as results.

        ONNX Runtime has a kernel for Gemm from integers to real numbers, and none such for Conv.
        """
        from ...ir.ops.conv import Conv, PatchEmbed
        from ...ir.passes.quantise.qdq import QdqOptions

        return QdqOptions(observer=options["observer"], pairs=True, results=(Conv, PatchEmbed))

    def write(self, job: Job, path: Path) -> Written:
        """Write the checked model; see `lowering.Backend`."""
        from .write import counted, write

        model = write(job.graph, int(job.options["opset"]))
        path.write_bytes(model.SerializeToString(deterministic=True))
        return Written(counted(model.graph.node), self._notes(job))

    def _notes(self, job: Job) -> tuple[str, ...]:
        from ...ir.passes.quantise.qdq import counts_of

        found = counts_of(job.graph, REAL) if job.dtype == "int8" else ""
        return (f"in float, as ONNX Runtime has no integer kernels for them: {found}",) if found else ()


BACKEND: Backend = Onnx()
