"""What every runner promises: say why it cannot run here, or run an artifact and hand back a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from .cycles import Estimate

__all__ = ["Layer", "Measurement", "Runner", "Session"]

Array = np.ndarray


@dataclass(frozen=True)
class Measurement:
    """What a run brought to light; every figure says by `kind` how much it is worth.

    Attributes:
        runner: Name of the runner.
        device: What it ran on, in words.
        kind: "measured" (time on real hardware), "emulated" (exact instruction counts, no time) or "evaluated" (outputs
            only).
        outputs: Output arrays as real values, by name.
        raw: The same as the integers that the program wrote; floats where it computes in floats.
        latency_ms: Lowest and highest latency in milliseconds: of the repeats if measured, a band if estimated.
        latency_kind: "measured", "estimated" (instructions times a stated band of cycles), or "unknown".
        latency_because: Where the band comes from.
        instructions: Executed instructions of one inference, exact; None where nothing counted them.
        per_function: The same by function, the largest first.
        per_step: The same by step of the program, in order; empty where nothing counted them.
        arena_high_water: Highest arena byte that was written, plus one; exact.
        stack_high_water: Deepest stack byte that was written, exact.
        regions: Bytes occupied by memory region of the device, with all that is kept for the stack.
        estimate: What the band of an estimate is made of, where rules are stated for the core.
    """

    runner: str
    device: str
    kind: str
    outputs: dict[str, np.ndarray]
    raw: dict[str, np.ndarray]
    latency_ms: tuple[float, float] | None = None
    latency_kind: str = "unknown"
    latency_because: str = ""
    instructions: int | None = None
    per_function: dict[str, int] = field(default_factory=dict)
    per_step: tuple[int, ...] = ()
    arena_high_water: int | None = None
    stack_high_water: int | None = None
    regions: dict[str, int] = field(default_factory=dict)
    estimate: Estimate | None = None


@dataclass(frozen=True)
class Layer:
    """Time of one operator of a file as its runtime executes it, in milliseconds: the median over the runs."""

    name: str
    kind: str
    ms: float


class Session(Protocol):
    """An artifact that is loaded and can run again and again."""

    @property
    def device(self) -> str:
        """What it runs on, in words, with the runtime's version."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name, as the artifact writes them, of inputs as it takes them.

        Raises:
            ModelError: The runtime cannot run the file.
            MachineError: The device is gone.
        """

    def layers(self, inputs: Mapping[str, Array], runs: int) -> tuple[Layer, ...]:
        """Time by operator, in order of execution; empty where the runtime does not tell."""

    def close(self) -> None:
        """Give back what the runtime holds."""


class Runner(Protocol):
    """Runs artifacts of one kind; a file in this folder that offers one as `RUNNER` is all it takes."""

    @property
    def name(self) -> str:
        """How the command line calls it."""

    @property
    def backends(self) -> tuple[str, ...]:
        """The back ends whose artifacts it takes."""

    @property
    def kind(self) -> str:
        """What its figures are worth: "measured", "emulated", or "evaluated" (outputs only, no cost)."""

    def why_not(self) -> str | None:
        """Why it cannot run on this computer and what to install; None when it can."""

    def run(self, artifact: Path, inputs: Mapping[str, np.ndarray]) -> Measurement:
        """Run one inference.

        Args:
            artifact: The folder (or file) a back end wrote.
            inputs: Arrays by input name, as real values, or already as the integers the artifact takes.
        """

    def open(self, artifact: Path) -> Session:
        """Load an artifact's folder, or a bare file of the format.

        Raises:
            UsageError: It is no artifact of a back end that this runner takes.
            ModelError: The runtime refuses the file.
            MachineError: Something is missing on this computer, or the device is.
        """
