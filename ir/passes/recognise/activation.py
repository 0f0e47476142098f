"""GELU, SiLU and the piecewise linear activations, from whatever arithmetic spells them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Graph, Value
from ...op import Op
from ...ops.activation import (
    Clip,
    Erf,
    Exp,
    Gelu,
    HardSigmoid,
    HardSwish,
    Reciprocal,
    Relu,
    Sigmoid,
    Silu,
    Tanh,
)
from ...ops.elementwise import Add, Div, Maximum, Minimum, Mul, Pow, Sub
from ...rewrite import Match, Miss, P, Rule, rewrite
from ..base import Pass
from .algebra import Algebra, Curve, Form, close, cone, is_function, polynomial, require_inner, same, variables
from .heads import factor_of

ARITHMETIC = (Add, Sub, Mul, Div)
SLOPE = 2 * math.sqrt(2 / math.pi)
CURVES: dict[str, tuple[type[Op], ...]] = {
    "normal": (Erf,),
    "logistic": (Sigmoid, Tanh, Exp),
    "ramp": (Clip, Relu, Minimum, Maximum, HardSigmoid),
}
"""The ops that each unit curve can be made of."""


@dataclass(frozen=True)
class Activation:
    """op(x) = x * curve(argument(x)), or the curve alone; the argument is a polynomial, by power of x."""

    rule: str
    op: Op
    kind: str
    argument: dict[int, float]
    gate: bool = True

    @property
    def roots(self) -> tuple[type[Op], ...]:
        """The ops that may end the arithmetic."""
        return ARITHMETIC if self.gate else (*ARITHMETIC, Pow, Reciprocal, Clip, Minimum, Maximum)


ACTIVATIONS = (
    Activation("gelu_erf", Gelu("none"), "normal", {1: 1.0}),
    Activation("gelu_tanh", Gelu("tanh"), "logistic", {1: SLOPE, 3: 0.044715 * SLOPE}),
    Activation("gelu_sigmoid", Gelu("sigmoid"), "logistic", {1: 1.702}),
    Activation("silu", Silu(), "logistic", {1: 1.0}),
    Activation("hard_swish", HardSwish(), "ramp", {0: 0.5, 1: 1 / 6}),
    Activation("hard_sigmoid", HardSigmoid(1 / 6, 0.5), "ramp", {0: 0.5, 1: 1 / 6}, gate=False),
    Activation("hard_sigmoid", HardSigmoid(0.2, 0.5), "ramp", {0: 0.5, 1: 0.2}, gate=False),
    Activation("sigmoid", Sigmoid(), "logistic", {1: 1.0}, gate=False),
)


def _found(wanted: Activation, algebra: Algebra, root: Value) -> tuple[Curve, float] | None:
    """The curve, and the factor before it, if the root is one product with it."""
    form = algebra.form(root)
    for number, curve in algebra.curves.items():
        monomial = ((0, 1.0), (number, 1.0)) if wanted.gate else ((number, 1.0),)
        if curve.kind == wanted.kind and form.keys() == {monomial} and form[monomial].ndim == 0:
            return curve, float(form[monomial])
    return None


def _match_at(match: Match, wanted: Activation, scaled: bool) -> Value:
    root = match.root.output
    nodes = cone(root)
    if not any(isinstance(node.op, CURVES[wanted.kind]) for node in nodes):
        raise Miss(f"there is no {' or '.join(op.__name__ for op in CURVES[wanted.kind])} below it")
    reason = "it is no product of a value with a curve of it"
    for x in variables(root, nodes, 2 if wanted.gate else 1):
        if not is_function(root, x, nodes):
            continue
        algebra = Algebra(x)
        found = _found(wanted, algebra, root)
        if found is None:
            continue
        curve, factor = found
        match.nodes[:] = algebra.nodes(root)
        if not same(curve.argument, polynomial(wanted.argument)):
            wrong, right = _text(curve, curve.argument), _text(curve, polynomial(wanted.argument))
            reason = f"the argument of '{curve.node.name}' is {wrong}, not {right}"
        elif not (scaled or close(factor, 1.0)):
            reason = f"it is {factor:g} times {wanted.op}"
        elif scaled and any(factor_of(reader) for reader in root.readers):
            reason = "other factors follow"
        else:
            require_inner(match.graph, root, match.nodes)
            result: Value = match.add(wanted.op, x)
            return result if close(factor, 1.0) else _times(match, result, factor)
    raise Miss(reason)


def _times(match: Match, value: Value, factor: float) -> Value:
    constant = match.graph.constant(np.asarray(factor, value.type.numpy), f"{match.root.name}.factor")
    result: Value = match.graph.add(Mul(), value, constant, name=match.root.name, sources=match.root.sources)
    return result


def _text(curve: Curve, argument: Form) -> str:
    """An argument as the function of the file takes it: erf and tanh are stretched from their unit curves."""
    units: dict[type[Op], float] = {Erf: math.sqrt(0.5), Tanh: 0.5}
    unit = units.get(type(curve.node.op), 1.0)
    powers = {sum(p for _, p in monomial): c * unit for monomial, c in argument.items()}
    if any(atom for monomial in argument for atom, _ in monomial) or any(c.ndim for c in powers.values()):
        return "no polynomial"
    terms = [f"{float(c):g}" + ("" if not p else " x" if p == 1 else f" x^{p:g}") for p, c in sorted(powers.items())]
    return " + ".join(terms)


def _rules(scaled: bool) -> Iterator[tuple[Activation, Rule]]:
    for wanted in (each for each in ACTIVATIONS if each.gate or not scaled):
        build: Callable[[Match], Value] = functools.partial(_match_at, wanted=wanted, scaled=scaled)
        yield wanted, Rule(wanted.rule, P(wanted.roots), build)


EXACTLY, UP_TO_A_FACTOR = tuple(_rules(False)), tuple(_rules(True))


@dataclass(frozen=True)
class RecogniseActivation(Pass):
    """x * curve(polynomial of x), with factors and signs in any place.

    Where a factor is missing because something else has taken it up (simplifiers multiply GELU's 1/2 into the next
    layer), the activation is followed by what undoes that.
    """

    rules: ClassVar[tuple[Rule, ...]] = tuple(rule for _, rule in EXACTLY)

    def apply(self, graph: Graph) -> int:
        """First what is an activation as it stands; only what is left may be one up to a factor."""
        count = 0
        for rules in (EXACTLY, UP_TO_A_FACTOR):
            present = {type(node.op) for node in graph.nodes}
            chosen = [rule for wanted, rule in rules if present & set(CURVES[wanted.kind])]
            count += rewrite(graph, chosen)
        return count
