"""What a legal graph is, checked after every pass: a broken promise is found where it was broken."""

from __future__ import annotations

from collections.abc import Iterator

from .errors import InternalError, ModelError
from .graph import Graph, Node, Value, infer
from .text import show_node


def verify(graph: Graph, after: str = "") -> None:
    """Check the graph against its own rules.

    Args:
        graph: The graph.
        after: What ran before, for the message.

    Raises:
        InternalError: All findings, each with the node it is about.
    """
    found = findings(graph)
    if found:
        when = f" after {after}" if after else ""
        raise InternalError(f"graph '{graph.name}' is not legal{when}:\n" + "\n".join(f"  - {text}" for text in found))


def findings(graph: Graph) -> list[str]:
    """Everything that is wrong with the graph, in words; empty when it is legal."""
    try:
        nodes = graph.nodes
    except ModelError as error:
        return [error.text().replace("\n", "; ")]
    values = [*graph.inputs, *graph.constants, *(v for node in nodes for v in node.outputs)]
    known = set(map(id, values))
    found = list(_names(graph, values))
    for node in nodes:
        found += [f"{text} in: {show_node(node)}" for text in (*_operands(node, known), *_types(node))]
    for value in values:
        found += _value(value, graph)
    found += [] if graph.outputs else ["the graph has no output"]
    found += [f"output '{v.name}' does not belong to the graph" for v in graph.outputs if id(v) not in known]
    return found


def _names(graph: Graph, values: list[Value]) -> Iterator[str]:
    owner: dict[str, Value] = {}
    for value in values:
        if owner.setdefault(value.name, value) is not value:
            yield f"two values are called '{value.name}'"
        try:
            listed = graph.value(value.name) is value
        except KeyError:
            listed = False
        if not listed:
            yield f"looking up '{value.name}' does not find the value of that name"


def _operands(node: Node, known: set[int]) -> Iterator[str]:
    for index, value in enumerate(node.inputs):
        if value is None:
            continue
        if id(value) not in known:
            yield f"operand {index} '{value.name}' does not belong to the graph"
        if (node, index) not in value.uses:
            yield f"operand {index} '{value.name}' does not know that it is read"
    for value in node.outputs:
        if value.producer is not node:
            yield f"'{value.name}' names another node as its producer"


def _types(node: Node) -> Iterator[str]:
    try:
        inferred = infer(node)
    except (ModelError, InternalError) as error:
        yield f"operands do not fit: {error.what}"
        return
    stated = tuple(value.type for value in node.outputs)
    if inferred != stated:
        yield f"the types are {stated}, inferred from the operands {inferred}"


def _value(value: Value, graph: Graph) -> Iterator[str]:
    for node, index in value.uses:
        if node not in graph:
            yield f"'{value.name}' is read by '{node.name}', which does not belong to the graph"
        elif index >= len(node.inputs) or node.inputs[index] is not value:
            yield f"'{value.name}' counts a read that does not happen in: {show_node(node)}"
    if value.data is not None and (value.data.shape, value.data.dtype.name) != (value.shape, value.dtype):
        yield f"constant '{value.name}' is {value.type}, its data {value.data.dtype.name}{value.data.shape}"


__all__ = ["findings", "verify"]
