"""What depends on constants only is computed now."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...graph import Array, Graph, Node
from ...ops.quant import Dequantize
from ...ops.shape import COPY
from ...rewrite import Miss
from ..base import Pass
from .absorb import is_public


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Evaluate nodes whose operands are all constants, in float64, and store the result in the type it had.

        Transpose(constant)        becomes    constant

    Legal always; done where the constants of the graph do not grow by more than `growth` bytes, because an Expand of
    one number to a large table is better made at run time than stored. Weights that a file stores in integers become
    real at any size, unless `stored` says that the back end takes them as they are. A constant output is copied at run
    time, because an output has storage of its own.
    """

    growth: int = 16384
    stored: bool = False

    def apply(self, graph: Graph) -> int:
        """Fold until nothing is left to fold; returns the number of folded nodes."""
        count = 0
        for node in graph.nodes:
            try:
                self._fold(graph, node)
            except Miss:
                continue
            count += 1
        graph.prune()
        return count

    def _fold(self, graph: Graph, node: Node) -> None:
        operands = [value for value in node.inputs if value is not None]
        if not all(value.is_constant for value in operands):
            raise Miss("an operand is computed at run time")
        if node.op == COPY and is_public(graph, node.output):
            raise Miss(f"'{node.output.name}' is a copy because it is an output")
        weights = isinstance(node.op, Dequantize)
        if weights and self.stored:
            raise Miss("the back end takes integers")
        own = [value for value in set(operands) if value.readers == [node] and not is_public(graph, value)]
        freed = sum(value.type.nbytes for value in own)
        if not weights and sum(value.type.nbytes for value in node.outputs) - freed > self.growth:
            raise Miss(f"the result would add more than {self.growth} bytes")
        results = node.op.reference(*(None if value is None else _double(value.array) for value in node.inputs))
        for old, array in zip(node.outputs, results if isinstance(results, tuple) else (results,), strict=True):
            name, data = old.name, np.asarray(array).astype(old.dtype)
            if is_public(graph, old):
                constant = graph.constant(data, f"{name}.constant", old.type.quant)
                new = graph.add(COPY, constant, name=name, sources=node.sources)  # `replace` passes the name on
            else:
                graph.rename(old, f"{name}.old")
                new = graph.constant(data, name, old.type.quant)
            graph.replace(old, new)


def _double(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.kind == "f" else array
