"""Arithmetic read as algebra: a value as a sum of products of powers, which is the same however it is spelt.

    x / 2 * (1 + erf(x / sqrt 2))     and    (0.5 * erf(x * 0.7071) + 0.5) * x        are    1 * x * normal(x)
    (x - mean(x)) * (var + eps)^-0.5  and    x * r + (-mean(x) * r)                   are    x s^-1/2 - m s^-1/2

Functions of one argument enter as the unit curves that they are stretched from, so that their spellings agree too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ...graph import Array, Graph, Node, Value
from ...ops.activation import Clip, Erf, Exp, HardSigmoid, Neg, Reciprocal, Relu, Sigmoid, Sqrt, Tanh
from ...ops.elementwise import Add, Div, Maximum, Minimum, Mul, Pow, Sub
from ...ops.pool import Mean, Sum
from ...ops.shape import Reshape
from ...rewrite import Miss

Monomial = tuple[tuple[int, float], ...]
"""(atom, exponent) by atom; () is the constant term."""
Form = dict[Monomial, Array]
"""A coefficient (one number, or an array that broadcasts) per monomial."""

LARGEST_FORM, LARGEST_TABLE, DEEPEST, NEAR = 12, 2**16, 24, 40
TOLERANCE = 1e-4
ROUNDING = 1e-6
"""What is left of two terms that cancel, relative to them: files hold float32."""
ONE: Form = {(): np.ones(())}


@dataclass(frozen=True)
class Curve:
    """A unit curve of an argument: "normal" (Phi), "logistic", "ramp" (clip to [0, 1]) or "exp"."""

    kind: str
    argument: Form
    node: Node


@dataclass
class Algebra:
    """Forms of values in terms of `x` (atom 0) and of whatever is no arithmetic."""

    x: Value
    curves: dict[int, Curve] = field(default_factory=dict)
    means: dict[int, tuple[tuple[int, ...], Monomial]] = field(default_factory=dict)
    values: dict[int, Value] = field(default_factory=dict)
    _atoms: dict[Hashable, int] = field(default_factory=dict)
    _forms: dict[Value, Form] = field(default_factory=dict)
    _read: set[Value] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Make x the first atom."""
        self._forms[self.x] = powers(self.atom(self.x, self.x))

    def atom(self, key: Hashable, value: Value | None = None) -> int:
        """The number of an atom; what stands for a value is remembered with it."""
        atom = self._atoms.setdefault(key, len(self._atoms))
        if value is not None:
            self.values[atom] = value
        return atom

    def form(self, value: Value, depth: int = 0) -> Form:
        """What a value is."""
        if value not in self._forms:
            self._forms[value] = self._form(value, depth)
        return self._forms[value]

    def _form(self, value: Value, depth: int) -> Form:
        real = value.type.numpy.kind == "f"  # quotients of integers are truncated, their sums may overflow
        if real and value.data is not None and value.type.size <= LARGEST_TABLE:
            return {(): value.data.astype(np.float64).reshape(() if value.type.size == 1 else value.shape)}
        node = value.producer
        known = real and node is not None and depth <= DEEPEST and (depth == 0 or is_inner(value))
        read = READERS.get(type(node.op)) if known and node is not None else None
        result = None if read is None or node is None else read(self, node, depth + 1)
        if result is None or len(result) > LARGEST_FORM:
            return powers(self.atom(value, value))
        self._read.add(value)
        return result

    def curve(self, node: Node, kind: str, argument: Form) -> Form:
        """The atom that a curve is."""
        atom = self.atom((kind, node))
        self.curves[atom] = Curve(kind, argument, node)
        return powers(atom)

    def mean(self, form: Form, axes: tuple[int, ...], rank: int) -> Form | None:
        """The mean of a form along axes; what does not vary along them is taken out."""
        total: Form = {}
        for monomial, coefficient in form.items():
            shape = (1,) * (rank - coefficient.ndim) + coefficient.shape
            if len(shape) > rank or any(shape[axis] > 1 for axis in axes):
                return None
            inside = tuple((atom, p) for atom, p in monomial if self._varies(atom, axes, rank))
            outside = tuple(each for each in monomial if each not in inside)
            averaged = ONE
            if inside:
                atom = self.atom(("mean", axes, inside))
                self.means[atom] = (axes, inside)
                averaged = powers(atom)
            total = plus(total, times({outside: coefficient}, averaged))
        return total

    def _varies(self, atom: int, axes: tuple[int, ...], rank: int) -> bool:
        if atom in self.means:
            return not set(axes) <= set(self.means[atom][0])
        shape = self.values[atom].shape if atom in self.values else (0,) * rank
        shape = (1,) * (rank - len(shape)) + shape
        return any(shape[axis] != 1 for axis in axes)

    def power(self, base: Value, exponent: float, depth: int) -> Form:
        """A power of a value; of a sum it is a power of an atom."""
        form = self.form(base, depth)
        if exponent in (1.0, 2.0, 3.0):
            result = form
            for _ in range(int(exponent) - 1):
                result = times(result, form)
            return result
        if len(form) == 1:
            ((monomial, coefficient),) = form.items()
            whole = exponent == round(exponent)
            odd = all(p % 2 for _, p in monomial)  # the root of a square is not its base
            if bool(np.all(coefficient > 0)) and (whole or odd):
                return {tuple((atom, p * exponent) for atom, p in monomial): coefficient**exponent}
        logistic = self._logistic(base, form) if exponent == -1.0 else None
        return logistic or powers(self.atom(base, base), exponent)

    def _logistic(self, base: Value, form: Form) -> Form | None:
        """1 / (1 + exp(-u))."""
        grown = [m for m in form if len(m) == 1 and m[0][0] in self.curves and self.curves[m[0][0]].kind == "exp"]
        if len(form) != 2 or len(grown) != 1 or () not in form or grown[0][0][1] != 1.0 or base.producer is None:
            return None
        if not np.allclose(form[()], form[grown[0]], rtol=TOLERANCE, atol=0):
            return None
        argument = times(self.curves[grown[0][0][0]].argument, number(-1))
        return times(self.curve(base.producer, "logistic", argument), {(): 1 / form[()]})

    def nodes(self, root: Value) -> list[Node]:
        """The arithmetic between x and a value, the value's own node first."""
        found: dict[Node, None] = {}
        waiting = [root]
        while waiting:
            value = waiting.pop(0)
            if value in self._read and value.producer is not None and value.producer not in found:
                found[value.producer] = None
                waiting += [each for each in value.producer.inputs if each is not None]
        return list(found)


def powers(atom: int, exponent: float = 1.0) -> Form:
    """The form that is a power of one atom."""
    return {((atom, exponent),): np.ones(())}


def number(value: float) -> Form:
    """A constant form."""
    return {(): np.asarray(value, np.float64)}


def plus(a: Form, b: Form) -> Form:
    """The sum; terms that cancel go."""
    result = dict(a)
    for monomial, coefficient in b.items():
        total = np.asarray(result.get(monomial, np.float64(0)) + coefficient)
        if np.any(np.abs(total) > ROUNDING * np.max(np.abs(coefficient), initial=0.0)):
            result[monomial] = total
        else:
            result.pop(monomial, None)
    return result


def times(a: Form, b: Form) -> Form:
    """The product, multiplied out."""
    result: Form = {}
    for left, x in a.items():
        for right, y in b.items():
            exponents = dict(left)
            for atom, p in right:
                exponents[atom] = exponents.get(atom, 0.0) + p
            monomial = tuple(sorted((atom, p) for atom, p in exponents.items() if p))
            result = plus(result, {monomial: np.asarray(x * y)})
    return result


def same(a: Form, b: Form) -> bool:
    """Whether two forms have the same terms, coefficients within `TOLERANCE`."""
    return a.keys() == b.keys() and all(close(a[monomial], b[monomial]) for monomial in a)


def close(a: Array | float, b: Array | float) -> bool:
    """Whether coefficients agree within `TOLERANCE`."""
    return bool(np.allclose(a, b, rtol=TOLERANCE, atol=0))


def polynomial(coefficients: dict[int, float]) -> Form:
    """A polynomial in x from its coefficients by power."""
    return {((0, float(p)),) if p else (): np.asarray(c, np.float64) for p, c in coefficients.items()}


# ---- what each op is ----


def _constant(value: Value) -> float | None:
    return float(value.data.reshape(())) if value.data is not None and value.type.size == 1 else None


def _add(algebra: Algebra, node: Node, depth: int) -> Form:
    sign = number(-1) if isinstance(node.op, Sub) else ONE
    return plus(algebra.form(node.input(0), depth), times(sign, algebra.form(node.input(1), depth)))


def _mul(algebra: Algebra, node: Node, depth: int) -> Form:
    return times(algebra.form(node.input(0), depth), algebra.form(node.input(1), depth))


def _div(algebra: Algebra, node: Node, depth: int) -> Form | None:
    divisor = node.input(1)
    if divisor.data is not None and not divisor.data.all():
        return None
    form = algebra.form(divisor, depth)
    if divisor.data is not None and form.keys() == {()}:
        return times(algebra.form(node.input(0), depth), {(): 1 / form[()]})
    return times(algebra.form(node.input(0), depth), algebra.power(divisor, -1.0, depth))


def _neg(algebra: Algebra, node: Node, depth: int) -> Form:
    return times(number(-1), algebra.form(node.input(0), depth))


def _pow(algebra: Algebra, node: Node, depth: int) -> Form | None:
    exponent = _constant(node.input(1))
    return None if exponent is None else algebra.power(node.input(0), exponent, depth)


def _mean(algebra: Algebra, node: Node, depth: int) -> Form | None:
    """A mean or sum that keeps its axes."""
    op, x = node.op, node.input(0)
    assert isinstance(op, Mean | Sum)
    rank = x.type.rank
    axes = tuple(sorted(axis % rank for axis in op.axes))
    count = math.prod(x.shape[axis] for axis in axes) if isinstance(op, Sum) else 1
    averaged = algebra.mean(algebra.form(x, depth), axes, rank)
    return None if averaged is None else times(averaged, number(count))


def _kept_mean(algebra: Algebra, node: Node, depth: int) -> Form | None:
    return _mean(algebra, node, depth) if node.op.attributes()["keepdims"] else None


def _unsqueezed_mean(algebra: Algebra, node: Node, depth: int) -> Form | None:
    """A Reshape that gives a mean its axes back."""
    pooled = node.input(0).producer
    if pooled is None or not isinstance(pooled.op, Mean | Sum) or pooled.op.keepdims:
        return None
    x = pooled.input(0)
    axes = {axis % x.type.rank for axis in pooled.op.axes}
    if node.output.shape != tuple(1 if i in axes else n for i, n in enumerate(x.shape)):
        return None
    algebra._read.add(pooled.output)
    return _mean(algebra, pooled, depth)


def _erf(algebra: Algebra, node: Node, depth: int) -> Form:
    """erf(u) = 2 Phi(sqrt(2) u) - 1."""
    argument = times(algebra.form(node.input(0), depth), number(math.sqrt(2)))
    return plus(times(algebra.curve(node, "normal", argument), number(2)), number(-1))


def _tanh(algebra: Algebra, node: Node, depth: int) -> Form:
    """tanh(u) = 2 sigmoid(2 u) - 1."""
    argument = times(algebra.form(node.input(0), depth), number(2))
    return plus(times(algebra.curve(node, "logistic", argument), number(2)), number(-1))


def _hard_sigmoid(algebra: Algebra, node: Node, depth: int) -> Form:
    op = node.op
    assert isinstance(op, HardSigmoid)
    inner = plus(times(algebra.form(node.input(0), depth), number(op.alpha)), number(op.beta))
    return algebra.curve(node, "ramp", inner)


def _clip(algebra: Algebra, node: Node, depth: int) -> Form | None:
    """clip(u, low, high) = low + (high - low) ramp((u - low) / (high - low)), bounds by any chain of ops."""
    low, high, value = -math.inf, math.inf, node.output
    passed: list[Value] = []
    while (bounds := _bounds(value.producer)) is not None and (value is node.output or len(value.uses) == 1):
        passed.append(value)
        (inner, least, most) = bounds
        low, high = max(low, min(least, high)), min(high, max(most, low))
        value = inner
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return None
    algebra._read.update(passed)
    width = high - low
    argument = times(plus(algebra.form(value, depth), number(-low)), number(1 / width))
    return plus(times(algebra.curve(node, "ramp", argument), number(width)), number(low))


def _bounds(node: Node | None) -> tuple[Value, float, float] | None:
    """(u, low, high) of a node that clips u by constants."""
    op = None if node is None else node.op
    if node is None or not isinstance(op, Clip | Relu | Minimum | Maximum):
        return None
    if isinstance(op, Clip):
        return node.input(0), op.minimum, op.maximum
    if isinstance(op, Relu):
        return node.input(0), 0.0, math.inf
    for x, other in ((node.input(0), node.input(1)), (node.input(1), node.input(0))):
        bound = _constant(other)
        if bound is not None:
            return (x, -math.inf, bound) if isinstance(op, Minimum) else (x, bound, math.inf)
    return None


Reader = Callable[[Algebra, Node, int], Form | None]
READERS: dict[type, Reader] = {
    **dict.fromkeys((Add, Sub), _add),
    **dict.fromkeys((Clip, Maximum, Minimum, Relu), _clip),
    **dict.fromkeys((Mean, Sum), _kept_mean),
    Div: _div,
    Erf: _erf,
    Exp: lambda algebra, node, depth: algebra.curve(node, "exp", algebra.form(node.input(0), depth)),
    HardSigmoid: _hard_sigmoid,
    Mul: _mul,
    Neg: _neg,
    Pow: _pow,
    Reciprocal: lambda algebra, node, depth: algebra.power(node.input(0), -1.0, depth),
    Reshape: _unsqueezed_mean,
    Sigmoid: lambda algebra, node, depth: algebra.curve(node, "logistic", algebra.form(node.input(0), depth)),
    Sqrt: lambda algebra, node, depth: algebra.power(node.input(0), 0.5, depth),
    Tanh: _tanh,
}


# ---- finding x ----


def is_inner(value: Value) -> bool:
    """Whether only arithmetic reads a value; what layers read too is no step of an activation or norm."""
    return all(type(node.op) in READERS for node, _ in value.uses)


def cone(root: Value) -> dict[Node, None]:
    """Arithmetic nodes above a value, nearest first."""
    found: dict[Node, None] = {}
    waiting = [root]
    while waiting and len(found) < NEAR:
        value = waiting.pop(0)
        node = value.producer if value is root or is_inner(value) else None
        if node is not None and node not in found and type(node.op) in READERS:
            found[node] = None
            waiting += [each for each in node.inputs if each is not None]
    return found


def is_function(root: Value, x: Value, nodes: dict[Node, None]) -> bool:
    """Whether arithmetic makes the root of x and constants alone."""
    waiting, seen = [root], {x}
    while waiting:
        value = waiting.pop()
        if value in seen or value.is_constant:
            continue
        if value.producer not in nodes:
            return False
        seen.add(value)
        waiting += [each for each in value.producer.inputs if each is not None]
    return True


def variables(root: Value, nodes: dict[Node, None], reads: int = 2) -> Iterator[Value]:
    """Values that may be the x of a root: of its shape, and read that often by the arithmetic below it."""
    seen = {root}
    for value in (each for node in nodes for each in node.inputs):
        if value is None or value in seen or value.data is not None or value.shape != root.shape:
            continue
        seen.add(value)
        if sum(node in nodes for node, _ in value.uses) >= reads:
            yield value


def require_inner(graph: Graph, root: Value, nodes: list[Node]) -> None:
    """Refuse arithmetic with results inside that others read.

    Raises:
        Miss: Such a result.
    """
    for node in nodes:
        if node.output is root:
            continue
        others = [reader.name for reader in node.output.readers if reader not in nodes]
        if others or any(node.output is out for out in graph.outputs):
            raise Miss(f"'{node.output.name}' is also read by {', '.join(others) or 'the graph output'}")
