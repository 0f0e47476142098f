"""Operators that find, pick and write single elements: all become picking or writing rows by number."""

from __future__ import annotations

import math

import numpy as np

from ...ir.graph import Array, Value
from ...ir.ops import search
from ...ir.ops.activation import Neg
from ...ir.ops.shape import Gather, Slice
from ..call import Call, Result, rule
from .terms import add, cast, choose, equal, less, mul, sub, total, view

Sizes = tuple[int, ...]


def strides(shape: Sizes) -> list[int]:
    """Elements from one index to the next, per axis, in row-major order."""
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


def _counted(call: Call, indices: Value, size: int) -> Value:
    """Indices as int64 from the front; negative ones count from the end."""
    wide = cast(call, indices, "int64")
    if wide.data is not None:
        return call.constant(np.where(wide.data < 0, wide.data + size, wide.data), "indices", "int64")
    return choose(call, less(call, wide, 0), add(call, wide, size), wide)


@rule("ArgMax", "ArgMin")
def extreme_place(call: Call) -> Result:
    """The first or last of equal ones."""
    x = call.x
    axis = call.axis(call.attr("axis", 0), len(x.shape))
    if call.node.op_type == "ArgMin":
        x = _upside_down(call, x)
    last = call.flag("select_last_index", 0)
    if last:
        x = call.add(Slice((-1,), (-(2**31),), (axis,), (-1,)), x)
    place: Value = call.add(search.ArgMax(axis), x)
    if last:
        place = sub(call, x.shape[axis] - 1, place)
    return place if call.flag("keepdims", 1) else call.reshape(place, [*x.shape[:axis], *x.shape[axis + 1 :]])


def _upside_down(call: Call, x: Value) -> Value:
    """x in the opposite order, whatever its type: the greatest integer counts down."""
    if x.dtype == "float32":
        result: Value = call.add(Neg(), x)
        return result
    return sub(call, -1 if np.dtype(x.dtype).kind == "i" else int(np.iinfo(x.dtype).max), x)


@rule("TopK")
def top(call: Call) -> Result:
    """The greatest or least few, in order."""
    x, count = call.x, int(call.array(1, "k").reshape(())) if call.get(1) is not None else call.attr("k")
    axis = call.axis(call.attr("axis", -1), len(x.shape))
    least = not call.flag("largest", 1)
    call.flag("sorted", 1)  # any order will do where it is 0
    values, places = call.add(search.TopK(count, axis), _upside_down(call, x) if least else x)
    return (_upside_down(call, values) if least else values), places


@rule("OneHot")
def one_hot(call: Call) -> Result:
    """A comparison of indices with all numbers below `depth`."""
    depth = int(call.array(1, "depth").reshape(-1)[0])
    rank = len(call.x.shape) + 1
    axis = call.axis(call.attr("axis", -1), rank)
    places = _counted(call, call.x, depth)
    places = call.reshape(places, (*places.shape[:axis], 1, *places.shape[axis:]))
    numbers = np.arange(depth).reshape([-1 if i == axis else 1 for i in range(rank)])
    hot = equal(call, places, call.constant(numbers, "numbers", "int64"))
    values = call[2]
    if values.data is not None:
        off, on = (call.graph.constant(values.data[i], f"{call.name}.{name}") for i, name in enumerate(("off", "on")))
    else:
        off, on = (call.reshape(call.add(Slice((i,), (i + 1,), (0,), (1,)), values), ()) for i in (0, 1))
    return choose(call, hot, on, off)


@rule("Gather")
def gather(call: Call) -> Result:
    """Rows by number."""
    x, indices = call.x, call[1]
    axis = call.axis(call.attr("axis", 0), len(x.shape))
    size = x.shape[axis]
    _inside(call, indices, size)
    call.demand(size > 0 or not indices.type.size, f"axis {axis} has nothing to gather from")
    result: Value = call.add(Gather(axis), x, indices)
    return result


def _inside(call: Call, indices: Value, sizes: int | Array) -> None:
    """Refuse indices that are no integers, and known ones outside the sizes of their axes."""
    call.demand(np.dtype(indices.dtype).kind in "iu", f"indices of type {indices.dtype}")
    if indices.data is not None:
        inside = bool(np.all((indices.data >= -sizes) & (indices.data < sizes)))
        call.demand(inside, f"an index is outside an axis of {sizes}")


def _numbers_along(call: Call, indices: Value, shape: Sizes, axis: int) -> Value:
    """Number in the flat tensor of the element that each index names along the axis, its other places its own."""
    _inside(call, indices, shape[axis])
    others = [i for i in range(len(shape)) if i != axis]
    same = len(indices.shape) == len(shape) and all(indices.shape[i] <= shape[i] for i in others)
    call.demand(same, f"indices of shape {indices.shape} into a tensor of {shape}")
    step = strides(shape)
    own = np.zeros(indices.shape, np.int64)
    for i, count in enumerate(indices.shape):
        if i != axis:
            own += (np.arange(count) * step[i]).reshape([-1 if j == i else 1 for j in range(len(shape))])
    wanted = mul(call, _counted(call, indices, shape[axis]), step[axis])
    flat = add(call, wanted, call.constant(own, "places", "int64"))
    return call.reshape(flat, (flat.type.size,))


@rule("GatherElements")
def gather_elements(call: Call) -> Result:
    """Elements by their number in the flat tensor."""
    x, indices = call.x, call[1]
    axis = call.axis(call.attr("axis", 0), len(x.shape))
    numbers = _numbers_along(call, indices, x.shape, axis)
    picked = call.add(Gather(0), call.reshape(x, (x.type.size,)), numbers)
    return call.reshape(picked, indices.shape)


def _row_numbers(call: Call, indices: Value, shape: Sizes, batch: int = 0) -> tuple[Value, Sizes]:
    """Number of the row that each tuple of indices names (in the tensor whose first axes are one), and its shape."""
    depth = indices.shape[-1]
    named = shape[batch : batch + depth]
    sizes = np.asarray(named, np.int64)
    _inside(call, indices, sizes)
    wide = cast(call, indices, "int64")
    counted = choose(call, less(call, wide, 0), add(call, wide, call.constant(sizes, "sizes", "int64")), wide)
    step = call.constant(strides(named), "steps", "int64")
    rows = total(call, mul(call, counted, step), (len(indices.shape) - 1,), False)
    if batch:
        first = np.arange(math.prod(shape[:batch])).reshape(shape[:batch]) * math.prod(named)
        own = first.reshape(*shape[:batch], *(1,) * (len(rows.shape) - batch))
        rows = add(call, rows, call.constant(own, "batch", "int64"))
    return call.reshape(rows, (rows.type.size,)), shape[batch + depth :]


@rule("GatherND")
def gather_nd(call: Call) -> Result:
    """Rows of the tensor whose indexed axes are one."""
    x, indices = call.x, call[1]
    numbers, rest = _row_numbers(call, indices, x.shape, call.attr("batch_dims", 0))
    picked = call.add(Gather(0), call.reshape(x, (x.type.size // max(1, math.prod(rest)), *rest)), numbers)
    return call.reshape(picked, (*indices.shape[:-1], *rest))


@rule("ScatterElements", "Scatter")
def scatter_elements(call: Call) -> Result:
    """Elements by their number in the flat tensor."""
    x, indices, updates = call.x, call[1], call[2]
    axis = call.axis(call.attr("axis", 0), len(x.shape))
    numbers = _numbers_along(call, indices, x.shape, axis)
    op = search.Scatter(call.attr("reduction", "none"))
    flat = call.add(op, view(call, x, (x.type.size,)), numbers, view(call, updates, (updates.type.size,)))
    return call.reshape(flat, x.shape)


@rule("ScatterND")
def scatter_nd(call: Call) -> Result:
    """Rows of the tensor whose indexed axes are one."""
    x, indices, updates = call.x, call[1], call[2]
    numbers, rest = _row_numbers(call, indices, x.shape)
    rows = view(call, x, (x.type.size // max(1, math.prod(rest)), *rest))
    written = call.add(
        search.Scatter(call.attr("reduction", "none")), rows, numbers, view(call, updates, (*numbers.shape, *rest))
    )
    return call.reshape(written, x.shape)
