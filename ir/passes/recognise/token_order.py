"""Tokens in another order, as mask units and windows want them: the order is kept from one block to the next.

    x + unorder(attend(order(norm(x))))   becomes   unorder(order(x) + attend(norm(order(x))))

What works on each row by itself does so in any order, so an order given up after one block sinks to the next one, where
it is taken again and both vanish. The first order ends in the embedding, the last in a mean over tokens.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from ...graph import Graph, Node, Value, sources_of
from ...op import Op
from ...ops.activation import Softmax, _Unary
from ...ops.attention import Attention
from ...ops.elementwise import Add, Affine, _Binary
from ...ops.linear import Linear
from ...ops.norm import BatchNorm, LayerNorm, RMSNorm
from ...ops.pool import Mean, ReduceMax, Sum
from ...ops.shape import Reshape, Transpose
from ..base import Pass
from .duplicates import RecogniseDuplicates
from .heads import shaped
from .simplify_shapes import Atom, SimplifyShapes, composed

MOST_ROUNDS = 64


@dataclass(frozen=True)
class Order:
    """Rows [.., C] of `source` laid out anew: each axis of the result as its digits of the row number."""

    source: Value
    axes: tuple[tuple[Atom, ...], ...]
    shape: tuple[int, ...]
    sources: tuple[str, ...]

    @property
    def digits(self) -> tuple[Atom, ...]:
        """All digits, in the order of the result."""
        return tuple(digit for axis in self.axes for digit in axis)

    @property
    def sorted(self) -> tuple[Atom, ...]:
        """All digits, in the order of the source."""
        return tuple(sorted(self.digits, key=lambda digit: -digit[1]))

    def given(self, graph: Graph, value: Value) -> Value:
        """Rows in the order of the source, laid out as the result."""
        digits, width = self.sorted, value.shape[-1]
        apart = shaped(graph, value, (*(size for size, _ in digits), width), self.sources)
        perm = (*(digits.index(digit) for digit in self.digits), len(digits))
        turned = graph.add(Transpose(perm), apart, sources=self.sources)
        return shaped(graph, turned, (*self.shape, width), self.sources)

    def undone(self, graph: Graph, value: Value) -> Value:
        """Rows laid out as the result, in the order of the source."""
        digits, width = self.digits, value.shape[-1]
        apart = shaped(graph, value, (*(size for size, _ in digits), width), self.sources)
        perm = (*(digits.index(digit) for digit in self.sorted), len(digits))
        turned = graph.add(Transpose(perm), apart, sources=self.sources)
        return shaped(graph, turned, (*self.source.shape[:-1], width), self.sources)


def order_of(value: Value) -> Order | None:
    """The order that the movement before a value gives to rows; None where there is none, or channels move too."""
    chain: list[Node] = []
    while (node := (chain[0].input(0) if chain else value).producer) is not None:
        if not isinstance(node.op, Reshape | Transpose):
            break
        chain.insert(0, node)
    for start in range(len(chain)):
        part = chain[start:]
        source = part[0].input(0)
        width = source.shape[-1] if source.shape else 0
        axes = composed(source.shape, [node.op for node in part]) if width > 1 else None
        if not axes or axes[-1] != [(width, 1)]:
            continue
        rows = tuple(tuple((size, stride // width) for size, stride in axis) for axis in axes[:-1])
        order = Order(source, rows, value.shape[:-1], sources_of(*part))
        return order if order.digits != order.sorted else None
    return None


@dataclass(frozen=True)
class RecogniseTokenOrder(Pass):
    """Orders that attention leaves sink, where fewer elements are moved in the end."""

    def apply(self, graph: Graph) -> int:
        """On a copy first: whether it pays is known at the end only."""
        if not any(isinstance(node.op, Attention) for node in graph.nodes):
            return 0
        trial = graph.copy()
        if not _sink_all(trial) or _moved(trial) >= _moved(graph):
            return 0
        return _sink_all(graph)


def _moved(graph: Graph) -> int:
    return sum(node.output.type.size for node in graph.nodes if isinstance(node.op, Transpose))


def _sink_all(graph: Graph) -> int:
    sink, count = _Sink(graph), 0
    for _ in range(MOST_ROUNDS):
        sunk = sum(sink(node) for node in graph.nodes if node in graph)
        graph.prune()
        count += sunk
        if not sunk:
            break
    if count:
        while any([_raise(graph, node) for node in graph.nodes if node in graph]):
            SimplifyShapes().apply(graph)
            RecogniseDuplicates().apply(graph)
    return count


class _Sink:
    """What has sunk so far: `free` values have the order of an attention, `settled` sums have chosen theirs."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.settled = graph, set[Node]()
        self.free = {node.output for node in graph.nodes if isinstance(node.op, Attention)}

    def __call__(self, node: Node) -> int:
        """Move the order of an operand below a node; 1 if it did."""
        if any(out is node.outputs[0] for out in self.graph.outputs) or node in self.settled:
            return 0
        reads = node.inputs if isinstance(node.op, _Binary | Attention) else node.inputs[:1]
        orders = [None if value is None or value.is_constant else order_of(value) for value in reads]
        free = [order for order in orders if order is not None and self._is_free(order.source)]
        if not free:
            follows = isinstance(node.op, _Binary) or _row_op(node) is not None
            if follows and any(value is not None and self._is_free(value) for value in reads):
                self.free.update(node.outputs)
            return 0
        if isinstance(node.op, Attention):
            made = sunk_attention(self.graph, node)
        elif isinstance(node.op, _Binary):
            made = self._sum(node, max(free, key=lambda order: _serial(order.source)))
        elif isinstance(node.op, Mean | Sum | ReduceMax):
            made = sunk_reduction(self.graph, node)
        else:
            made = sunk_rows(self.graph, node)
        if made is None:
            return 0
        final = order_of(made)
        self.free.add(made if final is None else final.source)
        self.graph.replace(node.output, made)
        return 1

    def _is_free(self, value: Value) -> bool:
        node = value.producer
        if value in self.free:
            return True
        return node is not None and isinstance(node.op, Reshape) and self._is_free(node.input(0))

    def _sum(self, node: Node, order: Order) -> Value | None:
        """An element-wise op of streams, or of a stream and a vector, in the order of the stream that is made last."""
        operands = []
        for value in node.inputs:
            assert value is not None
            own = order_of(value)
            if value.shape == node.output.shape:
                same = own is not None and own.axes == order.axes and own.source.shape == order.source.shape
                operands.append(own.source if same and own is not None else order.undone(self.graph, value))
            elif value.is_constant and math.prod(value.shape[:-1]) == 1:
                flat = value.type.rank <= 1
                operands.append(value if flat else self.graph.constant(value.array.reshape(-1), value.name))
            else:
                return None
        total = self.graph.add(node.op, *operands, name=node.name, sources=node.sources)
        self.settled.add(total.producer)
        return order.given(self.graph, total)


def _raise(graph: Graph, node: Node) -> bool:
    """An order that is taken of a norm, or of tokens with their positions, is taken of what they are made of."""
    order = order_of(node.outputs[0]) if isinstance(node.op, Reshape | Transpose) else None
    made = None if order is None else order.source.producer
    ends = not all(isinstance(reader.op, Reshape | Transpose) for reader in node.outputs[0].readers)
    if order is None or made is None or not ends or len(order.source.readers) > 1:
        return False
    x, moved = made.input(0), isinstance(getattr(made.input(0).producer, "op", None), Reshape | Transpose)
    if isinstance(made.op, LayerNorm | RMSNorm):
        operands = [dataclasses.replace(order, source=x).given(graph, x), *made.inputs[1:]]
    elif isinstance(made.op, Add) and made.input(1).is_constant and x.shape == made.output.shape and moved:
        table = graph.constant(np.broadcast_to(made.input(1).array, x.shape).copy(), made.input(1).name)
        operands = [order.given(graph, each) for each in (x, table)]
    else:
        return False
    graph.replace(node.output, graph.add(made.op, *operands, name=made.name, sources=made.sources))
    graph.prune()
    return True


def sunk_rows(graph: Graph, node: Node) -> Value | None:
    """What an op makes of rows in the order of their source, in the order that they had for it."""
    op, order = _row_op(node), order_of(node.input(0))
    if op is None or order is None:
        return None
    axis = {"axis": len(order.source.shape) - 1} if hasattr(op, "axis") else {}
    made = graph.add(
        dataclasses.replace(op, **axis), order.source, *node.inputs[1:], name=node.name, sources=node.sources
    )
    return order.given(graph, made)


def _row_op(node: Node) -> Op | None:
    """An op on each row of its first operand alone, the others being constants."""
    op = node.op
    if any(value is not None and not value.is_constant for value in node.inputs[1:]):
        return None
    if isinstance(op, Linear | LayerNorm | RMSNorm | _Unary):
        return op
    rank = node.outputs[0].type.rank
    return op if isinstance(op, Softmax | Affine | BatchNorm) and op.axis % rank == rank - 1 else None


def sunk_attention(graph: Graph, node: Node) -> Value | None:
    """Queries in any order are answered in that order; keys and values of one order are looked up in any."""
    q, k, v = (node.input(i) for i in range(3))
    of_q, of_k, of_v = (order_of(part) for part in (q, k, v))
    if node.optional(3) is not None or of_k is None or of_v is None or of_k.axes != of_v.axes:
        return None
    if k.shape[0] != 1:
        return None  # tokens may change places within an image or window, not from one to another
    operands = [q if of_q is None else shaped(graph, of_q.source, q.shape, of_q.sources)]
    operands += [shaped(graph, of.source, part.shape, of.sources) for of, part in ((of_k, k), (of_v, v))]
    rows: Value = graph.add(node.op, *operands, name=node.name, sources=node.sources)
    return rows if of_q is None else dataclasses.replace(of_q, source=rows).given(graph, rows)


def sunk_reduction(graph: Graph, node: Node) -> Value | None:
    """A reduction over axes of rows is one over their digits."""
    op, order = node.op, order_of(node.input(0))
    assert isinstance(op, Mean | Sum | ReduceMax)
    if order is None:
        return None
    rank = node.input(0).type.rank
    over = {axis % rank for axis in op.axes}
    if rank - 1 in over:
        return None
    gone = {digit for axis in over for digit in order.axes[axis]}
    digits, width = order.sorted, order.source.shape[-1]
    apart = shaped(graph, order.source, (*(size for size, _ in digits), width), order.sources)
    axes = tuple(i for i, digit in enumerate(digits) if digit in gone)
    reduced = dataclasses.replace(op, axes=axes, keepdims=False)
    less = graph.add(reduced, apart, name=node.name, sources=node.sources) if axes else apart
    left = [digit for digit in digits if digit not in gone]
    kept = [digit for digit in order.digits if digit not in gone]
    turned = graph.add(Transpose((*(left.index(digit) for digit in kept), len(left))), less, sources=order.sources)
    return shaped(graph, turned, node.output.shape, order.sources)


def _serial(value: Value) -> int:
    return -1 if value.producer is None else value.producer.serial
