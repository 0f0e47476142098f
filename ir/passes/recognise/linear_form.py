"""Values that are sums of elements of one source times constants: movement, signs and factors, however spelt.

Every element of such a value is a few pairs (number of a source element, factor). The pairs are found by moving both
as the graph moves the data, and by multiplying and joining the factors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...graph import Array, Node, Value
from ...ops.activation import Neg
from ...ops.elementwise import Add, Div, Mul, Sub
from ...ops.shape import Concat
from ...rewrite import Miss
from .heads import MOVES

MOST_TERMS, MOST_NODES = 4, 64


@dataclass(frozen=True)
class Terms:
    """Each element is the sum over the first axis of factors * source[numbers].

    Attributes:
        numbers: [T, ...] element numbers of the source.
        factors: [T, ...] their factors; 0 where there are fewer terms.
    """

    numbers: Array
    factors: Array

    def moved(self, node: Node, index: int) -> Terms:
        """Through one movement."""
        rest = [value.array for value in node.inputs[1:] if value is not None]
        parts = []
        for array in (self.numbers, self.factors):
            results = [node.op.reference(each, *rest) for each in array]
            parts.append(np.stack([each[index] if isinstance(each, tuple) else each for each in results]))
        return Terms(*parts)

    def times(self, factor: Array | float, shape: tuple[int, ...]) -> Terms:
        """Times a constant that broadcasts to the shape."""
        return Terms(self.numbers, self.factors * np.broadcast_to(factor, shape))

    def padded(self, count: int) -> Terms:
        """With that many terms."""
        more = [(0, count - len(self.numbers)), *[(0, 0)] * (self.numbers.ndim - 1)]
        return Terms(np.pad(self.numbers, more), np.pad(self.factors, more))


def source_of(value: Value) -> tuple[Value, list[Node]]:
    """The only value that is not made of others by movement, signs, factors and sums; and the nodes between.

    Raises:
        Miss: There are several, or too much lies between.
    """
    leaves: dict[Value, None] = {}
    nodes: dict[Node, None] = {}
    waiting = [value]
    while waiting and len(nodes) < MOST_NODES:
        each = waiting.pop()
        node = each.producer
        if each.is_constant:
            continue
        if node is None or not isinstance(node.op, (Add, Concat, Div, Mul, Neg, Sub, *MOVES)):
            leaves[each] = None
        elif node not in nodes:
            nodes[node] = None
            waiting += [operand for operand in node.inputs if operand is not None]
    if len(leaves) != 1 or waiting:
        raise Miss(f"'{value.name}' is made of {len(leaves)} values")
    return next(iter(leaves)), list(nodes)


def terms_of(value: Value, source: Value, known: dict[Value, Terms]) -> Terms:
    """A value in terms of its source.

    Raises:
        Miss: It is no sum of its elements times constants.
    """
    if value is source:
        numbers = np.arange(source.type.size).reshape(1, *source.shape)
        return Terms(numbers, np.ones(numbers.shape))
    if value not in known:
        known[value] = _terms(value, source, known)
    return known[value]


def _terms(value: Value, source: Value, known: dict[Value, Terms]) -> Terms:
    node = value.producer
    if node is None:
        raise Miss(f"'{value.name}' is a constant")
    if isinstance(node.op, MOVES):
        return terms_of(node.input(0), source, known).moved(node, node.outputs.index(value))
    if isinstance(node.op, Neg):
        return terms_of(node.input(0), source, known).times(-1.0, value.shape)
    if isinstance(node.op, Concat):
        parts = [terms_of(each, source, known) for each in node.inputs if each is not None]
        count = max(len(part.numbers) for part in parts)
        parts = [part.padded(count) for part in parts]
        axis = node.op.axis % value.type.rank + 1
        numbers = np.concatenate([part.numbers for part in parts], axis)
        return Terms(numbers, np.concatenate([part.factors for part in parts], axis))
    a, b = node.input(0), node.input(1)
    if isinstance(node.op, Mul | Div):
        a, b = (a, b) if b.is_constant or isinstance(node.op, Div) else (b, a)
        if not b.is_constant or a.shape != value.shape or (isinstance(node.op, Div) and not b.array.all()):
            raise Miss(f"'{node.name}' is no product with a constant")
        factor = b.array.astype(np.float64)
        return terms_of(a, source, known).times(1 / factor if isinstance(node.op, Div) else factor, value.shape)
    if isinstance(node.op, Sub) and a.is_constant and not a.array.any() and b.shape == value.shape:
        return terms_of(b, source, known).times(-1.0, value.shape)
    if not isinstance(node.op, Add | Sub) or not a.shape == b.shape == value.shape or a.is_constant or b.is_constant:
        raise Miss(f"'{node.name}' ({type(node.op).__name__}) is no sum of two parts of '{source.name}'")
    first, second = terms_of(a, source, known), terms_of(b, source, known)
    if len(first.numbers) + len(second.numbers) > MOST_TERMS:
        raise Miss(f"'{node.name}' is a sum of too many parts")
    if isinstance(node.op, Sub):
        second = second.times(-1.0, value.shape)
    numbers = np.concatenate([first.numbers, second.numbers])
    return Terms(numbers, np.concatenate([first.factors, second.factors]))
