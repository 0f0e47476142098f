"""A model in memory: the ONNX nodes without their weights, and the weights as arrays by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from ..ir.graph import Array

SMALL = 1024
"""Weights of so few elements stay visible to shape inference: they may be shapes, axes, sizes."""


@dataclass
class Model:
    """What the reader hands on.

    Attributes:
        name: For messages and as the graph's name.
        proto: Nodes, inputs and outputs; no initialisers.
        weights: The constants, float or integer, by tensor name.
        opset: Version of the default domain.
        folder: Where data files of weights lie.
    """

    name: str
    proto: ModelProto
    weights: dict[str, Array]
    opset: int
    folder: Path = Path()

    @property
    def graph(self) -> GraphProto:
        """The only graph."""
        return self.proto.graph

    def skeleton(self) -> ModelProto:
        """A light copy that tools of ONNX accept: large weights are declared as inputs."""
        copy = ModelProto()
        copy.CopyFrom(self.proto)
        for name, array in self.weights.items():
            if array.size <= SMALL:
                copy.graph.initializer.append(numpy_helper.from_array(array, name))
            else:
                copy.graph.input.append(declare(name, array))
        return copy

    def complete(self) -> ModelProto:
        """A self-contained ONNX model with all weights inside."""
        copy = ModelProto()
        copy.CopyFrom(self.proto)
        copy.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in self.weights.items())
        return copy


def declare(name: str, array: Array) -> ValueInfoProto:
    """The ONNX declaration of an array."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def dtype_of(element: int) -> str:
    """The numpy name of an ONNX element type; types that numpy lacks keep ONNX's name in lower case."""
    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(element)).name if element != TensorProto.STRING else "string"
    except KeyError:
        return "undefined"


def label(node: NodeProto, index: int) -> str:
    """A node's name for messages and sources; one is made up where the file has none."""
    return node.name or f"{node.op_type}_{index}"


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs inside a node: branches, and what loops repeat."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g


def all_nodes(graph: GraphProto | FunctionProto) -> Iterator[tuple[NodeProto, str]]:
    """Nodes with their names, those of branches and loops included."""
    for index, node in enumerate(graph.node):
        yield node, label(node, index)
        for body in bodies(node):
            yield from all_nodes(body)


def own_names(body: GraphProto) -> set[str]:
    """Names of the tensors that a body declares or makes itself."""
    declared = {each.name for each in (*body.input, *body.initializer)}
    return declared | {name for node in body.node for name in node.output if name}


def reads(node: NodeProto) -> Iterator[str]:
    """Names of the tensors that a node reads, those included that its bodies take from around them."""
    yield from (name for name in node.input if name)
    for body in bodies(node):
        own = own_names(body)
        inner = (name for each in body.node for name in reads(each))
        yield from (name for name in (*inner, *(each.name for each in body.output)) if name not in own)
