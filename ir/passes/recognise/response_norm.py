"""Global response normalisation: one gate per channel, from the lengths of all channels, and one product.

    x + (g * (x * n) + b)  with  n = |x| / (mean |x| + eps)   becomes   x * (g n + 1) + b

ConvNeXt V2 (Woo et al., 2023, section 3) writes four operations on the whole image where one and a shift are enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Array, Node, Value
from ...ops.elementwise import Add, Div, Mul
from ...ops.pool import Mean
from ...rewrite import Match, Miss, P, Rule
from ..base import Pass
from .algebra import Algebra, Monomial, close, cone, require_inner, variables
from .layernorm import SQUARE, X


def _gated(algebra: Algebra, root: Value) -> tuple[Monomial, Array, Array | None] | None:
    """(n, g, b) of x + g x n + b, where n is the length of x's channels and something else."""
    form = algebra.form(root)
    gates = [monomial for monomial in form if len(monomial) == 3 and monomial[0] == X[0]]
    if len(gates) != 1 or X not in form or form.keys() - {(), X, gates[0]} or not close(form[X], 1.0):
        return None
    rest = gates[0][1:]
    lengths = [atom for atom, power in rest if power == 0.5 and algebra.means.get(atom, ((), ()))[1] == SQUARE]
    inverses = [atom for atom, power in rest if power == -1.0]
    return (rest, form[gates[0]], form.get(())) if len(lengths) == len(inverses) == 1 else None


def _ratio(algebra: Algebra, nodes: dict[Node, None], monomial: Monomial) -> tuple[Value, Array]:
    """The value that is a monomial, times a factor.

    Raises:
        Miss: None is, or the divisor is no mean of the lengths.
    """
    inverse = next(atom for atom, power in monomial if power == -1.0)
    if inverse not in algebra.values:
        raise Miss("the lengths are divided by no value of its own")
    divisor = algebra.form(algebra.values[inverse])
    length = next(atom for atom, power in monomial if power == 0.5)
    means = [m for m in divisor if m and algebra.means.get(m[0][0], ((), ()))[1] == ((length, 0.5),)]
    if len(means) != 1 or divisor.keys() - {(), means[0]}:
        raise Miss("the lengths are not divided by their mean")
    for node in nodes:
        form = algebra.form(node.output) if isinstance(node.op, Div | Mul) else {}
        if form.keys() == {monomial} and form[monomial].ndim == 0:
            return node.output, form[monomial]
    raise Miss("no value is the ratio of lengths by itself")


def _response(match: Match) -> Value:
    root = match.root.output
    nodes = cone(root)
    if not any(isinstance(node.op, Mean) for node in nodes):
        raise Miss("there is no mean below it")
    for x in variables(root, nodes):
        algebra = Algebra(x)
        found = _gated(algebra, root)
        if found is None:
            continue
        monomial, scale, shift = found
        n, factor = _ratio(algebra, nodes, monomial)
        match.nodes[:] = algebra.nodes(root)
        require_inner(match.graph, root, match.nodes)
        kept = cone(n)
        match.nodes[:] = [node for node in match.nodes if node not in kept]
        if sum(node.output.shape == x.shape for node in match.nodes) == (1 if shift is None else 2):
            raise Miss("it is one product, and a shift, already")
        gate = _with(match, Mul(), n, scale / factor)
        y = match.add(Mul(), x, _with(match, Add(), gate, np.ones(())))
        return y if shift is None else _with(match, Add(), y, shift)
    raise Miss("it is no value with itself times a ratio of lengths")


def _with(match: Match, op: Add | Mul, value: Value, array: Array) -> Value:
    name = match.root.name
    constant = match.graph.constant(np.asarray(array, value.type.numpy), f"{name}.{type(op).__name__.lower()}")
    result: Value = match.graph.add(op, value, constant, name=name, sources=match.sources)
    return result


@dataclass(frozen=True)
class RecogniseResponseNorm(Pass):
    """x (g n + 1) + b, in whatever order the sum and the products stand."""

    rules: ClassVar[tuple[Rule, ...]] = (Rule("response_norm", P(Add), _response),)
