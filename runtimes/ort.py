"""Runs an ONNX model in ONNX Runtime with every optimisation off, on one thread: what the others are held against."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..ir.errors import MachineError, ModelError, UsageError
from .runner import Measurement, Runner

__all__ = ["RUNNER", "Reference"]


@dataclass(frozen=True)
class Reference:
    """The runner for `.onnx` files, or folders that hold exactly one."""

    name: str = "ort"
    repeats: int = 3

    def why_not(self) -> str | None:
        """What is missing."""
        return None if importlib.util.find_spec("onnxruntime") else "pip install onnxruntime"

    def run(self, artifact: Path, inputs: Mapping[str, np.ndarray]) -> Measurement:
        """Run the model as it is written: optimisations would change the last bits, and hide what a file says."""
        found = sorted(artifact.glob("*.onnx")) if artifact.is_dir() else [artifact]
        if len(found) != 1 or not found[0].is_file():
            raise UsageError("need an .onnx file or a folder with exactly one", where=[str(artifact)])
        if missing := self.why_not():
            raise MachineError("ONNX Runtime is not installed", do=missing)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(str(found[0]), options, providers=["CPUExecutionProvider"])
            wanted = [output.name for output in session.get_outputs()]
            times = []
            for _ in range(1 + self.repeats):
                began = time.perf_counter()
                arrays = session.run(wanted, dict(inputs))
                times.append((time.perf_counter() - began) * 1e3)
        except Exception as error:  # its exception classes are private and share only this base
            raise ModelError("ONNX Runtime cannot run the model", where=[str(found[0])], why=str(error)) from error
        outputs = dict(zip(wanted, map(np.asarray, arrays), strict=True))
        device = f"ONNX Runtime {onnxruntime.__version__}, one thread"
        band = min(times[1:]), max(times[1:])
        return Measurement(self.name, device, "measured", outputs, outputs, band, "measured", f"{self.repeats} runs")


RUNNER: Runner = Reference()
