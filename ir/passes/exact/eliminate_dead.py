"""Nodes that no output needs, and nodes that change nothing, go."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Graph, Value
from ...ops.elementwise import Add, Div, Mul, Sub
from ...ops.pool import Mean, ReduceMax, Sum
from ...ops.shape import Concat, Expand, Pad, Reshape, Slice, Transpose
from ...rewrite import Match, Miss, P, Rule, rewrite
from ..base import Pass
from .absorb import is_public

MOVERS = (Reshape, Expand, Slice, Transpose, Concat, Pad, Mean, Sum, ReduceMax)


def _instead(match: Match, x: Value) -> Value:
    """x in place of the root, unless two public names would then be one."""
    if is_public(match.graph, match.root.output) and (x.producer is None or is_public(match.graph, x)):
        raise Miss(f"'{x.name}' and '{match.root.output.name}' are both names of the graph's interface")
    return x


def _skip_mover(match: Match) -> Value:
    node, x = match.root, match.root.input(0)
    op = node.op
    if node.output.type != x.type:
        raise Miss("it changes the shape")
    if isinstance(op, Transpose) and any(n > 1 for i, n in enumerate(x.shape) if op.perm[i] != i):
        raise Miss("it moves elements")
    if isinstance(op, Slice) and min(op.steps, default=1) < 0:
        raise Miss("it turns an axis round")
    if isinstance(op, Pad) and any(op.pads):
        raise Miss("it shifts the image")
    return _instead(match, x)


def _skip_arithmetic(match: Match) -> Value:
    node = match.root
    neutral = 1.0 if isinstance(node.op, Mul | Div) else 0.0
    operands = [(0, 1), (1, 0)] if isinstance(node.op, Mul | Add) else [(0, 1)]
    for data, other in operands:
        x, constant = node.input(data), node.input(other)
        if constant.data is not None and bool(np.all(constant.data == neutral)) and x.type == node.output.type:
            return _instead(match, x)
    raise Miss("no operand is neutral")


def _join_reshapes(match: Match) -> Value:
    new: Value = match.add(match.root.op, match["x"].producer.input(0) if match["x"].producer else match["x"])
    return new


def _drop_axes(match: Match) -> Value:
    pool, shape = match.node("pooled"), match.root.output.shape
    assert isinstance(pool.op, Mean | Sum | ReduceMax)
    op = dataclasses.replace(pool.op, keepdims=False)
    if op == pool.op or op.infer(pool.input(0).type) != match.root.output.type:
        raise Miss(f"'{pool.name}' without its unit axes does not have the shape {shape}")
    new: Value = match.add(op, pool.input(0))
    return new


@dataclass(frozen=True)
class EliminateDead(Pass):
    """Erase unread nodes, ops that return their operand, and Reshapes that another one undoes.

        Reshape to the same shape, Slice of everything, Transpose of unit axes,
        Concat of one, x + 0, x - 0, x * 1, x / 1                                  become    x
        Reshape(Reshape(x))                                                        becomes    Reshape(x)
        Reshape that drops the axes which a Mean, Sum or ReduceMax kept            becomes    the reduction alone

    Always legal.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("skip_mover", P(MOVERS), _skip_mover),
        Rule("skip_arithmetic", P((Mul, Div, Add, Sub)), _skip_arithmetic),
        Rule("drop_axes", P(Reshape, P((Mean, Sum, ReduceMax), name="pooled")), _drop_axes),
        Rule("join_reshapes", P(Reshape, P(Reshape, name="x", shared=True)), _join_reshapes),
    )

    def apply(self, graph: Graph) -> int:
        """Prune, then skip."""
        return graph.prune() + rewrite(graph, self.rules)
