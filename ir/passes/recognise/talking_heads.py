"""Attention whose heads are mixed before or after softmax: a 1x1 convolution over heads, everything else beside it.

    Conv(scale * q k^T + table)   becomes   Conv(q k^T) + table',   the scale in the weights, the bias in the table

Exporters write the mixing as a convolution of the scores, or as a Linear on scores whose heads are moved to the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Array, Value
from ...ops.conv import Conv
from ...ops.elementwise import Add, Div, Mul
from ...ops.linear import Linear, MatMul
from ...ops.shape import Transpose
from ...rewrite import Any, Const, Match, Miss, P, Rule
from ..base import Pass
from .heads import factor_of


def _is_pointwise(op: Conv) -> bool:
    return op.groups == 1 and not any(op.pads) and set(op.strides) == {1}


def _as_convolution(match: Match) -> Value:
    """Channels to the end, Linear, and back: a convolution of one pixel."""
    linear = match.node("mixed")
    there, back = match.node("last").op, match.root.op
    assert isinstance(there, Transpose) and isinstance(back, Transpose)
    if there.perm != (0, 2, 3, 1) or back.perm != (0, 3, 1, 2):
        raise Miss("the transpositions do not take the channels to the end and back")
    weight = match.graph.constant(linear.input(1).array[:, :, None, None], linear.input(1).name)
    result: Value = match.add(Conv(), match["x"], weight, linear.optional(2), name=linear.name)
    return result


def _mixed(match: Match) -> Value:
    """A factor goes into the weights; what is added to the scores is added after the mixing, together with its bias."""
    graph, node = match.graph, match.root
    if not isinstance(node.op, Conv) or not _is_pointwise(node.op):
        raise Miss("it is no 1x1 convolution")
    weight, bias = match.array("w"), node.optional(2)
    product, factor, tables = _scores(match)
    if factor == 1 and not tables:
        raise Miss("heads are mixed as they are")
    kernel = graph.constant((weight * factor).astype(weight.dtype), match["w"].name)
    result: Value
    if not tables:
        result = match.add(node.op, product, kernel, bias)
        return result
    if bias is not None and not bias.is_constant:
        raise Miss("the bias of the mixing is computed")
    total = np.zeros((1, 1, 1)) if bias is None else bias.array.astype(np.float64)[:, None, None]
    for table in tables:
        by_head = np.broadcast_to(table, np.broadcast_shapes(table.shape, (1, weight.shape[1], 1, 1)))
        total = total + np.einsum("oh,bhnm->bonm", weight[:, :, 0, 0].astype(np.float64), by_head)[0]
    made = match.add(node.op, product, kernel)
    constant = graph.constant(total.astype(weight.dtype), f"{node.name}.table")
    result = graph.add(Add(), made, constant, name=f"{node.name}.biased", sources=match.sources)
    return result


def _scores(match: Match) -> tuple[Value, float, list[Array]]:
    """(q k^T, factor, tables) of factor * q k^T + tables; a factor of the queries or the keys is one of the scores."""
    value, factor, tables = match["scores"], 1.0, list[Array]()
    while (node := value.producer) is not None and not isinstance(node.op, MatMul):
        scaled = factor_of(node)
        constants = [v for v in node.inputs if v is not None and v.is_constant]
        if len(value.readers) > 1:
            raise Miss(f"'{value.name}' is also read by others")
        if scaled is not None:
            value, factor = scaled[0], factor * scaled[1]
        elif isinstance(node.op, Add) and len(constants) == 1:
            tables.append(constants[0].array * factor)
            value = node.input(1 if node.inputs[0] is constants[0] else 0)
        else:
            raise Miss(f"the mixed heads are made by {type(node.op).__name__} '{node.name}'")
        if value.shape != node.output.shape or (tables and tables[-1].shape[:-3] not in ((), (1,))):
            raise Miss(f"'{node.name}' enlarges the scores, or differs between images")
        match.nodes.append(node)
    if node is None or len(node.output.readers) > 1:
        raise Miss("the mixed heads are no scores, or are also read by others")
    operands = []
    for operand in (node.input(0), node.input(1)):
        scaled = None if operand.producer is None or len(operand.readers) > 1 else factor_of(operand.producer)
        operands.append(operand if scaled is None else scaled[0])
        factor *= 1.0 if scaled is None else scaled[1]
    same = operands[0] is node.inputs[0] and operands[1] is node.inputs[1]
    product = value if same else match.graph.add(node.op, *operands, name=node.name, sources=node.sources)
    return product, factor, tables


@dataclass(frozen=True)
class RecogniseTalkingHeads(Pass):
    """Scores that are mixed over heads: the product, the convolution, one table."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "heads_as_channels",
            P(Transpose, P(Linear, P(Transpose, Any("x"), name="last"), Const(), name="mixed")),
            _as_convolution,
        ),
        Rule("talking_heads", P(Conv, P((Add, Div, MatMul, Mul), name="scores"), Const(name="w")), _mixed),
    )
