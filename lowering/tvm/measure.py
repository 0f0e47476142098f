"""Times variants of one kernel in a child, here or on a device behind an RPC tracker."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .build import export, function
from .kernels.spec import Kernel
from .machine import Machine
from .program import Buffer

__all__ = ["TIMES", "Trial"]

TIMES = "times.json"

REPEATS, LEAST_MS = 5, 20
ROUNDS = 2


@dataclass(frozen=True)
class Trial:
    """Variants of a kernel with the types of their operands and result, and where to run them.

    Attributes:
        machine: What they are compiled for.
        variants: Kernel and kinds of buffers of each.
        link: Start of the linker's command line; used for a device only.
        device: Host, port and key of a tracker; None for this computer.
    """

    machine: Machine
    variants: tuple[tuple[Kernel, tuple[Buffer, ...]], ...]
    link: tuple[str, ...]
    device: tuple[str, int, str] | None = None

    def do(self, folder: Path) -> None:
        """Compile and measure; leaves the least seconds of each variant as `TIMES`."""
        (folder / TIMES).write_text(json.dumps(seconds(self, folder)), encoding="utf-8")


def seconds(trial: Trial, folder: Path) -> list[float]:
    """Least time of each variant; they take turns, so that what else runs here slows all of them."""
    import tvm

    names = [f"k{at}" for at in range(len(trial.variants))]
    made = {name: function(*each, trial.machine) for name, each in zip(names, _named(names, trial), strict=True)}
    built = tvm.tirx.build(tvm.IRModule(made), target=tvm.target.Target(trial.machine.tvm()))
    library, device = _loaded(built, trial, folder)
    draw = np.random.default_rng(0)
    least = [float("inf")] * len(names)
    for _ in range(ROUNDS):
        for at, (name, (_, kinds)) in enumerate(zip(names, trial.variants, strict=True)):
            arrays = [draw.standard_normal(kind.size).astype(kind.dtype) for kind in kinds]
            given = [tvm.runtime.tensor(array, device) for array in arrays]
            timer = library.time_evaluator(name, device, number=1, repeat=REPEATS, min_repeat_ms=LEAST_MS)
            least[at] = min(least[at], float(timer(*given).min))
    return least


def _named(names: list[str], trial: Trial) -> list[tuple[Kernel, str, tuple[Buffer, ...]]]:
    return [(kernel, name, kinds) for name, (kernel, kinds) in zip(names, trial.variants, strict=True)]


def _loaded(built: Any, trial: Trial, folder: Path) -> tuple[Any, Any]:
    """The kernels where they shall run, and the device."""
    import tvm

    if trial.device is None:
        return built, tvm.cpu()
    from tvm import rpc

    export(built, folder / "trial.so", trial.link)
    host, port, key = trial.device
    remote = rpc.connect_tracker(host, port).request(key, session_timeout=120)
    remote.upload(str(folder / "trial.so"))
    return remote.load_module("trial.so"), remote.cpu()
