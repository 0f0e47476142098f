"""How each op is written in TFLite's builtin operators; none needs a custom or Flex one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...ir.op import Op
from ...ir.ops import activation, conv, elementwise, linear, logic, norm, number, pool, quant, search, shape
from . import products
from .flatbuffer import DTYPES, Tensor
from .site import FormError, Site, activation_code, options
from .units import clamp

__all__ = ["SPELLINGS"]

Spelling = Callable[[Site, Any], None]


def same(kind: str, table: str | None = None) -> Spelling:
    """The operator of that name, with the default options of that table."""
    return lambda site, op: site.emit(kind, [site.x], options(table) if table else None)


def binary(kind: str) -> Spelling:
    """Two broadcast operands."""

    def spelling(site: Site, op: Op) -> None:
        made = options("MaximumMinimum" if kind in ("MAXIMUM", "MINIMUM") else kind.title().replace("_", ""))
        if hasattr(made, "fusedActivationFunction"):
            made.fusedActivationFunction = site.activation
        site.emit(kind, [site.broadcast(0), site.broadcast(1)], made)

    return spelling


def power(site: Site, op: elementwise.Pow) -> None:
    """POW is a plain kernel; exponents that have an operator of their own are written as that."""
    exponent = site.value(1).data
    known = None if exponent is None or exponent.size != 1 else float(exponent.reshape(()))
    if known == 2 and site.value(0).type.rank == len(site.layout):
        site.emit("MUL", [site.x, site.x], options("Mul"))
    elif known in (0.5, -0.5) and site.value(0).type.rank == len(site.layout):
        site.emit("SQRT" if known == 0.5 else "RSQRT", [site.x])
    else:
        site.emit("POW", [site.broadcast(0), site.broadcast(1)], options("Pow"))


def affine(site: Site, op: elementwise.Affine) -> None:
    """MUL and ADD."""
    a, c = (site.along(site.known(index), op.axis, site.value(index).name) for index in (1, 2))
    site.emit("ADD", [site.step("MUL", [site.x, a], site.shape, options("Mul")), c], options("Add"))


def clip(site: Site, op: activation.Relu | activation.Clip) -> None:
    """The clamp that is an operator, else MAXIMUM and MINIMUM with its bounds."""
    if kind := clamp(op):
        site.emit(kind, [site.x])
        return
    assert isinstance(op, activation.Clip)
    x = site.x
    for kind, bound in (("MAXIMUM", op.minimum), ("MINIMUM", op.maximum)):
        if math.isfinite(bound):
            x = site.step(kind, [x, site.number(bound)], site.shape, options("MaximumMinimum"))
    site.finish(x)


def gelu(site: Site, op: activation.Gelu) -> None:
    """GELU, which does not know the form by sigmoid."""
    if op.approximate != "sigmoid":
        site.emit("GELU", [site.x], options("Gelu", approximate=op.approximate == "tanh"))
        return
    scaled = site.step("MUL", [site.x, site.number(1.702)], site.shape, options("Mul"))
    site.emit("MUL", [site.x, site.step("LOGISTIC", [scaled], site.shape)], options("Mul"))


def silu(site: Site, op: activation.Silu) -> None:
    """x * LOGISTIC(x)."""
    site.emit("MUL", [site.x, site.step("LOGISTIC", [site.x], site.shape)], options("Mul"))


def hard_sigmoid(site: Site, op: activation.HardSigmoid) -> None:
    """RELU6 of six times it, and a sixth of that: RELU6 is clamped inside the addition."""
    x = site.x
    if not math.isclose(op.alpha * 6, 1, rel_tol=1e-6):
        x = site.step("MUL", [x, site.number(op.alpha * 6)], site.shape, options("Mul"))
    relu6 = activation_code("RELU6")
    clamped = site.step("ADD", [x, site.number(op.beta * 6)], site.shape, options("Add", fusedActivationFunction=relu6))
    site.emit("MUL", [clamped, site.number(1 / 6)], options("Mul"))


def leaky(site: Site, op: activation.LeakyRelu) -> None:
    """LEAKY_RELU."""
    site.emit("LEAKY_RELU", [site.x], options("LeakyRelu", alpha=op.alpha))


def reciprocal(site: Site, op: activation.Reciprocal) -> None:
    """One divided by it."""
    site.emit("DIV", [site.number(1), site.x], options("Div"))


def softmax(site: Site, op: activation.Softmax) -> None:
    """SOFTMAX, always along the last axis."""
    site.emit("SOFTMAX", [site.x], options("Softmax", beta=1.0))


def erf(site: Site, op: activation.Erf) -> None:
    """TFLite has no such operator."""
    raise FormError("TFLite has no error function outside of GELU")


def quantize(site: Site, op: quant.Quantize) -> None:
    """QUANTIZE, to int8 with one scale."""
    if op.dtype not in ("int8", "int16") or op.quant.axis is not None:
        raise FormError(f"rounding to {op.dtype} by {'one scale' if op.quant.axis is None else 'a scale per channel'}")
    site.emit("QUANTIZE", [site.x], options("Quantize"))


def dequantize(site: Site, op: quant.Dequantize) -> None:
    """DEQUANTIZE, by the scale that its operand has."""
    if site.x.quant != op.quant:
        raise FormError("a scale that its operand does not have")
    site.emit("DEQUANTIZE", [site.x], options("Dequantize"))


# ---- moving ----


def transpose(site: Site, op: shape.Transpose) -> None:
    """Nothing: the layout of the result names the same elements."""
    site.alias(site.x)


def reshape(site: Site, op: shape.Reshape) -> None:
    """RESHAPE, or nothing where the shapes in memory agree."""
    if site.x.shape == site.shape:
        site.alias(site.x)
    else:
        site.emit("RESHAPE", [site.x, site.ints(site.shape)])


def concat(site: Site, op: shape.Concat) -> None:
    """CONCATENATION."""
    operands = [site[index] for index in range(len(site.unit.inputs))]
    site.emit("CONCATENATION", operands, options("Concatenation", axis=site.axis(op.axis)))


def split(site: Site, op: shape.Split) -> None:
    """SPLIT into two to four equal pieces, which XNNPACK has; else one SLICE each."""
    axis = site.axis(op.axis)
    if len(set(op.sizes)) == 1 and len(op.sizes) in (2, 3, 4):
        index = site.constant(np.array(axis, np.int32), "axis")
        site.emit("SPLIT", [index, site.x], options("Split", numSplits=len(op.sizes)))
        return
    starts = np.cumsum((0, *op.sizes))
    for piece, (start, size) in enumerate(zip(starts, op.sizes, strict=False)):
        begin, extent = [0] * len(site.layout), list(site.x.shape)
        begin[axis], extent[axis] = int(start), size
        site.emit_one(piece, "SLICE", [site.x, site.ints(begin), site.ints(extent)], options("Slice"))


def cut(site: Site, op: shape.Slice) -> None:
    """SLICE; STRIDED_SLICE where it steps."""
    rank = len(site.layout)
    ranges = [range(*each.indices(n)) for each, n in zip(op.index(rank), site.value(0).shape, strict=True)]
    ranges = [ranges[axis] for axis in site.layout]
    begin = [each.start for each in ranges]
    if all(each.step == 1 or len(each) == 1 for each in ranges):
        site.emit("SLICE", [site.x, site.ints(begin), site.ints(site.shape)], options("Slice"))
        return
    ends = [each[-1] + (1 if each.step > 0 else -1) for each in ranges]
    mask = sum(1 << axis for axis, end in enumerate(ends) if end < 0)
    operands = [site.x, site.ints(begin), site.ints(ends), site.ints(each.step for each in ranges)]
    site.emit("STRIDED_SLICE", operands, options("StridedSlice", endMask=mask))


def gather(site: Site, op: shape.Gather) -> None:
    """SLICE for indices in a row, else GATHER."""
    x, indices = site.value(0), site.value(1)
    source = site.given[0] or site.constant(x.array, x.name)
    axis = site.axis(op.axis, 0)
    size = source.shape[axis]
    if indices.data is None:
        site.emit("GATHER", [source, from_the_front(site, site[1], size)], options("Gather", axis=axis))
        return
    places = np.where(indices.data < 0, indices.data + size, indices.data).reshape(-1)
    if places.size and np.all(np.diff(places) == 1) and indices.type.rank < 2:
        begin, extent = [0] * len(source.shape), list(source.shape)
        begin[axis], extent[axis] = int(places[0]), places.size
        piece = site.step("SLICE", [source, site.ints(begin), site.ints(extent)], extent, options("Slice"))
        site.finish(site.reshape(piece, site.shape))
        return
    table = site.constant(places.reshape(indices.shape).astype(np.int32), indices.name)
    site.emit("GATHER", [source, table], options("Gather", axis=axis))


def from_the_front(site: Site, indices: Tensor, size: int) -> Tensor:
    """Computed indices, those that count from the end of `size` elements turned into ones that do not."""
    whole = options("Cast", inDataType=DTYPES[indices.dtype], outDataType=DTYPES["int32"])
    at = site.step("CAST", [indices], indices.shape, whole, "int32") if indices.dtype != "int32" else indices
    zero, end = (site.constant(np.array(bound, np.int32), "bound") for bound in (0, size))
    behind = site.step("LESS", [at, zero], at.shape, options("Less"), "bool")
    turned = site.step("ADD", [at, end], at.shape, options("Add"))
    return site.step("SELECT_V2", [behind, turned, at], at.shape, options("SelectV2"), "int32")


def expand(site: Site, op: shape.Expand) -> None:
    """BROADCAST_TO; nothing where the shapes agree."""
    x = site.broadcast(0)
    if x.shape == site.shape:
        site.alias(x)
    else:
        site.emit("BROADCAST_TO", [x, site.ints(site.shape)])


def pad(site: Site, op: shape.Pad) -> None:
    """SLICE for what is cropped, PAD or PADV2 for what is added."""
    x, rank = site.x, len(site.layout)
    borders = [(op.pads[axis], op.pads[axis + rank]) for axis in site.layout]
    if any(min(each) < 0 for each in borders):
        begin = [max(0, -before) for before, _ in borders]
        extent = [n + min(0, a) + min(0, b) for n, (a, b) in zip(x.shape, borders, strict=True)]
        x = site.step("SLICE", [x, site.ints(begin), site.ints(extent)], extent, options("Slice"))
    grown = np.array([[max(0, side) for side in each] for each in borders], np.int32)
    if not grown.any():
        site.finish(x)
    elif op.value == 0:
        site.emit("PAD", [x, site.constant(grown, "pads")], options("Pad"))
    else:
        site.emit("PADV2", [x, site.constant(grown, "pads"), site.number(op.value)], options("PadV2"))


def resize(site: Site, op: shape.Resize) -> None:
    """RESIZE_BILINEAR or RESIZE_NEAREST_NEIGHBOR, where its rule picks the pixels that ours does."""
    size = site.ints(op.size)
    if op.mode == "linear":
        half = op.coordinates == "half_pixel" or (op.coordinates == "pytorch_half_pixel" and min(op.size) > 1)
        if op.coordinates == "pytorch_half_pixel" and not half:
            raise FormError("pytorch_half_pixel to a single pixel")
        made = options("ResizeBilinear", halfPixelCenters=half, alignCorners=op.coordinates == "align_corners")
        site.emit("RESIZE_BILINEAR", [site.x, size], made)
        return
    sizes = list(zip(site.value(0).shape[2:], op.size, strict=True))
    for name, rule in NEAREST.items():
        if all(np.array_equal(op.picks(*each), rule(*each)) for each in sizes):
            flags = {} if name == "plain" else {name: True}
            site.emit("RESIZE_NEAREST_NEIGHBOR", [site.x, size], options("ResizeNearestNeighbor", **flags))
            return
    raise FormError(f"nearest pixels by {op.coordinates} and {op.nearest} from {sizes}")


def _nearest(scale: Callable[[int, int], float], offset: float, rounded: bool) -> Callable[[int, int], Any]:
    def picks(source: int, target: int) -> Any:
        at = (np.arange(target, dtype=np.float32) + np.float32(offset)) * np.float32(scale(source, target))
        found = np.floor(at + np.float32(0.5)) if rounded else np.floor(at)
        return np.clip(found, 0, source - 1).astype(np.int64)

    return picks


NEAREST = {
    "plain": _nearest(lambda source, target: source / target, 0.0, False),
    "halfPixelCenters": _nearest(lambda source, target: source / target, 0.5, False),
    "alignCorners": _nearest(lambda source, target: (source - 1) / max(target - 1, 1), 0.0, True),
}
"""Which pixel RESIZE_NEAREST_NEIGHBOR picks, by the option that is set."""


# ---- truth values and places ----


def where(site: Site, op: logic.Where) -> None:
    """SELECT_V2, which broadcasts."""
    site.emit("SELECT_V2", [site.broadcast(index) for index in range(3)], options("SelectV2"))


def cast(site: Site, op: logic.Cast) -> None:
    """CAST."""
    source, target = (DTYPES[dtype] for dtype in (site.x.dtype, op.dtype))
    site.emit("CAST", [site.x], options("Cast", inDataType=source, outDataType=target))


def arg_max(site: Site, op: search.ArgMax) -> None:
    """ARG_MAX, whose axis goes."""
    axis = site.axis(op.axis)
    index = site.constant(np.array(axis, np.int32), "axis")
    shape = tuple(size for at, size in enumerate(site.shape) if at != axis)
    made = options("ArgMax", outputType=DTYPES["int64"])
    site.finish(site.reshape(site.step("ARG_MAX", [site.x, index], shape, made, "int64"), site.shape))


def top_k(site: Site, op: search.TopK) -> None:
    """TOPK_V2 along the last axis; its places are integers of 32 bits."""
    if op.axis % len(site.layout) != len(site.layout) - 1:
        raise FormError("greatest along another axis than the last")
    if op.count == 0:
        raise FormError("none of the greatest")
    count = site.constant(np.array(op.count, np.int32), "count")
    values, places = site.pieces("TOPK_V2", [site.x, count], ("float32", "int32"))
    site.results[0] = values
    site.emit_one(1, "CAST", [places], options("Cast", inDataType=DTYPES["int32"], outDataType=DTYPES["int64"]))


def scatter(site: Site, op: search.Scatter) -> None:
    """TFLite only adds into zeros."""
    raise FormError("TFLite does not write into a tensor at given places")


def reduction(kind: str) -> Spelling:
    """A reduction over axes; one over axes of size 1 still is one."""

    def spelling(site: Site, op: pool.Mean | pool.Sum | pool.ReduceMax) -> None:
        axes = sorted(site.axis(axis, 0) for axis in op.axes)
        site.emit(kind, [site.x, site.ints(axes)], options("Reducer", keepDims=op.keepdims))

    return spelling


SPELLINGS: dict[type[Op], Spelling] = {
    activation.Abs: same("ABS", "Abs"),
    activation.Clip: clip,
    activation.Erf: erf,
    activation.Exp: same("EXP", "Exp"),
    activation.Gelu: gelu,
    activation.HardSigmoid: hard_sigmoid,
    activation.HardSwish: same("HARD_SWISH", "HardSwish"),
    activation.LeakyRelu: leaky,
    activation.Log: same("LOG"),
    activation.Neg: same("NEG", "Neg"),
    activation.Reciprocal: reciprocal,
    activation.Relu: clip,
    activation.Sigmoid: same("LOGISTIC"),
    activation.Silu: silu,
    activation.Softmax: softmax,
    activation.Sqrt: same("SQRT"),
    activation.Tanh: same("TANH"),
    conv.Conv: products.convolution,
    elementwise.Add: binary("ADD"),
    elementwise.Affine: affine,
    elementwise.Div: binary("DIV"),
    elementwise.Maximum: binary("MAXIMUM"),
    elementwise.Minimum: binary("MINIMUM"),
    elementwise.Mul: binary("MUL"),
    elementwise.Pow: power,
    elementwise.Sub: binary("SUB"),
    logic.Cast: cast,
    logic.Equal: binary("EQUAL"),
    logic.Less: binary("LESS"),
    logic.Where: where,
    linear.Linear: products.dense,
    linear.MatMul: products.product,
    norm.BatchNorm: products.batch_norm,
    norm.GroupNorm: products.group_norm,
    norm.LayerNorm: products.layer_norm,
    norm.RMSNorm: products.rms_norm,
    norm.RepNorm: products.batch_norm,
    number.Cos: same("COS", "Cos"),
    number.Floor: same("FLOOR"),
    number.Mod: binary("FLOOR_MOD"),
    number.Prod: reduction("REDUCE_PROD"),
    number.ReduceMin: reduction("REDUCE_MIN"),
    number.Round: same("ROUND"),
    number.Sin: same("SIN"),
    pool.AveragePool: products.average_pool,
    pool.MaxPool: products.max_pool,
    pool.Mean: reduction("MEAN"),
    pool.ReduceMax: reduction("REDUCE_MAX"),
    pool.Sum: reduction("SUM"),
    quant.Dequantize: dequantize,
    quant.Quantize: quantize,
    search.ArgMax: arg_max,
    search.Scatter: scatter,
    search.TopK: top_k,
    shape.Concat: concat,
    shape.Expand: expand,
    shape.Gather: gather,
    shape.Pad: pad,
    shape.Reshape: reshape,
    shape.Resize: resize,
    shape.Slice: cut,
    shape.Split: split,
    shape.Transpose: transpose,
}  # fmt: skip
"""The float ops; what `expand` takes apart is not among them."""
