"""How runners that open a session make a measurement of it: one run to warm up, then the time of a few more."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .runner import Measurement, Runner, Session

__all__ = ["measure", "run"]

REPEATS = 5


def run(runner: Runner, artifact: Path, inputs: Mapping[str, np.ndarray]) -> Measurement:
    """Open an artifact, measure it, close it."""
    session = runner.open(artifact)
    try:
        return measure(runner, session, inputs)
    finally:
        session.close()


def measure(runner: Runner, session: Session, inputs: Mapping[str, np.ndarray], repeats: int = REPEATS) -> Measurement:
    """Outputs, and the shortest and the longest time; no time where the runner only evaluates."""
    outputs = session.run(inputs)
    if runner.kind == "evaluated":
        return Measurement(runner.name, session.device, runner.kind, outputs, outputs)
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        session.run(inputs)
        times.append((time.perf_counter() - began) * 1e3)
    band = min(times), max(times)
    return Measurement(
        runner.name, session.device, runner.kind, outputs, outputs, band, "measured", f"{repeats} runs"
    )  # fmt: skip
