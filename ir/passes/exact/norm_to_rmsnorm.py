"""LayerNorm over a residual stream becomes RMSNorm, because the stream can be kept at mean zero."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ...graph import Array, Graph, Node, Value
from ...ops.conv import Conv
from ...ops.elementwise import Add, Div, Mul, Sub
from ...ops.norm import LayerNorm, RMSNorm
from ...ops.shape import Concat, Expand
from ...rewrite import Match, Miss, P, Rule
from ..base import Pass
from .absorb import is_public, is_weighted, output_axis, rebuild, renewed, require_own_weights
from .channel_map import double, moved_axis
from .fold_layer_scale import is_scalar_operand


@dataclass
class Stream:
    """All values that reach each other through Adds, Concats of tokens and moves, and what writes and reads them."""

    axis: dict[Value, int] = field(default_factory=dict)
    writers: dict[Node, None] = field(default_factory=dict)
    constants: dict[tuple[Node, int], int] = field(default_factory=dict)
    norms: dict[Node, None] = field(default_factory=dict)


def stream_of(graph: Graph, norm: Node) -> Stream:
    """The residual stream that a LayerNorm reads.

    Raises:
        Miss: Something writes to it that is not linear at its last op, or reads it without a LayerNorm.
    """
    stream, start = Stream(), norm.input(0)
    pending = [(start, start.type.rank - 1)]
    while pending:
        value, axis = pending.pop()
        if stream.axis.setdefault(value, axis) != axis:
            raise Miss(f"'{value.name}' is read along two different axes")
        if is_public(graph, value):
            raise Miss(f"'{value.name}' is read un-normalised by the graph output")
        neighbours = [*_written(stream, value, axis), *_read(stream, value, axis)]
        pending += [(other, at) for other, at in neighbours if stream.axis.get(other) != at]
    return stream


def _written(stream: Stream, value: Value, axis: int) -> Iterator[tuple[Value, int]]:
    """Follow a value of the stream to what makes it: other values of the stream, or a writer."""
    node = value.producer
    if node is None:
        raise Miss(f"'{value.name}' is written by the graph input")
    if is_weighted(node) and output_axis(node) == axis:
        if isinstance(node.op, Conv) and node.op.groups != 1:
            raise Miss(f"'{node.name}' is a grouped convolution, whose outputs have no common mean")
        stream.writers[node] = None
        return
    for index in _stream_operands(node, axis):
        operand = node.input(index)
        at = _operand_axis(node, operand, axis)
        if at is None or operand.shape[at] != value.shape[axis]:
            raise Miss(f"'{node.name}' spreads '{operand.name}' over the channels")
        if operand.is_constant:
            stream.constants[node, index] = at
        else:
            yield operand, at


def _stream_operands(node: Node, axis: int) -> list[int]:
    """The operands of which a centred output is the same function as of centred operands."""
    op = node.op
    if isinstance(op, Add | Sub) or (isinstance(op, Concat) and op.axis % node.output.type.rank != axis):
        return list(range(len(node.inputs)))
    if isinstance(op, Mul | Div) and is_scalar_operand(node):
        return [i for i in range(2) if not node.input(i).is_constant]
    if isinstance(op, Expand) or any(moved_axis(node, i) == axis for i in range(node.input(0).type.rank)):
        return [0]
    raise Miss(f"'{node.name}' ({type(op).__name__}) writes to it and is not linear at its last op")


def _operand_axis(node: Node, operand: Value, axis: int) -> int | None:
    if isinstance(node.op, Add | Sub | Mul | Div | Expand):
        at = axis - (node.output.type.rank - operand.type.rank)
        return at if at >= 0 else None
    if isinstance(node.op, Concat):
        return axis
    return next(i for i in range(operand.type.rank) if moved_axis(node, i) == axis)


def _read(stream: Stream, value: Value, axis: int) -> Iterator[tuple[Value, int]]:
    """Follow a value of the stream to its readers: other values of the stream, or a norm."""
    for node, index in value.uses:
        if isinstance(node.op, LayerNorm) and index == 0 and axis == value.type.rank - 1:
            if node.optional(2) is not None:
                raise Miss(f"the shift of '{node.name}' could not be folded into its readers")
            stream.norms[node] = None
            continue
        joins = isinstance(node.op, Concat) and node.op.axis % node.output.type.rank != axis
        scales = isinstance(node.op, Mul | Div) and is_scalar_operand(node)
        moves = isinstance(node.op, Add | Sub | Expand) or moved_axis(node, axis) is not None
        if not (joins or scales or (moves and not is_weighted(node))):
            raise Miss(f"'{value.name}' is read un-normalised by '{node.name}' ({type(node.op).__name__})")
        for result in node.outputs:
            at = axis if joins else moved_axis(node, axis)
            at = axis + result.type.rank - value.type.rank if at is None else at
            if result.shape[at] != value.shape[axis]:
                raise Miss(f"'{node.name}' ({type(node.op).__name__}) takes a part of the channels of '{value.name}'")
            yield result, at


def _centre(graph: Graph, stream: Stream) -> None:
    """Make every writer and every constant of the stream write mean zero."""
    require_own_weights(graph, list(stream.writers))
    made: dict[Value, Value] = {}
    for node in list(stream.writers):
        weight, bias = node.input(1), node.optional(2)
        shifted = None if bias is None else _centred(double(bias), 0)
        new = rebuild(graph, node, made.get(weight, _centred(double(weight), 0)), shifted)
        made[weight] = new.input(1)
    tables: dict[tuple[Value, int], Value] = {}
    for (node, index), axis in stream.constants.items():
        old = node.input(index)
        if (old, axis) not in tables:
            tables[old, axis] = renewed(graph, old, _centred(double(old), axis).astype(old.dtype))
        graph.set_input(node, index, tables[old, axis])


def _centred(array: Array, axis: int) -> Array:
    return np.asarray(array - array.mean(axis=axis, keepdims=True))


def _to_rmsnorm(match: Match) -> Value:
    graph, root = match.graph, match.root
    stream = stream_of(graph, root)
    _centre(graph, stream)
    for norm in stream.norms:
        assert isinstance(norm.op, LayerNorm)
        g = norm.optional(1)
        new: Value = graph.add(
            RMSNorm(norm.op.eps), norm.input(0), *([g] if g else []), name=norm.name, sources=norm.sources
        )
        if norm is root:
            result = new
        else:
            graph.replace(norm.output, new)
    return result


@dataclass(frozen=True)
class NormToRmsnorm(Pass):
    """Centre what is written to a pre-LN residual stream, and normalise without subtracting the mean.

        x = PatchEmbed(image, w, b) + pos        becomes    w, b and pos less their mean over the channels
        x = x + Linear(h, w, b)                  becomes    w less its column means, b less its mean
        LayerNorm(x) {eps}                       becomes    RMSNorm(x) {eps}

    Legal when every writer to the stream ends in a linear layer or constant and every reader is a LayerNorm without
    shift (see `FoldAffineNorm`): LayerNorm of x is RMSNorm of x less its mean, and a sum of centred terms is centred.
    Refused for post-LN, for streams read un-normalised, and where a factor per channel stands on the stream: there the
    mean would have to be subtracted at run time. Source: Jiang et al., Pre-RMSNorm and Pre-CRMSNorm Transformers, 3.2.
    """

    rules: ClassVar[tuple[Rule, ...]] = (Rule("norm_to_rmsnorm", P(LayerNorm), _to_rmsnorm),)
