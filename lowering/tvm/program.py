"""What a graph becomes before TVM sees it: calls of kernels on flat buffers; plain data, to be sent to a child."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...ir.graph import Array
from .kernels.spec import Kernel
from .machine import Machine

__all__ = ["Buffer", "Call", "Port", "Program"]


@dataclass(frozen=True)
class Buffer:
    """A flat buffer's type."""

    size: int
    dtype: str = "float32"


@dataclass(frozen=True)
class Port:
    """An input or output of the model, and the buffer that holds it in order."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    slot: str


@dataclass(frozen=True)
class Call:
    """One kernel run: names of its operands' and its result's buffers, and the layer of the model it is.

    `product` names the choice of a tile that went into it, if there was one.
    """

    kernel: Kernel
    operands: tuple[str, ...]
    result: str
    layer: str
    kind: str
    product: str = ""


@dataclass
class Program:
    """All calls in order.

    Attributes:
        name: The model's name.
        machine: What it is built for.
        inputs: In the model's order.
        outputs: Likewise.
        buffers: Type of every buffer by name: inputs, constants and results.
        constants: Content of those that are known.
        calls: In order of execution.
    """

    name: str
    machine: Machine
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    buffers: dict[str, Buffer] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    def add(self, size: int, dtype: str = "float32") -> str:
        """A new buffer's name."""
        name = f"b{len(self.buffers)}"
        self.buffers[name] = Buffer(size, dtype)
        return name

    def constant(self, array: Array) -> str:
        """A new buffer that holds the array's elements in order."""
        name = self.add(array.size, array.dtype.name)
        self.constants[name] = array.reshape(-1)
        return name

    def kinds(self, call: Call) -> tuple[Buffer, ...]:
        """Types of a call's operands and, last, its result."""
        return tuple(self.buffers[slot] for slot in (*call.operands, call.result))

    def about(self) -> dict[str, Any]:
        """What the library says of itself: ports, and the layer behind each call."""
        ports = {
            key: [{"name": port.name, "shape": list(port.shape), "dtype": port.dtype} for port in given]
            for key, given in (("inputs", self.inputs), ("outputs", self.outputs))
        }
        layers = [[call.layer, call.kind] for call in self.calls]
        return {
            "name": self.name, "vectors": self.machine.best, "threads": self.machine.threads, **ports, "layers": layers
        }  # fmt: skip
