"""What is known of a model's inputs beside their declarations: values that never change, sizes of samples, pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto, ValueInfoProto

from ..ir.errors import UsageError
from ..ir.graph import Array
from .model import Model, dtype_of, reads
from .shapes import Dimension, declared

MOVES = frozenset({"Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that take numbers of any type and make no new ones."""


def fix(model: Model, values: Mapping[str, Any]) -> None:
    """Turn inputs into constants: a number, or an array of the input's shape.

    Raises:
        UsageError: There is no such input, or its shape is another.
    """
    inputs = {each.name: each for each in model.graph.input}
    for name, value in values.items():
        if name not in inputs:
            raise UsageError(f"the model has no input '{name}'", do=f"its inputs are: {', '.join(inputs)}")
        sizes = declared(inputs[name])
        array = np.asarray(value, dtype_of(inputs[name].type.tensor_type.elem_type))
        if not array.shape and all(isinstance(size, int) for size in sizes):
            array = np.full([int(size) for size in sizes], array)
        if not _fits(array.shape, sizes):
            has, given = "x".join(map(str, sizes)) or "a number", "x".join(map(str, array.shape)) or "a number"
            raise UsageError(f"a value of {given} does not fit the input '{name}', which is {has}", where=[name])
        model.weights[name] = array
        model.graph.input.remove(inputs[name])


def _fits(shape: tuple[int, ...], sizes: tuple[Dimension, ...]) -> bool:
    return len(shape) == len(sizes) and all(
        isinstance(size, str) or size == given for size, given in zip(sizes, shape, strict=True)
    )


def sizes_of(model: Model, sample: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs whose sizes are open, as samples have them; the first axis of a sample counts samples.

    An array belongs to the input of its name, or to the only input. What fits no input says nothing.
    """
    inputs = {each.name: declared(each) for each in model.graph.input}
    if len(inputs) == 1 and len(sample) == 1:
        sample = dict(zip(inputs, sample.values(), strict=True))
    found = {}
    for name, sizes in inputs.items():
        if name in sample and any(isinstance(size, str) for size in sizes[1:]):
            forms = (shape for shape in _forms(sample[name], sizes) if _fits(shape, sizes))
            shape = next(forms, None)
            found.update({name: shape} if shape is not None else {})
    return found


def _forms(array: Array, sizes: tuple[Dimension, ...]) -> list[tuple[int, ...]]:
    """The shapes of one batch that an array may hold: as it lies, as one sample, with its channels last."""
    batch = sizes[0] if isinstance(sizes[0], int) else 1
    shapes = [array.shape[1:], array.shape]
    if len(sizes) == 4:  # bytes are pixels, which mostly come with their channels last or without
        shapes += [(each[-1], *each[:-1]) for each in shapes if len(each) == 3] if array.dtype == np.uint8 else []
        shapes += [(1, *each) for each in (array.shape[1:], array.shape) if len(each) == 2]
    return [(batch, *each) for each in shapes]


def read_pixels_as_reals(model: Model) -> None:
    """Let inputs of bytes that are only moved before they become real numbers be real numbers from the start.

    The metadata then says that a pixel is taken as it is, unless it says something else.
    """
    for each in model.graph.input:
        if each.type.tensor_type.elem_type == TensorProto.UINT8 and _becomes_real(model, each):
            each.type.tensor_type.elem_type = TensorProto.FLOAT
            told = {entry.key for entry in model.proto.metadata_props}
            for key, number in (("edgesmith.mean", 0.0), ("edgesmith.std", 1 / 255)):
                if key not in told:
                    model.proto.metadata_props.add(key=key, value=repr(number))


def _becomes_real(model: Model, given: ValueInfoProto) -> bool:
    """Whether all that is read of an input is cast to float32, after moves at most."""
    moved, cast = {given.name}, False
    for node in model.graph.node:
        if moved.isdisjoint(reads(node)):
            continue
        target = next((each.i for each in node.attribute if each.name == "to"), None)
        if node.op_type == "Cast" and target == TensorProto.FLOAT:
            cast = True
        elif node.op_type in MOVES and node.input[0] in moved:
            moved.add(node.output[0])
        else:
            return False
    return cast and moved.isdisjoint(each.name for each in model.graph.output)
