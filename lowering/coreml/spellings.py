"""How each float op of ours is written in MIL: the op of the deployment target where there is one, else primitives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from ...ir.graph import Array
from ...ir.op import Op
from ...ir.ops import activation, conv, elementwise, linear, logic, norm, number, pool, search, shape
from ...ir.ops.attention import Attention
from .attention import attention
from .places import arg_max, compared, gather, scatter, spread, top_k, typed, where
from .site import FIRST, FormError, Site, Var

__all__ = ["SPELLINGS", "convolution", "unary"]

Result = Var | tuple[Var, ...]
Spelling = Callable[[Site, Any], Result]

LINEAR_RANK = 3
"""Highest rank that MIL's linear takes."""

GELU = {"none": "EXACT", "tanh": "TANH_APPROXIMATION", "sigmoid": "SIGMOID_APPROXIMATION"}


def unary(kind: str) -> Spelling:
    """The op of that name, which takes x alone."""
    return lambda site, op: site.add(kind, x=site.x)


def binary(kind: str) -> Spelling:
    """The op of that name on two operands that broadcast."""
    return lambda site, op: site.add(kind, x=site[0], y=site[1])


def along_channels(site: Site, op: elementwise.Affine) -> Result:
    """Mul and add."""
    return site.add("add", x=site.add("mul", x=site.x, y=site.along(1, op.axis)), y=site.along(2, op.axis))


def clip(site: Site, op: activation.Clip) -> Result:
    """The one op that has these bounds."""
    low, high = op.minimum, op.maximum
    if not np.isfinite(high):
        if not np.isfinite(low):
            return site.add("identity", x=site.x)
        return site.add("relu", x=site.x) if low == 0 else site.add("maximum", x=site.x, y=site.number(low))
    if not np.isfinite(low):
        return site.add("minimum", x=site.x, y=site.number(high))
    if (low, high) == (0, 6):
        return site.add("relu6", x=site.x)
    return site.add("clip", x=site.x, alpha=site.number(low), beta=site.number(high))


def hard_sigmoid(site: Site, op: activation.HardSigmoid) -> Result:
    """sigmoid_hard."""
    return site.add("sigmoid_hard", x=site.x, alpha=site.number(op.alpha), beta=site.number(op.beta))


def hard_swish(site: Site, op: activation.HardSwish) -> Result:
    """x times sigmoid_hard."""
    return site.add("mul", x=site.x, y=hard_sigmoid(site, activation.HardSigmoid(1 / 6, 0.5)))


def dense(site: Site, op: linear.Linear) -> Result:
    """Linear; a product and a sum for weights that are computed, and for ranks that it does not take."""
    if site.data(1) is not None and (not site.has(2) or site.data(2) is not None) and site.rank <= LINEAR_RANK:
        return site.add("linear", x=site.x, weight=site[1], bias=site[2] if site.has(2) else None)
    x = site.reshape(site.x, (1, *site.shape)) if site.rank == 1 else site.x
    y = site.add("matmul", x=x, y=site[1], transpose_y=True)
    y = site.add("add", x=y, y=site[2]) if site.has(2) else y
    return site.reshape(y, site.node.output.shape)


def convolution(site: Site, op: conv.Conv, x: Var | None = None) -> Var:
    """Conv; a bias that is computed is added."""
    computed = site.has(2) and site.data(2) is None
    top, left, bottom, right = op.pads
    y = site.add(
        "conv", x=site.x if x is None else x, weight=site[1], bias=None if computed or not site.has(2) else site[2],
        strides=op.strides, pad_type="custom", pad=(top, bottom, left, right), dilations=op.dilations, groups=op.groups,
    )  # fmt: skip
    return site.add("add", x=y, y=site.reshape(site[2], (-1, 1, 1))) if computed else y


def patch_embed(site: Site, op: conv.PatchEmbed) -> Result:
    """Conv, its pixels in a row, channels last."""
    batch, tokens, channels = site.node.output.shape
    image = convolution(site, conv.Conv(op.patch, op.pads))
    return site.transpose(site.reshape(image, (batch, channels, tokens)), (0, 2, 1))


def layer_norm(site: Site, op: norm.LayerNorm) -> Result:
    """layer_norm; it takes neither a scale alone nor a shift alone."""
    scale, shift = site.weight(1, "scale"), site.weight(2, "shift")
    return normalised(site, site.x, (-1,), op.eps, scale, shift)


def normalised(
    site: Site, x: Var, axes: tuple[int, ...], eps: float, scale: Array | None = None, shift: Array | None = None
) -> Var:
    """layer_norm over some axes of x, with a scale and a shift of the shape of these axes, or without."""
    extent = tuple(x.shape[axis] for axis in axes)
    if scale is None and shift is not None:
        scale = site.cast(np.ones(extent, np.float32))
    if shift is None and scale is not None:
        shift = site.cast(np.zeros(extent, np.float32))
    return site.add("layer_norm", x=x, axes=axes, gamma=scale, beta=shift, epsilon=site.number(eps))


def rms_norm(site: Site, op: norm.RMSNorm) -> Result:
    """The formula."""
    return by_root_mean_square(site, site.x, -1, op.eps, site[1] if site.has(1) else None)


def by_root_mean_square(site: Site, x: Var, axis: int, eps: float, scale: Var | None) -> Var:
    """x over the root of its mean square along an axis, times a scale that broadcasts."""
    square = site.add("reduce_mean", x=site.add("square", x=x), axes=(axis,), keep_dims=True)
    y = site.add("mul", x=x, y=site.add("rsqrt", x=square, epsilon=site.number(eps)))
    return y if scale is None else site.add("mul", x=y, y=scale)


def batch_norm(site: Site, op: norm.BatchNorm) -> Result:
    """Mul and add: what a norm with frozen statistics is, with PRepBN's shortcut or without."""
    constants = [site.data(index) for index in range(1, len(site.node.inputs))]
    if any(each is None for each in constants):
        raise FormError("its statistics must be known at compile time")
    a, c = op.coefficients(*cast("list[Any]", constants[:4]))
    if isinstance(op, norm.RepNorm):
        a = a + cast("Any", constants[4]).reshape(-1)
    ones = [1] * (site.rank - 1 - op.axis % site.rank)
    factor, offset = (site.constant(v.reshape(-1, *ones), "affine") for v in (a, c))
    return site.add("add", x=site.add("mul", x=site.x, y=factor), y=offset)


def group_norm(site: Site, op: norm.GroupNorm) -> Result:
    """layer_norm of everything or of joined channels, then the scale and the shift of each channel."""
    if op.groups == 1:
        y = normalised(site, site.x, tuple(range(1, site.rank)), op.eps)
    else:
        joined = site.reshape(site.x, (site.shape[0], op.groups, math.prod(site.shape[1:]) // op.groups))
        y = site.reshape(normalised(site, joined, (-1,), op.eps), site.shape)
    y = site.add("mul", x=y, y=site.along(1, 1)) if site.has(1) else y
    return site.add("add", x=y, y=site.along(2, 1)) if site.has(2) else y


def overhang(site: Site, op: pool.MaxPool | pool.AveragePool) -> tuple[int, int]:
    """Rows and columns past the declared border that the last windows of ceil_mode reach."""
    out = site.node.output.shape[2:]
    reach = [(out[a] - 1) * op.strides[a] + op.kernel[a] - site.shape[2 + a] - op.pads[a] for a in (0, 1)]
    return max(0, reach[0] - op.pads[2]), max(0, reach[1] - op.pads[3])


def max_pool(site: Site, op: pool.MaxPool) -> Result:
    """max_pool; its border never wins, so that ceil_mode is only more of it."""
    below, beyond = overhang(site, op)
    pads = (op.pads[0], op.pads[2] + below, op.pads[1], op.pads[3] + beyond)
    return site.add(
        "max_pool", x=site.x, kernel_sizes=op.kernel, strides=op.strides, pad_type="custom", pad=pads, ceil_mode=False
    )


def average_pool(site: Site, op: pool.AveragePool) -> Result:
    """avg_pool; a border that counts is laid around the image first where ceil_mode adds one that does not."""
    below, beyond = overhang(site, op)
    x, (top, left, bottom, right) = site.x, op.pads
    counted = op.count_include_pad
    if counted and (below or beyond):
        x = site.add("pad", x=x, pad=(0, 0, 0, 0, top, bottom, left, right), mode="constant",
                     constant_val=site.number(0.0))  # fmt: skip
        top = left = bottom = right = 0
        counted = False
    return site.add(
        "avg_pool", x=x, kernel_sizes=op.kernel, strides=op.strides, pad_type="custom",
        pad=(top, bottom + below, left, right + beyond), exclude_padding_from_average=not counted, ceil_mode=False,
    )  # fmt: skip


def reduction(kind: str) -> Spelling:
    """A reduction over axes."""
    return lambda site, op: site.add(kind, x=site.x, axes=tuple(op.axes), keep_dims=bool(op.keepdims))


def cut(site: Site, op: shape.Slice) -> Result:
    """slice_by_index; what runs backwards is turned round first."""
    x = site.x
    whole = op.index(site.rank)
    back = tuple(axis for axis, each in enumerate(whole) if (each.step or 1) < 0)
    if back:
        x = site.add("reverse", x=x, axes=back)
    bounds = [each.indices(size) for each, size in zip(whole, site.shape, strict=True)]
    for axis in back:
        start, stop, step = bounds[axis]
        bounds[axis] = site.shape[axis] - 1 - start, site.shape[axis] - 1 - stop, -step
    if math.prod(site.node.output.shape) == 0:
        raise FormError("it cuts everything away")
    begin, end, stride = zip(*bounds, strict=True)
    return site.add("slice_by_index", x=x, begin=begin, end=end, stride=stride)


def expand(site: Site, op: shape.Expand) -> Result:
    """tile."""
    return spread(site, site.x, op.shape)


def pad(site: Site, op: shape.Pad) -> Result:
    """A border is pad, a negative one is a slice."""
    x, rank = site.x, site.rank
    before, after = op.pads[:rank], op.pads[rank:]
    if min(op.pads) < 0:
        end = [n - max(0, -a) for n, a in zip(site.shape, after, strict=True)]
        x = site.add("slice_by_index", x=x, begin=[max(0, -b) for b in before], end=end)
    grow = [max(0, each) for pair in zip(before, after, strict=True) for each in pair]
    if not any(grow):
        return x
    return site.add("pad", x=x, pad=grow, mode="constant", constant_val=site.number(op.value))


def resize(site: Site, op: shape.Resize) -> Result:
    """The op whose grid is the one asked for; where there is none, products with matrices of shares."""
    (height, width), source = op.size, site.shape[2:]
    if op.size == source and op.coordinates != "asymmetric":
        return site.add("identity", x=site.x)
    if op.mode == "nearest":
        times = [target // given for target, given in zip(op.size, source, strict=True)]
        grid = [np.arange(target) // max(times[a], 1) for a, target in enumerate(op.size)]
        whole = all(target == n * given for target, n, given in zip(op.size, times, source, strict=True))
        if whole and all(np.array_equal(op.picks(source[a], op.size[a]), grid[a]) for a in (0, 1)):
            return site.add("upsample_nearest_neighbor", x=site.x, scale_factor_height=times[0],
                            scale_factor_width=times[1])  # fmt: skip
    elif min(op.size) > 1:
        grids = {"asymmetric": "DEFAULT", "align_corners": "STRICT_ALIGN_CORNERS"}
        return site.add("resize_bilinear", x=site.x, target_size_height=height, target_size_width=width,
                        sampling_mode=grids.get(op.coordinates, "UNALIGN_CORNERS"))  # fmt: skip
    rows, columns = (shares(op, source[a], op.size[a]) for a in (0, 1))
    y = site.add("matmul", x=site.constant(rows[None, None], "rows"), y=site.x)
    return site.add("matmul", x=y, y=site.constant(columns.T[None, None], "columns"))


def shares(op: shape.Resize, source: int, target: int) -> Array:
    """The matrix [target, source] that resizes one axis."""
    found = np.zeros((target, source))
    if op.mode == "nearest":
        found[np.arange(target), op.picks(source, target)] = 1
        return found
    at = np.clip(op.positions(source, target), 0, source - 1)
    low = np.floor(at).astype(int)
    found[np.arange(target), low] = 1 - (at - low)
    found[np.arange(target), np.minimum(low + 1, source - 1)] += at - low
    return found


def concat(site: Site, op: shape.Concat) -> Result:
    """concat."""
    values = [site[index] for index in range(len(site.node.inputs))]
    return site.add("concat", values=values, axis=op.axis % site.rank) if len(values) > 1 else values[0]


def split(site: Site, op: shape.Split) -> Result:
    """split."""
    if len(op.sizes) == 1:
        return (site.add("identity", x=site.x),)
    return site.several("split", x=site.x, split_sizes=tuple(op.sizes), axis=op.axis % site.rank)


def transpose(site: Site, op: shape.Transpose) -> Result:
    """transpose, unless a layout at hand makes it a reshape, or a product can be made the other way round."""
    value = site.node.input(0)
    made = value.producer
    if op.perm == (0, 2, 1):
        if site.store.forms(value, FIRST):
            return site.reshape(site.read(value, FIRST), site.node.output.shape)
        batch, tokens, channels = site.node.output.shape
        first = site.reshape(site.x, (batch, channels, 1, tokens))
        site.store.bind(site.node.output, site.dtype, first, FIRST)
    if op.perm == (0, 3, 1, 2) and made and type(made.op) is shape.Reshape and made.input(0).type.rank == 3:
        source = made.input(0)
        if source.shape[2] == site.shape[3] and site.store.forms(source, FIRST):
            return site.reshape(site.read(source, FIRST), site.node.output.shape)
    last_two = (*range(site.rank - 2), site.rank - 1, site.rank - 2)
    if op.perm == last_two and made and type(made.op) is linear.MatMul and len(value.uses) == 1:
        a, b = (site.read(each) for each in (made.input(0), made.input(1)))
        return site.add("matmul", x=b, y=a, transpose_x=True, transpose_y=True)
    return site.transpose(site.x, op.perm)


SPELLINGS: dict[type[Op], Spelling] = {
    activation.Abs: unary("abs"),
    activation.Clip: clip,
    activation.Erf: unary("erf"),
    activation.Exp: unary("exp"),
    activation.Gelu: lambda site, op: site.add("gelu", x=site.x, mode=GELU[op.approximate]),
    activation.HardSigmoid: hard_sigmoid,
    activation.HardSwish: hard_swish,
    activation.LeakyRelu: lambda site, op: site.add("leaky_relu", x=site.x, alpha=site.number(op.alpha)),
    activation.Log: lambda site, op: site.add("log", x=site.x, epsilon=site.number(0.0)),
    activation.Neg: lambda site, op: site.add("mul", x=site.x, y=site.number(-1.0)),
    activation.Reciprocal: lambda site, op: site.add("real_div", x=site.number(1.0), y=site.x),
    activation.Relu: unary("relu"),
    activation.Sigmoid: unary("sigmoid"),
    activation.Silu: unary("silu"),
    activation.Softmax: lambda site, op: site.add("softmax", x=site.x, axis=op.axis),
    activation.Sqrt: unary("sqrt"),
    activation.Tanh: unary("tanh"),
    Attention: attention,
    conv.Conv: convolution,
    conv.PatchEmbed: patch_embed,
    elementwise.Add: binary("add"),
    elementwise.Affine: along_channels,
    elementwise.Div: binary("real_div"),
    elementwise.Maximum: binary("maximum"),
    elementwise.Minimum: binary("minimum"),
    elementwise.Mul: binary("mul"),
    elementwise.Pow: binary("pow"),
    elementwise.Sub: binary("sub"),
    linear.Linear: dense,
    linear.MatMul: binary("matmul"),
    logic.Cast: typed,
    logic.Equal: compared("equal"),
    logic.Less: compared("less"),
    logic.Where: where,
    norm.BatchNorm: batch_norm,
    norm.GroupNorm: group_norm,
    norm.LayerNorm: layer_norm,
    norm.RepNorm: batch_norm,
    norm.RMSNorm: rms_norm,
    number.Cos: unary("cos"),
    number.Floor: unary("floor"),
    number.Mod: binary("mod"),
    number.Prod: reduction("reduce_prod"),
    number.ReduceMin: reduction("reduce_min"),
    number.Round: unary("round"),
    number.Sin: unary("sin"),
    pool.AveragePool: average_pool,
    pool.MaxPool: max_pool,
    pool.Mean: reduction("reduce_mean"),
    pool.ReduceMax: reduction("reduce_max"),
    pool.Sum: reduction("reduce_sum"),
    search.ArgMax: arg_max,
    search.Scatter: scatter,
    search.TopK: top_k,
    shape.Concat: concat,
    shape.Expand: expand,
    shape.Gather: gather,
    shape.Pad: pad,
    shape.Reshape: lambda site, op: site.reshape(site.x, op.shape),
    shape.Resize: resize,
    shape.Slice: cut,
    shape.Split: split,
    shape.Transpose: transpose,
}
"""The ops of float graphs, with the masks and tokens in them; quantised ones are not written in this form."""
