"""Reading a file that may be broken or hostile: every doubt becomes a ModelError before anything is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, helper
from onnx.inliner import inline_local_functions

from ..ir.errors import ModelError
from ..ir.graph import Array
from .fences import check_nodes
from .model import Model, all_nodes, declare, label, reads
from .tensors import check_finite, decode

OLDEST_OPSET = 6
"""Operators of older opsets are read where they meant the same in this one."""

MOST_NODES = 100_000
DEEPEST_CALL = 100
"""Functions that call each other: ONNX's inliner goes down on its own stack."""
MOST_BYTES = 2**31 - 1
STANDARD = ("", "ai.onnx")
RUNTIME = "com.microsoft"
BORROWED = frozenset(
    {"LayerNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"}
)
"""ONNX Runtime's own operators that its optimiser writes into ONNX's domain, of whatever opset the model is."""


def read(path: Path) -> Model:
    """Read and check an ONNX file; local functions are inlined, weights and Constant nodes become arrays.

    Raises:
        ModelError: The file cannot be read or is no sound model.
    """
    proto = _parse(path)
    opset = _opset(proto, path)
    count = len(proto.graph.node)
    if count > MOST_NODES:
        raise ModelError(f"the model has {count} nodes", where=[str(path)], why=f"at most {MOST_NODES} nodes are read")
    if not proto.graph.output:
        raise ModelError("the model has no output", where=[str(path)], do="export it with at least one output")
    proto = _inline(proto, path)
    weights = _weights(proto.graph, path.parent)
    proto = _compact(proto)
    for opset_import in proto.opset_import:
        opset_import.domain = "" if opset_import.domain in STANDARD else opset_import.domain
    model = Model(path.stem, proto, weights, opset, path.parent)
    _lend(model)
    _order(model)
    _check(model, path)
    _lift_constants(model, path.parent)
    return model


def _parse(path: Path) -> ModelProto:
    if not path.is_file():
        raise ModelError(f"there is no file '{path}'", where=[str(path)], do="check the path")
    if path.stat().st_size > MOST_BYTES:
        raise ModelError(
            f"'{path.name}' is larger than 2 GiB", where=[str(path)], do="store the weights as external data"
        )
    again = "export the model again, or copy the file again in binary mode"
    proto = ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ModelError(f"'{path.name}' is not an ONNX model", where=[str(path)], why=str(error), do=again) from error
    except OSError as error:
        raise ModelError(f"'{path.name}' cannot be read", where=[str(path)], why=str(error)) from error
    if not proto.HasField("graph"):
        raise ModelError(f"'{path.name}' holds no graph", where=[str(path)], do=again)
    # Protobuf hands a text that is not UTF-8 over as bytes, whatever its type says.
    broken = [name for name in _names(proto) if not isinstance(name, str)]
    if broken:
        raise ModelError(f"'{path.name}' has names that are no text", where=[str(path)], why=repr(broken[0]), do=again)
    return proto


def _names(proto: ModelProto) -> Iterator[object]:
    graph = proto.graph
    for named in (*graph.input, *graph.output, *graph.initializer, *graph.value_info, *proto.functions):
        yield named.name
    for node in (*graph.node, *(node for function in proto.functions for node in function.node)):
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    yield from (each.domain for each in (*proto.opset_import, *proto.functions))


def _opset(proto: ModelProto, path: Path) -> int:
    versions = [each.version for each in proto.opset_import if each.domain in STANDARD]
    newest = onnx.defs.onnx_opset_version()
    if len(versions) != 1 or not (OLDEST_OPSET <= versions[0] or _timeless(proto, versions[0])) or versions[0] > newest:
        found = ", ".join(map(str, versions)) or "none"
        raise ModelError(
            f"the model's opset is {found}",
            where=[str(path)],
            why=f"opsets {OLDEST_OPSET} to {newest} are read",
            do=f"export with opset_version between {OLDEST_OPSET} and {newest}, or use onnx.version_converter",
        )
    version: int = versions[0]
    return max(OLDEST_OPSET, version)


def _timeless(proto: ModelProto, opset: int) -> bool:
    """Whether every operator of an old model is defined as in the oldest opset that is read."""
    if opset < 1 or proto.functions:
        return False
    for node in proto.graph.node:
        if node.domain in STANDARD:
            try:
                then, later = (onnx.defs.get_schema(node.op_type, v, "") for v in (opset, OLDEST_OPSET))
            except onnx.defs.SchemaError:
                return False
            if then.since_version != later.since_version:
                return False
    return True


def _lend(model: Model) -> None:
    """Move ONNX Runtime's own operators from ONNX's domain, where its checker does not know them, to theirs."""
    for node in model.graph.node:
        if node.op_type in BORROWED and node.domain in STANDARD and not onnx.defs.has(node.op_type, model.opset, ""):
            node.domain = RUNTIME
    used = any(node.domain == RUNTIME for node in model.graph.node)
    if used and not any(each.domain == RUNTIME for each in model.proto.opset_import):
        model.proto.opset_import.append(helper.make_opsetid(RUNTIME, 1))


def _order(model: Model) -> None:
    """Bring every node behind those that it reads, as ONNX demands and not every tool keeps to.

    Raises:
        ModelError: Some nodes read each other's results in a circle.
    """
    nodes = list(model.graph.node)
    makers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = {index: {makers[name] for name in reads(node) if name in makers} for index, node in enumerate(nodes)}
    if all(max(needed, default=-1) < index for index, needed in needs.items()):
        return
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        names = [label(nodes[index], index) for index in dict.fromkeys(error.args[1])]
        do = "export the model again; ONNX graphs must be acyclic"
        raise ModelError("the nodes of the model form a cycle", where=names, do=do) from error
    _keep(model.graph, "node", [nodes[index] for index in order])


def _inline(proto: ModelProto, path: Path) -> ModelProto:
    """Replace calls of local functions by their bodies, once it is sure that this ends, and how large it gets."""
    if not proto.functions:
        return proto
    own = {_called(function): function for function in proto.functions}
    calls = {name: Counter(_called(node) for node, _ in all_nodes(function)) for name, function in own.items()}
    try:
        order = list(
            TopologicalSorter({name: called.keys() & own.keys() for name, called in calls.items()}).static_order()
        )
    except CycleError as error:
        names = list(dict.fromkeys(name for _, name, _ in error.args[1]))
        what = f"the functions {', '.join(names)} call themselves"
        raise ModelError(what, where=names, do="export without functions") from error
    sizes: dict[tuple[str, str, str], int] = {}
    depths: dict[tuple[str, str, str], int] = {}
    for each in order:
        sizes[each] = min(sum(count * sizes.get(name, 1) for name, count in calls[each].items()), MOST_NODES + 1)
        depths[each] = 1 + max((depths[name] for name in calls[each] if name in depths), default=0)
    count = sum(sizes.get(_called(node), 1) for node, _ in all_nodes(proto.graph))
    if count > MOST_NODES or max(depths.values()) > DEEPEST_CALL:
        what = f"with its functions the model has more than {MOST_NODES} nodes, or calls deeper than {DEEPEST_CALL}"
        raise ModelError(what, where=[str(path)], do="export without functions")
    return inline_local_functions(proto)


def _called(node: NodeProto | FunctionProto) -> tuple[str, str, str]:
    """What a function is known by, or the function that a node calls."""
    name = node.op_type if isinstance(node, NodeProto) else node.name
    return node.domain, name, node.overload


def _weights(graph: GraphProto, folder: Path) -> dict[str, Array]:
    """Take the initialisers out of the graph; an input of the same name is only their default (IR version 3)."""
    if graph.sparse_initializer:
        names = [tensor.values.name for tensor in graph.sparse_initializer]
        raise ModelError("sparse weights are not read", where=names, do="export dense weights")
    weights: dict[str, Array] = {}
    for tensor in graph.initializer:
        if tensor.name in weights:
            raise ModelError(f"the weight '{tensor.name}' is there twice", where=[tensor.name])
        weights[tensor.name] = decode(tensor, folder)
    graph.ClearField("initializer")
    _keep(graph, "input", [each for each in graph.input if each.name not in weights])
    return weights


def _compact(proto: ModelProto) -> ModelProto:
    """A copy without what was taken out: protobuf frees the bytes of a field only with the whole message."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    return copy


def _keep(graph: GraphProto, field: str, kept: Iterable[object]) -> None:
    items = list(kept)
    graph.ClearField(field)
    getattr(graph, field).extend(items)


def _check(model: Model, path: Path) -> None:
    """Let ONNX judge the structure: names, order, attributes, operand counts."""
    check_nodes(model)
    for each in model.graph.input:
        if not each.type.tensor_type.HasField("shape"):
            raise ModelError(
                f"the input '{each.name}' has no declared rank", where=[each.name], do="export it with a shape"
            )
    try:
        onnx.checker.check_model(_structure(model))
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
        why = str(error).strip()
        raise ModelError(
            "ONNX's checker refuses the model", where=[str(path)], why=why, do="export it again"
        ) from error
    _check_outputs(model)


def _structure(model: Model) -> ModelProto:
    """The model as the checker takes it: it insists on shapes of outputs, which nobody needs.

    Operators of which a later version means something else count as deprecated; they are as good as others.
    """
    structure = ModelProto()
    structure.CopyFrom(model.proto)
    for each in structure.graph.output:
        each.type.tensor_type.shape.SetInParent()
    for node in structure.graph.node:
        if node.domain in STANDARD and onnx.defs.has(node.op_type, model.opset, ""):
            if onnx.defs.get_schema(node.op_type, model.opset, "").deprecated:
                node.domain = "deprecated"
    structure.opset_import.append(helper.make_opsetid("deprecated", 1))
    structure.graph.input.extend(declare(name, array) for name, array in model.weights.items())
    return structure


def _check_outputs(model: Model) -> None:
    counts = Counter(each.name for each in model.graph.output)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ModelError(f"'{twice[0]}' is an output of the model more than once", where=twice, do="export it again")
    written = {name for node in model.graph.node for name in node.output}
    known = {*written, *model.weights, *(each.name for each in model.graph.input)}
    lost = [name for name in counts if name not in known]
    if lost:
        raise ModelError(f"nothing computes the output '{lost[0]}'", where=lost, do="export it again")


def _lift_constants(model: Model, folder: Path) -> None:
    kept = []
    for index, node in enumerate(model.graph.node):
        if node.op_type == "Constant" and node.domain in STANDARD:
            model.weights[node.output[0]] = _constant(node, label(node, index), folder)
        else:
            kept.append(node)
    _keep(model.graph, "node", kept)


def _constant(node: NodeProto, name: str, folder: Path) -> Array:
    if len(node.attribute) != 1:
        raise ModelError(f"the constant '{name}' has no value, or several", where=[name], do="export the model again")
    attribute: AttributeProto = node.attribute[0]
    if attribute.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(attribute.t)
        tensor.name = node.output[0]
        return decode(tensor, folder)
    if attribute.name in ("value_float", "value_floats"):
        array = np.asarray(helper.get_attribute_value(attribute), np.float32)
        check_finite(name, array)
        return array
    if attribute.name in ("value_int", "value_ints"):
        return np.asarray(helper.get_attribute_value(attribute), np.int64)
    raise ModelError(f"the constant '{name}' holds no dense numbers", where=[name], do="export dense constants")
