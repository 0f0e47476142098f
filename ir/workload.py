"""What a network asks of an accelerator that runs it by operators: the amounts that models of latency are linear in.

Count the graph in the form in which a back end writes it: after its passes, when what can be fused is one node.
"""

from __future__ import annotations

from math import prod

from .graph import Graph, Node
from .ops.activation import Softmax
from .ops.attention import Attention
from .ops.conv import Conv, PatchEmbed
from .ops.linear import Linear
from .ops.pool import Mean
from .ops.shape import Reshape

__all__ = ["AMOUNTS", "workload"]

AMOUNTS = {
    "whole": "1: what every inference costs",
    "operators": "nodes that are no mere views",
    "gates": "means over space or tokens, for which all of the picture has to be there",
    "multiplies": "million multiply-accumulates of linear layers and convolutions",
    "depthwise": "million multiply-accumulates of depthwise convolutions",
    "products": "million multiply-accumulates of two computed operands",
    "scores": "million elements of softmax",
    "weights": "million constants",
    "activations": "million elements read and written",
}
"""Each amount's name and unit."""


def workload(graph: Graph) -> dict[str, float]:
    """Add up the amounts of one inference, in the order of `AMOUNTS`."""
    total = dict.fromkeys(AMOUNTS, 0.0)
    total["whole"] = 1.0
    for node in graph.nodes:
        if not isinstance(node.op, Reshape):
            for name, amount in _amounts(node).items():
                total[name] += amount
    return total


def _amounts(node: Node) -> dict[str, float]:
    operands = [value for value in node.inputs if value is not None]
    constants = sum(value.type.size for value in operands if value.is_constant)
    moved = sum(value.type.size for value in operands) - constants + sum(value.type.size for value in node.outputs)
    macs = node.op.macs(*(value and value.type for value in node.inputs))
    return {
        "operators": 1,
        "gates": int(isinstance(node.op, Mean)),
        _kind(node): macs / 1e6,
        "scores": _scores(node) / 1e6,
        "weights": constants / 1e6,
        "activations": moved / 1e6,
    }


def _kind(node: Node) -> str:
    """Which of the three rates its multiplications run at."""
    if isinstance(node.op, Conv):
        weight = node.inputs[1]
        return "depthwise" if node.op.groups > 1 and weight is not None and weight.shape[1] == 1 else "multiplies"
    return "multiplies" if isinstance(node.op, Linear | PatchEmbed) else "products"


def _scores(node: Node) -> int:
    if isinstance(node.op, Attention):
        queries, keys = node.inputs[0], node.inputs[1]
        assert queries is not None and keys is not None
        return prod(queries.shape[:-1]) * keys.shape[-2] * node.op.heads
    return node.output.type.size if isinstance(node.op, Softmax) else 0
