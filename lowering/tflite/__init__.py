"""The TFLite back end: one flatbuffer of builtin operators that XNNPACK runs, written without TensorFlow."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...ir.errors import MachineError
from .. import Backend, Job, Option, Outline, Port, Written

if TYPE_CHECKING:
    from ...ir.graph import Graph
    from ...ir.passes.base import Pass
    from ...ir.passes.quantise.observe import Observed
    from ...ir.passes.quantise.qdq import QdqOptions

__all__ = ["BACKEND", "Tflite"]

MODES = ("auto", "static", "dynamic")
"""See `integers.decide`."""

NEEDS = ("ai_edge_litert", "flatbuffers")


@dataclass(frozen=True)
class Tflite:
    """One `.tflite` file."""

    name: str = "tflite"
    file: str = "model.tflite"
    runner: str = "litert"
    dtypes: tuple[str, ...] = ("float32", "float16", "dynamic", "int8")

    @property
    def options(self) -> Mapping[str, Option]:
        """The order of an image's axes, which every other runtime of this format expects channels last."""
        return {
            "input_layout": Option("nchw", ("nchw", "nhwc"), "Order of the axes of image inputs."),
            "activations": Option("auto", MODES, "Which int8 layers compute in integers throughout."),
            "projections": Option("apart", ("apart", "joined"), "Queries, keys and values apart, or by one operator."),
        }

    def why_not(self) -> str | None:
        """The extra that brings the schema."""
        missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
        return "pip install edgesmith[tflite]" if missing else None

    def passes(self, dtype: str) -> Sequence[Pass]:
        """Those that make norms short: they are several operators here; for integers also those that leave ranges."""
        from ...ir.passes.pipelines import FLOAT_TFLITE, INTEGER

        return INTEGER if dtype in ("dynamic", "int8") else FLOAT_TFLITE

    def _require(self) -> None:
        if how := self.why_not():
            raise MachineError("TFLite models cannot be written on this computer", do=how)

    def outline(self, job: Job) -> Outline:
        """What would be written; see `lowering.Backend`."""
        self._require()
        from .write import outline

        return outline(job.graph, job.dtype, job.options)

    def integers(self, graph: Graph, seen: Observed, options: Mapping[str, str]) -> QdqOptions:
        """Pairs where an operator computes in integers throughout, elsewhere int8 weights where those are faster."""
        from ...ir.passes.quantise.qdq import QdqOptions
        from .integers import foreseen

        return foreseen(graph, seen, QdqOptions(observer=options["observer"]), options["activations"])

    def write(self, job: Job, path: Path) -> Written:
        """Write the model; see `lowering.Backend`."""
        self._require()
        from .write import write

        model = write(job.graph, job.dtype, job.options)
        path.write_bytes(model.data)
        images = [value.name for value in job.graph.inputs if value.type.rank == 4]
        turned = images if job.options["input_layout"] == "nhwc" else []
        ports = tuple(Port(name, name, (0, 2, 3, 1)) for name in turned)
        return Written(model.operators, model.notes, model.details, ports)


BACKEND: Backend = Tflite()
