"""Static shapes: symbolic input dimensions are bound, and ONNX's inference carries them through the graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import onnx
from onnx import ModelProto, ValueInfoProto, helper

from ..ir.errors import ModelError, UsageError
from ..ir.graph import Type
from .call import LARGEST
from .model import Model, all_nodes, dtype_of

Dimension = int | str
"""A size, or the symbol the file has in its place ("?" for none)."""

LONGEST = 2**20
"""Elements of a vector up to which ONNX may ask what shape it might be: it takes about 140 bytes for each."""

DTYPES = ("float32", "int8", "uint8", "int32", "int64", "bool")
"""Element types of inputs."""


def bind(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Give every input a static shape; a symbolic batch (axis 0) is 1 unless told otherwise.

    Raises:
        UsageError: A given shape contradicts the file.
        ModelError: A dimension is open, or an input is no float32 tensor.
    """
    inputs = {each.name: each for each in model.graph.input}
    for name in shapes:
        if name not in inputs:
            raise UsageError(f"the model has no input '{name}'", do=f"its inputs are: {', '.join(inputs)}")
    stated = {name: declared(each) for name, each in inputs.items()}
    symbols: dict[str, int] = {}
    for name, given in shapes.items():
        _agree(name, stated[name], given, symbols)
    open_ones = []
    for name, dimensions in stated.items():
        shape = shapes.get(name) or tuple(_size(d, axis, symbols, stated) for axis, d in enumerate(dimensions))
        if max(math.prod(shape), *shape, 0) > LARGEST:
            what = f"the input '{name}' has the impossible size {'x'.join(map(str, shape))}"
            raise ModelError(what, where=[name], do="export the model with smaller shapes")
        if -1 in shape:
            open_ones.append((name, dimensions))
        _set_shape(inputs[name], shape)
    if open_ones:
        _ask(open_ones)
    for output in model.graph.output:
        if output.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE:
            do = "export the model with a float32 output"
            raise ModelError(f"the output '{output.name}' is of type float64", where=[output.name], do=do)
    # What the exporter noted down was for its own example shapes.
    model.graph.ClearField("value_info")
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")


def infer(model: Model) -> dict[str, Type]:
    """The type of every tensor whose shape ONNX can tell, constants' values taken into account."""
    sketch = _sketch(model)
    sizes = (each.type.tensor_type.shape.dim for each in sketch.graph.input)
    values = all(len(dimensions) != 1 or dimensions[0].dim_value <= LONGEST for dimensions in sizes)
    try:
        inferred = onnx.shape_inference.infer_shapes(sketch, check_type=True, data_prop=values)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise ModelError(
            "operands do not fit their operators", why=str(error).strip(), do="export the model again"
        ) from error
    types = {name: Type(array.dtype.name, array.shape) for name, array in model.weights.items()}
    for each in [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]:
        tensor = each.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            types[each.name] = Type(dtype_of(tensor.elem_type), tuple(d.dim_value for d in tensor.shape.dim))
    return types


def _sketch(model: Model) -> ModelProto:
    """The model as ONNX's inference takes it: EyeLike of what has no known type would end the process.

    Casts have the same types.
    """
    sketch = model.skeleton()
    for node, _ in all_nodes(sketch.graph):
        if node.op_type == "EyeLike":
            dtypes = [attribute.i for attribute in node.attribute if attribute.name == "dtype"]
            node.op_type = "Cast" if dtypes else "Identity"
            node.ClearField("attribute")
            node.attribute.extend(helper.make_attribute("to", dtype) for dtype in dtypes)
    return sketch


def declared(each: ValueInfoProto) -> tuple[Dimension, ...]:
    """The sizes of an input as the file has them.

    Raises:
        ModelError: It is no tensor of a type that inputs have.
    """
    dtype = dtype_of(each.type.tensor_type.elem_type) if each.type.HasField("tensor_type") else "no tensor"
    if dtype not in DTYPES:
        raise ModelError(
            f"the input '{each.name}' is of type {dtype}", where=[each.name],
            why=f"inputs are {', '.join(DTYPES)}", do="export the model with a float32 input",
        )  # fmt: skip
    return tuple(_dimension(d) for d in each.type.tensor_type.shape.dim)


def _dimension(d: Any) -> Dimension:
    """A stated size, 0 included; exporters also write -1 for a size they do not know."""
    return int(d.dim_value) if d.HasField("dim_value") and d.dim_value >= 0 else d.dim_param or "?"


def _agree(name: str, dimensions: tuple[Dimension, ...], given: tuple[int, ...], symbols: dict[str, int]) -> None:
    fits = len(given) == len(dimensions) and all(n > 0 for n in given)
    for stated, size in zip(dimensions, given, strict=False):
        expected = stated if isinstance(stated, int) else symbols.get(stated, size)
        fits = fits and expected == size
        if isinstance(stated, str) and stated != "?":
            symbols[stated] = size
    if not fits:
        asked, has = "x".join(map(str, given)), "x".join(map(str, dimensions))
        raise UsageError(f"the shape {asked} does not fit the input '{name}', which is {has}", where=[name])


def _size(
    dimension: Dimension, axis: int, symbols: Mapping[str, int], stated: Mapping[str, tuple[Dimension, ...]]
) -> int:
    """The size of a dimension, -1 when it stays open."""
    if isinstance(dimension, int):
        return dimension
    if dimension in symbols:
        return symbols[dimension]
    elsewhere = dimension != "?" and any(dimension in shape[1:] for shape in stated.values())
    return 1 if axis == 0 and not elsewhere else -1


def _set_shape(each: ValueInfoProto, shape: tuple[int, ...]) -> None:
    each.type.tensor_type.ClearField("shape")
    each.type.tensor_type.shape.SetInParent()
    for size in shape:
        each.type.tensor_type.shape.dim.add().dim_value = size


def _ask(open_ones: list[tuple[str, tuple[Dimension, ...]]]) -> None:
    what = "; ".join(f"'{name}' is {'x'.join(map(str, dimensions))}" for name, dimensions in open_ones)
    examples = []
    for name, dimensions in open_ones:
        usual = {4: (1, 3, 224, 224)}.get(len(dimensions), (1,) * len(dimensions))
        sizes = [d if isinstance(d, int) else n for d, n in zip(dimensions, usual, strict=True)]
        examples.append(f"--shape {name}={'x'.join(map(str, sizes))}")
    raise ModelError(
        f"input sizes are open: {what}",
        where=[name for name, _ in open_ones],
        why="a device's memory is planned for fixed shapes",
        do=f"give them, for instance {' '.join(examples)}",
    )
