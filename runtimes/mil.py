"""Evaluates a saved Core ML package on any computer, operation by operation, with its halves rounded as declared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import timing
from .mlprogram import MODES, Mode, Program, evaluate, located, read
from .runner import Layer, Measurement, Runner, Session

__all__ = ["RUNNER", "Evaluation", "Evaluator"]


@dataclass(frozen=True)
class Evaluation:
    """A program in memory; it keeps nothing between runs."""

    program: Program
    mode: Mode

    @property
    def device(self) -> str:
        """What computes, and how precisely."""
        rounding = {"declared": "halves as declared", "float16": "all in half", "float32": "all in single precision"}
        sums = "half" if self.mode.accumulate == "float16" else "single"
        return f"numpy {np.__version__}, {rounding[self.mode.store]}, sums in {sums} precision"

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference."""
        return evaluate(self.program, inputs, self.mode)

    def layers(self, inputs: Mapping[str, np.ndarray], runs: int) -> tuple[Layer, ...]:
        """None: the time numpy takes says nothing about a phone."""
        del inputs, runs
        return ()

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True)
class Evaluator:
    """The runner for `.mlpackage`: it shares no code with Core ML or coremltools, so that it can contradict them.

    Attributes:
        mode: What is rounded to half precision.
    """

    mode: Mode = MODES["declared"]
    name: str = "mil"
    backends: tuple[str, ...] = ("coreml",)
    kind: str = "evaluated"

    def why_not(self) -> str | None:
        """Nothing is missing anywhere."""
        return None

    def open(self, artifact: Path) -> Session:
        """Read the package of an artifact's folder, or a bare one."""
        return Evaluation(read(located(artifact)), self.mode)

    def run(self, artifact: Path, inputs: Mapping[str, np.ndarray]) -> Measurement:
        """One inference; there is no latency."""
        return timing.run(self, artifact, inputs)


RUNNER: Runner = Evaluator()
