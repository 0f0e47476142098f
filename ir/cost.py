"""What a graph costs on any device: multiply-accumulates, parameters, bytes and ops. No device in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from .graph import Graph, Node


@dataclass(frozen=True)
class Cost:
    """The cost of one inference.

    `macs`: multiply-accumulates. `parameters`, `parameter_bytes`: constants, shared ones counted once.
    `activation_bytes`: all computed values together (traffic; the peak is the memory plan's). `ops`: nodes by kind.
    """

    macs: int
    parameters: int
    parameter_bytes: int
    activation_bytes: int
    ops: dict[str, int]

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return sum(self.ops.values())

    def __str__(self) -> str:
        """One line."""
        return f"{self.nodes} nodes, {self.macs / 1e6:.2f} M MACs, {self.parameters / 1e6:.3f} M parameters"


def cost(graph: Graph) -> Cost:
    """Add up a graph's costs."""
    return Cost(
        macs=sum(map(node_macs, graph.nodes)),
        parameters=sum(value.type.size for value in graph.constants),
        parameter_bytes=sum(value.type.nbytes for value in graph.constants),
        activation_bytes=sum(value.type.nbytes for node in graph.nodes for value in node.outputs),
        ops=dict(sorted(Counter(type(node.op).__name__ for node in graph.nodes).items())),
    )


def peak(graph: Graph) -> int:
    """Most bytes of inputs and computed values alive at once when nodes run in the graph's order, each beside the rest.

    Whatever runs the graph may overwrite an operand, or make a view where a node only moves elements, and need less.
    """
    last = {value: step for step, node in enumerate(graph.nodes) for value in node.inputs if value is not None}
    last |= dict.fromkeys(graph.outputs, len(graph.nodes))
    alive = most = sum(value.type.nbytes for value in graph.inputs)
    for step, node in enumerate(graph.nodes):
        alive += sum(value.type.nbytes for value in node.outputs)
        most = max(most, alive)
        given = {value for value in node.inputs if value is not None and value.data is None}
        alive -= sum(value.type.nbytes for value in given if last[value] == step)
        alive -= sum(value.type.nbytes for value in node.outputs if value not in last)
    return most


def node_macs(node: Node) -> int:
    """Multiply-accumulates of one node."""
    return node.op.macs(*(None if value is None else value.type for value in node.inputs))


__all__ = ["Cost", "cost", "node_macs", "peak"]
