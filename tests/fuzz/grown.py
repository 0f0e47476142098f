"""ONNX models out of nothing: a few nodes of any operator over small tensors, valid by the schemas or nearly so."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import onnx
from mutations import KINDS, attribute
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

DTYPES = (TensorProto.FLOAT,) * 8 + (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.UINT8)
SIZES = (0, 1, 1, 2, 3, 4, 4, 4, 8)
NUMBERS = (-1, 0, 1, 1, 2, 3, 4)


def grown(draw: Random) -> bytes:
    """A model of one to six nodes, each of which reads what came before or a weight of its own."""
    opset = draw.randrange(11, onnx.defs.onnx_opset_version() + 1)
    shape = [draw.choice(SIZES) for _ in range(draw.choice([0, 1, 2, 3, 3, 4, 4, 4, 5]))]
    inputs = [
        helper.make_tensor_value_info(f"x{i}", draw.choice(DTYPES), shape if draw.random() < 0.7 else shape[1:])
        for i in range(draw.choice([1, 1, 2]))
    ]
    names, weights, nodes = [each.name for each in inputs], [], []
    for index in range(draw.choice([1, 1, 2, 3, 6])):
        node, fresh = _node(f"n{index}", names, opset, draw)
        nodes.append(node)
        weights += fresh
        names += list(node.output)
    ends = [name for name in names if draw.random() < 0.4 or name == names[-1]]
    outputs = [onnx.ValueInfoProto(name=name, type=helper.make_tensor_type_proto(1, None)) for name in ends]
    graph = helper.make_graph(nodes, "grown", inputs, outputs, weights)
    made: ModelProto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])
    return made.SerializeToString()


def _node(name: str, names: list[str], opset: int, draw: Random) -> tuple[NodeProto, list[TensorProto]]:
    kind = draw.choice(KINDS)
    weights: list[TensorProto] = []
    try:
        schema = onnx.defs.get_schema(kind, opset)
    except onnx.defs.SchemaError:
        return helper.make_node("Relu", [draw.choice(names)], [name], name), weights
    most = min(schema.max_input, max(schema.min_input, 5))
    operands = []
    for index in range(draw.randint(schema.min_input, most)):
        if index == 0 or draw.random() < 0.3:
            operands.append(draw.choice(names))
        elif draw.random() < 0.1:
            operands.append("")
        else:
            weights.append(_weight(f"{name}.w{index}", draw))
            operands.append(weights[-1].name)
    results = [f"{name}.{i}" for i in range(draw.randint(schema.min_output, min(schema.max_output, 3)))]
    node = helper.make_node(kind, operands, results, name)
    for key, each in schema.attributes.items():
        if (each.required or draw.random() < 0.3) and each.type.value in (1, 2, 3, 4, 6, 7, 8):
            node.attribute.append(attribute(key, draw, each.type.value))
    return node, weights


def _weight(name: str, draw: Random) -> TensorProto:
    shape = [draw.choice(SIZES) for _ in range(draw.choice([0, 0, 1, 1, 2, 4]))]
    kind = helper.tensor_dtype_to_np_dtype(draw.choice(DTYPES) if draw.random() < 0.6 else TensorProto.INT64)
    numbers = [draw.choice(NUMBERS) for _ in range(math.prod(shape))]
    return numpy_helper.from_array(np.array(numbers, np.int64).astype(kind).reshape(shape), name)
