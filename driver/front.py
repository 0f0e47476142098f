"""The first stages, the same for every back end: read a model, recognise its operators, simplify it exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import figures
from .choices import Choices
from .feeds import Input, Source, inputs_of, read, samples, synthetic
from .ladder import Ladder

if TYPE_CHECKING:
    from ..ir.graph import Graph
    from ..ir.passes.base import Pass
    from ..targets import Target

__all__ = ["NOISE_SAMPLES", "REFERENCE_SAMPLES", "Front", "Progress", "Shapes", "Values"]

Progress = Callable[[str], None]
Shapes = Mapping[str, tuple[int, ...]]
Values = Mapping[str, object]

NOISE_SAMPLES = 8
REFERENCE_SAMPLES = 64
LOOK_MACS, LOOK_SAMPLES = 400_000_000, 16
"""What one rung of numpy may cost decides how many samples it sees, LOOK_SAMPLES at most."""


@dataclass
class Front:
    """One compile on its way: each stage leaves its result here for the next; a back end's own stages follow."""

    device: Target
    choices: Choices
    say: Progress
    own_target: Path | None = None
    ladder: Ladder = field(default_factory=Ladder)

    def read(
        self, model: str | PathLike[str] | Graph, shapes: Shapes, values: Values, calibration: Source | None
    ) -> None:
        """Import the model and the data; ONNX Runtime's outputs are what everything later is held against.

        Sizes that the model leaves open, and `shapes` as well, are those of the data.
        """
        from .. import frontend
        from ..ir.graph import Graph
        from ..runtimes import ort

        self.say("read the model")
        path = None if isinstance(model, Graph) else Path(model)
        given = None if calibration is None else read(calibration)
        if isinstance(model, Graph):
            self.graph = model.copy()
        else:
            self.graph = frontend.imported(model, shapes, values, given, pixels=True)
        self.admit()
        self.name = path.stem if path else self.graph.name
        told = {name: np.asarray(value).tolist() for name, value in values.items()}
        self.origin = {**figures.origin(path), "values": told}
        self.inputs: list[Input] = inputs_of(self.graph)
        self.noise = given is None
        if given is None:
            self.data = synthetic(self.inputs, NOISE_SAMPLES)
        else:
            self.data = samples(given, self.inputs, "calibration")
        self.looks = self.data[: figures.looks(self.graph, LOOK_MACS, LOOK_SAMPLES)]
        if path is not None:
            self.say("run it in ONNX Runtime")
            names = [value.name for value in self.graph.outputs]  # an input that is an output has two names here
            found = ort.reference(path, self.data[:REFERENCE_SAMPLES], values)
            self.ladder.climb("ONNX Runtime", [dict(zip(names, one.values(), strict=True)) for one in found])
        self._look("imported graph" if path else "graph as given")

    def admit(self) -> None:
        """Refuse a model that the back end cannot take in any form, before anything else is done."""

    def simplify(self, passes: Sequence[Pass]) -> None:
        """Recognise operators, then apply exact passes; each that changes something is a rung."""
        from .. import frontend
        from ..ir.passes.pipelines import run_pipeline

        self.say("recognise operators")
        frontend.recognised(self.graph)
        self._look("recognised operators")
        self.say("apply exact passes")
        run_pipeline(self.graph, passes, on_step=self._passed)

    def _passed(self, done: Pass, rewrites: int, graph: Graph) -> None:
        self._look(f"{done.name} ({rewrites})")

    def _look(self, rung: str) -> None:
        from ..ir.interpret import run

        self.ladder.climb(rung, [run(self.graph, feeds) for feeds in self.looks])
