"""A product that is turned after it was made is made the other way round, where that turns less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph import Graph, Value
from ...ops.linear import MatMul
from ...ops.shape import Transpose
from ...rewrite import Match, Miss, P, Rule
from ..base import Pass
from ..recognise.scores import is_turn
from .absorb import is_public


def _turn_before(graph: Graph, value: Value) -> Value | None:
    """What a value is the transpose of, if nobody else reads it."""
    node = value.producer
    own = len(value.uses) == 1 and not is_public(graph, value)
    return node.input(0) if own and node is not None and is_turn(node.op) else None


def _turned(match: Match) -> Value:
    graph, root, product = match.graph, match.root, match.node("product")
    before = [_turn_before(graph, product.input(i)) for i in (0, 1)]
    if before == [None, None]:
        raise Miss("both factors would have to be turned instead")
    perm = root.op.attributes()["perm"]
    rank = len(perm)

    def other_way(i: int) -> Value:
        source, value = before[i], product.input(i)
        if source is not None:
            return source
        swap = (*range(len(value.shape) - 2), len(value.shape) - 1, len(value.shape) - 2)
        turned: Value = graph.add(Transpose(swap), value, name=f"{value.name}.turned", sources=root.sources)
        return turned

    result: Value = match.add(MatMul(), other_way(1), other_way(0))
    assert len(result.shape) == rank
    return result


@dataclass(frozen=True)
class TurnProducts(Pass):
    """(A B^T)^T is B A^T: one transposition for two; (A^T B^T)^T is B A, none for three.

        Transpose(MatMul(a, Transpose(b)))    becomes    MatMul(b, Transpose(a))

    Legal where only the product reads the transposed factor, and only the Transpose the product.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("turn_product", P(Transpose, P(MatMul, name="product"), where=is_turn), _turned),
    )
