"""An average taken before a linear map instead of after it, or of a few parts as their sum."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import numpy as np

from ...graph import Node, Value, sources_of
from ...ops.conv import Conv
from ...ops.elementwise import Add, Affine, Mul
from ...ops.linear import Linear
from ...ops.norm import BatchNorm
from ...ops.pool import Mean
from ...ops.shape import Concat, Reshape
from ...rewrite import Match, Miss, P, Rule
from ..base import Pass
from .absorb import require_own_weights
from .channel_map import double, moved_axis


def _swap(match: Match) -> Value:
    pool, inner = match.root, match.node("y")
    channels = _channel_axis(inner)
    axis = moved_axis(pool, channels)
    if axis is None:
        raise Miss("the average runs over the channels")
    graph, op = match.graph, inner.op
    pooled: Value = graph.add(pool.op, inner.input(0), name=pool.name, sources=pool.sources)
    parameters = list(inner.inputs[1:])
    if isinstance(op, Affine | BatchNorm):
        op = dataclasses.replace(op, axis=axis)
    elif isinstance(op, Conv) and pooled.type.rank == 2:
        weight = inner.input(1)
        parameters[0] = graph.constant(double(weight).reshape(weight.shape[:2]).astype(weight.dtype), weight.name)
        op = Linear()
    new: Value = graph.add(op, pooled, *parameters, name=inner.name, sources=sources_of(inner))
    return new


def _channel_axis(node: Node) -> int:
    """The channel axis of a map that commutes with averages over all other axes."""
    op, rank = node.op, node.output.type.rank
    if isinstance(op, Affine | BatchNorm):
        return op.axis % rank
    if isinstance(op, Conv):
        if op != Conv() or node.input(1).shape[2:] != (1, 1):
            raise Miss(f"'{node.name}' looks at neighbours, so its average needs all of them")
        return 1
    return rank - 1


def _swap_conv(match: Match) -> Value:
    pool, conv = match.root, match.node("y")
    assert isinstance(pool.op, Mean)
    if {axis % 4 for axis in pool.op.axes} != {2, 3}:
        raise Miss("the average does not run over the whole image")
    require_own_weights(match.graph, [conv])
    return _swap(match)


def _stacked(match: Match) -> Value:
    graph, pool, stack = match.graph, match.root, match.node("stack")
    assert isinstance(pool.op, Mean) and isinstance(stack.op, Concat)
    rank, shape = stack.output.type.rank, pool.output.shape
    axis = stack.op.axis % rank
    parts = [value for value in stack.inputs if value is not None]
    if [each % rank for each in pool.op.axes] != [axis] or any(value.shape[axis] != 1 for value in parts):
        raise Miss("the average does not run over the joined axis alone, or not over parts of one entry")
    parts = [graph.add(Reshape(shape), value, name=f"{value.name}.part", sources=stack.sources) for value in parts]
    total = reduce(lambda a, b: match.add(Add(), a, b, name=stack.name), parts)
    result: Value = match.add(Mul(), total, graph.constant(np.array(1 / len(parts), pool.output.dtype)))
    return result


@dataclass(frozen=True)
class PoolAlgebra(Pass):
    """Move Mean over tokens or pixels before a map per channel or a linear layer.

        BatchNorm -> Mean -> Linear      becomes    Mean -> BatchNorm -> Linear, where BatchNorm folds into the head
        Linear -> Mean over tokens       becomes    Mean -> Linear, once instead of once per token
        Conv 1x1 -> Mean over pixels     becomes    Mean -> Linear (or Conv, when the Mean keeps its axes)
        Mean(Concat(a, b)) over the join    becomes    (a + b) / 2, whose factor layers can take

    Legal when only the Mean reads the map and it does not run over the channels: its weights sum to one.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("pool_first", P(Mean, P((Linear, Affine, BatchNorm), name="y")), _swap),
        Rule("pool_before_conv", P(Mean, P(Conv, name="y")), _swap_conv),
        Rule("pool_of_stack", P(Mean, P(Concat, name="stack")), _stacked),
    )
