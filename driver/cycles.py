"""Calibration of estimates: written after a run on a board, read by runs on the emulator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..ir.errors import UsageError

if TYPE_CHECKING:
    from ..lowering.artifact import Artifact
    from ..runtimes import Measurement, Runner

__all__ = ["calibrate", "narrowed", "require"]


def require(on: Runner, calibrate: Path | None, calibration: Path | None) -> None:
    """Refuse to calibrate from anything but a board, to narrow anything but the emulator's band, or to overwrite.

    Raises:
        UsageError: One of these.
    """
    if calibrate is not None and on.name != "board":
        raise UsageError("only a board calibrates estimates", do="add --on board, or leave --calibrate out")
    if calibrate is not None and calibrate.exists():
        raise UsageError("the calibration file exists", where=[str(calibrate)], do="choose another name, or remove it")
    if calibration is not None and on.name != "emulator":
        raise UsageError(f"the {on.name} estimates nothing", do="run on the emulator, or leave --calibration out")


def calibrate(artifact: Artifact, found: Measurement, stored: Mapping[str, np.ndarray], path: Path) -> None:
    """Write what a board measured beside what the rules say of the same inference.

    Raises:
        UsageError: The time was not measured by a counter that runs, or no rules are stated for the core.
    """
    from ..runtimes.cycles.calibration import Calibration
    from ..runtimes.emulator import Program

    if found.kind != "measured" or found.latency_ms is None:
        do = "calibrate on real hardware"
        raise UsageError("this board's time was not measured", why=found.latency_because, do=do)
    program = Program(artifact.folder)
    target = program.target
    estimate = program.estimate(program.call(program.library.arrays(stored))[1])
    if estimate is None or target.board is None:
        raise UsageError(f"no rules of timing are stated for a {target.core.name}", do="leave --calibrate out")
    clock = target.board.clock_hz
    low, high = (each * clock / 1e3 for each in found.latency_ms)
    made = Calibration(target.name, found.device, clock, target.clock_hz, (low, high), estimate.terms)
    path.write_text(json.dumps(made.json(), indent=2) + "\n", encoding="utf-8")


def narrowed(artifact: Artifact, found: Measurement, path: Path) -> Measurement:
    """A measurement of the emulator with the band that a calibration leaves.

    Raises:
        UsageError: The file is for another target, or nothing was estimated by rules.
    """
    from .. import targets
    from ..runtimes import artifact as libraries
    from ..runtimes.cycles.calibration import load

    calibration = load(path)
    target = targets.get(libraries.load(artifact.folder).target)
    if calibration.target != target.name or found.estimate is None:
        what = f"the calibration is for {calibration.target}, the artifact for {target.name}"
        raise UsageError(what, where=[str(path)], do="calibrate on the artifact's own board")
    estimate = calibration.narrow(found.estimate)
    band = estimate.milliseconds(target.clock_hz)
    return replace(found, latency_ms=band, latency_because=estimate.reason, estimate=estimate)
