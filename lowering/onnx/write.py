"""From a float graph to an ONNX model: every node in its spelling, shared weights once, checked before it is given."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from ...ir.errors import InternalError, ModelError, Unsupported, UsageError
from ...ir.graph import Graph, Node, Value
from .site import FormError, Site, Store, stored
from .spellings import SPELLINGS

__all__ = ["OPSET", "OPSETS", "check", "write"]

OPSETS = {20: 9, 21: 10, 22: 10, 23: 11}
"""Opsets that can be written, each with the IR version it came with. 23 has Attention and RMSNormalization."""

OPSET = 21
MOST_BYTES = 2**31 - 1
"""Of one protobuf message."""


def write(graph: Graph, opset: int = OPSET) -> ModelProto:
    """The graph as an ONNX model; the same graph gives the same bytes.

    Results keep their names, and so do constants, unless another layout of them is stored. The `doc_string` of a node
    holds the names of the ONNX nodes it came from, one a line.

    Args:
        graph: Float ops; it is not changed.
        opset: Version of ONNX's operators, one of `OPSETS`.

    Raises:
        Unsupported: Ops, or forms of them, without a spelling: all are named.
        UsageError: The opset is not known.
        ModelError: The weights are larger than a file of this kind may be.
    """
    if opset not in OPSETS:
        raise UsageError(f"ONNX of opset {opset} is not written", do=f"choose one of {', '.join(map(str, OPSETS))}")
    _require_known(graph)
    store = Store({value.name for value in _values(graph)}, frozenset(graph.outputs))
    nodes = _live(_spelled(graph, opset, store), graph)
    inputs, outputs = [_port(value) for value in graph.inputs], [_port(value) for value in graph.outputs]
    made = {name for node in nodes for name in node.output}
    values = [value for node in graph.nodes for value in node.outputs if value.name in made]
    inner = [_port(value, store.unsigned(value)) for value in values if value not in graph.outputs]
    if sum(len(tensor.raw_data) for tensor in store.tensors) > MOST_BYTES:
        raise ModelError("the weights are larger than 2 GiB", where=[graph.name], do="choose a smaller model")
    model = helper.make_model(
        helper.make_graph(nodes, graph.name, inputs, outputs, store.tensors, value_info=inner),
        producer_name="edgesmith", ir_version=OPSETS[opset], opset_imports=[helper.make_opsetid("", opset)],
    )  # fmt: skip
    helper.set_model_props(model, dict(sorted(graph.metadata.items())))
    check(model)
    return model


def check(model: ModelProto) -> None:
    """Hold a model we wrote against ONNX's own rules, and every shape it states against what ONNX infers.

    Raises:
        InternalError: It breaks them.
    """
    try:
        onnx.checker.check_model(model)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        what = "the model that was written is no sound ONNX"
        raise InternalError(what, where=[model.graph.name], why=str(error)) from error


def _values(graph: Graph) -> list[Value]:
    return [*graph.inputs, *graph.constants, *(value for node in graph.nodes for value in node.outputs)]


def _require_known(graph: Graph) -> None:
    unknown = [node for node in graph.nodes if type(node.op) not in SPELLINGS]
    if unknown:
        kinds = sorted({type(node.op).__name__ for node in unknown})
        where = [source for node in unknown for source in node.sources or (node.name,)]
        raise Unsupported(f"onnx: no spelling for {', '.join(kinds)}", where=where, do="give a graph of float ops")


def _spelled(graph: Graph, opset: int, store: Store) -> list[NodeProto]:
    """All nodes in order, each with what it is read from before it."""
    made: list[NodeProto] = []
    refused: dict[str, str] = {}
    for node in graph.nodes:
        if stored(node.outputs[0]) and not any(value is node.output for value in graph.outputs):
            continue
        site = Site(node, opset, store)
        try:
            result = SPELLINGS[type(node.op)](site, node.op)
        except FormError as error:
            refused[node.name] = f"{type(node.op).__name__} '{node.name}': {error}"
            continue
        _settle(site, (result,) if isinstance(result, str) else result)
        made += site.made
    if refused:
        where = [source for node in graph.nodes if node.name in refused for source in node.sources or (node.name,)]
        raise Unsupported("onnx: forms of ops without a spelling", where=where, why="; ".join(refused.values()))
    for value in graph.outputs:
        if value.producer is None:
            raise Unsupported(f"output '{value.name}' is not computed", where=[value.name], do="remove this output")
    return made


def _live(nodes: list[NodeProto], graph: Graph) -> list[NodeProto]:
    """Those that something depends on: spellings may pass over what another of our nodes made."""
    needed, live = {value.name for value in graph.outputs}, list[NodeProto]()
    for node in reversed(nodes):
        if any(name in needed for name in node.output):
            needed.update(node.input)
            live.append(node)
    return live[::-1]


def _settle(site: Site, results: tuple[str, ...]) -> None:
    """Give the results the names of ours, and every node its origin."""
    node: Node = site.node
    names = dict(zip(results, (value.name for value in node.outputs), strict=True))
    for each in site.made:
        each.doc_string = "\n".join(node.sources)
        each.name = names.get(each.name, each.name)
        for field in (each.input, each.output):
            field[:] = [names.get(name, name) for name in field]


def _port(value: Value, unsigned: bool = False) -> ValueInfoProto:
    dtype = np.dtype("uint8") if unsigned else value.type.numpy
    return helper.make_tensor_value_info(value.name, helper.np_dtype_to_tensor_dtype(dtype), value.shape)
