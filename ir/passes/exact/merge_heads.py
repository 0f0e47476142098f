"""Several heads whose average is the prediction become one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Node, Value, sources_of
from ...ops.elementwise import Add, Div, Mul
from ...ops.linear import Linear
from ...rewrite import Const, Match, Miss, P, Rule
from ..base import Pass
from .absorb import is_public, parameters, require_own_weights
from .channel_map import double
from .merge_branches import terms_of


def _merge(match: Match, heads: list[Node], factor: float) -> Value:
    graph, first = match.graph, heads[0]
    for head in heads:
        if len(head.output.uses) > 1 or is_public(graph, head.output):
            raise Miss(f"'{head.output.name}' is also read on its own")
        if head.input(0) is not first.input(0):
            raise Miss(f"the heads read different values '{first.input(0).name}' and '{head.input(0).name}'")
    require_own_weights(graph, heads)
    weight = np.sum([double(head.input(1)) for head in heads], axis=0) * factor
    biases = [double(bias) for head in heads if (bias := head.optional(2)) is not None]
    bias = np.sum(biases, axis=0) * factor if biases else None
    operands = parameters(graph, first, weight, bias)
    sources = sources_of(*heads, extra=match.sources)
    value: Value = graph.add(Linear(), first.input(0), *operands, name=first.name, sources=sources)
    return value


def _linear(value: Value) -> Node:
    node = value.producer
    if node is None or not isinstance(node.op, Linear):
        raise Miss(f"'{value.name}' is no Linear")
    return node


def _scaled_sum(match: Match) -> Value:
    node = match.root
    factor = float(match.array("factor").reshape(-1)[0]) if match["factor"].type.size == 1 else 0.0
    if not factor:
        raise Miss("the factor is no scalar")
    terms = terms_of(match.graph, match.node("sum"))
    if any(term.sign < 0 for term in terms):
        raise Miss("a head is taken away")
    heads = [_linear(term.value) for term in terms]
    return _merge(match, heads, 1 / factor if isinstance(node.op, Div) else factor)


@dataclass(frozen=True)
class MergeHeads(Pass):
    """Average the weights instead of the predictions.

        (Linear1(x) + Linear2(x)) / 2             becomes    Linear(x, (w1 + w2) / 2, (b1 + b2) / 2)

    Legal when the heads read the same value and nobody reads them singly; heads on different tokens (class and
    distillation token) stay two.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("merge_scaled_heads", P((Mul, Div), P(Add, name="sum"), Const(name="factor")), _scaled_sum),
    )
