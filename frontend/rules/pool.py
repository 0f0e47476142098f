"""Pooling windows; where no op has their form, they are made of shifted copies."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np

from ...ir.graph import Value
from ...ir.ops.activation import Abs
from ...ir.ops.pool import AveragePool, MaxPool
from ...ir.ops.quant import Dequantize, Quantize
from ...ir.ops.shape import Slice
from ..call import Call, Result, rule
from .terms import add, choose, div, greatest, less, mul, power
from .window import Window, bordered, counts, shifts, window


def _as_image(call: Call, w: Window) -> tuple[Value, Window] | None:
    """Operand and window over images of one or more rows, if the pooling ops have such a window."""
    x = call.x
    if x.dtype != "float32" or not w.plain or len(w.kernel) > 2 or min(*w.before, *w.after) < 0:
        return None
    return (x, w) if len(w.kernel) == 2 else (call.reshape(x, (*x.shape[:2], 1, *x.shape[2:])), w.flat())


def _form(w: Window) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int]]:
    (kh, kw), (sy, sx), (top, left), (bottom, right) = w.kernel, w.strides, w.before, w.after
    return (kh, kw), (sy, sx), (top, left, bottom, right)


@rule("MaxPool")
def max_pool(call: Call) -> Result:
    """The greatest of each window, and where it lies if that is read."""
    w, ceil_mode = window(call, call.attr("kernel_shape")), call.flag("ceil_mode", 0)
    spatial = w.sizes(call.x.shape[2:], ceil_mode)
    if call.read & set(call.node.output[1:]) - {""}:
        return _with_places(call, w, spatial)
    made = call.x.producer
    if made is not None and isinstance(made.op, Quantize) and made.op.quant.axis is None:
        # The greatest integer stands for the greatest number, and pairs without integers between are for all to read.
        pooled = max_pool(replace(call, operands=(call.add(Dequantize(made.op.quant), call.x),)))
        assert isinstance(pooled, Value)
        result: Value = call.add(made.op, pooled)
        return result
    image = _as_image(call, w)
    if image is not None:
        kernel, strides, pads = _form(image[1])
        pooled = call.add(MaxPool(kernel, strides, pads, ceil_mode), image[0])
        return call.reshape(pooled, (*call.x.shape[:2], *spatial))
    return _greatest_of_windows(call, bordered(call, call.x, w, spatial, _lowest(call.x.dtype)), w, spatial)


def _greatest_of_windows(call: Call, x: Value, w: Window, spatial: tuple[int, ...]) -> Value:
    """Axis by axis; the greatest of a window is that of two narrower ones which may overlap."""
    call.require(min(spatial) > 0, "with a window that does not fit its operand")
    for axis, (size, stride, dilation, places) in enumerate(
        zip(w.kernel, w.strides, w.dilations, spatial, strict=True), 2
    ):
        width = 1
        while width < size:
            more = min(width, size - width)
            shift = more * dilation
            near = call.add(Slice((0,), (x.shape[axis] - shift,), (axis,), (1,)), x)
            x = greatest(call, near, call.add(Slice((shift,), (x.shape[axis],), (axis,), (1,)), x))
            width += more
        x = call.add(Slice((0,), ((places - 1) * stride + 1,), (axis,), (stride,)), x)
    return x


def _lowest(dtype: str) -> float:
    return -np.inf if dtype == "float32" else float(np.iinfo(dtype).min)


def _with_places(call: Call, w: Window, spatial: tuple[int, ...]) -> tuple[Value, Value]:
    """Every element carries its number in the tensor along; of equal ones the first wins."""
    x = call.x
    numbers = np.arange(x.type.size).reshape(x.shape)
    if call.flag("storage_order", 0):  # within an image the rows run fastest
        axes = (0, 1, *reversed(range(2, len(x.shape))))
        numbers = np.arange(x.type.size).reshape([x.shape[i] for i in axes]).transpose(axes)
    places = call.constant(numbers, "places", "int64")
    values = shifts(call, bordered(call, x, w, spatial, _lowest(x.dtype)), w, spatial)
    best, where = None, None
    for value, place in zip(values, shifts(call, bordered(call, places, w, spatial, -1), w, spatial), strict=True):
        if best is None or where is None:
            best, where = value, place
            continue
        better = less(call, best, value)
        best, where = choose(call, better, value, best), choose(call, better, place, where)
    assert best is not None and where is not None
    return best, where


@rule("AveragePool")
def average_pool(call: Call) -> Result:
    """The mean of each window, over the image or over its border as well."""
    w, ceil_mode = window(call, call.attr("kernel_shape")), call.flag("ceil_mode", 0)
    spatial = w.sizes(call.x.shape[2:], ceil_mode)
    border = any((*w.before, *w.after))  # without one there is nothing more to count
    inside = border and call.flag("count_include_pad", 0)
    image = _as_image(call, w)
    if image is not None:
        kernel, strides, pads = _form(image[1])
        y = call.add(AveragePool(kernel, strides, pads, ceil_mode, inside), image[0])
        return call.reshape(y, (*call.x.shape[:2], *spatial))
    total = _sum_of_windows(call, call.x, w, spatial)
    return div(call, total, call.constant(counts(w, call.x.shape[2:], spatial, inside), "counts"))


def _sum_of_windows(call: Call, x: Value, w: Window, spatial: tuple[int, ...]) -> Value:
    copies = shifts(call, bordered(call, x, w, spatial, 0.0), w, spatial)
    return reduce(lambda a, b: add(call, a, b), copies)


@rule("LpPool")
def lp_pool(call: Call) -> Result:
    """The p-norm of each window."""
    w, p = window(call, call.attr("kernel_shape")), call.attr("p", 2)
    spatial = w.sizes(call.x.shape[2:], call.flag("ceil_mode", 0))
    sizes = mul(call, call.x, call.x) if p == 2 else power(call, call.add(Abs(), call.x), float(p))
    return power(call, _sum_of_windows(call, sizes, w, spatial), 1.0 / p)


@rule("LRN")
def local_response(call: Call) -> Result:
    """x / (bias + alpha * mean of squares over neighbouring channels) ** beta."""
    x, size, alpha, bias = call.x, call.attr("size"), call.attr("alpha", 1e-4), call.attr("bias", 1.0)
    reach = min(size, 2 * x.shape[1] + 1)  # enough for all channels: those beyond them count as 0
    alpha *= reach / size if size else 1.0
    rows = call.reshape(mul(call, x, x), (x.shape[0], 1, x.shape[1], -(-x.type.size // (x.shape[0] * x.shape[1]))))
    less_, more = (reach - 1) // 2, reach - 1 - (reach - 1) // 2
    mean = call.add(AveragePool((reach, 1), (1, 1), (less_, 0, more, 0), False, True), rows)
    base = add(call, mul(call, call.reshape(mean, x.shape), alpha), bias)
    return div(call, x, power(call, base, call.attr("beta", 0.75)))
