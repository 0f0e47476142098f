"""Pairs of Quantize and Dequantize that a model brings: what they cut stays, what they round goes.

What is left is the float network that they stand for, ready for scales of our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ...graph import Graph, Node, Quant, Value
from ...ops import activation, elementwise, number, pool, shape
from ...ops.conv import Conv
from ...ops.linear import Linear, MatMul
from ...ops.logic import Cast
from ...ops.quant import Dequantize, Quantize
from ...rewrite import Any, Const, Match, Miss, P, Rule, rewrite
from ..base import Pass
from ..exact.absorb import is_public
from ..recognise import RECOGNISE

__all__ = ["DropPairs"]

MOVES = (shape.Expand, shape.Reshape, shape.Slice, shape.Split, shape.Transpose, pool.MaxPool)
"""Integers go through them as they are, and so do the real numbers they stand for."""

NEVER_NEGATIVE = (activation.Exp, activation.HardSigmoid, activation.Relu, activation.Sigmoid, activation.Softmax,
                  activation.Sqrt, activation.Abs)  # fmt: skip
KEEPS_SIGN = (*MOVES, shape.Concat, elementwise.Add, elementwise.Mul, elementwise.Div, elementwise.Pow,
              elementwise.Maximum, pool.AveragePool, pool.Mean, pool.Sum, pool.ReduceMax)  # fmt: skip
"""Of operands that are never negative they make results that are never negative."""


_X, _SCALE, _ZERO = Any("x"), Any("scale"), Any("zero")
_ROUNDED = P(number.Round, P(elementwise.Div, _X, _SCALE, shared=True), shared=True)
_CLAMPED = P(activation.Clip, P(elementwise.Add, _ROUNDED, _ZERO, shared=True), shared=True)
_BYTES = P(Cast, _CLAMPED, where=lambda op: op.dtype == "uint8", shared=True)
_ZERO_BYTE = P(Cast, _ZERO, shared=True)
_CENTRED = P(elementwise.Sub, P(Cast, _BYTES, shared=True), P(Cast, _ZERO_BYTE, shared=True), shared=True)
_SUMS = P(Cast, P((MatMul, Conv), _CENTRED, Const(name="weight"), name="layer"))
_SCALES = P(elementwise.Mul, _SCALE, Const(name="factor"), shared=True)


def _layer(match: Match) -> Value:
    """The layer with real weights; scales that are not those of columns stay behind it, for other passes to fold."""
    graph, layer, weight, factor = match.graph, match.node("layer"), match.array("weight"), match.array("factor")
    inside = factor.size == 1 or (isinstance(layer.op, MatMul) and factor.size == weight.shape[-1])
    real = (weight * factor.reshape(-1) if inside else weight).astype(np.float32)
    flat = isinstance(layer.op, MatMul) and real.ndim == 2
    op, real = (Linear(), np.ascontiguousarray(real.T)) if flat else (layer.op, real)
    y: Value = graph.add(op, match["x"], graph.constant(real), name=layer.name, sources=match.sources)
    return y if inside else match.add(elementwise.Mul(), y, match["factor"])


@dataclass(frozen=True)
class DropPairs(Pass):
    """Let real numbers go on unrounded, cut where the range of the integers began at zero.

        Dequantize(Quantize(x))                        becomes    x
        Dequantize(Quantize(x)), least integer is 0    becomes    Clip(x, 0, greatest)
        Dequantize(constant)                           becomes    constant
        (DynamicQuantizeLinear(x) - zero) w * scales   becomes    (x w) * scale of w

    Tools that place pairs leave out an activation whose bounds are those of the integers, so that the second form is a
    ReLU, and with it ReLU6. A range on both sides of zero comes from data and is dropped. Not exact: numbers are no
    longer rounded. Pairs stay whose integers are computed with. Operators that pairs had cut apart are recognised then.
    """

    exact: ClassVar[bool] = False
    rules: ClassVar[tuple[Rule, ...]] = (Rule("drop_dynamic_pair", P(elementwise.Mul, _SUMS, _SCALES), _layer),)

    def apply(self, graph: Graph) -> int:
        """Drop what can be dropped; returns the number of values that are real then."""
        count, reals = rewrite(graph, self.rules), _Reals(graph)
        for node in graph.nodes:
            if not isinstance(node.op, Dequantize):
                continue
            try:
                real = reals.of(node.input(0), node.op.quant)
                if is_public(graph, node.output) and (real.producer is None or is_public(graph, real)):
                    raise Miss("an output needs storage of its own")
            except Miss:
                continue
            graph.replace(node.output, real)
            count += 1
        graph.prune()
        for each in RECOGNISE if count else ():
            each.apply(graph)
        return count


@dataclass
class _Reals:
    """The real numbers that integers stand for, each written once."""

    graph: Graph
    made: dict[tuple[int, Quant], Value] = field(default_factory=dict)

    def of(self, q: Value, quant: Quant) -> Value:
        """What integers stand for, before they were rounded."""
        if (id(q), quant) not in self.made:
            self._make(q, quant)
        return self.made[id(q), quant]

    def _make(self, q: Value, quant: Quant) -> None:
        node = q.producer
        if q.data is not None:
            self.made[id(q), quant] = self.graph.constant(Dequantize(quant).reference(q.data), f"{q.name}.real")
        elif node is not None and isinstance(node.op, Quantize) and node.op.quant == quant:
            self.made[id(q), quant] = self._cut(node)
        elif node is not None and isinstance(node.op, MOVES) and quant.axis is None:
            results = self.graph.add(node.op, self.of(node.input(0), quant), sources=node.sources)
            pieces: Sequence[Value] = results if isinstance(results, tuple) else (results,)
            self.made |= {(id(old), quant): new for old, new in zip(node.outputs, pieces, strict=True)}
        else:
            raise Miss("the integers come from elsewhere")

    def _cut(self, node: Node) -> Value:
        assert isinstance(node.op, Quantize)
        x, info, quant = node.input(0), np.iinfo(node.op.dtype), node.op.quant
        if quant.zero_point != info.min or quant.axis is not None or never_negative(x):
            return x
        high = float(quant.dequantise(np.array(info.max, node.op.dtype)))
        made: Value = self.graph.add(activation.Clip(0.0, high), x, name=f"{x.name}.cut", sources=node.sources)
        return made


def never_negative(value: Value) -> bool:
    """Whether it follows from how a value is computed that no element is below zero."""
    node = value.producer
    if node is None:
        return value.data is not None and bool(np.all(value.data >= 0))
    op, operands = node.op, [each for each in node.inputs if each is not None]
    if isinstance(op, activation.Clip):
        return op.minimum >= 0
    if isinstance(op, elementwise.Mul) and operands[0] is operands[1]:
        return True
    if isinstance(op, elementwise.Pow) and operands[1].data is not None and np.all(operands[1].data % 2 == 0):
        return True
    return isinstance(op, NEVER_NEGATIVE) or (isinstance(op, KEEPS_SIGN) and all(map(never_negative, operands)))
