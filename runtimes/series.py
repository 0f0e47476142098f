"""Many samples through one build of a program: accuracy over hundreds of images, and equality with the reference."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import targets
from ..ir.errors import MachineError, ModelError
from ..lowering.c import toolchain
from . import artifact as artifacts
from .host import Program
from .machine import Machine

__all__ = ["emulated", "hosted", "onnx"]

Array = np.ndarray[Any, np.dtype[Any]]
Feeds = Mapping[str, Array]
Call = Callable[[Sequence[Array]], list[Array]]


def emulated(folder: Path, samples: Iterable[Feeds]) -> Iterator[dict[str, Array]]:
    """Stored outputs of each sample on the emulated device; memory stays as the sample before left it."""
    library = artifacts.load(folder)
    target = targets.get(library.target)
    with tempfile.TemporaryDirectory() as build:
        path = Path(build) / f"{library.name}.elf"
        toolchain.compile_elf(library.sources, target, path, [library.run, library.arena], stack=library.stack_bytes)
        machine = Machine(target, path)

    def call(arrays: Sequence[Array]) -> list[Array]:
        machine.release()
        pointers = [machine.place(array) for array in arrays]
        places = [machine.buffer(tensor.nbytes) for tensor in library.outputs]
        machine.call(library.run, *pointers, *places)
        pairs = zip(places, library.outputs, strict=True)
        return [machine.read(at, int(np.prod(out.shape)), out.dtype).reshape(out.shape) for at, out in pairs]

    return _each(library, call, samples)


def hosted(folder: Path, samples: Iterable[Feeds]) -> Iterator[dict[str, Array]]:
    """Stored outputs of each sample, by the same C on this computer."""
    program = Program(folder)
    return _each(program.library, program.call, samples)


def _each(library: artifacts.Artifact, call: Call, samples: Iterable[Feeds]) -> Iterator[dict[str, Array]]:
    names = [tensor.name for tensor in library.outputs]
    for feeds in samples:
        yield dict(zip(names, call(library.arrays(feeds)), strict=True))


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
