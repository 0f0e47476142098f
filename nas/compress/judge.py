"""The answers of a compressed network as a device will give them: of its model file, imported, quantised, in integers.

The program is the C that a compile writes, built for this computer, where there is a compiler; else numpy's reference
computes the same bits, more slowly.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ... import frontend
from ...ir.graph import Array, Graph
from ...ir.memory import plan
from ...ir.passes.pipelines import FLOAT_C, INTEGER, run_pipeline
from ...ir.passes.quantise import Quantised, QuantOptions, convert
from ...ir.passes.quantise.calibrate import calibrate
from ...runtimes.host import RUNNER, Program
from ...targets import Target
from .drop import outputs
from .price import blank

__all__ = ["imported", "in_floats", "in_integers", "quantised"]

Feeds = Mapping[str, Array]


def imported(model: bytes, integers: bool = True) -> Graph:
    """A model file as a compile reads it: recognised, and after the exact passes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        graph = frontend.load(path)
    run_pipeline(graph, INTEGER if integers else FLOAT_C)
    return graph


def in_floats(model: bytes, feeds: Feeds) -> Array:
    """The first output for all samples, in floats."""
    return outputs(imported(model, integers=False), feeds)


def quantised(model: bytes, calibration: Feeds, stream: str) -> Quantised:
    """The integer graph of a model file."""
    graph = imported(model)
    return convert(graph, calibrate(graph, dict(calibration)), QuantOptions(stream=stream))


def in_integers(model: bytes, calibration: Feeds, feeds: Feeds, target: Target, stream: str) -> Array:
    """The first output for all samples, in integers whose ranges come from `calibration`, as real numbers."""
    made = quantised(model, calibration, stream)
    count = len(next(iter(feeds.values())))
    samples = ({name: array[i : i + 1] for name, array in feeds.items()} for i in range(count))
    name = made.source.outputs[0].name
    if RUNNER.why_not() is not None:
        return np.concatenate([made.run(each)[name] for each in samples])
    with tempfile.TemporaryDirectory() as folder:
        program = _program(made, target, Path(folder))
        stored = [program.call(program.library.arrays(made.feeds(each)))[0] for each in samples]
    return np.concatenate([made.real(name, each) for each in stored])


def _program(made: Quantised, target: Target, folder: Path) -> Program:
    """The C of an integer graph, built for this computer."""
    from ...lowering import artifact
    from ...lowering.c.lower import lower
    part = lower(made.graph, plan(made.graph, effort=0), target, folder, "model", blank(made.graph))
    manifest = {**part, "backend": "c", "target": target.name, "target_file": None}
    (folder / artifact.MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return Program(folder)
