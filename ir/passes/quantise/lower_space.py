"""Integer forms of what moves, joins, pools and averages elements; moves keep the integers as they are."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ...graph import Node, Value
from ...integer import multiplier
from ...integer_ops import pool_multipliers
from ...op import Op
from ...ops import pool, shape
from ...ops.integer_pool import QAveragePool, QMaxPool, QMean, QResize
from .channels_last import IMAGE, after_reshape, after_transpose, arranged, plain, without
from .integer_lowering import Lowering, reach

Pads = tuple[int, int, int, int]


def lower_reshape(lowering: Lowering, node: Node) -> None:
    """Nothing moves if the new axes can be read off the present order; otherwise the float order is restored."""
    assert isinstance(node.op, shape.Reshape)
    x, result = node.input(0), node.output
    layout = after_reshape(x.shape, lowering.layout(x), result.shape)
    placed = lowering.read(x, None if layout else plain(len(x.shape)))
    layout = layout or plain(len(result.shape))
    made, wanted = placed.value, arranged(result.shape, layout)
    if made.shape != wanted:
        made = lowering.emit(node, shape.Reshape(wanted), made)
    lowering.put(result, made, layout, placed.form)


def lower_transpose(lowering: Lowering, node: Node) -> None:
    """Only the layout changes."""
    assert isinstance(node.op, shape.Transpose)
    placed = lowering.read(node.input(0))
    lowering.put(node.output, placed.value, after_transpose(placed.layout, node.op.perm), placed.form)


def lower_slice(lowering: Lowering, node: Node) -> None:
    """The same cut along the axes' present positions."""
    op, x = node.op, node.input(0)
    assert isinstance(op, shape.Slice)
    placed = lowering.read(x)
    axes = tuple(placed.layout.index(axis % len(x.shape)) for axis in op.axes)
    made = lowering.emit(node, shape.Slice(op.starts, op.ends, axes, op.steps), placed.value)
    lowering.put(node.output, made, placed.layout, placed.form)


def lower_split(lowering: Lowering, node: Node) -> None:
    """The same cuts along the axis's present position."""
    op, x = node.op, node.input(0)
    assert isinstance(op, shape.Split)
    placed = lowering.read(x)
    moved = shape.Split(placed.layout.index(op.axis % len(x.shape)), op.sizes)
    pieces = lowering.graph.add(moved, placed.value, name=node.name, sources=node.sources)
    for value, made in zip(node.outputs, pieces if isinstance(pieces, tuple) else (pieces,), strict=True):
        lowering.put(value, made, placed.layout, placed.form)


def lower_gather(lowering: Lowering, node: Node) -> None:
    """A scalar index drops its axis, a vector keeps it; tables of indices need the float order."""
    op, x, indices = node.op, node.input(0), node.input(1)
    assert isinstance(op, shape.Gather)
    axis, rank = op.axis % len(x.shape), len(indices.shape)
    placed = lowering.read(x, plain(len(x.shape)) if rank > 1 else None)
    chosen = lowering.constant(indices.array, indices.name)
    made = lowering.emit(node, shape.Gather(placed.layout.index(axis)), placed.value, chosen)
    kept = {0: without(placed.layout, (axis,)), 1: placed.layout}
    lowering.put(node.output, made, kept.get(rank, plain(len(node.output.shape))), placed.form)


def lower_pad(lowering: Lowering, node: Node) -> None:
    """The border holds the integer that means its value."""
    op, x = node.op, node.input(0)
    assert isinstance(op, shape.Pad)
    placed, rank = lowering.read(x), len(x.shape)
    pads = tuple(op.pads[axis + side * rank] for side in (0, 1) for axis in placed.layout)
    fill = int(placed.form.quant.quantise(np.array(op.value), placed.form.dtype))
    made = lowering.emit(node, shape.Pad(pads, fill), placed.value)
    lowering.put(node.output, made, placed.layout, placed.form)


def lower_concat(lowering: Lowering, node: Node) -> None:
    """Every operand at the scale and in the layout of the result; constants are quantised here."""
    assert isinstance(node.op, shape.Concat)
    form = lowering.chooser.form(node.output)
    layout = next(lowering.layout(v) for v in node.inputs if v is not None and not v.is_constant)

    def part(value: Value) -> Value:
        if not value.is_constant:
            return lowering.read(value, layout, form).value
        integers = form.quant.quantise(value.array.transpose(layout), form.dtype)
        return lowering.constant(integers, value.name, form.quant)

    axis = layout.index(node.op.axis % len(layout))
    made = lowering.emit(node, shape.Concat(axis), *(part(v) for v in node.inputs if v is not None))
    lowering.put(node.output, made, layout, form)


def lower_mean(lowering: Lowering, node: Node) -> None:
    """Mean and sum differ in the multiplier only."""
    op, x = node.op, node.input(0)
    assert isinstance(op, pool.Mean | pool.Sum)
    placed, form = lowering.read(x), lowering.chooser.form(node.output)
    count = int(np.prod([x.shape[axis] for axis in op.axes]))
    if reach(placed.form) * count >= 2**31:
        placed = lowering.read_narrow(x)
    zero = placed.form.quant.zero_point
    ratio = placed.form.scale / form.scale / (count if isinstance(op, pool.Mean) else 1)
    mult, pre = multiplier(ratio, (reach(placed.form) + abs(zero)) * count)
    axes = tuple(sorted(placed.layout.index(axis % len(x.shape)) for axis in op.axes))
    made = lowering.emit(node, QMean(form.quant, form.dtype, axes, op.keepdims, int(mult), pre, zero), placed.value)
    layout = placed.layout if op.keepdims else without(placed.layout, op.axes)
    lowering.put(node.output, made, layout, form)


def lower_max_pool(lowering: Lowering, node: Node) -> None:
    """Windows that hang over in ceil mode become a pad, which never wins."""
    op = node.op
    assert isinstance(op, pool.MaxPool)
    placed = lowering.read(node.input(0), IMAGE)
    made = lowering.emit(node, QMaxPool(op.kernel, op.strides, _pads(node)), placed.value)
    lowering.put(node.output, made, IMAGE, placed.form)


def lower_reduce_max(lowering: Lowering, node: Node) -> None:
    """Rows [before, S, after, C] as an image whose windows are the S rows of a column."""
    op, x = node.op, node.input(0)
    assert isinstance(op, pool.ReduceMax)
    axes = sorted(axis % len(x.shape) for axis in op.axes)
    placed, channels = lowering.read(x, plain(len(x.shape))), x.shape[-1]
    count = math.prod(x.shape[axis] for axis in axes)
    before, after = math.prod(x.shape[: axes[0]]), math.prod(x.shape[axes[-1] + 1 : -1])
    image = lowering.emit(node, shape.Reshape((1, before * count, after, channels)), placed.value)
    pooled = lowering.emit(node, QMaxPool((count, 1), (count, 1)), image)
    made = lowering.emit(node, shape.Reshape(node.output.shape), pooled)
    lowering.put(node.output, made, plain(len(node.output.shape)), placed.form)


def lower_average_pool(lowering: Lowering, node: Node) -> None:
    """One multiplier for each number of pixels that a window can hold."""
    op = node.op
    assert isinstance(op, pool.AveragePool)
    placed, form = lowering.read(node.input(0), IMAGE), lowering.chooser.form(node.output)
    zero = placed.form.quant.zero_point
    bound = (reach(placed.form) + abs(zero)) * op.kernel[0] * op.kernel[1]
    mults, pre = pool_multipliers(placed.form.scale / form.scale, op.kernel, bound)
    window = (op.kernel, op.strides, _pads(node), op.count_include_pad)
    made = QAveragePool(form.quant, form.dtype, *window, tuple(mults.tolist()), pre, zero)
    lowering.put(node.output, lowering.emit(node, made, placed.value), IMAGE, form)


def _pads(node: Node) -> Pads:
    """The pads that give the output its size in floor mode."""
    op, image, out = node.op, node.input(0).shape[2:], node.output.shape[2:]
    assert isinstance(op, pool._Pool)
    top, left, bottom, right = op.pads
    missing = [(out[i] - 1) * op.strides[i] + op.kernel[i] - image[i] - op.pads[i] for i in (0, 1)]
    return (top, left, max(bottom, missing[0]), max(right, missing[1]))


def lower_resize(lowering: Lowering, node: Node) -> None:
    """At x's own scale."""
    op = node.op
    assert isinstance(op, shape.Resize)
    placed = lowering.read(node.input(0), IMAGE)
    made = lowering.emit(node, QResize(op.size, op.mode, op.coordinates, op.nearest), placed.value)
    lowering.put(node.output, made, IMAGE, placed.form)


MOVING: dict[type[Op], Callable[[Lowering, Node], None]] = {
    shape.Reshape: lower_reshape,
    shape.Transpose: lower_transpose,
    shape.Slice: lower_slice,
    shape.Split: lower_split,
    shape.Gather: lower_gather,
    shape.Pad: lower_pad,
    shape.Concat: lower_concat,
    shape.Resize: lower_resize,
    pool.MaxPool: lower_max_pool,
    pool.ReduceMax: lower_reduce_max,
    pool.AveragePool: lower_average_pool,
    pool.Mean: lower_mean,
    pool.Sum: lower_mean,
}
