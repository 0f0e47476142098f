"""Many samples through one build of a program: accuracy over hundreds of images, and equality with the reference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..ir.errors import MachineError, ModelError
from . import emulator, host

__all__ = ["onnx", "program", "stored"]

Array = np.ndarray[Any, np.dtype[Any]]
Feeds = Mapping[str, Array]


def stored(program: emulator.Program | host.Program, samples: Iterable[Feeds]) -> Iterator[dict[str, Array]]:
    """Outputs of each sample as the integers the program writes."""
    names = [tensor.name for tensor in program.library.outputs]
    for feeds in samples:
        arrays = program.library.arrays(feeds)
        raw = program.call(arrays)[0] if isinstance(program, emulator.Program) else program.call(arrays)
        yield dict(zip(names, raw, strict=True))


def onnx(model: Path, samples: Iterable[Feeds]) -> Iterator[dict[str, Array]]:
    """Outputs of each sample in ONNX Runtime, with every optimisation off.

    Raises:
        MachineError: ONNX Runtime is not installed.
        ModelError: It cannot run the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MachineError("ONNX Runtime is not installed", do="pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        for feeds in samples:
            yield dict(zip(names, map(np.asarray, session.run(names, dict(feeds))), strict=True))
    except Exception as error:  # its exception classes are private and share only this base
        raise ModelError("ONNX Runtime cannot run the model", where=[str(model)], why=str(error)) from error


def program(name: str, folder: Path) -> emulator.Program | host.Program:
    """Build an artifact for the runner of that name."""
    return emulator.Program(folder) if name == "emulator" else host.Program(folder)
