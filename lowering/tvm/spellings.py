"""How each float op of ours becomes kernels, or nothing but another view of what is there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...ir.graph import Array, Type
from ...ir.op import Op
from ...ir.ops import activation, conv, linear, norm, number, pool, shape, shift
from ...ir.ops.attention import Attention
from .elements import ELEMENTS, elements
from .kernels.attention import Attend
from .kernels.convolution import Convolution, Panels
from .kernels.elementwise import Assembly, Piece
from .kernels.neighbours import Gathering, Interpolation
from .kernels.product import Product, fitting, pack_columns, pack_rows
from .kernels.rows import Norm, Reduction, Softmax
from .kernels.shift import IntegerShift, ShiftProduct, SignProduct
from .kernels.sliding import Depthwise, Pooling
from .kernels.window import Window
from .site import FormError, Site
from .views import Access, View, merged

__all__ = ["FUSING", "SPELLINGS"]

Result = View | tuple[View, ...]
Spelling = Callable[[Site, Any], Result]


def dense(site: Site, op: linear.Linear) -> Result:
    """A product with packed weights."""
    return _dense(site, site[0], site.shape)


def _dense(site: Site, x: View, out: tuple[int, ...]) -> View:
    """Rows of x times the node's weight (of rank two or more: an output a row)."""
    rows, columns, depth = math.prod(out[:-1]), out[-1], x.shape[-1]
    a = site.reshaped(x, (rows, depth))
    tile = site.tile(f"linear {rows}x{depth}x{columns}", rows, columns)
    width = tile.vectors * site.program.machine.lanes
    weight = site.weight(1, ("columns", width), lambda w: pack_columns(w.reshape(len(w), -1), width))
    epilogue, more = site.epilogue((rows, columns), *([("add", site[2])] if site.has(2) else []))
    kernel = Product((), rows, columns, depth, a.access, None, tile, epilogue)
    return site.made(kernel, [a.slot, weight, *more])


def matmul(site: Site, op: linear.MatMul | shift.MatAdd) -> Result:
    """A product whose second operand is packed while running, once for each matrix of the batch."""
    cls = SignProduct if isinstance(op, shift.MatAdd) else Product
    *batch, rows, columns = site.shape
    depth = site[0].shape[-1]
    a, b = site[0].broadcast((*batch, rows, depth)), site[1].broadcast((*batch, depth, columns))
    tile = site.tile(f"{type(op).__name__.lower()} {rows}x{depth}x{columns}", rows, columns)
    epilogue, more = site.epilogue(site.shape)
    kernel = cls(tuple(batch), rows, columns, depth, a.access, b.access, tile, epilogue)
    return site.made(kernel, [a.slot, b.slot, *more])


def shift_linear(site: Site, op: shift.ShiftLinear) -> Result:
    """A product with packed codes; scale and bias come behind it."""
    more = [("mul", site[2]), *([("add", site[3])] if site.has(3) else [])]
    return _shift(site, ShiftProduct, more)


def mat_shift(site: Site, op: shift.MatShift) -> Result:
    """The same of integers."""
    return _shift(site, IntegerShift, [])


def _shift(site: Site, cls: type[ShiftProduct], more: list[tuple[str, View]]) -> View:
    rows, columns, depth = math.prod(site.shape[:-1]), site.shape[-1], site[0].shape[-1]
    x = site.reshaped(site[0], (rows, depth))
    tile = site.tile(f"{cls.__name__} {rows}x{depth}x{columns}", rows, columns)
    width = tile.vectors * site.program.machine.lanes
    codes = site.weight(1, ("columns", width), lambda w: pack_columns(w, width))
    epilogue, operands = site.epilogue((rows, columns), *more)
    kernel = cls((), rows, columns, depth, x.access, None, tile, epilogue)
    return site.made(kernel, [x.slot, codes, *operands])


def window(op: Any, image: tuple[int, int], kernel: tuple[int, int], out: tuple[int, int]) -> Window:
    """The window of a convolution or pooling op."""
    return Window(image, kernel, op.strides, op.pads, getattr(op, "dilations", (1, 1)), out)


def convolution(site: Site, op: conv.Conv) -> Result:
    """A product over packed pixels; with one channel a group, windows over planes."""
    (batch, channels, *image), (outputs, depth, *kernel) = site[0].shape, site.array(1).shape
    height, width = site.shape[2:]
    over = window(op, (image[0], image[1]), (kernel[0], kernel[1]), (height, width))
    x, start = site.ordered(0)
    bias = [("add", site.along(2, 1))] if site.has(2) else []
    if depth == 1 and op.groups > 1:
        epilogue, more = site.epilogue((batch * outputs, height, width), *bias)
        wide = Depthwise(batch, channels, outputs // channels, over, start, epilogue)
        return site.made(wide, [x, site.weight(1, "flat", lambda w: w), *more])
    each, machine = outputs // op.groups, site.program.machine
    form = Panels.of(over, machine.lanes)
    columns = form.row if form.rows == 1 else form.vectors * machine.lanes
    what = f"conv {depth}x{kernel[0]}x{kernel[1]}x{each} {height}x{width} /{op.strides[0]}"
    tile = site.tile(what, each, columns)

    def pack(w: Array) -> Array:
        parts = w.reshape(op.groups, each, -1)
        return np.concatenate([pack_rows(part, tile.rows) for part in parts])

    weight = site.weight(1, ("rows", op.groups, tile.rows), pack)
    epilogue, more = site.epilogue((batch * outputs, height * width), *bias)
    kernel_ = Convolution(batch, op.groups, depth, each, over, tile, start, epilogue)
    return site.made(kernel_, [x, weight, *more])


def patch_embed(site: Site, op: conv.PatchEmbed) -> Result:
    """Patches are rows of a product."""
    image = site[0]
    (batch, channels, height, width), (high, wide) = image.shape, op.patch
    if any(op.pads):
        image = _padded(site, image, (0, 0, *op.pads[:2], 0, 0, *op.pads[2:]), 0.0)
        height, width = image.shape[2:]
    down, across = height // high, width // wide
    whole = image.through(lambda array: array[:, :, : down * high, : across * wide])
    grid = whole.reshaped((batch, channels, down, high, across, wide))
    if grid is None:
        grid = site.reshaped(site.copied(whole), (batch, channels, down, high, across, wide))
    patches = site.copied(grid.through(lambda array: array.transpose(0, 2, 4, 1, 3, 5)))
    rows = site.reshaped(patches, (batch * down * across, channels * high * wide))
    return _dense(site, rows, site.shape)


def attention(site: Site, op: Attention) -> Result:
    """All in one kernel."""
    q, k, v = site[0], site[1], site[2]
    (batch, queries, channels), keys, width = q.shape, k.shape[1], v.shape[2] // op.heads
    bias = site[3].broadcast((batch, op.heads, queries, keys)) if site.has(3) else None
    scores = site.tile(f"attention {queries}x{keys}x{channels // op.heads}x{width}", queries, keys)
    values = fitting(site.program.machine, scores.rows, width)[0]
    kernel = Attend(
        batch, op.heads, queries, keys, channels // op.heads, width, op.scale,
        q.access, k.access, v.access, bias.access if bias else None, scores, values,
    )  # fmt: skip
    return site.made(kernel, [q.slot, k.slot, v.slot, *([bias.slot] if bias else [])])


def softmax(site: Site, op: activation.Softmax) -> Result:
    """Rows along the axis; for another axis than the last, turned there and back."""
    rank = site[0].array.ndim
    order = [*(axis for axis in range(rank) if axis != op.axis % rank), op.axis % rank]
    turned = site[0].through(lambda array: array.transpose(order))
    kernel = Softmax(turned.shape[:-1], turned.shape[-1], turned.access)
    rows = View.whole(site.made(kernel, [turned.slot]).slot, turned.shape)
    return rows.through(lambda array: array.transpose(np.argsort(order)))


def token_norm(site: Site, op: norm.LayerNorm | norm.RMSNorm) -> Result:
    """Over the last axis."""
    x, start = site.ordered(0)
    rows, size = math.prod(site.shape[:-1]), site.shape[-1]
    return _norm(site, x, start, (rows, 1, size), op.eps, isinstance(op, norm.LayerNorm), -1)


def group_norm(site: Site, op: norm.GroupNorm) -> Result:
    """Over the channels of a group and all pixels."""
    x, start = site.ordered(0)
    batch, channels, *pixels = site.shape
    shape = (batch * op.groups, channels // op.groups, math.prod(pixels))
    return _norm(site, x, start, shape, op.eps, True, 1)


def _norm(site: Site, x: str, start: int, shape: tuple[int, int, int], eps: float, centred: bool, axis: int) -> View:
    before = [("mul", site.along(1, axis))] if site.has(1) else []
    before += [("add", site.along(2, axis))] if site.has(2) else []
    epilogue, more = site.epilogue(shape, *before)
    return site.made(Norm(*shape, eps, centred, start, epilogue), [x, *more])


def reduction(how: str, mean: bool = False) -> Spelling:
    """Kept axes first, then those that go."""

    def spell(site: Site, op: pool.Mean) -> Result:
        view = site[0]
        gone = sorted(axis % view.array.ndim for axis in op.axes)
        kept = [axis for axis in range(view.array.ndim) if axis not in gone]
        access, out = view.access, View.whole("", tuple(view.shape[axis] for axis in kept)).access
        outer = Access(access.offset, tuple(access.strides[axis] for axis in kept))
        outer_shape, (outer, _) = merged(out_shape := tuple(view.shape[axis] for axis in kept), outer, out)
        inner = Access(0, tuple(access.strides[axis] for axis in gone))
        inner_shape, (inner,) = merged(tuple(view.shape[axis] for axis in gone), inner)
        factor = math.prod(out_shape) / view.array.size if mean else 1.0
        source = Access(access.offset, (*outer.strides, *inner.strides))
        return site.made(Reduction(how, outer_shape, inner_shape, source, factor), [view.slot])

    return spell


def pooling(site: Site, op: pool.MaxPool | pool.AveragePool) -> Result:
    """Windows over planes; how many pixels each one has is known."""
    x, start = site.ordered(0)
    batch, channels, *image = site[0].shape
    height, width = site.shape[2:]
    over = window(op, (image[0], image[1]), op.kernel, (height, width))
    epilogue, more = site.epilogue((batch * channels, height, width))
    mean = isinstance(op, pool.AveragePool)
    factors = [site.literal(_shares(op, site[0].shape))] if isinstance(op, pool.AveragePool) else []
    return site.made(Pooling(mean, batch * channels, over, start, epilogue), [x, *factors, *more])


def _shares(op: pool.AveragePool, image: tuple[int, ...]) -> Array:
    """What each window's sum is multiplied with: the mean of ones, over how many of them lie inside the image."""
    inside = []
    out = op.infer(Type("float32", image)).shape[2:]
    for axis in (0, 1):
        first = np.arange(out[axis])[:, None] * op.strides[axis] - op.pads[axis]
        taps = first + np.arange(op.kernel[axis])
        inside.append(((taps >= 0) & (taps < image[2 + axis])).sum(axis=1))
    ones = op.reference(np.ones((1, 1, *image[2:])))[0, 0]
    return np.asarray(ones / np.maximum(np.outer(*inside), 1), np.float32).reshape(-1)


def reshape(site: Site, op: shape.Reshape) -> Result:
    """A view, or a copy in order."""
    return site.reshaped(site[0], op.shape)


def transpose(site: Site, op: shape.Transpose) -> Result:
    """A view."""
    return site[0].through(lambda array: array.transpose(op.perm))


def cut(site: Site, op: shape.Slice) -> Result:
    """A view."""
    return site[0].through(lambda array: array[op.index(array.ndim)])


def split(site: Site, op: shape.Split) -> Result:
    """Views."""
    marks = np.cumsum(op.sizes)[:-1]
    return tuple(_part(site[0], marks, op.axis, at) for at in range(len(op.sizes)))


def _part(view: View, marks: Array, axis: int, at: int) -> View:
    return view.through(lambda array: np.split(array, marks, axis=axis)[at])


def expand(site: Site, op: shape.Expand) -> Result:
    """A view."""
    return site[0].broadcast(op.shape)


def concat(site: Site, op: shape.Concat) -> Result:
    """One kernel that copies all operands to their places."""
    whole = View.whole("", site.shape)
    pieces, slots, at, axis = [], [], 0, op.axis % len(site.shape)
    for index in range(len(site.node.inputs)):
        view = site[index]
        out = _range(whole, axis, at, at + view.shape[axis])
        at += view.shape[axis]
        extent, (source, to) = merged(view.shape, view.access, out.access)
        pieces.append(Piece(extent, source, to))
        slots.append(view.slot)
    return site.made(Assembly(tuple(pieces)), slots)


def _range(view: View, axis: int, start: int, end: int) -> View:
    return view.through(lambda array: array[(*[slice(None)] * axis, slice(start, end))])


def pad(site: Site, op: shape.Pad) -> Result:
    """A filled buffer and a copy."""
    return _padded(site, site[0], op.pads, op.value)


def _padded(site: Site, view: View, pads: tuple[int, ...], value: float) -> View:
    rank = view.array.ndim
    before, after = pads[:rank], pads[rank:]
    inside = tuple(slice(max(0, -b), n - max(0, -a)) for b, a, n in zip(before, after, view.shape, strict=True))
    kept = view.through(lambda array: array[inside])
    result = tuple(n + b + a for n, b, a in zip(view.shape, before, after, strict=True))
    box = tuple(slice(max(0, b), max(0, b) + n) for b, n in zip(before, kept.shape, strict=True))
    out = View.whole("", result).through(lambda array: array[box])
    shape, (source, to) = merged(kept.shape, kept.access, out.access)
    size = math.prod(result)
    return View.whole(site.call(Assembly((Piece(shape, source, to),), size, value), [view.slot], size), result)


def gather(site: Site, op: shape.Gather) -> Result:
    """A view for one index or evenly spaced ones, else a copy by table."""
    if site.node.input(1).data is None:
        return _looked_up(site, op)
    x, indices = site[0], site.array(1)
    axis, size = op.axis % x.array.ndim, x.shape[op.axis]
    wanted = indices.astype(np.int64).reshape(-1)
    wanted = np.where(wanted < 0, wanted + size, wanted)
    if wanted.size and not (wanted.min() >= 0 and wanted.max() < size):
        raise FormError(f"an index lies outside of the {size} that there are")
    steps = np.unique(np.diff(wanted))
    if len(steps) <= 1 and wanted.size and (not steps.size or steps[0] > 0):
        step = int(steps[0]) if steps.size else 1
        box = (*[slice(None)] * axis, slice(int(wanted[0]), int(wanted[-1]) + 1, step))
        return site.reshaped(x.through(lambda array: array[box]), site.shape)
    slot, start = site.ordered(0)
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    kernel = Gathering(outer, size, wanted.size, inner, start)
    return site.made(kernel, [slot, site.literal(wanted.astype(np.int32))])


def _looked_up(site: Site, op: shape.Gather) -> View:
    """Rows whose numbers are computed, as of tokens."""
    x = site[0].shape
    axis = op.axis % len(x)
    (rows, start), (numbers, first) = site.ordered(0), site.ordered(1)
    count = math.prod(site[1].shape)
    outer, inner = math.prod(x[:axis]), math.prod(x[axis + 1 :])
    kernel = Gathering(outer, x[axis], count, inner, start, computed=True, first=first)
    return site.made(kernel, [rows, numbers])


def resize(site: Site, op: shape.Resize) -> Result:
    """Neighbours and their shares by tables."""
    x, start = site.ordered(0)
    (batch, channels, *image), out = site[0].shape, op.size
    tables, shares = [], []
    for source, target in zip(image, out, strict=True):
        if op.mode == "nearest":
            tables.append(op.picks(source, target).astype(np.int32))
            continue
        at = np.clip(op.positions(source, target), 0, source - 1)
        low = np.floor(at).astype(np.int32)
        tables.append(np.concatenate([low, np.minimum(low + 1, source - 1)]))
        shares.append((at - low).astype(np.float32))
    kernel = Interpolation(batch * channels, (image[0], image[1]), out, bool(shares), start)
    return site.made(kernel, [x, *(site.literal(array) for array in (*tables, *shares))])


SPELLINGS: dict[type[Op], Spelling] = {
    **dict.fromkeys(ELEMENTS, elements),
    linear.Linear: dense,
    linear.MatMul: matmul,
    shift.MatAdd: matmul,
    shift.MatShift: mat_shift,
    shift.ShiftLinear: shift_linear,
    conv.Conv: convolution,
    conv.PatchEmbed: patch_embed,
    Attention: attention,
    activation.Softmax: softmax,
    norm.LayerNorm: token_norm,
    norm.RMSNorm: token_norm,
    norm.GroupNorm: group_norm,
    pool.Mean: reduction("sum", mean=True),
    pool.Sum: reduction("sum"),
    pool.ReduceMax: reduction("max"),
    number.ReduceMin: reduction("min"),
    pool.MaxPool: pooling,
    pool.AveragePool: pooling,
    shape.Reshape: reshape,
    shape.Transpose: transpose,
    shape.Slice: cut,
    shape.Split: split,
    shape.Expand: expand,
    shape.Concat: concat,
    shape.Pad: pad,
    shape.Gather: gather,
    shape.Resize: resize,
}

FUSING: tuple[type[Op], ...] = (
    linear.Linear, shift.ShiftLinear, shift.MatShift, conv.Conv, conv.PatchEmbed, linear.MatMul, shift.MatAdd,
    norm.LayerNorm, norm.RMSNorm, norm.GroupNorm, pool.MaxPool, pool.AveragePool, *ELEMENTS,
)  # fmt: skip
"""Ops whose kernels take an epilogue; where an element-wise op could join two, it joins the one that comes first."""
