"""Equal nodes on equal operands become one, so that patterns may ask for the same value twice."""

from __future__ import annotations

from dataclasses import dataclass

from ...graph import Graph, Node
from ..base import Pass


@dataclass(frozen=True)
class RecogniseDuplicates(Pass):
    """Common subexpressions: the second computation reads the result of the first."""

    def apply(self, graph: Graph) -> int:
        """Merge in one pass over the data flow; operands are merged before their readers."""
        seen: dict[object, Node] = {}
        count = 0
        public = set(map(id, graph.outputs))
        for node in graph.nodes:
            key = (node.op, tuple(None if value is None else id(value) for value in node.inputs))
            first = seen.setdefault(key, node)
            if first is node or any(id(value) in public for value in node.outputs):
                continue
            for old, new in zip(node.outputs, first.outputs, strict=True):
                graph.replace(old, new)
            graph.erase(node)
            count += 1
        return count
