"""Pairs of Quantize and Dequantize that a model brings: what they cut stays, what they round goes.

What is left is the float network that they stand for, ready for scales of our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ...graph import Graph, Node, Quant, Value
from ...ops import activation, elementwise, pool, shape
from ...ops.quant import Dequantize, Quantize
from ...rewrite import Miss
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


@dataclass(frozen=True)
class DropPairs(Pass):
    """Let real numbers go on unrounded, cut where the range of the integers began at zero.

        Dequantize(Quantize(x))                        becomes    x
        Dequantize(Quantize(x)), least integer is 0    becomes    Clip(x, 0, greatest)
        Dequantize(constant)                           becomes    constant

    Tools that place pairs leave out an activation whose bounds are those of the integers, so that the second form is a
    ReLU, and with it ReLU6. A range on both sides of zero comes from data and is dropped. Not exact: numbers are no
    longer rounded. Pairs stay whose integers are computed with. Operators that pairs had cut apart are recognised then.
    """

    exact: ClassVar[bool] = False

    def apply(self, graph: Graph) -> int:
        """Drop what can be dropped; returns the number of nodes that made integers real."""
        count, reals = 0, _Reals(graph)
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
