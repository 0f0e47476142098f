"""A model in memory: the ONNX nodes without their weights, and the weights as arrays by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

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
    """

    name: str
    proto: ModelProto
    weights: dict[str, Array]
    opset: int

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
