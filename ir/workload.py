"""What a network asks of an accelerator that runs it by operators: the amounts that models of latency are linear in.

Count the graph in the form in which a back end writes it: after its passes, when what can be fused is one node. A
device's model takes those amounts that its processor's time goes by.
"""

from __future__ import annotations

from math import prod

from .graph import Graph, Node
from .ops.activation import Clip, Relu, Softmax
from .ops.attention import Attention
from .ops.conv import Conv, PatchEmbed
from .ops.elementwise import Add, Affine, Div, Maximum, Minimum, Mul, Pow, Sub
from .ops.linear import Linear, MatMul
from .ops.logic import Where
from .ops.pool import AveragePool, MaxPool, Mean
from .ops.shape import Reshape

__all__ = ["AMOUNTS", "workload"]

AMOUNTS = {
    "whole": "1: what every inference costs",
    "operators": "nodes that are no mere views",
    "gates": "means over space or tokens, for which all of the picture has to be there",
    "multiplies": "million multiply-accumulates of linear layers and convolutions",
    "tiles": "million multiply-accumulates of convolutions, where channels fill whole tiles",
    "linear": "million multiply-accumulates of linear layers, likewise",
    "depthwise": "million multiply-accumulates of depthwise convolutions",
    "products": "million multiply-accumulates of two computed operands",
    "attentions": "operators that attend, as most runtimes take each apart into many",
    "scores": "million elements of softmax",
    "weights": "million constants",
    "activations": "million elements read and written",
    "arithmetic": "million elements of sums, products and quotients of tensors, channels filled up",
    "elements": "million elements that other operators write, those fused with layers left out, channels filled up",
    "input": "million elements of the inputs",
    "output": "million elements of the outputs",
}
"""Each amount's name and unit."""

TILE = 32
"""Channels that a processor with a matrix unit multiplies at once (Hexagon's): fewer take as long."""

VECTOR = 16
"""Channels that its tensors of activations are filled up to."""

PICTURE = 4
"""Up to so many channels a convolution's taps are laid beside each other until they fill a tile."""

ARITHMETIC = (Add, Sub, Mul, Div, Pow, Minimum, Maximum, Affine, Where)
FUSED = (Conv, PatchEmbed, Linear, MatMul, Attention, Softmax, Relu, Clip, MaxPool, AveragePool)
"""What writes no elements of its own: layers, which count by products, and what runtimes fuse with them."""


def workload(graph: Graph) -> dict[str, float]:
    """Add up the amounts of one inference, in the order of `AMOUNTS`."""
    total = dict.fromkeys(AMOUNTS, 0.0)
    total["whole"] = 1.0
    total["input"] = sum(value.type.size for value in graph.inputs) / 1e6
    total["output"] = sum(value.type.size for value in graph.outputs) / 1e6
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
    found = {
        "operators": 1,
        "gates": int(isinstance(node.op, Mean)),
        _kind(node): macs / 1e6,
        "attentions": int(isinstance(node.op, Attention)),
        "scores": _scores(node) / 1e6,
        "weights": constants / 1e6,
        "activations": moved / 1e6,
    }
    if _kind(node) == "multiplies":
        found["tiles" if isinstance(node.op, Conv) else "linear"] = _tiles(node) / 1e6
    elif not isinstance(node.op, FUSED):
        written = sum(_filled(value.shape) for value in node.outputs)
        found["arithmetic" if isinstance(node.op, ARITHMETIC) else "elements"] = written / 1e6
    return found


def _kind(node: Node) -> str:
    """Which of the three rates its multiplications run at."""
    if isinstance(node.op, Conv):
        weight = node.inputs[1]
        return "depthwise" if node.op.groups > 1 and weight is not None and weight.shape[1] == 1 else "multiplies"
    return "multiplies" if isinstance(node.op, Linear | PatchEmbed) else "products"


def _up(channels: int, unit: int) -> int:
    return -(-channels // unit) * unit


def _tiles(node: Node) -> int:
    """Multiply-accumulates where inputs and outputs of each tap, and of each group, fill whole tiles."""
    weight = node.inputs[1]
    assert weight is not None
    outputs, inputs, taps = weight.shape[0], weight.shape[1] if weight.type.rank > 1 else 1, prod(weight.shape[2:])
    groups = node.op.groups if isinstance(node.op, Conv) else 1
    positions = node.output.type.size // outputs
    if inputs <= PICTURE and groups == 1:
        return positions * _up(inputs * taps, TILE) * _up(outputs, TILE)
    apart = groups * _up(inputs, TILE) * _up(outputs // groups, TILE)
    return positions * taps * min(apart, _up(inputs * groups, TILE) * _up(outputs, TILE))


def _filled(shape: tuple[int, ...]) -> int:
    """Elements of a tensor whose channels, the second axis of a picture and else the last, are filled up."""
    axis = 1 if len(shape) == 4 else len(shape) - 1
    return prod(_up(size, VECTOR) if place == axis else size for place, size in enumerate(shape))


def _scores(node: Node) -> int:
    if isinstance(node.op, Attention):
        queries, keys = node.inputs[0], node.inputs[1]
        assert queries is not None and keys is not None
        return prod(queries.shape[:-1]) * keys.shape[-2] * node.op.heads
    return node.output.type.size if isinstance(node.op, Softmax) else 0
