"""A layer reads channels in whatever order they come: their permutation is one of the columns of its weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Array, Value, sources_of
from ...ops.conv import Conv
from ...ops.linear import Linear
from ...ops.shape import Gather, Transpose
from ...rewrite import Match, Miss, P, Rule
from ..base import Pass
from ..recognise.heads import Origin, origin_of, shaped
from .absorb import input_axis, is_public, parameters, require_own_weights
from .channel_map import double


def _permutation(origin: Origin, value: Value, axis: int) -> Array:
    """Which channel of the source, seen under the value's shape, each channel is."""
    if origin.source.type.size != value.type.size:
        raise Miss(f"'{value.name}' is only a part of '{origin.source.name}'")
    plain = np.arange(value.type.size).reshape(value.shape)
    numbers = origin.numbers()
    channels = np.moveaxis(numbers, axis, 0).reshape(value.shape[axis], -1)[:, 0]
    order: Array = np.unravel_index(channels, value.shape)[axis]
    if not np.array_equal(numbers, plain.take(order, axis)) or (order == np.arange(len(order))).all():
        raise Miss(f"'{value.name}' is no permutation of channels")
    return order


def _fold(match: Match) -> Value:
    graph, layer = match.graph, match.root
    value, axis = layer.input(0), input_axis(layer)
    if isinstance(layer.op, Conv) and layer.op.groups > 1:
        raise Miss("a grouped convolution reads its channels in their order")
    origin = origin_of(value, through_factors=False)
    if not any(isinstance(node.op, Gather | Transpose) for node in origin.nodes) or not value.type.size:
        raise Miss("no movement comes before it")
    if len(value.uses) > 1 or is_public(graph, value):
        raise Miss(f"'{value.name}' is also read by others")
    require_own_weights(graph, [layer])
    order = _permutation(origin, value, axis)
    weight, bias = double(layer.input(1)).take(np.argsort(order), 1), layer.optional(2)
    source = shaped(graph, origin.source, value.shape, sources_of(*origin.nodes))
    operands = parameters(graph, layer, weight, None if bias is None else double(bias))
    sources = sources_of(layer, *origin.nodes)
    made: Value = graph.add(layer.op, source, *operands, name=layer.name, sources=sources)
    return made


@dataclass(frozen=True)
class FoldPermutation(Pass):
    """Heads or groups in turn, and shuffled channels, go into the weight of the layer that reads them.

        Linear(Reshape(Transpose(Reshape(x))), w)    becomes    Linear(x, w[:, order])

    Legal when movement only permutes channels and nobody else reads its result or the weight.
    """

    rules: ClassVar[tuple[Rule, ...]] = (Rule("fold_permutation", P((Linear, Conv)), _fold),)
