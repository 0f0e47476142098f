"""One node in the place of another."""

from __future__ import annotations

from ...ir.graph import Graph, Node, Value

__all__ = ["succeed"]


def succeed(graph: Graph, node: Node, result: Value) -> Node:
    """Let a result take the place and the name of a node's; the node that makes it."""
    name = node.output.name
    graph.replace(node.output, result)
    graph.erase(node)
    if result.name != name:
        graph.rename(result, name)
    assert result.producer is not None
    return result.producer
