"""What softmax is taken of: a product of queries and keys that is scaled, biased, masked and turned."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...graph import Array, Graph, Node, Value
from ...op import Op
from ...ops.elementwise import Add, Div, Mul, Sub
from ...ops.linear import MatMul
from ...ops.logic import Where
from ...ops.shape import Reshape, Transpose
from ...rewrite import Miss

FORBIDDEN = -1e9
"""Added to a score that does not count where a mask puts minus infinity: it is as good, and can be computed with."""
NEGLIGIBLE = -1e4
"""What scores at least so low have no weight beside scores of ordinary size."""


def is_turn(op: Op) -> bool:
    """Whether an op exchanges the last two axes."""
    rank = len(op.perm) if isinstance(op, Transpose) else 0
    return isinstance(op, Transpose) and op.perm == (*range(rank - 2), rank - 1, rank - 2)


@dataclass
class Scores:
    """gain * product + bias, turned as softmax over the last axis needs it.

    Attributes:
        product: The MatMul.
        shape: Of the scores so far.
        gain: One factor per head: an array of the scores' rank whose last two axes are 1.
        bias: A table of the scores' rank.
        turned: The product is that of keys and queries; the scores are its transpose.
        masked: Some of the bias stands for scores that do not count.
        columns: The weights of a query are a column of what softmax makes.
        nodes: The product and those passed.
    """

    product: Node
    shape: tuple[int, ...]
    gain: Array
    bias: Array
    turned: bool = False
    masked: bool = False
    columns: bool = False
    nodes: list[Node] = field(default_factory=list)

    @property
    def queries(self) -> Value:
        """[.., N, d], or [.., d, N] when turned."""
        return self.product.input(1 if self.turned else 0)

    @property
    def keys(self) -> Value:
        """[.., d, M], or [.., M, d] when turned."""
        return self.product.input(0 if self.turned else 1)

    def pass_through(self, node: Node, data: Value) -> None:
        """Take in one step between the product and softmax.

        Raises:
            Miss: It makes anything else of the scores.
        """
        op, shape = node.op, node.output.shape
        if isinstance(op, Reshape):
            self._reshape(shape)
        elif is_turn(op):
            self.turn()
        elif shape != self.shape:
            raise Miss(f"'{node.name}' enlarges the scores")
        elif isinstance(op, Where):
            self._mask(node, data)
        else:
            constant = node.input(1 if node.inputs[0] is data else 0)
            self._compute(node, data, _full(constant.array.astype(np.float64), len(shape)))
        self.nodes.append(node)

    def turn(self) -> None:
        """Exchange the last two axes."""
        self.turned = not self.turned
        self.bias = self.bias.swapaxes(-1, -2)
        self.shape = (*self.shape[:-2], self.shape[-1], self.shape[-2])

    def _reshape(self, shape: tuple[int, ...]) -> None:
        if shape[-2:] != self.shape[-2:]:
            raise Miss(f"scores of shape {self.shape} are mixed up by a Reshape to {shape}")
        self.gain = np.broadcast_to(self.gain, (*self.shape[:-2], 1, 1)).reshape(*shape[:-2], 1, 1)
        if self.bias.any():
            self.bias = np.broadcast_to(self.bias, self.shape).reshape(shape)
        else:
            self.bias = np.zeros((1,) * len(shape))
        self.shape = shape

    def _compute(self, node: Node, data: Value, constant: Array) -> None:
        first = node.inputs[0] is data
        if isinstance(node.op, Add):
            self.bias = self.bias + constant
        elif isinstance(node.op, Sub):
            sign = 1.0 if first else -1.0
            self.gain, self.bias = self.gain * sign, self.bias * sign - constant * sign
        else:
            if constant.shape[-2:] != (1, 1) or not constant.all() or not (first or isinstance(node.op, Mul)):
                raise Miss(f"'{node.name}' does more to scores than to scale them")
            factor = constant if isinstance(node.op, Mul) else 1 / constant
            self.gain, self.bias = self.gain * factor, self.bias * factor

    def _mask(self, node: Node, data: Value) -> None:
        condition, kept = node.input(0), node.inputs[1] is data
        other = node.input(2 if kept else 1)
        hidden = _full(condition.array != kept, len(self.shape))
        lowest = np.maximum(_full(other.array.astype(np.float64), len(self.shape)), FORBIDDEN)
        if lowest.max() > NEGLIGIBLE:
            raise Miss(f"'{node.name}' puts numbers that count in the place of scores")
        self.bias = np.where(hidden, lowest, self.bias)
        self.masked = True


def _full(array: Array, rank: int) -> Array:
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def scores_of(graph: Graph, softmax: Node) -> Scores:
    """What a softmax is taken of, turned so that keys are along the last axis.

    Raises:
        Miss: It is no product that constants scale and bias, others read it, or softmax runs over another axis.
    """
    value, steps = softmax.input(0), []
    while (node := value.producer) is not None and not isinstance(node.op, MatMul):
        require_only(graph, value)
        value = _data(node)
        steps.append((node, value))
    if node is None:
        raise Miss("softmax is taken of no product")
    require_only(graph, value)
    ones = (1,) * len(value.shape)
    scores = Scores(node, value.shape, np.ones(ones), np.zeros(ones), nodes=[node])
    for step in reversed(steps):
        scores.pass_through(*step)
    axis = softmax.op.attributes()["axis"] % len(scores.shape)
    if axis == len(scores.shape) - 2:
        scores.turn()
        scores.columns = True
    elif axis != len(scores.shape) - 1:
        raise Miss("softmax is not over an axis of the product")
    if scores.masked and not (scores.bias > NEGLIGIBLE).any(axis=-1).all():
        raise Miss("some query may see no key at all")
    return scores


def require_only(graph: Graph, value: Value) -> None:
    """Refuse a value that more than one node reads.

    Raises:
        Miss: Such a value.
    """
    others = [node.name for node in value.readers[1:]]
    if others or any(value is out for out in graph.outputs):
        raise Miss(f"'{value.name}' is also read by {', '.join(others) or 'the graph output'}")


def _data(node: Node) -> Value:
    """The operand that a step changes, if all others are constants."""
    op = node.op
    variable = [value for value in node.inputs if value is not None and not value.is_constant]
    place = isinstance(op, Where) and node.inputs[0] in variable
    if not isinstance(op, Add | Div | Mul | Reshape | Sub | Transpose | Where) or len(variable) != 1 or place:
        raise Miss(f"softmax is taken of {type(op).__name__} '{node.name}', not of scaled and biased scores")
    if isinstance(op, Transpose) and not is_turn(op):
        raise Miss(f"'{node.name}' exchanges heads")
    return variable[0]
