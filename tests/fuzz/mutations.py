"""Ways to spoil an ONNX model: its bytes, its fields, its texts, its edges; every draw comes from a `Random`.

A mutation takes a model's bytes and returns others. What it draws decides all, so a seed repeats it, and a strategy of
hypothesis that poses as a `Random` can shrink it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper

from edgesmith.frontend import rules  # noqa: F401  (importing the families fills the table)
from edgesmith.frontend.call import RULES

INTEGERS = (
    -(2**63), -(2**31) - 1, -(2**31), -256, -3, -2, -1, 0, 1, 2, 3, 4, 5, 7, 8, 16, 127, 255, 1000, 65536,
    2**20, 2**28, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1,
)  # fmt: skip
REALS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-30, 1e30, 3.4e38, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "?", "a", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", "linear", "cubic", "reflect", "\x00", "é")
KINDS = sorted({name for name in RULES if "." not in name} | {"If", "Loop", "Scan", "LSTM", "Constant", "Shape"})
ATTRIBUTES = sorted({name for schema in onnx.defs.get_all_schemas() for name in schema.attributes})
MOST = 6
"""Mutations of one model: more of them only break it sooner."""

Field = tuple[Message, FieldDescriptor]


def mutated(content: bytes, draw: Random) -> bytes:
    """A model after one mutation or a few."""
    for _ in range(draw.choice([1, 1, 1, 2, 2, 3, MOST])):
        change = draw.choices([spoil_bytes, *STRUCTURAL], [1, *[2] * len(STRUCTURAL)])[0]
        if change is spoil_bytes:
            content = spoil_bytes(content, draw)
            continue
        model = ModelProto()
        try:
            model.ParseFromString(content)
            if model.graph.node:
                change(model, draw)
            content = model.SerializeToString()
        except (DecodeError, TypeError, ValueError):
            return content  # bytes that are no model any more, or texts that protobuf does not write
    return content


def spoil_bytes(content: bytes, draw: Random) -> bytes:
    """Flip, drop, double or replace a few bytes."""
    data = bytearray(content)
    if not data:
        return content
    start = draw.randrange(len(data))
    length = draw.choice([1, 1, 1, 2, 4, 8, 64])
    change = draw.choice(["flip", "drop", "double", "value", "cut"])
    if change == "flip":
        data[start] ^= 1 << draw.randrange(8)
    elif change == "drop":
        del data[start : start + length]
    elif change == "double":
        data[start:start] = data[start : start + length]
    elif change == "value":
        number = struct.pack("<q", draw.choice(INTEGERS))
        data[start : start + 8] = number
    else:
        del data[start:]
    return bytes(data)


def spoil_field(model: ModelProto, draw: Random) -> None:
    """Give any field of any message in the model another value, or take it away."""
    message, field = draw.choice(list(_fields(model)))
    if field.is_repeated:
        items = list(getattr(message, field.name))
        _spoil_list(items, field, draw)
        message.ClearField(field.name)
        getattr(message, field.name).extend(items)
    elif field.type == FieldDescriptor.TYPE_MESSAGE or draw.random() < 0.15:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(field, getattr(message, field.name), draw))


def _spoil_list(items: list[Any], field: FieldDescriptor, draw: Random) -> None:
    place = draw.randrange(len(items))
    change = draw.choice(["drop", "double", "swap", "value", "value", "value"])
    if change == "drop":
        del items[place]
    elif change == "double":
        items.insert(place, items[place])
    elif change == "swap":
        other = draw.randrange(len(items))
        items[place], items[other] = items[other], items[place]
    elif field.type != FieldDescriptor.TYPE_MESSAGE:
        items[place] = _scalar(field, items[place], draw)


def _scalar(field: FieldDescriptor, old: Any, draw: Random) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return draw.choice(TEXTS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return spoil_bytes(old, draw) if draw.random() < 0.7 else draw.choice(TEXTS).encode()
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return draw.choice(REALS)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return draw.randrange(30)
    number = old + draw.choice([-1, 1]) if draw.random() < 0.4 else draw.choice(INTEGERS)
    bits = 32 if field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_UINT32) else 64
    if field.type in (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64):
        return number % 2**bits
    return (number + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def _fields(message: Message) -> Iterator[Field]:
    """All fields that are set, in all messages, the large arrays' numbers aside."""
    for field, value in message.ListFields():
        yield message, field
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for each in value if field.is_repeated else [value]:
                yield from _fields(each)


def join_edges(model: ModelProto, draw: Random) -> None:
    """Let a node read or write another tensor of the model."""
    node = draw.choice(model.graph.node)
    ends = draw.choice([node.input, node.input, node.input, node.output])
    names = [name for each in model.graph.node for name in (*each.input, *each.output)]
    names += [each.name for each in (*model.graph.initializer, *model.graph.input)] + [""]
    if len(ends) and draw.random() < 0.8:
        ends[draw.randrange(len(ends))] = draw.choice(names)
    else:
        ends.append(draw.choice(names))


def swap_operator(model: ModelProto, draw: Random) -> None:
    """Make a node of another kind."""
    draw.choice(model.graph.node).op_type = draw.choice(KINDS)


def set_attribute(model: ModelProto, draw: Random) -> None:
    """Give a node an attribute, mostly one that its operator knows, of a type that may be wrong."""
    node = draw.choice(model.graph.node)
    try:
        known = sorted(onnx.defs.get_schema(node.op_type, onnx.defs.onnx_opset_version(), node.domain).attributes)
    except onnx.defs.SchemaError:
        known = []
    name = draw.choice(known) if known and draw.random() < 0.8 else draw.choice(ATTRIBUTES)
    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, attribute(name, draw)])


def attribute(name: str, draw: Random, kind: int | None = None) -> AttributeProto:
    """An attribute of any value, of the type asked for or of any."""
    made = AttributeProto(name=name, type=kind or draw.choice([1, 2, 3, 4, 6, 7, 8]))
    few = range(draw.choice([0, 1, 2, 2, 3, 4, 8]))
    small = (-2, -1, 0, 0, 1, 1, 1, 2, 2, 3)
    integers = small if draw.random() < 0.8 else INTEGERS
    if made.type == AttributeProto.FLOAT:
        made.f = draw.choice(REALS)
    elif made.type == AttributeProto.INT:
        made.i = draw.choice(integers)
    elif made.type == AttributeProto.STRING:
        made.s = draw.choice(TEXTS).encode()
    elif made.type == AttributeProto.TENSOR:
        made.t.CopyFrom(numpy_helper.from_array(_array(draw)))
    elif made.type == AttributeProto.FLOATS:
        made.floats.extend(draw.choice(REALS) for _ in few)
    elif made.type == AttributeProto.INTS:
        made.ints.extend(draw.choice(integers) for _ in few)
    elif made.type == AttributeProto.STRINGS:
        made.strings.extend(draw.choice(TEXTS).encode() for _ in few)
    return made


def _array(draw: Random) -> Any:
    shape = [draw.choice([0, 1, 1, 2, 3]) for _ in range(draw.choice([0, 1, 1, 2, 4]))]
    numbers = np.full(shape, draw.choice([-1, 0, 1, 2, 100]))
    return numbers.astype(draw.choice(["float32", "int64", "int32", "bool", "uint8"]))


def reshape_tensor(model: ModelProto, draw: Random) -> None:
    """Give an input or a weight other sizes: a weight keeps its bytes, or gets as many as it now needs."""
    tensors = list(model.graph.initializer)
    if tensors and draw.random() < 0.6:
        tensor = draw.choice(tensors)
        _resize(tensor.dims, draw)
        count = math.prod(tensor.dims)
        if draw.random() < 0.8 and 0 <= count <= 4096 and tensor.data_type == TensorProto.FLOAT:
            tensor.ClearField("float_data")
            tensor.raw_data = struct.pack("<f", 0.5) * count
        return
    ports = [each for each in model.graph.input if each.type.HasField("tensor_type")]
    if ports:
        shape = draw.choice(ports).type.tensor_type.shape
        sizes = [each.dim_value for each in shape.dim]
        _resize(sizes, draw)
        del shape.dim[:]
        for size in sizes:
            shape.dim.add(dim_value=size)


def _resize(sizes: Any, draw: Random) -> None:
    change = draw.choice(["value", "value", "value", "drop", "add"])
    if change == "add" or not len(sizes):
        sizes.insert(draw.randrange(len(sizes) + 1), draw.choice([0, 1, 1, 2, 3]))
    elif change == "drop":
        del sizes[draw.randrange(len(sizes))]
    else:
        sizes[draw.randrange(len(sizes))] = draw.choice([0, 1, 1, 2, 3, 5, 8, 64, *INTEGERS])


def change_opset(model: ModelProto, draw: Random) -> None:
    """Claim another version of the operators."""
    for each in model.opset_import:
        each.version = draw.randrange(9, onnx.defs.onnx_opset_version() + 2)


def insert_node(model: ModelProto, draw: Random) -> None:
    """Put a node, alike or of any kind, between a tensor and its readers."""
    nodes = list(model.graph.node)
    place = draw.randrange(len(nodes))
    if not nodes[place].output:
        return
    name = draw.choice(nodes[place].output)
    twin = NodeProto(op_type=draw.choice([nodes[place].op_type, *KINDS]), input=[name], output=[f"{name}_again"])
    twin.attribute.extend(nodes[place].attribute)
    for each in nodes[place + 1 :]:
        for index, read in enumerate(each.input):
            if read == name:
                each.input[index] = twin.output[0]
    del model.graph.node[:]
    model.graph.node.extend([*nodes[: place + 1], twin, *nodes[place + 1 :]])


STRUCTURAL: list[Callable[[ModelProto, Random], None]] = [
    spoil_field, spoil_field, join_edges, swap_operator, set_attribute, set_attribute, reshape_tensor, reshape_tensor,
    change_opset, insert_node,
]  # fmt: skip
