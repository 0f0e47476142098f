"""Runs `.tflite` files in LiteRT with its XNNPACK kernels, on one thread unless told otherwise."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..ir.errors import MachineError, ModelError, UsageError
from . import litert_file, timing
from .litert_child import DELEGATED
from .runner import Layer, Measurement, Runner, Session

__all__ = ["RUNNER", "LiteRt", "Loaded"]

Array = np.ndarray[Any, np.dtype[Any]]
SUFFIX = ".tflite"
INSTALL = "pip install edgesmith[tflite]"
LINEAR = (3, 4, 9)
CALLED = {
    "Fully Connected": LINEAR, "Convolution": LINEAR, "Batch Matrix Multiply": (126,), "Softmax": (25,), "GELU": (150,),
    "Add": (0,), "Multiply": (18,), "Subtract": (41,), "Divide": (42,), "Transpose": (39,), "Mean": (40,), "Sum": (74,),
    "Squared Difference": (99,), "Reciprocal Square Root": (76,), "Sigmoid": (14,), "Average Pooling": (1,),
    "Slice": (65,), "Exp": (47,), "Reduce Max": (82,), "Resize Bilinear": (23,),
}  # fmt: skip
"""What XNNPACK calls operators of the file, and their built-in codes; a convolution may become a matrix product."""

LIMIT_SECONDS = 120
"""How long a child process may take; it loads a file and runs it a few times."""


class Loaded:
    """A session in this process.

    Attributes:
        device: The runtime, its version and its threads.
        inputs: What the file takes: names, types, shapes.
        outputs: What it gives.
        why_no_layers: Why `layers` found nothing.
    """

    def __init__(self, file: Path, threads: int = 1) -> None:
        """Load the file.

        Raises:
            ModelError: It is no sound TFLite file, or LiteRT refuses it.
        """
        from ai_edge_litert.interpreter import Interpreter

        contents = litert_file.read(file)
        self.inputs, self.outputs, self._places = contents.inputs, contents.outputs, contents.places
        self._operators = contents.operators
        self.file, self.threads, self.why_no_layers = file, threads, ""
        plural = "s" if threads > 1 else ""
        self.device = f"LiteRT {metadata.version('ai-edge-litert')} with XNNPACK, {threads} thread{plural}"
        try:
            with _quiet():
                self._interpreter = Interpreter(model_path=str(file), num_threads=threads)
                self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ModelError("LiteRT cannot load the model", where=[str(file)], why=str(error)) from error

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One inference; outputs as stored, inputs as stored or as real values."""
        for name, array in self._stored(inputs).items():
            self._interpreter.set_tensor(self._places[name], array)
        try:
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise ModelError("LiteRT cannot run the model", where=[str(self.file)], why=str(error)) from error
        return {tensor.name: self._interpreter.get_tensor(self._places[tensor.name]) for tensor in self.outputs}

    def _stored(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The inputs as the file takes them."""
        wanted = [tensor.name for tensor in self.inputs]
        if set(inputs) != set(wanted):
            why = f"got {', '.join(sorted(inputs)) or 'none'}"
            raise UsageError(f"{self.file.name} takes the inputs {', '.join(wanted)}", why=why)
        if wrong := [tensor.name for tensor in self.inputs if np.shape(inputs[tensor.name]) != tensor.shape]:
            shapes = {tensor.name: tensor.shape for tensor in self.inputs}
            why = ", ".join(f"{np.shape(inputs[name])} for {shapes[name]}" for name in wrong)
            raise UsageError("input has the wrong shape", where=wrong, why=why)
        return {tensor.name: tensor.stored(np.asarray(inputs[tensor.name])) for tensor in self.inputs}

    def layers(self, inputs: Mapping[str, Array], runs: int) -> tuple[Layer, ...]:
        """Time by operator, as a profile in a process of its own has it; the reason for none is in `why_no_layers`."""
        with tempfile.TemporaryDirectory() as folder:
            feeds = Path(folder) / "feeds.npz"
            arrays: dict[str, Any] = dict(self._stored(inputs))
            np.savez(feeds, allow_pickle=False, **arrays)
            done = _child("profile", str(self.file.absolute()), str(feeds), str(runs), str(self.threads))
        if done is None or done.returncode:
            self.why_no_layers = "the profile ran too long" if done is None else _crash(done)
            return ()
        found = json.loads(done.stdout.splitlines()[-1])
        self.why_no_layers = found.get("why", "")
        if self.why_no_layers:
            return ()
        rows = list(zip(*found["runs"], strict=False))
        names = self._names([row[0] for row in rows])
        return tuple(
            Layer(name, row[0][0], median(us for *_, us in row) / 1e3) for name, row in zip(names, rows, strict=True)
        )

    def _names(self, events: Sequence[tuple[str, int, int, int]]) -> list[str]:
        """What each event makes: told for operators of the file; for XNNPACK's where all of a kind can be paired.

        XNNPACK keeps the order of what it took over, but numbers it anew, and where it took over several parts nothing
        tells which.
        """
        names = [self._operators[node][1] if kind != DELEGATED else "" for _, kind, node, _ in events]
        taken = [place for place, (_, kind, *_) in enumerate(events) if kind == DELEGATED]
        single = all(events[one][2] < events[other][2] for one, other in pairwise(taken))
        own = {node for _, kind, node, _ in events if kind != DELEGATED}
        for codes in set(CALLED.values()) if single else ():
            places = [place for place in taken if CALLED.get(events[place][0].split(" (")[0]) == codes]
            made = [name for node, (code, name) in enumerate(self._operators) if code in codes and node not in own]
            if len(places) == len(made):
                for place, name in zip(places, made, strict=True):
                    names[place] = name
        return [name or f"XNNPACK {number}" for number, name in enumerate(names)]

    def real(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs as real values."""
        return {tensor.name: tensor.real(outputs[tensor.name]) for tensor in self.outputs}

    def close(self) -> None:
        """Free the runtime's memory."""
        del self._interpreter


@dataclass(frozen=True)
class LiteRt:
    """The runner for `.tflite` files, bare or in an artifact."""

    name: str = "litert"
    backends: tuple[str, ...] = ("tflite",)
    kind: str = "measured"
    threads: int = 1

    def why_not(self) -> str | None:
        """What is missing."""
        return None if importlib.util.find_spec("ai_edge_litert") else INSTALL

    def open(self, artifact: Path) -> Session:
        """Load a file; one that no compile of ours wrote is tried in another process first."""
        return self._loaded(artifact)

    def run(self, artifact: Path, inputs: Mapping[str, np.ndarray]) -> Measurement:
        """Run the model a few times."""
        session = self._loaded(artifact)
        measured = timing.measure(self, session, inputs)
        session.close()
        return replace(measured, outputs=session.real(measured.raw))

    def _loaded(self, artifact: Path) -> Loaded:
        if missing := self.why_not():
            raise MachineError("LiteRT is not installed", do=missing)
        file = self._file(artifact)
        if file == artifact:
            litert_file.read(file)
            _try(file)
        return Loaded(file, self.threads)

    def _file(self, artifact: Path) -> Path:
        """The file of an artifact's folder, or the file itself."""
        if not artifact.is_dir():
            return artifact
        try:
            manifest = json.loads((artifact / "manifest.json").read_text(encoding="utf-8"))
            backend, name = manifest["backend"], manifest.get("file", {}).get("name", "")
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise UsageError("not an artifact", where=[str(artifact)], why=f"its manifest.json: {error}") from error
        if backend not in self.backends:
            raise UsageError(f"an artifact of the {backend} back end is nothing for LiteRT", where=[str(artifact)])
        return artifact / Path(name).name


def _try(file: Path) -> None:
    """Let another process load and run a file of unknown origin.

    Raises:
        ModelError: LiteRT crashes on it, or does not come to an end.
    """
    done = _child("try", str(file.absolute()))
    if done is None:
        raise ModelError("LiteRT does not get done with the file", where=[str(file)],
                         why=f"{LIMIT_SECONDS} s were not enough for one run")  # fmt: skip
    if done.returncode:
        raise ModelError("LiteRT breaks down on the file", where=[str(file)], why=_crash(done))


def _child(*arguments: str) -> subprocess.CompletedProcess[str] | None:
    """Run `litert_child.py`, with its folder off the path of imports; None when it took too long."""
    script = Path(__file__).with_name("litert_child.py")
    command = [sys.executable, "-P", str(script), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _crash(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith(("INFO", "WARNING"))]
    ended = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
    return f"a process that tried ended with {ended}" + (f": {lines[-1]}" if lines else "")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the native library prints while it loads off the standard error; refusals arrive as exceptions too."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as sink:
        kept = os.dup(2)
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


RUNNER: Runner = LiteRt()
