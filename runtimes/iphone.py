"""Measures a Core ML package on an iPhone that is connected to a Mac: writes the app, builds, installs, starts, reads.

Written from the documentation of Xcode's tools and tested against stand-ins for them: it never ran on a Mac.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..ir.errors import MachineError, UsageError
from .iphone_app import BUNDLE, Protocol, digest, write_benchmark
from .iphone_result import MARKS, Result, read_result
from .mlprogram import located, read
from .runner import Layer, Measurement, Runner, Session

__all__ = ["RUNNER", "Iphone", "Phone", "Protocol", "Result", "read_result", "write_benchmark"]

PHONE, TEAM = "EDGESMITH_IPHONE", "EDGESMITH_TEAM"
"""Names of the environment's variables that hold the phone's identifier and the developer team's."""

STANDARD = Protocol()
BUILD_SECONDS, RUN_SECONDS = 900, 3600


@dataclass
class Phone:
    """A package on a phone; each `run` goes through the whole protocol.

    Attributes:
        artifact: What is measured.
        protocol: How.
        last: The phone's report of the last run, kept whole.
    """

    artifact: Path
    protocol: Protocol
    last: Result | None = field(default=None, init=False)

    @property
    def device(self) -> str:
        """The phone by its own account, once it ran."""
        return self.last.device if self.last else f"iPhone {os.environ.get(PHONE, '')}"

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Measure, and give the outputs of the last inference."""
        self.last = _measured(self.artifact, inputs, self.protocol)
        return dict(self.last.outputs)

    def layers(self, inputs: Mapping[str, np.ndarray], runs: int) -> tuple[Layer, ...]:
        """Core ML tells no times of operations on a phone; where they run is in `last.placement`."""
        del inputs, runs
        return ()

    def close(self) -> None:
        """The app stays installed: the next run starts sooner."""


@dataclass(frozen=True)
class Iphone:
    """The runner for an iPhone."""

    protocol: Protocol = STANDARD
    name: str = "iphone"
    backends: tuple[str, ...] = ("coreml",)
    kind: str = "measured"

    def why_not(self) -> str | None:
        """No Mac, no Xcode, or no phone named."""
        if platform.system() != "Darwin":
            return (
                "an iPhone is reached from a Mac with Xcode; runtimes.iphone.write_benchmark makes the app for it here"
            )
        if not shutil.which("xcodebuild") or not shutil.which("xcrun"):
            return "install Xcode 16 or later"
        missing = [name for name in (PHONE, TEAM) if not os.environ.get(name)]
        return f"set {' and '.join(missing)}" if missing else None

    def open(self, artifact: Path) -> Session:
        """A session on the phone that the environment names."""
        located(artifact)
        if missing := self.why_not():
            raise MachineError("no iPhone can be reached from here", do=missing)
        return Phone(artifact, self.protocol)

    def run(self, artifact: Path, inputs: Mapping[str, np.ndarray]) -> Measurement:
        """One benchmark by the protocol."""
        self.open(artifact)
        return _measured(artifact, inputs, self.protocol).measurement(self.protocol.dropped)


def _measured(artifact: Path, inputs: Mapping[str, np.ndarray], protocol: Protocol) -> Result:
    """Write the app, build it, run it on the phone, and read its report."""
    phone, team = os.environ[PHONE], os.environ[TEAM]
    with tempfile.TemporaryDirectory() as place:
        app = write_benchmark(artifact, Path(place) / "Benchmark.swiftpm", inputs, protocol, team)
        built = Path(place) / "build"
        build = ["xcodebuild", "-scheme", "Benchmark", "-destination", f"id={phone}", "-configuration", "Release"]
        build += ["-derivedDataPath", str(built), "-allowProvisioningUpdates", f"DEVELOPMENT_TEAM={team}", "build"]
        _done(_call(build, app, BUILD_SECONDS), "the app cannot be built")
        found = sorted(built.glob("Build/Products/*-iphoneos/*.app"))
        if not found:
            raise MachineError("Xcode built no app", do="open the written folder in Xcode and look why")
        device = ["xcrun", "devicectl", "device"]
        install = [*device, "install", "app", "--device", phone, str(found[0])]
        _done(_call(install, app, BUILD_SECONDS), "the app cannot be installed")
        launch = [*device, "process", "launch", "--console", "--terminate-existing", "--device", phone, BUNDLE, "exit"]
        ended = _call(launch, app, RUN_SECONDS)
    if MARKS.search(ended.stdout) is None:
        _done(ended, "the iPhone is gone")
        raise MachineError("the iPhone is gone", why="the app ended without a report", do="connect it and run again")
    result = read_result(ended.stdout, read(located(artifact)).classes)
    if result.digest != digest(located(artifact)):
        raise UsageError("the phone measured another package", do="remove the app from the phone and run again")
    short = len(result.rounds) < protocol.rounds and not result.error
    return replace(result, error="the iPhone is gone") if short else result


def _call(command: Sequence[str], folder: Path, seconds: int) -> subprocess.CompletedProcess[str]:
    """Run a command; one that takes too long has failed, and keeps what it printed until then."""
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        printed = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
        return subprocess.CompletedProcess(command, 1, printed, f"no end after {seconds} s")
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _done(ended: subprocess.CompletedProcess[str], what: str) -> None:
    """Refuse a command that failed.

    Raises:
        MachineError: It did.
    """
    if ended.returncode:
        why = "\n".join((ended.stdout + ended.stderr).splitlines()[-8:])
        where = [" ".join(ended.args[:4])]
        raise MachineError(what, where=where, why=why, do="connect and unlock the iPhone, then run again")


RUNNER: Runner = Iphone()
