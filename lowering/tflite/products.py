"""How convolutions, products, pools and norms are written: one operator where there is one, all on fast kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ...ir.graph import Array
from ...ir.ops import conv, linear, norm, pool
from .flatbuffer import Tensor
from .site import FormError, Site, options

__all__ = [
    "average_pool", "batch_norm", "convolution", "dense", "group_norm", "layer_norm", "max_pool", "product", "rms_norm",
]  # fmt: skip

SAME, VALID = schema.Padding.SAME, schema.Padding.VALID
LOWEST = float(np.finfo(np.float32).min)
Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


def same_pads(size: Pair, kernel: Pair, strides: Pair) -> Pads:
    """The border (top, left, bottom, right) that SAME stands for; `kernel` is the reach of a dilated one."""
    total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, kernel, strides, strict=True)]
    return (total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)


def bordered(site: Site, x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """x [B, H, W, C] with border pixels of one value."""
    top, left, bottom, right = pads
    if not any(pads):
        return x
    borders = site.constant(np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32), "pads")
    shape = (x.shape[0], x.shape[1] + top + bottom, x.shape[2] + left + right, x.shape[3])
    if value == 0:
        return site.step("PAD", [x, borders], shape, options("Pad"))
    filling = site.number(value)
    if x.quant is not None:
        filling = site.store.file.constant(np.array(-128, np.int8), "least", x.quant)
    return site.step("PADV2", [x, borders, filling], shape, options("PadV2"))


def framed(site: Site, kernel: Pair, strides: Pair, pads: Pads, value: float = 0.0) -> tuple[Tensor, int]:
    """x with its border where no padding scheme gives it, and the scheme for the rest."""
    if not any(pads):
        return site.x, VALID
    return (site.x, SAME) if is_same(site, kernel, strides, pads) else (bordered(site, site.x, pads, value), VALID)


def is_same(site: Site, kernel: Pair, strides: Pair, pads: Pads) -> bool:
    """Whether SAME stands for this border and this size of the result."""
    size = (site.x.shape[1], site.x.shape[2])
    fits = site.shape[1:3] == tuple(-(-n // s) for n, s in zip(size, strides, strict=True))
    return fits and pads == same_pads(size, kernel, strides)


def convolution(site: Site, op: conv.Conv) -> None:
    """CONV_2D, whose groups follow from the shapes; DEPTHWISE_CONV_2D where every channel is a group."""
    weight = site.value(1)
    outputs, depth, *kernel = weight.shape
    reach = (op.dilations[0] * (kernel[0] - 1) + 1, op.dilations[1] * (kernel[1] - 1) + 1)
    x, padding = framed(site, reach, op.strides, op.pads)
    depthwise = op.groups > 1 and depth == 1
    order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    w = site.given[1] or site.weight(1, order)
    common = {
        "padding": padding, "strideH": op.strides[0], "strideW": op.strides[1], "dilationHFactor": op.dilations[0],
        "dilationWFactor": op.dilations[1], "fusedActivationFunction": site.activation,
    }  # fmt: skip
    bias = site.bias(np.zeros(outputs, np.float32))
    if depthwise:
        made = options("DepthwiseConv2D", depthMultiplier=outputs // op.groups, **common)
        site.emit("DEPTHWISE_CONV_2D", [x, w, bias], made)
    else:
        site.emit("CONV_2D", [x, w, bias], options("Conv2D", **common))


def dense(site: Site, op: linear.Linear) -> None:
    """FULLY_CONNECTED; BATCH_MATMUL where the weight is computed, which FULLY_CONNECTED has slow kernels for."""
    weight = site.value(1)
    if weight.data is None:
        _computed_dense(site)
        return
    x = site.x if len(site.x.shape) > 1 else site.reshape(site.x, (1, *site.x.shape))
    bias = site.bias() if site.has(2) else None
    w = site.weight(1, (0, 1))
    made = options("FullyConnected", keepNumDims=len(x.shape) != 2, fusedActivationFunction=site.activation)
    if x is site.x:
        site.emit("FULLY_CONNECTED", [x, w, bias], made)
    else:
        y = site.step("FULLY_CONNECTED", [x, w, bias], (1, weight.shape[0]), made)
        site.emit("RESHAPE", [y, site.ints(site.shape)])


def _computed_dense(site: Site) -> None:
    rows = site.reshape(site.x, (site.x.shape if len(site.x.shape) > 1 else (1, *site.x.shape)))
    shape = (*rows.shape[:-1], site.value(1).shape[0])
    y = site.step("BATCH_MATMUL", [rows, site.vector(1)], shape, options("BatchMatMul", adjY=True))
    if site.has(2):
        y = site.step("ADD", [y, site.vector(2)], shape, options("Add"))
    site.finish(site.reshape(y, site.shape))


def product(site: Site, op: linear.MatMul) -> None:
    """BATCH_MATMUL; see `forms` for which operand may lie turned."""
    rank = len(site.layout)
    turned = site.layout[-1] == rank - 2
    tensors = []
    for index in (0, 1):
        value, layout = site.value(index), site.form.inputs[index]
        if layout is None:
            array = value.array
            tensors.append((site.store.weight(array, value.name, rounds=False), False))
        else:
            tensors.append((site[index], layout[-1] == len(layout) - 2))
    (a, a_turned), (b, b_turned) = tensors
    if not turned:
        site.emit("BATCH_MATMUL", [a, b], options("BatchMatMul", adjY=b_turned))
        return
    if not b_turned:
        b = site.constant(site.known(1).swapaxes(-1, -2), site.value(1).name)
    site.emit("BATCH_MATMUL", [b, a], options("BatchMatMul", adjY=not a_turned))


def max_pool(site: Site, op: pool.MaxPool) -> None:
    """MAX_POOL_2D; a border that SAME does not give is of the lowest number there is."""
    x, padding = framed(site, op.kernel, op.strides, _overhung(site, op), LOWEST)
    site.emit("MAX_POOL_2D", [x], _window(site, op, padding))


def average_pool(site: Site, op: pool.AveragePool) -> None:
    """AVERAGE_POOL_2D, which leaves the border out of its counts; other counts are put right by a factor per pixel."""
    pads = _overhung(site, op)
    counted = op.count_include_pad and any(op.pads)
    if not any(pads) or (not counted and is_same(site, op.kernel, op.strides, pads)):
        site.emit("AVERAGE_POOL_2D", [site.x], _window(site, op, SAME if any(pads) else VALID))
        return
    x = bordered(site, site.x, pads)
    factor = _counts(site, op, pads)
    if np.all(factor == 1):
        site.emit("AVERAGE_POOL_2D", [x], _window(site, op, VALID))
        return
    inner = _window(site, op, VALID)
    inner.fusedActivationFunction = schema.ActivationFunctionType.NONE
    y = site.step("AVERAGE_POOL_2D", [x], site.shape, inner)
    site.emit("MUL", [y, site.constant(factor, "counts")], options("Mul", fusedActivationFunction=site.activation))


def _counts(site: Site, op: pool.AveragePool, pads: Pads) -> Array:
    """Pixels of a window over those that count, [1, OH, OW, 1]."""
    size = site.value(0).shape
    ones = np.ones((1, 1, *size[2:]))
    plain = pool.AveragePool(op.kernel, op.strides, op.pads, op.ceil_mode, op.count_include_pad).reference(ones)
    whole = pool.AveragePool(op.kernel, op.strides).reference(conv.pad_image(ones, pads))
    return (plain / whole).transpose(0, 2, 3, 1).astype(np.float32)


def _overhung(site: Site, op: pool.MaxPool | pool.AveragePool) -> Pads:
    """The border with what the last windows of ceil mode hang over."""
    top, left, bottom, right = op.pads
    if not op.ceil_mode:
        return op.pads
    size, out = site.value(0).shape[2:], site.unit.outputs[0].shape[2:]
    reach = [(out[a] - 1) * op.strides[a] + op.kernel[a] - size[a] - op.pads[a] for a in (0, 1)]
    return (top, left, max(bottom, reach[0]), max(right, reach[1]))


def _window(site: Site, op: pool.MaxPool | pool.AveragePool, padding: int) -> Any:
    return options(
        "Pool2D", padding=padding, strideH=op.strides[0], strideW=op.strides[1], filterHeight=op.kernel[0],
        filterWidth=op.kernel[1], fusedActivationFunction=site.activation,
    )  # fmt: skip


# ---- norms ----


def layer_norm(site: Site, op: norm.LayerNorm) -> None:
    """The mean is taken off by two operators, then as RMSNorm; both means are products with a column of 1/n."""
    x = site.x
    centred = site.step("SUB", [x, _mean(site, x)], x.shape, options("Sub"))
    _normalised(site, centred, op.eps)


def rms_norm(site: Site, op: norm.RMSNorm) -> None:
    """MUL, FULLY_CONNECTED, RSQRT, MUL."""
    _normalised(site, site.x, op.eps)


def _mean(site: Site, x: Tensor, eps: float = 0.0) -> Tensor:
    """The mean over the last axis plus eps, as one matrix product with a single output."""
    size = x.shape[-1]
    column = site.constant(np.full((1, size), 1 / size, np.float32), "mean")
    bias = site.constant(np.full(1, eps, np.float32), "eps") if eps else None
    made = options("FullyConnected", keepNumDims=len(x.shape) != 2)
    return site.step("FULLY_CONNECTED", [x, column, bias], (*x.shape[:-1], 1), made)


def _normalised(site: Site, x: Tensor, eps: float) -> None:
    if len(x.shape) == 1:
        x = site.reshape(x, (1, *x.shape))
    square = site.step("MUL", [x, x], x.shape, options("Mul"))
    share = _mean(site, square, eps)
    factor = site.step("RSQRT", [share], share.shape)
    y = site.step("MUL", [x, factor], x.shape, options("Mul"))
    for index, kind in ((1, "MUL"), (2, "ADD")):
        if site.has(index):
            y = site.step(kind, [y, site.vector(index)], x.shape, options(kind.title()))
    site.finish(site.reshape(y, site.shape))


def group_norm(site: Site, op: norm.GroupNorm) -> None:
    """Means over the axes of each group; scale and shift become one factor and one term."""
    x, rank = site.x, len(site.layout)
    channels = site.unit.outputs[0].shape[1]
    work, axes = x, tuple(range(1, rank))
    if op.groups == channels:
        axes = tuple(site.axis(axis) for axis in range(2, rank))
    elif op.groups > 1:
        pixels = int(np.prod(x.shape[1:-1]))
        work, axes = site.reshape(x, (x.shape[0], pixels, op.groups, channels // op.groups)), (1, 3)
    reduced = tuple(1 if axis in axes else size for axis, size in enumerate(work.shape))

    def mean(tensor: Tensor) -> Tensor:
        return site.step("MEAN", [tensor, site.ints(axes)], reduced, options("Reducer", keepDims=True))

    centred = site.step("SUB", [work, mean(work)], work.shape, options("Sub"))
    variance = mean(site.step("MUL", [centred, centred], work.shape, options("Mul")))
    steady = site.step("ADD", [variance, site.number(op.eps)], reduced, options("Add"))
    factor = site.step("RSQRT", [steady], reduced)
    y = site.reshape(site.step("MUL", [centred, factor], work.shape, options("Mul")), x.shape)
    for index, kind in ((1, "MUL"), (2, "ADD")):
        if site.has(index):
            vector = site.along(site.known(index), 1, site.value(index).name)
            y = site.step(kind, [y, vector], x.shape, options(kind.title()))
    site.finish(y)


def batch_norm(site: Site, op: norm.BatchNorm) -> None:
    """A factor and a term per channel, worked out when compiling."""
    names = ("scale", "bias", "mean", "variance")
    a, c = op.coefficients(*(np.asarray(site.known(index + 1)) for index in range(len(names))))
    if isinstance(op, norm.RepNorm):
        a = a + site.known(5).reshape(-1)
    name = site.unit.outputs[0].name
    if not np.all(np.isfinite(a)):
        raise FormError("its factors are not finite")
    factor, term = (
        site.along(vector.astype(np.float32), op.axis, f"{name}.{hint}")
        for vector, hint in ((a, "factor"), (c, "term"))
    )
    site.emit("ADD", [site.step("MUL", [site.x, factor], site.shape, options("Mul")), term], options("Add"))
