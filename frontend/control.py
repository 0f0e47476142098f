"""Control flow whose course is known becomes plain nodes: one branch of an If, the rounds of a Loop in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import GraphProto, NodeProto, helper

from ..ir.errors import ModelError, Unsupported
from ..ir.graph import Array
from .model import Model, bodies, label, own_names
from .tensors import decode

MOST_NODES = 20_000
"""Nodes of one Loop that is written out."""

INNER_LOOP = 100
"""Nodes that a loop in a loop counts for, as nobody knows its rounds yet."""

MOST_IN_ALL = 100_000
"""Nodes of the model then: loops in loops multiply."""


def straighten(model: Model) -> bool:
    """Replace every If with a constant condition and every Loop with a constant number of rounds, in place.

    Returns:
        Whether there was one.

    Raises:
        Unsupported: A loop is too long.
    """
    nodes: list[NodeProto] = []
    changed = False
    for index, node in enumerate(model.graph.node):
        course = COURSES.get(node.op_type) if not node.domain else None
        found = course(model, node, label(node, index)) if course else None
        changed = changed or found is not None
        nodes += [node] if found is None else found
        if found is not None and len(nodes) > MOST_IN_ALL:
            what = f"with its loops written out the model has more than {MOST_IN_ALL} nodes"
            raise Unsupported(what, where=[label(node, index)], do="export with shorter sequences")
    if changed:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return changed


def _branch(model: Model, node: NodeProto, name: str) -> list[NodeProto] | None:
    """The nodes of the branch that is taken, if that is known."""
    condition = model.weights.get(node.input[0])
    if condition is None:
        return None
    wanted = "then_branch" if condition.any() else "else_branch"
    body = next(each.g for each in node.attribute if each.name == wanted)
    nodes, results = _placed(model, body, name, {}, _weights(model, body))
    return [*nodes, *_handed_over(results, node.output)]


def _rounds(model: Model, node: NodeProto, name: str) -> list[NodeProto] | None:
    """The nodes of all rounds, if their number is known and nothing that is computed ends them."""
    count, start = (model.weights.get(each) for each in node.input[:2])
    (body,) = bodies(node)
    _check_ports(node, body, count, name)
    stopped = start is not None and not start.any()
    if not stopped and (count is None or (node.input[1] and start is None) or not _goes_on(model, body)):
        return None
    rounds = 0 if stopped or count is None else max(0, int(count.reshape(())))
    carried = list(node.input[2:])
    collected = len(body.output) - 1 - len(carried)
    if collected and not rounds:
        return None
    if rounds * (size := _size(body)) > MOST_NODES:
        what = f"the Loop '{name}' has {rounds} rounds of {size} nodes"
        why = f"loops are written out, up to {MOST_NODES} nodes"
        raise Unsupported(what, where=[name], why=why, do="export with a shorter sequence")
    weights = _weights(model, body)
    nodes: list[NodeProto] = []
    pieces: list[list[str]] = [[] for _ in range(collected)]
    for number in range(rounds):
        prefix = f"{name}.{number}"
        ports = {"number": np.asarray(number, np.int64), "goes_on": np.asarray(True)}
        model.weights.update({f"{prefix}.{port}": array for port, array in ports.items()})
        given = [*(f"{prefix}.{port}" for port in ports), *carried]
        bound = dict(zip((each.name for each in body.input), given, strict=True))
        inner, results = _placed(model, body, prefix, bound, weights)
        nodes += inner
        carried = results[1 : 1 + len(carried)]
        for piece, result in zip(pieces, results[1 + len(carried) :], strict=True):
            piece.append(result)
    kept = len(carried)
    nodes += _handed_over(carried, node.output[:kept])
    for piece, output in zip(pieces, node.output[kept:], strict=True):
        nodes += _stacked(model, piece, output)
    return nodes


def _size(body: GraphProto) -> int:
    """Nodes of a round, one at least."""
    inner = sum(_size(each) for node in body.node for each in bodies(node))
    loops = len([node for node in body.node if node.op_type == "Loop"])
    return max(1, len(body.node) + inner + INNER_LOOP * loops)


def _check_ports(node: NodeProto, body: GraphProto, count: Array | None, name: str) -> None:
    """What ONNX's checker does not ask of a loop."""
    carried = len(node.input) - 2
    sound = len(body.input) == 2 + carried and len(body.output) == 1 + len(node.output) >= 1 + carried
    if not sound or (count is not None and count.size != 1):
        what = f"the Loop '{name}' has {len(node.input)} inputs and {len(node.output)} outputs, its body"
        what = f"{what} {len(body.input)} and {len(body.output)}"
        raise ModelError(what, where=[name], do="export the model again")


COURSES = {"If": _branch, "Loop": _rounds}


def _goes_on(model: Model, body: GraphProto) -> bool:
    """Whether the condition after a round is that before it, or true."""
    makers = {output: node for node in body.node for output in node.output}
    name = body.output[0].name
    while name in makers and makers[name].op_type in ("Identity", "Cast"):
        name = makers[name].input[0]
    if name == body.input[1].name:
        return True
    if name not in own_names(body):
        return name in model.weights and bool(model.weights[name].all())
    tensors = [each for each in body.initializer if each.name == name]
    tensors += [each.t for each in makers[name].attribute if each.name == "value"] if name in makers else []
    return any(decode(tensor, model.folder).all() for tensor in tensors)


def _weights(model: Model, body: GraphProto) -> dict[str, Array]:
    """A body's weights, which all its rounds share."""
    return {tensor.name: decode(tensor, model.folder) for tensor in body.initializer}


def _placed(
    model: Model, body: GraphProto, prefix: str, given: Mapping[str, str], weights: Mapping[str, Array]
) -> tuple[list[NodeProto], list[str]]:
    """A body's nodes under names of their own, its inputs replaced by `given`, and the names of its results."""
    names = {each: f"{prefix}/{each}" for each in own_names(body)} | dict(given)
    model.weights.update({names[name]: array for name, array in weights.items()})
    nodes = []
    for index, node in enumerate(body.node):
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{prefix}/{label(node, index)}"
        _rename(copy, names)
        nodes.append(copy)
    return nodes, [names.get(each.name, each.name) for each in body.output]


def _rename(node: NodeProto, names: Mapping[str, str]) -> None:
    """Give a node's tensors other names; what its bodies take from around them is renamed as well."""
    for field in (node.input, node.output):
        for index, name in enumerate(field):
            field[index] = names.get(name, name)
    for body in bodies(node):
        own = own_names(body)
        seen = {old: new for old, new in names.items() if old not in own}
        for inner in body.node:
            _rename(inner, seen)
        for output in body.output:
            output.name = seen.get(output.name, output.name)


def _handed_over(results: Sequence[str], outputs: Sequence[str]) -> list[NodeProto]:
    """Results under the names by which others know them."""
    pairs = zip(results, outputs, strict=True)
    return [helper.make_node("Identity", [result], [output]) for result, output in pairs if output]


def _stacked(model: Model, pieces: Sequence[str], output: str) -> list[NodeProto]:
    """The results of all rounds along a new first axis."""
    if not output:
        return []
    axis = f"{output}.axis"
    nodes = []
    for piece in pieces:
        if model.opset >= 13:
            model.weights[axis] = np.asarray([0], np.int64)
            nodes.append(helper.make_node("Unsqueeze", [piece, axis], [f"{piece}.row"]))
        else:
            nodes.append(helper.make_node("Unsqueeze", [piece], [f"{piece}.row"], axes=[0]))
    return [*nodes, helper.make_node("Concat", [f"{piece}.row" for piece in pieces], [output], axis=0)]
