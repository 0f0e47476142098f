"""What a float graph takes of a device once it is compiled to integers, without compiling it.

Quantiser, planner, emitters and packer are those of a compile, with a few samples for the ranges. Code is added up
function by function: each is linked once, with the first network that needs it, and is as large in every other. Ranges
of more samples may tell two layers apart that share a function here, or the other way round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ...ir.cost import cost
from ...ir.graph import Array, Graph
from ...ir.memory import Plan, plan
from ...ir.passes.pipelines import INTEGER, run_pipeline
from ...ir.passes.quantise import QuantOptions, convert
from ...ir.passes.quantise.calibrate import calibrate
from ...lowering.c.call import Call
from ...lowering.c.constants import Constants
from ...lowering.c.lower import Vector, emitted, lower
from ...lowering.c.steps import joined
from ...targets import Target
from ..problem import Costs

__all__ = ["STACK", "Price", "blank"]

STACK = 512
"""Bytes that a plan leaves for the stack, as compiles do; rows of weights that are decoded there come on top."""


@dataclass
class Price:
    """Costs of graphs on one device.

    Attributes:
        target: A device that C is compiled for.
        feeds: A few typical inputs, float32 [samples, ...], by name.
        stream: "int8" or "int16", of the tokens between blocks.
        callback: Whether the image comes pixel by pixel where it can.
        ram: The budget that a compile will have, stack included; without, it makes the smallest plan.
    """

    target: Target
    feeds: Mapping[str, Array]
    stream: str = "int8"
    callback: bool = True
    ram: int | None = None
    _functions: dict[str, int] = field(default_factory=dict)
    _rest: int | None = None

    def of(self, graph: Graph) -> Costs:
        """Costs of a float graph; `ram` is that of the smallest plan, `flash` that of code and constants.

        Raises:
            EdgesmithError: It has no integer form, or no kernels.
        """
        made = graph.copy()
        run_pipeline(made, INTEGER)
        integers = convert(made, calibrate(made, dict(self.feeds)), QuantOptions(stream=self.stream)).graph
        least = taken = plan(integers, callback=self.callback)
        if self.ram is not None and least.arena_bytes + STACK < self.ram:
            taken = plan(integers, self.ram - STACK, callback=self.callback)
        pool = Constants("pool")
        calls, refused = emitted(taken, pool)
        if refused:
            raise joined(refused)
        stack = STACK + max((call.decoded for call in calls), default=0)
        return Costs(cost(made).macs, pool.nbytes + self._code(integers, taken, calls), least.arena_bytes + stack)

    def _code(self, graph: Graph, found: Plan, calls: Sequence[Call]) -> int:
        """Bytes of machine code: every function once, and what all programs have in common."""
        names = {_digest(call.signature()): "" for call in calls}
        if self._rest is None or not names.keys() <= self._functions.keys():
            self._link(graph, found, calls)
        assert self._rest is not None
        return sum(self._functions[name] for name in names) + self._rest

    def _link(self, graph: Graph, found: Plan, calls: Sequence[Call]) -> None:
        """Learn the sizes of a program's functions."""
        from ...lowering.c import toolchain
        from ...runtimes.elf import load

        with tempfile.TemporaryDirectory() as folder:
            part = lower(graph, found, self.target, Path(folder), "model", blank(graph))
            prefix = part["name"]
            sources = sorted((Path(folder) / "src").glob("*.c"))
            elf = Path(folder) / "model.elf"
            toolchain.compile_elf(sources, self.target, elf, [f"{prefix}_run", part["symbols"]["arena"]])
            code = toolchain.section_sizes(elf, self.target).code
            symbols = load(elf).symbols
        sizes: dict[str, int] = {}
        for call in calls:
            digest = _digest(call.signature())
            if digest not in sizes:
                sizes[digest] = symbols[f"{call.kind}_{len(sizes)}"].size
        for digest, size in sizes.items():
            self._functions.setdefault(digest, size)
        if self._rest is None:
            self._rest = code - sum(sizes.values())


def blank(graph: Graph) -> Vector:
    """A stored run for programs that nobody tests: all zeros."""
    inputs, outputs = (
        {value.name: np.zeros(value.shape, value.dtype) for value in ports} for ports in (graph.inputs, graph.outputs)
    )
    return Vector(inputs, outputs)


def _digest(signature: tuple[object, ...]) -> str:
    return blake2b(repr(signature).encode(), digest_size=16).hexdigest()
