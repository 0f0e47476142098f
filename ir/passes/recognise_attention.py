"""Attention by meaning: whatever moves the heads about, element numbers sent through it tell where they come from.

Exporters cut q, k and v out of one product by Split, Slice or Gather, and turn heads and tokens in many orders. Instead
of matching spellings, the movement is run on the numbers 0, 1, 2, ... of its source: if the number at head h, token n,
channel c is n * C + channel(h, c), then choosing weight rows channel(h, c) gives the same in head-major order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ..graph import Array, Graph, Node, Value, sources_of
from ..ops.activation import Softmax
from ..ops.attention import Attention
from ..ops.conv import Conv
from ..ops.elementwise import Add, Div, Mul
from ..ops.linear import Linear, MatMul
from ..ops.norm import BatchNorm
from ..ops.shape import Gather, Reshape, Slice, Split, Transpose
from ..rewrite import Any, Match, Miss, P, Rule
from .base import Pass

MOVES = (Gather, Reshape, Slice, Split, Transpose)


@dataclass
class _Origin:
    """Where an operand comes from: movements of `source`, and a factor."""

    source: Value
    factor: float = 1.0
    moves: list[tuple[Node, int]] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)

    def numbers(self) -> Array:
        """The operand's elements as element numbers of the source."""
        array = np.arange(self.source.type.size).reshape(self.source.shape)
        for node, index in self.moves:
            rest = [value.array for value in node.inputs[1:] if value is not None]
            result = node.op.reference(array, *rest)
            array = result[index] if isinstance(result, tuple) else result
        return array

    def replay(self, graph: Graph) -> Value:
        """The operand without the factor."""
        value = self.source
        for node, index in self.moves:
            result = graph.add(node.op, value, *node.inputs[1:], name=node.name, sources=node.sources)
            value = result[index] if isinstance(result, tuple) else result
        return value


def _factor(node: Node) -> tuple[Value, float] | None:
    """(x, s) of a node that computes x * s with a constant number s."""
    if not isinstance(node.op, (Mul, Div)):
        return None
    pairs = [(node.input(0), node.input(1)), (node.input(1), node.input(0))]
    for x, number in pairs if isinstance(node.op, Mul) else pairs[:1]:
        if number.data is not None and number.data.size == 1 and x.shape == node.output.shape:
            s = float(number.data.reshape(()))
            return x, s if isinstance(node.op, Mul) else 1 / s
    return None


def _origin(value: Value, through_factors: bool = True) -> _Origin:
    """Follow an operand upwards through movements and factors."""
    origin = _Origin(value)
    while (node := origin.source.producer) is not None:
        scaled = _factor(node) if through_factors else None
        if scaled is not None:
            origin.source, origin.factor = scaled[0], origin.factor * scaled[1]
        elif isinstance(node.op, MOVES) and all(v is not None and v.is_constant for v in node.inputs[1:]):
            origin.moves.insert(0, (node, node.outputs.index(origin.source)))
            origin.source = node.input(0)
        else:
            break
        origin.nodes.append(node)
    return origin


@dataclass
class _Scores:
    """What softmax is taken of: factor * (a @ b) + bias."""

    product: Node
    factor: float
    bias: Array | None
    nodes: list[Node]


def _scores(value: Value) -> _Scores:
    factor, bias, nodes = 1.0, None, []
    while (node := value.producer) is not None and not isinstance(node.op, MatMul):
        nodes.append(node)
        scaled = _factor(node)
        if scaled is not None:
            value, factor = scaled[0], factor * scaled[1]
            continue
        constants = [v for v in node.inputs if v is not None and v.is_constant]
        if not isinstance(node.op, Add) or len(constants) != 1:
            raise Miss(f"softmax is taken of {type(node.op).__name__} '{node.name}', not of scaled and biased scores")
        table = constants[0].array
        table = table if factor == 1 else (table * table.dtype.type(factor))
        bias = table if bias is None else bias + table
        value = node.input(1 if node.inputs[0] is constants[0] else 0)
    if node is None:
        raise Miss("softmax is taken of no product")
    return _Scores(node, factor, bias, [*nodes, node])


def _tokens(graph: Graph, operand: Value, origin: _Origin, heads: int, swapped: bool) -> Value:
    """An operand [.., N, d] (or [.., d, N] when swapped) as tokens [B, N, H*d], head-major, without its factor."""
    numbers = origin.numbers()
    numbers = numbers.swapaxes(-1, -2) if swapped else numbers
    rows, depth = numbers.shape[-2:]
    numbers = numbers.reshape(-1, heads, rows, depth)
    shape, source = (numbers.shape[0], rows, heads * depth), origin.source
    last = len(source.shape) - 1
    if (channels := _chosen(numbers, source, last)) is not None:
        return _shaped(graph, narrowed(graph, source, channels, last, operand.name), shape)
    if last > 1 and (channels := _chosen(numbers, source, 1)) is not None:
        image = narrowed(graph, source, channels, 1, operand.name)
        turned: Value = graph.add(Transpose((0, 2, 1)), _shaped(graph, image, (shape[0], shape[2], rows)))
        return turned
    value = graph.add(Reshape((shape[0], heads, *operand.shape[-2:])), origin.replay(graph))
    turned = graph.add(Transpose((0, 3, 1, 2) if swapped else (0, 2, 1, 3)), value)
    return _shaped(graph, turned, shape)


def _chosen(numbers: Array, source: Value, axis: int) -> Array | None:
    """The channels (along `axis`) that heads read, head-major, if tokens are those of the source in order."""
    batch, _, rows, _ = numbers.shape
    width = source.shape[axis]
    if source.type.size != batch * rows * width:
        return None
    step, jump = (1, width) if axis == len(source.shape) - 1 else (rows, 1)
    channels = numbers[0, :, 0, :] // step % width
    tokens = np.arange(batch)[:, None] * rows * width + np.arange(rows) * jump
    expected = tokens[:, None, :, None] + channels[:, None, :] * step
    return channels.reshape(-1) if np.array_equal(numbers, expected) else None


def _shaped(graph: Graph, value: Value, shape: tuple[int, ...]) -> Value:
    result: Value = value if value.shape == shape else graph.add(Reshape(shape), value, name=value.name)
    return result


def narrowed(graph: Graph, value: Value, channels: Array, axis: int, name: str) -> Value:
    """Some channels of a value in a given order, chosen among weight rows where a Linear or Conv makes them."""
    if np.array_equal(channels, np.arange(value.shape[axis])):
        return value
    node = value.producer
    linear = node is not None and isinstance(node.op, Linear) and axis == len(value.shape) - 1
    conv = node is not None and isinstance(node.op, Conv) and axis == 1 and node.op.groups == 1
    norm = node is not None and isinstance(node.op, BatchNorm) and node.op.axis % len(value.shape) == axis
    if node is None or not (linear or conv or norm) or not all(v is None or v.is_constant for v in node.inputs[1:]):
        made: Value = graph.add(Gather(axis), value, graph.constant(channels.astype(np.int64)), name=name)
        return made
    x = narrowed(graph, node.input(0), channels, axis, name) if norm else node.input(0)
    rows = [None if v is None else graph.constant(v.array[channels], v.name) for v in node.inputs[1:]]
    made = graph.add(node.op, x, *rows, name=f"{name}.norm" if norm else name, sources=node.sources)
    return made


def _attention(match: Match, transposed: bool) -> Value:
    graph, values = match.graph, match["v"]
    softmax = match.node("weights")
    rank = len(softmax.output.shape)
    if softmax.op.attributes()["axis"] % rank != rank - 1:
        raise Miss("softmax is not over the last axis")
    scores = _scores(softmax.input(0))
    left, right = scores.product.input(0), scores.product.input(1)
    if not left.shape[:-2] == right.shape[:-2] == values.shape[:-2] or rank not in (3, 4):
        raise Miss(f"heads differ or are shared: {left.shape}, {right.shape}, {values.shape}")
    heads = left.shape[1] if rank == 4 else _heads(left, values)
    bias = _bias(scores.bias, left.shape[0], heads, softmax.output.shape)
    at_q, at_k, at_v = _origin(left), _origin(right), _origin(values, through_factors=False)
    q = _tokens(graph, left, at_q, heads, False)
    k = _tokens(graph, right, at_k, heads, True)
    v = _tokens(graph, values, at_v, heads, transposed)
    table = None if bias is None else graph.constant(bias, f"{match.root.name}.bias")
    nodes = [*at_q.nodes, *at_k.nodes, *at_v.nodes, *scores.nodes, *match.nodes]
    sources = sources_of(*sorted(dict.fromkeys(nodes), key=lambda node: node.serial))
    op = Attention(heads, scores.factor * at_q.factor * at_k.factor)
    attended = graph.add(op, q, k, v, table, name=match.root.name, sources=sources)
    return _by_head(graph, attended, heads, match.root.output.shape, transposed)


def _by_head(graph: Graph, tokens: Value, heads: int, shape: tuple[int, ...], transposed: bool) -> Value:
    """Tokens [B, N, H*dv] in the layout that the product had; later movement cancels this one."""
    batch, rows, width = tokens.shape
    split = graph.add(Reshape((batch, rows, heads, width // heads)), tokens)
    turned = graph.add(Transpose((0, 2, 3, 1) if transposed else (0, 2, 1, 3)), split)
    return _shaped(graph, turned, shape)


def _heads(left: Value, values: Value) -> int:
    """Heads of operands [B*H, N, d], where they are joined with the batch: what the tokens' batch leaves."""
    batch = {_origin(value).source.shape[0] for value in (left, values)}
    if len(batch) != 1 or left.shape[0] % (only := batch.pop()):
        raise Miss(f"{left.shape[0]} heads and images do not divide")
    return left.shape[0] // only


def _bias(table: Array | None, batch: int, heads: int, shape: tuple[int, ...]) -> Array | None:
    """The bias as [H, N, M], equal for all images."""
    if table is None:
        return None
    full = np.broadcast_to(table, shape).reshape(-1, heads, *shape[-2:])
    if not (full == full[:1]).all():
        raise Miss(f"the bias {table.shape} differs between images or windows")
    return np.ascontiguousarray(full[0])


WEIGHTS = P(Softmax, Any("scores"), name="weights")


@dataclass(frozen=True)
class RecogniseAttention(Pass):
    """softmax(scale * q k^T + bias) v, and the same transposed; q, k and v become separate projections."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("attention", P(MatMul, WEIGHTS, Any("v")), lambda match: _attention(match, False)),
        Rule(
            "attention",
            P(
                MatMul,
                Any("v"),
                P(Transpose, WEIGHTS, where=lambda op: op.perm[-2:] == (len(op.perm) - 1, len(op.perm) - 2)),
            ),
            lambda match: _attention(match, True),
        ),
    )
