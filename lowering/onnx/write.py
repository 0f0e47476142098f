"""From a float graph to an ONNX model: every node in its spelling, shared weights once, checked before it is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from ...ir.errors import InternalError, ModelError, UsageError
from ...ir.graph import Graph, Node, Value
from ..outline import Lack, Outline, form, idle, refuse, unknown
from .site import FormError, Site, Store, stored
from .spellings import SPELLINGS

__all__ = ["OPSET", "OPSETS", "check", "counted", "outline", "write"]

OPSETS = {20: 9, 21: 10, 22: 10, 23: 11}
"""Opsets that can be written, each with the IR version it came with. 23 has Attention and RMSNormalization."""

OPSET = 21
MOST_BYTES = 2**31 - 1
"""Of one protobuf message."""


@dataclass(frozen=True)
class Draft:
    """A model about to be made: its nodes and constants, and what has no spelling."""

    nodes: list[NodeProto]
    store: Store
    lacks: tuple[Lack, ...]


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
    made = draft(graph, opset)
    refuse("onnx", made.lacks)
    if made.store.nbytes > MOST_BYTES:
        raise ModelError("the weights are larger than 2 GiB", where=[graph.name], do="choose a smaller model")
    model = _model(graph, opset, made, made.store.tensors())
    check(model)
    return model


def outline(graph: Graph, opset: int = OPSET) -> Outline:
    """What `write` would write; the size is that of the file but for a few bytes a constant."""
    made = draft(graph, opset)
    size = _model(graph, opset, made, made.store.headings()).ByteSize() + made.store.nbytes
    return Outline(counted(made.nodes), size, lacks=made.lacks)


def counted(nodes: Iterable[NodeProto]) -> dict[str, int]:
    """How often each operator stands among them."""
    return dict(sorted(Counter(node.op_type for node in nodes).items()))


def draft(graph: Graph, opset: int) -> Draft:
    """Every node in its spelling.

    Raises:
        UsageError: The opset is not known.
    """
    if opset not in OPSETS:
        raise UsageError(f"ONNX of opset {opset} is not written", do=f"choose one of {', '.join(map(str, OPSETS))}")
    store = Store({value.name for value in _values(graph)}, frozenset(graph.outputs))
    nodes, lacks = _spelled(graph, opset, store)
    lacks += idle(value for value in graph.outputs if value.producer is None)
    return Draft(_live(nodes, graph), store, (*unknown(graph.nodes, SPELLINGS), *lacks))


def _model(graph: Graph, opset: int, made: Draft, tensors: list[TensorProto]) -> ModelProto:
    names = {name for node in made.nodes for name in node.output}
    values = [value for node in graph.nodes for value in node.outputs if value.name in names]
    inner = [_port(value, made.store.unsigned(value)) for value in values if value not in graph.outputs]
    inputs, outputs = [_port(value) for value in graph.inputs], [_port(value) for value in graph.outputs]
    model = helper.make_model(
        helper.make_graph(made.nodes, graph.name, inputs, outputs, tensors, value_info=inner),
        producer_name="edgesmith", ir_version=OPSETS[opset], opset_imports=[helper.make_opsetid("", opset)],
    )  # fmt: skip
    helper.set_model_props(model, dict(sorted(graph.metadata.items())))
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


def _spelled(graph: Graph, opset: int, store: Store) -> tuple[list[NodeProto], list[Lack]]:
    """All nodes in order, each with what it is read from before it; and the forms that have no spelling."""
    made: list[NodeProto] = []
    lacks: list[Lack] = []
    for node in graph.nodes:
        if type(node.op) not in SPELLINGS:
            continue
        if stored(node.outputs[0]) and not any(value is node.output for value in graph.outputs):
            continue
        site = Site(node, opset, store)
        try:
            result = SPELLINGS[type(node.op)](site, node.op)
        except FormError as error:
            lacks.append(form(node, error))
            continue
        _settle(site, (result,) if isinstance(result, str) else result)
        made += site.made
    return made, lacks


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
