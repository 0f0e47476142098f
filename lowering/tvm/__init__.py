"""The TVM back end: the graph as kernels of our own in TVM's TIR, compiled and linked to one shared object."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import Backend, Job, Option, Outline, Written

if TYPE_CHECKING:
    from ...ir.passes.base import Pass
    from .program import Program

__all__ = ["BACKEND", "Tvm"]

INSTALL = "pip install edgesmith[tvm]"


@dataclass(frozen=True)
class Tvm:
    """One `.so` that holds code and weights, for TVM's runtime."""

    name: str = "tvm"
    file: str = "model.so"
    runner: str = "tvm"
    dtypes: tuple[str, ...] = ("float32",)

    @property
    def options(self) -> Mapping[str, Option]:
        """How products are cut into tiles, and how many threads compute them."""
        return {
            "tune": Option("0", help="Minutes to spend on measuring tile sizes on this computer."),
            "device": Option(
                "", help="Where to measure, if not here: HOST:PORT/KEY of an RPC tracker and a device's key."
            ),
            "threads": Option("", help="Threads that share the work; the target's own number (1) if not given."),
            "tiles": Option("", help="A file of tile sizes that a tuned compile kept: its manifest.json, or its own."),
        }

    def why_not(self) -> str | None:
        """What is missing."""
        return None if importlib.util.find_spec("tvm") else INSTALL

    def passes(self, dtype: str) -> Sequence[Pass]:
        """All that are exact."""
        from ...ir.passes.pipelines import FLOAT_TVM

        return FLOAT_TVM

    def outline(self, job: Job) -> Outline:
        """The kernels that would be compiled, and the bytes of the weights; see `lowering.Backend`."""
        from ...ir.hollow import hollow
        from .lower import draft
        from .machine import Machine

        made = draft(hollow(job.graph), Machine.of(job.target.format))
        size = sum(array.nbytes for array in made.program.constants.values())
        return Outline(kinds(made.program), size, "at least", made.lacks, ("the code of the kernels comes on top",))

    def write(self, job: Job, path: Path) -> Written:
        """Compile the graph; see `lowering.Backend`.

        Raises:
            MachineError: TVM or the linker is missing, or its compiler crashed or took too long.
            UsageError: The target's processor or an option is not what it must be.
        """
        from .child import build
        from .lower import lower
        from .machine import Machine
        from .tiles import minutes, read, record
        from .tune import tuned

        machine, limit = Machine.of(job.target.format), minutes(job.options["tune"])
        machine = machine.shared(job.options["threads"] or str(machine.threads))
        tiles = read(job.options["tiles"], machine)
        if limit:
            tiles = tuned(job.graph, machine, tiles, limit, job.options["device"])
        program, choices = lower(job.graph, machine, tiles)
        build(program, path)
        return Written(kinds(program), details=record(machine, tiles, choices))


def kinds(program: Program) -> dict[str, int]:
    """How often each kind of kernel is called."""
    return dict(sorted(Counter(call.kernel.label.split("_")[0] for call in program.calls).items()))


BACKEND: Backend = Tvm()
