"""Where heads come from: element numbers sent through the movement of an operand tell what it reads.

Exporters cut q, k and v out of one product by Split, Slice or Gather, and turn heads and tokens in many orders. Instead
of matching spellings, the movement is run on the numbers 0, 1, 2, ... of its source: if the number at head h, token n,
channel c is n * C + channel(h, c), then choosing weight rows channel(h, c) gives the same in head-major order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...graph import Array, Graph, Node, Value, sources_of
from ...ops.conv import Conv
from ...ops.elementwise import Div, Mul
from ...ops.linear import Linear
from ...ops.norm import BatchNorm
from ...ops.shape import Expand, Gather, Reshape, Slice, Split, Transpose
from ...rewrite import Miss

MOVES = (Gather, Reshape, Slice, Split, Transpose)

MOST_NUMBERS = 2**25
"""Elements of which each is followed: twice as many as of queries, keys and values of SAM's largest model together."""


@dataclass
class Origin:
    """Where an operand comes from: movements of `source`, a factor, and `lead`, what its axes but two stretch to."""

    source: Value
    factor: float = 1.0
    moves: list[tuple[Node, int]] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    lead: tuple[int, ...] | None = None

    def numbers(self) -> Array:
        """The operand's elements as element numbers of the source.

        Raises:
            Miss: There are too many.
        """
        shapes = [self.source.shape, *(node.outputs[index].shape for node, index in self.moves)]
        if max(math.prod(shape) for shape in (*shapes, self._stretched(shapes[-1]))) > MOST_NUMBERS:
            raise Miss(f"'{self.source.name}' has too many elements to follow each")
        array = np.arange(self.source.type.size).reshape(self.source.shape)
        for node, index in self.moves:
            rest = [value.array for value in node.inputs[1:] if value is not None]
            result = node.op.reference(array, *rest)
            array = result[index] if isinstance(result, tuple) else result
        return np.broadcast_to(array, self._stretched(array.shape))

    def replay(self, graph: Graph) -> Value:
        """The operand without the factor."""
        value = self.source
        for node, index in self.moves:
            result = graph.add(node.op, value, *node.inputs[1:], name=node.name, sources=node.sources)
            value = result[index] if isinstance(result, tuple) else result
        shape = self._stretched(value.shape)
        if shape != value.shape:
            value = graph.add(Expand(shape), value, sources=sources_of(*self.nodes))
        return value

    def _stretched(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape if self.lead is None else (*self.lead, *shape[-2:])


def factor_of(node: Node) -> tuple[Value, float] | None:
    """(x, s) of a node that computes x * s with a constant number s."""
    if not isinstance(node.op, (Mul, Div)):
        return None
    pairs = [(node.input(0), node.input(1)), (node.input(1), node.input(0))]
    for x, number in pairs if isinstance(node.op, Mul) else pairs[:1]:
        if number.data is not None and number.data.size == 1 and x.shape == node.output.shape:
            s = float(number.data.reshape(()))
            if s != 0:  # a quotient by zero is no factor, a product with it no score
                return x, s if isinstance(node.op, Mul) else 1 / s
    return None


def origin_of(value: Value, through_factors: bool = True, lead: tuple[int, ...] | None = None) -> Origin:
    """Follow an operand, whose axes before the last two a product stretches to `lead`, up through moves and factors."""
    origin = Origin(value, lead=lead)
    while (node := origin.source.producer) is not None:
        scaled = factor_of(node) if through_factors else None
        if scaled is not None:
            origin.source, origin.factor = scaled[0], origin.factor * scaled[1]
        elif isinstance(node.op, (*MOVES, Expand)) and all(v is not None and v.is_constant for v in node.inputs[1:]):
            origin.moves.insert(0, (node, node.outputs.index(origin.source)))
            origin.source = node.input(0)
        else:
            break
        origin.nodes.append(node)
    return origin


@dataclass(frozen=True)
class Layout:
    """The axes of an operand before [N, d]: `head` is the one that counts heads, the others are images and windows.

    A wrong guess costs movement, never correctness: both kinds are only independent problems side by side.
    """

    lead: tuple[int, ...]
    head: int

    @property
    def heads(self) -> int:
        """How many heads."""
        return self.lead[self.head]

    @property
    def others(self) -> tuple[int, ...]:
        """Sizes of the axes that are not heads."""
        return self.lead[: self.head] + self.lead[self.head + 1 :]

    def by_head(self, array: Array) -> Array:
        """An array [lead.., N, d] as [B, H, N, d]."""
        array = array.reshape(*self.lead, *array.shape[-2:])
        array = np.moveaxis(array, self.head, len(self.lead) - 1)
        return array.reshape(-1, self.heads, *array.shape[-2:])

    def outward(self, swapped: bool) -> tuple[int, ...]:
        """The permutation from [others.., N, H, d] to [lead.., N, d], or to [lead.., d, N] when swapped."""
        rows = len(self.others)
        rest = iter(range(rows))
        lead = [rows + 1 if i == self.head else next(rest) for i in range(len(self.lead))]
        return (*lead, rows + 2, rows) if swapped else (*lead, rows, rows + 2)

    def inward(self, swapped: bool) -> tuple[int, ...]:
        """The inverse of `outward`."""
        return tuple(int(i) for i in np.argsort(self.outward(swapped)))


def layout_of(origin: Origin) -> Layout:
    """The layout of an operand [.., N, d]: along axes that count heads its channels in the source differ."""
    numbers = origin.numbers()
    lead = numbers.shape[:-2]
    if len(lead) == 1:  # joined with the batch, torch.bmm style
        return Layout(_joined(numbers[:, 0, 0] % origin.source.shape[-1], origin.source.shape[0]), 1)
    if not origin.moves and len(lead) > 1:  # heads lie apart as they are computed: problems side by side
        return Layout((*lead, 1), len(lead))
    for axes in (1, 2):  # heads are part of the channels, or on the axis before them
        channels = numbers % math.prod(origin.source.shape[-axes:])
        differing = [axis for axis in range(len(lead)) if (channels != channels.take([0], axis)).any()]
        if len(differing) == 1:
            return Layout(lead, differing[0])
        if len(differing) == 2 and differing[0] + 1 == differing[1]:  # groups of heads, and heads of a group
            first, end = differing[0], differing[1] + 1
            return Layout((*lead[:first], math.prod(lead[first:end]), *lead[end:]), first)
    return Layout(lead, 1) if len(lead) == 2 else Layout((*lead, 1), len(lead))


def _joined(channels: Array, images: int) -> tuple[int, int]:
    """(images, heads) that one axis counts, of whose entries the first channels are given: heads repeat by image."""
    count = len(channels)
    periods = (n for n in range(1, count + 1) if count % n == 0)
    period = next(n for n in periods if (channels == np.tile(channels[:n], count // n)).all())
    if period > 1:
        return count // period, period
    return (images, count // images) if images and count % images == 0 else (count, 1)


@dataclass(frozen=True)
class Sharing:
    """How heads share keys and values: `heads` differ, and so many `queries` read each.

    Those that share are one head with the tokens of all of them, the tokens' heads in turn.
    """

    heads: int
    queries: int = 1
    neighbours: bool = False
    """Those that share are next to each other; else the keys begin anew after each `heads`."""

    @property
    def order(self) -> list[int]:
        """The heads, each of the first queries first."""
        numbers = range(self.heads * self.queries)
        step = self.queries if self.neighbours else 1
        return [i for start in range(step) for i in numbers[start::step]]

    @property
    def shared(self) -> list[int]:
        """The first head of those that share, for each of the `heads`."""
        return self.order[: self.heads]


def sharing_of(layout: Layout, *operands: Array) -> Sharing:
    """The sharing by which all `operands`, numbers [lead.., M, d], repeat."""
    rows = [layout.by_head(each).swapaxes(0, 1).reshape(layout.heads, -1) for each in operands]
    same = [next(j for j in range(i + 1) if all((x[i] == x[j]).all() for x in rows)) for i in range(layout.heads)]
    heads = len(set(same))
    for neighbours in (True, False):
        if layout.heads % heads == 0:
            sharing = Sharing(heads, layout.heads // heads, neighbours)
            order = sharing.order
            if [same[i] for i in order] == order[:heads] * sharing.queries:
                return sharing
    return Sharing(layout.heads)


def tokens_of(
    graph: Graph, operand: Value, origin: Origin, layout: Layout, part: str, order: Sequence[int], swapped: bool = False
) -> Value:
    """Heads of an operand [.., N, d] (or [.., d, N] when swapped) as tokens [B, N, H*d], without its factor.

    `order` says which heads, `part` (q, k or v) is added to the names of what is cut out.
    """
    numbers = origin.numbers()
    numbers = layout.by_head(numbers.swapaxes(-1, -2) if swapped else numbers)[:, list(order)]
    batch, heads, rows, depth = numbers.shape
    shape, source = (batch, rows, heads * depth), origin.source
    sources = sources_of(*origin.nodes)
    last = len(source.shape) - 1
    if (channels := _chosen(numbers, source, last)) is not None:
        return shaped(graph, narrowed(graph, source, channels, last, part), shape, sources)
    if last > 1 and (channels := _chosen(numbers, source, 1)) is not None:
        image = narrowed(graph, source, channels, 1, part)
        columns = shaped(graph, image, (batch, shape[2], rows), sources)
        turned: Value = graph.add(Transpose((0, 2, 1)), columns, name=operand.name, sources=sources)
        return turned
    value = origin.replay(graph)
    value = shaped(graph, value, (*layout.lead, *value.shape[-2:]), sources)
    turned = graph.add(Transpose(layout.inward(swapped)), value, name=operand.name, sources=sources)
    value = shaped(graph, turned, (batch, rows, layout.heads * depth), sources)
    chosen = np.arange(layout.heads * depth).reshape(-1, depth)[list(order)].reshape(-1)
    return narrowed(graph, value, chosen, 2, part)


def apart(
    graph: Graph, tokens: Value, layout: Layout, sharing: Sharing, swapped: bool, sources: tuple[str, ...]
) -> Value:
    """Tokens [B, N, H*d], heads in the order of `sharing`, as [lead.., N, d] or [lead.., d, N].

    Later movement cancels this one.
    """
    (batch, rows, width), heads = tokens.shape, layout.heads
    if sharing.order != sorted(sharing.order):
        split = Reshape((batch, rows, sharing.queries, sharing.heads, width // heads))
        tokens = graph.add(Transpose((0, 1, 3, 2, 4)), graph.add(split, tokens, sources=sources), sources=sources)
    split = Reshape((*layout.others, rows, heads, width // heads))
    by_head = graph.add(split, tokens, sources=sources)
    turned: Value = graph.add(Transpose(layout.outward(swapped)), by_head, sources=sources)
    return turned


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


def shaped(graph: Graph, value: Value, shape: tuple[int, ...], sources: tuple[str, ...]) -> Value:
    """A value under another shape, itself when it has that shape."""
    if value.shape == shape:
        return value
    result: Value = graph.add(Reshape(shape), value, name=f"{value.name}.shaped", sources=sources)
    return result


def narrowed(graph: Graph, value: Value, channels: Array, axis: int, part: str) -> Value:
    """Some channels of a value in a given order, chosen among weight rows where a Linear or Conv makes them."""
    if np.array_equal(channels, np.arange(value.shape[axis])):
        return value
    node, name = value.producer, f"{value.name}.{part}"
    linear = node is not None and isinstance(node.op, Linear) and axis == len(value.shape) - 1
    conv = node is not None and isinstance(node.op, Conv) and axis == 1 and node.op.groups == 1
    norm = node is not None and type(node.op) is BatchNorm and node.op.axis % len(value.shape) == axis
    if node is None or not (linear or conv or norm) or not all(v is None or v.is_constant for v in node.inputs[1:]):
        made: Value = graph.add(
            Gather(axis), value, graph.constant(channels.astype(np.int64)), name=name, sources=sources_of(node)
        )
        return made
    x = narrowed(graph, node.input(0), channels, axis, part) if norm else node.input(0)
    rows = [None if v is None else graph.constant(v.array[channels], f"{v.name}.{part}") for v in node.inputs[1:]]
    made = graph.add(node.op, x, *rows, name=name, sources=node.sources)
    return made
