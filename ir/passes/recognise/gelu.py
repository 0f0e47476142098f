"""GELU from the arithmetic that exporters write for it: by erf, by tanh, or by a sigmoid."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ...graph import Graph, Value
from ...ops.activation import Erf, Gelu, Sigmoid, Tanh
from ...ops.elementwise import Add, Mul, Pow
from ...rewrite import Any, Const, Match, P, Pattern, Rule, rewrite
from ..base import Pass
from .spellings import scaled, scaled_product

X = Any("x")
CURVES = {"gelu_erf": Erf, "gelu_sigmoid": Sigmoid, "gelu_tanh": Tanh}
"""The op that each rule cannot do without."""


def _half_of(x: Pattern, curve: Pattern) -> Iterator[P]:
    """x/2 * (1 + curve), the factor 1/2 anywhere."""
    yield from scaled_product(x, P(Add, curve, Const(1.0)), 0.5)
    yield from (P(Mul, x, P(Add, half, Const(0.5))) for half in scaled(curve, 0.5))


def _by_erf() -> Iterator[P]:
    for inner in scaled(X, math.sqrt(0.5)):
        yield from _half_of(X, P(Erf, inner))


def _by_tanh() -> Iterator[P]:
    slope = math.sqrt(2 / math.pi)
    square = (P(Mul, X, X), P(Pow, X, Const(2.0)))
    cubes = (P(Pow, X, Const(3.0)), *(P(Mul, X, each) for each in square))
    cubics = [P(Add, X, each) for cube in cubes for each in scaled(cube, 0.044715)]
    cubics += [P(Add, X, P(Mul, half, each)) for each in square for half in scaled(X, 0.044715)]
    inner = [each for cubic in cubics for each in scaled(cubic, slope)]
    rest = [P(Add, each, Const(1.0)) for one in square for each in scaled(one, 0.044715)]
    inner += [each for factor in rest for each in scaled_product(X, factor, slope)]
    for each in inner:
        yield from _half_of(X, P(Tanh, each))


def _by_sigmoid() -> Iterator[P]:
    for inner in scaled(X, 1.702):
        yield P(Mul, X, P(Sigmoid, inner))


def _rules(name: str, form: str, patterns: Iterator[P]) -> Iterator[Rule]:
    def build(match: Match) -> Value:
        result: Value = match.add(Gelu(form), match["x"])
        return result

    return (Rule(name, pattern, build) for pattern in patterns)


@dataclass(frozen=True)
class RecogniseGelu(Pass):
    """All three definitions, constants in every place that keeps the product the same."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *_rules("gelu_erf", "none", _by_erf()),
        *_rules("gelu_sigmoid", "sigmoid", _by_sigmoid()),
        *_rules("gelu_tanh", "tanh", _by_tanh()),
    )

    def apply(self, graph: Graph) -> int:
        """Try the spellings of those curves only that the graph has; there are more than a hundred by tanh alone."""
        present = {type(node.op) for node in graph.nodes}
        return rewrite(graph, [rule for rule in self.rules if CURVES[rule.name] in present])
