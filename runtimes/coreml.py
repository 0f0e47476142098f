"""Runs Core ML packages on a Mac: predictions, their time, and which compute unit takes each operation.

Written from the documentation of coremltools and tested against a stand-in for it: it never ran on a Mac.
"""

from __future__ import annotations

import importlib.util
import platform
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..ir.errors import MachineError, ModelError
from . import timing
from .mlprogram import Program, located, pixels, read
from .runner import Layer, Measurement, Runner, Session

__all__ = ["RUNNER", "UNITS", "CoreMl", "Loaded", "Placement"]

Array = np.ndarray[Any, np.dtype[Any]]

UNITS = {"all": "ALL", "cpu": "CPU_ONLY", "cpu+gpu": "CPU_AND_GPU", "cpu+ne": "CPU_AND_NE"}
"""Compute units that Core ML may use, and coremltools' names for them."""

GONE = re.compile(r"\b(XPC|daemon|connection|ANE|Espresso|timed out)\b")
"""Words of Core ML's errors that speak of its services or the Neural Engine, not of the model."""

DEVICES = {"Neural": "Neural Engine", "GPU": "GPU", "CPU": "CPU"}


@dataclass(frozen=True)
class Placement:
    """Where Core ML means to run one operation.

    Attributes:
        name: Name of its first result in the program.
        kind: Its MIL type.
        device: "Neural Engine", "GPU", "CPU", or "" where Core ML does not tell.
        able: All devices that could take it.
        share: Its part of the model's time as Core ML estimates it, from 0 to 1; None where it does not tell.
    """

    name: str
    kind: str
    device: str
    able: tuple[str, ...]
    share: float | None


@dataclass
class Loaded:
    """A package in Core ML."""

    path: Path
    units: str
    coremltools: Any
    images: frozenset[str] = frozenset()
    model: Any = field(init=False)

    def __post_init__(self) -> None:
        """Compile and load it.

        Raises:
            ModelError: Core ML refuses it.
            MachineError: Core ML's services are gone.
        """
        allowed = getattr(self.coremltools.ComputeUnit, UNITS[self.units])
        with _told(self.path, "load"):
            self.model = self.coremltools.models.MLModel(str(self.path), compute_units=allowed)
            described = self.model.get_spec().description.input
        images = (each.name for each in described if each.type.WhichOneof("Type") == "imageType")
        self.images = frozenset(images)

    @property
    def device(self) -> str:
        """The Mac, its system, and what Core ML may use of it."""
        system = platform.mac_ver()[0]
        return f"Core ML of macOS {system}, {platform.machine()}, compute units: {self.units}"

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One prediction; images as [1, C, H, W] with colours to 255, or as bytes [H, W, C] in RGB."""
        feeds = {name: self._feed(name, array) for name, array in inputs.items()}
        with _told(self.path, "run"):
            made = self.model.predict(feeds)
        return {name: self._output(value) for name, value in made.items()}

    def _feed(self, name: str, array: Array) -> Any:
        if name not in self.images:
            return array
        from PIL import Image

        colour = "RGB" if array.dtype == np.uint8 else self.program.features[name].colour
        found = pixels(name, array, colour)
        return Image.fromarray(found[..., 0] if found.shape[-1] == 1 else found)

    @cached_property
    def program(self) -> Program:
        """What the package holds by our own reading."""
        return read(self.path)

    def _output(self, value: Any) -> Array:
        """An array; probabilities that come by class are put in the model's order of classes."""
        if isinstance(value, dict):
            return np.array([value[name] for name in self.program.classes], np.float32)
        return np.asarray(value)

    def placement(self) -> tuple[Placement, ...]:
        """The compute plan, operation by operation (macOS 14.4); constants are left out."""
        from coremltools.models.compute_plan import MLComputePlan

        allowed = getattr(self.coremltools.ComputeUnit, UNITS[self.units])
        with _told(self.path, "plan"):
            plan = MLComputePlan.load_from_path(self.model.get_compiled_model_path(), compute_units=allowed)
            functions = plan.model_structure.program.functions
            function = functions["main"] if "main" in functions else next(iter(functions.values()))
            return tuple(
                _placed(plan, each) for each in function.block.operations if not each.operator_name.endswith("const")
            )

    def layers(self, inputs: Mapping[str, Array], runs: int) -> tuple[Layer, ...]:
        """The median of whole predictions, shared out as Core ML estimates it; it tells no times of operations."""
        times = []
        for _ in range(runs + 1):
            began = time.perf_counter()
            self.run(inputs)
            times.append((time.perf_counter() - began) * 1e3)
        whole, places = median(times[1:]), self.placement()
        return tuple(
            Layer(each.name, f"{each.kind} on {each.device or 'unknown'}, estimated", whole * each.share)
            for each in places
            if each.share is not None
        )

    def close(self) -> None:
        """Let Core ML free it."""
        self.model = None


def _placed(plan: Any, operation: Any) -> Placement:
    usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
    cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
    name = operation.outputs[0].name if operation.outputs else ""
    preferred = _called(usage.preferred_compute_device) if usage else ""
    able = tuple(_called(each) for each in usage.supported_compute_devices) if usage else ()
    kind = operation.operator_name.rsplit(".", 1)[-1]
    return Placement(name, kind, preferred, able, cost.weight if cost else None)


def _called(device: Any) -> str:
    kind = type(device).__name__
    return next((name for part, name in DEVICES.items() if part in kind), kind)


@contextmanager
def _told(path: Path, verb: str) -> Iterator[None]:
    """Whatever Core ML raises in the block, in our words: its binding has no exception classes of its own."""
    try:
        yield
    except Exception as error:
        where, why = [str(path)], str(error)
        if GONE.search(why):
            do = "try again, or with other compute units"
            raise MachineError("Core ML's device is gone", where=where, why=why, do=do) from error
        raise ModelError(f"Core ML cannot {verb} the model", where=where, why=why) from error


@dataclass(frozen=True)
class CoreMl:
    """The runner for `.mlpackage` on macOS.

    Attributes:
        units: What Core ML may use, one of `UNITS`.
    """

    units: str = "all"
    name: str = "coreml"
    backends: tuple[str, ...] = ("coreml",)
    kind: str = "measured"

    def why_not(self) -> str | None:
        """Another system than macOS, or no coremltools."""
        if platform.system() != "Darwin":
            return "Core ML is part of macOS: run it on a Mac, or evaluate the package here with the runner mil"
        return None if importlib.util.find_spec("coremltools") else "pip install edgesmith[coreml]"

    def open(self, artifact: Path) -> Session:
        """Load the package of an artifact's folder, or a bare one."""
        path = located(artifact)
        if missing := self.why_not():
            raise MachineError("Core ML is not here", do=missing)
        import coremltools

        return Loaded(path, self.units, coremltools)

    def run(self, artifact: Path, inputs: Mapping[str, np.ndarray]) -> Measurement:
        """A few timed predictions after one to warm up."""
        return timing.run(self, artifact, inputs)


RUNNER: Runner = CoreMl()
