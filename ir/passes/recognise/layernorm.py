"""LayerNorm, RMSNorm and norms over images, from whatever means, squares and roots spell them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Array, Graph, Value
from ...ops.activation import Sqrt
from ...ops.elementwise import Add, Div, Mul, Pow, Sub
from ...ops.norm import GroupNorm, LayerNorm, RMSNorm
from ...ops.pool import Mean, Sum
from ...ops.shape import Reshape, Transpose
from ...rewrite import Any, Const, Match, Miss, P, Rule, rewrite
from ..base import Pass
from .algebra import Algebra, Form, Monomial, close, cone, require_inner, variables
from .spellings import vector_along

X: Monomial = ((0, 1.0),)
SQUARE: Monomial = ((0, 2.0),)


@dataclass(frozen=True)
class Found:
    """scale * (x - centred mean(x)) / sqrt(variance over axes + eps) + shift."""

    axes: tuple[int, ...]
    centred: bool
    eps: float
    scale: Array
    shift: Array | None


def _read(algebra: Algebra, form: Form) -> Found | None:
    """A form as a norm of x: x * s^-1/2, less mean(x) * s^-1/2 if it is centred, and perhaps a constant."""
    rooted = [m for m in form if len(m) == 2 and m[0] == X[0] and m[1][1] == -0.5]
    if len(rooted) != 1 or rooted[0][1][0] not in algebra.values:
        return None
    root, scale = rooted[0][1], form[rooted[0]]
    rest = [m for m in form if m and m != rooted[0]]
    mean = None
    if rest:
        means = [atom for atom, _ in rest[0] if algebra.means.get(atom, ((), ()))[1] == X]
        mean = means[0] if means else None
        if mean is None or rest != [tuple(sorted([(mean, 1.0), root]))]:
            return None
        if not close(*np.broadcast_arrays(-scale, form[rest[0]])):
            return None
    variance = _variance(algebra, algebra.form(algebra.values[root[0]]), mean)
    if variance is None:
        return None
    axes, factor, eps = variance
    return Found(axes, mean is not None, eps, scale * factor**-0.5, form.get(()))


def _variance(algebra: Algebra, form: Form, mean: int | None) -> tuple[tuple[int, ...], float, float] | None:
    """(axes, factor, eps) of factor * (mean(x^2) - mean(x)^2 + eps); without the second term when nothing is centred.

    Raises:
        Miss: Epsilon is no number.
    """
    squares = [m for m in form if len(m) == 1 and m[0][1] == 1.0 and algebra.means.get(m[0][0], ((), ()))[1] == SQUARE]
    if len(squares) != 1 or form[squares[0]].ndim:
        return None
    axes, factor = algebra.means[squares[0][0][0]][0], float(form[squares[0]])
    expected: set[Monomial] = {squares[0]}
    if mean is not None:
        less: Monomial = ((mean, 2.0),)
        expected.add(less)
        if algebra.means[mean][0] != axes or not close(form.get(less, np.float64(0)), -factor):
            return None
    if form.keys() - {()} != expected or factor <= 0:
        return None
    eps = form.get((), np.float64(0)) / factor
    if eps.ndim:
        raise Miss("epsilon differs between elements")
    return axes, factor, float(np.float32(eps))


def _norm(match: Match, centred: bool) -> Value:
    root = match.root.output
    nodes = cone(root)
    kinds = {type(node.op) for node in nodes}
    if not (kinds & {Mean, Sum} and kinds & {Sqrt, Pow}):
        raise Miss("there is no root of a mean below it")
    reason = "it is no value divided by the root of its mean square"
    for x in variables(root, nodes):
        algebra = Algebra(x)
        found = _read(algebra, algebra.form(root))
        match.nodes[:] = algebra.nodes(root) or [match.root]
        if found is None:
            continue
        if found.centred != centred:
            reason = "it is centred" if found.centred else "it is not centred"
            continue
        require_inner(match.graph, root, match.nodes)
        return with_affine(match, normed(match, x, found), found)
    raise Miss(reason)


def normed(match: Match, x: Value, found: Found) -> Value:
    """The norm without scale and shift; axes that no op normalises are moved or joined first."""
    rank, axes = x.type.rank, found.axes
    kind = LayerNorm if found.centred else RMSNorm
    result: Value
    if axes == (rank - 1,):
        result = match.add(kind(found.eps), x)
        return result
    if found.centred and rank > 2 and axes in (tuple(range(1, rank)), tuple(range(2, rank))):
        result = match.add(GroupNorm(1 if axes[0] == 1 else x.shape[1], found.eps), x)
        return result
    if axes == tuple(range(axes[0], rank)):
        joined = match.add(
            Reshape((*x.shape[: axes[0]], -(-x.type.size // max(1, int(np.prod(x.shape[: axes[0]])))))), x
        )
        result = match.add(Reshape(x.shape), match.add(kind(found.eps), joined))
        return result
    if len(axes) == 1:
        there = (*(i for i in range(rank) if i != axes[0]), axes[0])
        turned = match.add(kind(found.eps), match.add(Transpose(there), x))
        result = match.add(Transpose(tuple(int(i) for i in np.argsort(there))), turned)
        return result
    raise Miss(f"the mean is over axes {axes} of {x.shape}")


def with_affine(match: Match, value: Value, found: Found) -> Value:
    """Scale and shift as they were spelt; those along the channels join the norm later."""
    for op, array in ((Mul(), found.scale), (Add(), found.shift)):
        if array is None or (isinstance(op, Mul) and np.allclose(array, 1, rtol=1e-6, atol=0)):
            continue
        constant = match.graph.constant(array.astype(value.dtype), match.root.name)
        value = match.graph.add(op, value, constant, name=match.root.name, sources=match.sources)
    return value


def _scale(match: Match) -> Value:
    """norm * c; a shift that the norm has is scaled with it."""
    node = match.node("norm")
    vector, shift = _vector(match), node.optional(2)
    if node.optional(1) is not None:
        raise Miss("it is scaled already")
    if shift is not None:
        shift = match.graph.constant(shift.array * vector.array, shift.name)
    operands = (vector,) if shift is None else (vector, shift)
    result: Value = match.add(node.op, match["x"], *operands, name=node.name)
    return result


def _shift(match: Match) -> Value:
    node = match.node("norm")
    if node.optional(2) is not None:
        raise Miss("it is shifted already")
    result: Value = match.add(node.op, match["x"], node.optional(1), _vector(match), name=node.name)
    return result


def _vector(match: Match) -> Value:
    """The constant as a vector of channels; one that is a vector already is kept, shared or not."""
    constant, shape = match["c"], match["norm"].shape
    if match.root.output.shape != shape:
        raise Miss("the constant enlarges the tokens")
    array = vector_along(constant.array, -1, shape, "constant")
    return constant if constant.shape == array.shape else match.graph.constant(array, constant.name)


def _same_tokens(match: Match) -> Value:
    """Rows joined before a norm and parted after it: the norm does not care."""
    node, x = match.node("norm"), match["x"]
    if match.root.output.shape != x.shape or node.output.shape[-1:] != x.shape[-1:]:
        raise Miss(f"the rows of {node.output.shape} are not those of {x.shape}")
    result: Value = match.add(node.op, x, *node.inputs[1:], name=node.name)
    return result


@dataclass(frozen=True)
class RecogniseLayernorm(Pass):
    """(x - mean) / sqrt(var + eps) * g + b and x / sqrt(mean(x^2) + eps) * g over the last axis, or another."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("layer_norm", P((Add, Sub, Mul, Div)), lambda match: _norm(match, True)),
        Rule("rms_norm", P((Mul, Div)), lambda match: _norm(match, False)),
        Rule("norm_scale", P(Mul, P((LayerNorm, RMSNorm), Any("x"), name="norm"), Const(name="c")), _scale),
        Rule("norm_shift", P(Add, P(LayerNorm, Any("x"), name="norm"), Const(name="c")), _shift),
        Rule("norm_rows", P(Reshape, P((LayerNorm, RMSNorm), P(Reshape, Any("x")), name="norm")), _same_tokens),
    )

    def apply(self, graph: Graph) -> int:
        """Arithmetic is read only where a mean and a root are."""
        present = {type(node.op) for node in graph.nodes}
        spelt = bool(present & {Mean, Sum}) and bool(present & {Sqrt, Pow})
        return rewrite(graph, self.rules if spelt else self.rules[2:])
