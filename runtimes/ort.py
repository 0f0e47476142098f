"""Runs ONNX models in ONNX Runtime on one thread: as users run them, or with every optimisation off as a reference."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..ir.errors import MachineError, ModelError, UsageError
from . import timing
from .artifact import Tensor
from .runner import Layer, Measurement, Runner, Session

__all__ = ["RUNNER", "Model", "OnnxRuntime", "reference"]

Array = np.ndarray[Any, np.dtype[Any]]
Feeds = Mapping[str, Array]


class Model:
    """A loaded `.onnx` file.

    Optimised, it is what an application gets. As written, it is what the others are held against: optimisations change
    the last bits of floats, more than those of quantised models, and hide what a file says.

    Attributes:
        file: Where it lies.
        device: The runtime, its version and its threads.
        inputs: What the file takes: names, types, shapes.
    """

    def __init__(self, file: Path, optimise: bool = True) -> None:
        """Load the file.

        Raises:
            MachineError: ONNX Runtime is not installed.
            ModelError: It refuses the file.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise MachineError("ONNX Runtime is not installed", do="pip install onnxruntime") from error
        levels = onnxruntime.GraphOptimizationLevel
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.file, self.device = file, f"ONNX Runtime {onnxruntime.__version__}, one thread"
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exception classes are private and share only this base
            raise ModelError("ONNX Runtime cannot load the model", where=[str(file)], why=str(error)) from error
        self.inputs = tuple(_described(each) for each in self._session.get_inputs())
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Feeds) -> dict[str, Array]:
        """One inference."""
        try:
            arrays = self._session.run(self._names, dict(inputs))
        except Exception as error:  # as above
            raise ModelError("ONNX Runtime cannot run the model", where=[str(self.file)], why=str(error)) from error
        return dict(zip(self._names, map(np.asarray, arrays), strict=True))

    def layers(self, inputs: Feeds, runs: int) -> tuple[Layer, ...]:
        """Not told: its profile needs a session of its own."""
        return ()

    def close(self) -> None:
        """Drop the session."""
        del self._session


@dataclass(frozen=True)
class OnnxRuntime:
    """The runner for `.onnx` files, or folders that hold exactly one."""

    name: str = "ort"
    backends: tuple[str, ...] = ("onnx",)
    kind: str = "measured"

    def why_not(self) -> str | None:
        """What is missing."""
        return None if importlib.util.find_spec("onnxruntime") else "pip install onnxruntime"

    def open(self, artifact: Path) -> Session:
        """Load the model with the optimisations that an application gets by default."""
        found = sorted(artifact.glob("*.onnx")) if artifact.is_dir() else [artifact]
        if len(found) != 1 or not found[0].is_file():
            raise UsageError("need an .onnx file or a folder with exactly one", where=[str(artifact)])
        return Model(found[0])

    def run(self, artifact: Path, inputs: Mapping[str, np.ndarray]) -> Measurement:
        """Run the model a few times."""
        return timing.run(self, artifact, inputs)


def _described(given: Any) -> Tensor:
    """An input as ONNX Runtime tells of it; an axis without a size is one sample."""
    kind = given.type.removeprefix("tensor(").rstrip(")")
    shape = tuple(size if isinstance(size, int) else 1 for size in given.shape)
    return Tensor(given.name, {"float": "float32", "double": "float64"}.get(kind, kind), shape)


def reference(
    model: Path, samples: Iterable[Feeds], values: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Array]]:
    """Outputs of each sample of a model as it is written, with every optimisation off.

    Args:
        model: An `.onnx` file.
        samples: Inputs by name; those that the file takes as integers are rounded.
        values: Inputs that are the same for all samples, by name: numbers, or arrays.

    Raises:
        MachineError: ONNX Runtime is not installed.
        ModelError: It cannot run the model.
    """
    session = Model(model, optimise=False)
    for feeds in samples:
        given = {**(values or {}), **feeds}
        yield session.run({each.name: _typed(given[each.name], each) for each in session.inputs if each.name in given})


def _typed(value: Any, given: Tensor) -> Array:
    """A value as an input takes it."""
    array, dtype = np.asarray(value), np.dtype(given.dtype)
    if dtype.kind in "iu" and array.dtype.kind == "f":
        array = np.rint(array)
    return np.full(given.shape, array, dtype) if not array.shape else array.astype(dtype)


RUNNER: Runner = OnnxRuntime()
