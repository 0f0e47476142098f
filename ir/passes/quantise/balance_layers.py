"""Channels of what layers read made alike before it is rounded: a producer takes factors in, its readers take them out.

A quiet channel beside a loud one is rounded to few steps. Divided by r < 1 where it is made and multiplied by r in the
weights that read it, nothing changes in real numbers, and the channel fills its integers. Where a factor costs nothing:

    norm with a scale -> layers      Linear, its values weighed by Attention -> layers      layer, ReLU -> layers

How far to go is chosen by `balance_channels`. Source: Xiao et al., SmoothQuant, 2023; Nagel et al., Data-Free
Quantization Through Weight Equalization and Bias Correction, 2019, for layers around a ReLU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...graph import Array, Graph, Node, Value
from ...ops.activation import Relu
from ...ops.attention import Attention
from ...ops.conv import Conv
from ...ops.linear import Linear
from ...ops.norm import LayerNorm, RMSNorm
from ...ops.shape import Slice
from . import observers
from .balance_channels import balanced
from .observe import Observed

__all__ = ["balance_layers", "channel_axes"]


@dataclass(frozen=True)
class Place:
    """A value whose channels can be scaled: the axis they lie along, who makes them and which layers read them."""

    value: Value
    axis: int
    makers: tuple[tuple[Node, int], ...]
    readers: tuple[Node, ...]


def channel_axes(graph: Graph) -> dict[str, int]:
    """The axis of the channels of each value that `balance_layers` can balance, by its name, as `observe` wants it."""
    return {place.value.name: place.axis for place in _places(graph)}


def balance_layers(graph: Graph, seen: Observed, observer: str) -> list[str]:
    """Balance channels wherever that is free and lessens the noise expected.

    Args:
        graph: A float graph; its weights are changed.
        seen: Statistics of its values, with those of channels along `channel_axes`.
        observer: Of the activations, see `observers.interval`.

    Returns:
        Names of the values whose channels were scaled; their statistics are no longer those seen.
    """
    done = []
    for place in _places(graph):
        stats = seen[place.value.name]
        whole = observers.asymmetric(*observers.interval(stats, observer))
        quant = balanced(stats, whole, place.readers)
        if quant.axis is None:
            continue
        ratios = np.asarray(quant.scale) / whole.scale
        for node, index in place.makers:
            _scale(graph, node, index, 0, 1 / ratios)
        for reader in place.readers:
            _scale(graph, reader, 1, 1, ratios)
        done.append(place.value.name)
    return done


def _places(graph: Graph) -> Iterator[Place]:
    for node in graph.nodes:
        if len(node.outputs) != 1 or node.output in graph.outputs:
            continue
        makers, axis = _makers(node)
        readers = _readers(node.output, axis) if makers else None
        constant = all(maker.input(index).data is not None for maker, index in makers)
        if readers and constant and node.output.dtype == "float32":
            yield Place(node.output, axis, makers, readers)


def _makers(node: Node) -> tuple[tuple[tuple[Node, int], ...], int]:
    """The (node, operand) pairs to scale along axis 0 so that the node's result is scaled, and its channels' axis."""
    if isinstance(node.op, LayerNorm | RMSNorm):
        found = [(node, index) for index in range(1, len(node.inputs)) if node.inputs[index] is not None]
        return (tuple(found) if node.optional(1) is not None else ()), -1
    source = node.optional(2 if isinstance(node.op, Attention) else 0)
    maker = source.producer if source is not None and len(source.uses) == 1 else None
    if maker is None or not isinstance(node.op, Attention | Relu):
        return (), -1
    if isinstance(maker.op, Linear) or (isinstance(maker.op, Conv) and isinstance(node.op, Relu)):
        found = [(maker, index) for index in range(1, len(maker.inputs)) if maker.inputs[index] is not None]
        return tuple(found), -1 if isinstance(maker.op, Linear) else 1
    return (), -1


def _readers(value: Value, axis: int) -> tuple[Node, ...] | None:
    """The layers that read a value, all of them with known weights; None where something else reads it."""
    found: list[Node] = []
    for node, index in value.uses:
        if isinstance(node.op, Slice) and axis % value.type.rank not in {a % value.type.rank for a in node.op.axes}:
            inner = _readers(node.output, axis)
            if inner is None:
                return None
            found += inner
        elif isinstance(node.op, Linear if axis == -1 else Conv) and index == 0 and node.input(1).data is not None:
            found.append(node)
        else:
            return None
    return tuple(dict.fromkeys(found))


def _scale(graph: Graph, node: Node, index: int, axis: int, factors: Array) -> None:
    """Multiply a constant operand along an axis; a weight of a convolution in groups has its inputs group by group."""
    old = node.input(index)
    groups = node.op.groups if axis and isinstance(node.op, Conv) else 1
    array = old.array.astype(np.float64)
    grouped = array.reshape(groups, -1, *array.shape[1:]) if groups > 1 else array[None]
    shape = (groups, *(-1 if each == axis else 1 for each in range(array.ndim)))
    made = (grouped * factors.reshape(shape)).reshape(array.shape).astype(np.float32)
    graph.set_input(node, index, graph.constant(made, f"{old.name}.balanced"))
