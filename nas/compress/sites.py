"""What of a float graph can become smaller: groups of channels, heads of attention, and branches beside a stream.

A site is found by its form, not by names. Its weights must be read by nobody else: a layer whose weight is shared is
left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...ir.graph import Graph, Node, Value
from ...ir.ops.activation import _Unary
from ...ir.ops.attention import Attention
from ...ir.ops.conv import Conv
from ...ir.ops.elementwise import Add
from ...ir.ops.linear import Linear

__all__ = ["Branch", "Channels", "Heads", "branches", "channels", "heads", "is_depthwise", "is_layer", "layers"]


@dataclass(frozen=True)
class Channels:
    """Values that number the same channels, from the layers that make them to the layers that read them.

    Hidden units of an MLP are the smallest case; the stream of a stage of convolutions, with everything that adds to
    it, a large one. Names are those of nodes' outputs.

    Attributes:
        name: The first layer that makes them.
        size: How many.
        writers: Layers whose outputs they are.
        depthwise: Convolutions that have one kernel a channel.
        readers: Layers that read them.
    """

    name: str
    size: int
    writers: tuple[str, ...]
    depthwise: tuple[str, ...]
    readers: tuple[str, ...]


@dataclass(frozen=True)
class Heads:
    """An attention between four layers of its own: q, k, v, and the projection that reads the heads."""

    name: str
    count: int
    q: str
    k: str
    v: str
    out: str


@dataclass(frozen=True)
class Branch:
    """A sum of a stream and of something computed from it: names of the sum and the stream, and which operand it is."""

    name: str
    stream: str
    place: int


def is_depthwise(node: Node) -> bool:
    """A convolution with one kernel for each channel."""
    return isinstance(node.op, Conv) and node.op.groups == node.input(0).shape[1] == node.input(1).shape[0] > 1


def is_layer(node: Node) -> bool:
    """A layer whose outputs each read all its inputs, with weights that are constant and its own."""
    dense = isinstance(node.op, Linear) or (isinstance(node.op, Conv) and node.op.groups == 1)
    return dense and _own(node)


def layers(graph: Graph) -> list[Node]:
    """All of them, in order."""
    return [node for node in graph.nodes if is_layer(node)]


def _own(node: Node) -> bool:
    parameters = [value for value in node.inputs[1:] if value is not None]
    return all(value.is_constant and len(value.uses) == 1 for value in parameters)


def channels(graph: Graph) -> list[Channels]:
    """Groups of channels that end in layers on both sides, each once, in order of their first layer."""
    found: list[Channels] = []
    seen: set[str] = set()
    for node in graph.nodes:
        if is_layer(node) and node.output.name not in seen:
            group = _group(graph, node)
            if group is not None and len(group.readers) > 0:
                seen.update(group.writers)
                found.append(group)
    return found


def _group(graph: Graph, first: Node) -> Channels | None:
    """Everything that numbers the channels of `first`; None where something else than these ops is among it."""
    axis = 1 if isinstance(first.op, Conv) else first.output.type.rank - 1
    writers: dict[str, None] = {}
    depthwise: dict[str, None] = {}
    readers: dict[str, None] = {}
    todo, seen = [first.output], set[int]()
    while todo:
        value = todo.pop(0)
        if id(value) in seen:
            continue
        seen.add(id(value))
        node = value.producer
        if node is None or any(value is output for output in graph.outputs):
            return None
        if is_layer(node):
            writers[node.output.name] = None
        elif not _passes(node, value):
            return None
        else:
            depthwise |= {node.output.name: None} if is_depthwise(node) else {}
            todo += [each for each in node.inputs if each is not None and not each.is_constant]
        for reader, place in value.uses:
            own_axis = 1 if isinstance(reader.op, Conv) else value.type.rank - 1
            if is_layer(reader) and place == 0 and own_axis == axis:
                readers[reader.output.name] = None
            elif _passes(reader, value):
                todo.append(reader.output)
            else:
                return None
    size = first.output.shape[axis]
    return Channels(first.output.name, size, tuple(writers), tuple(depthwise), tuple(readers))


def _passes(node: Node, value: Value) -> bool:
    """Whether channel i of a node's result comes from channel i of its operands alone."""
    if isinstance(node.op, Add):
        return all(each is not None and not each.is_constant and each.shape == value.shape for each in node.inputs)
    return isinstance(node.op, _Unary) or (is_depthwise(node) and _own(node))


def heads(graph: Graph) -> list[Heads]:
    """Every attention of several heads, self attention or not, without a bias of its own."""
    found = []
    for node in graph.nodes:
        if not isinstance(node.op, Attention) or node.op.heads < 2 or node.optional(3) is not None:
            continue
        makers = [node.input(place).producer for place in range(3)]
        readers = node.output.readers
        around = [*makers, *readers]
        if len(readers) != 1 or any(each is None or not isinstance(each.op, Linear) or not is_layer(each)
                                    for each in around):  # fmt: skip
            continue
        if all(len(each.output.uses) == 1 for each in makers if each is not None):
            names = [each.output.name for each in around if each is not None]
            found.append(Heads(node.output.name, node.op.heads, *names))
    return found


def branches(graph: Graph) -> list[Branch]:
    """Every sum of a stream and a branch that begins at it, in order."""
    found = []
    for node in graph.nodes:
        if isinstance(node.op, Add) and not any(value is None or value.is_constant for value in node.inputs):
            for place in (0, 1):
                stream, branch = node.input(place), node.input(1 - place)
                if stream.shape == branch.shape and any(value is stream for value in _ancestors(branch)):
                    found.append(Branch(node.output.name, stream.name, place))
                    break
    return found


def _ancestors(value: Value) -> Iterator[Value]:
    """Everything that a value is computed from."""
    todo, seen = [value], set[int]()
    while todo:
        each = todo.pop()
        if each.producer is None or id(each) in seen:
            continue
        seen.add(id(each))
        for operand in each.producer.inputs:
            if operand is not None:
                yield operand
                todo.append(operand)
