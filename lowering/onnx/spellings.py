"""How each float op of ours is written in ONNX: the operator of the opset where there is one, else primitives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from onnx import helper

from ...ir.op import Op
from ...ir.ops import activation, conv, elementwise, linear, logic, norm, number, pool, shape
from ...ir.ops.attention import Attention
from ...ir.ops.quant import Dequantize, Quantize
from .site import FormError, Site, stored

__all__ = ["SPELLINGS"]

Result = str | tuple[str, ...]
Spelling = Callable[[Site, Any], Result]

WIDE_INTEGERS_SINCE = 21
"""Before this opset QuantizeLinear makes eight bits only."""

ATTENTION_SINCE = RMS_NORM_SINCE = 23


def same(kind: str) -> Spelling:
    """The operator of that name, without attributes."""
    return lambda site, op: site.add(kind, *site.operands())


def along_channels(site: Site, op: elementwise.Affine) -> Result:
    """Mul and Add."""
    return site.add("Add", site.add("Mul", site.x, site.along(1, op.axis)), site.along(2, op.axis))


def clip(site: Site, op: activation.Clip) -> Result:
    """Bounds are operands; infinite ones are left out."""
    low, high = (site.number(bound) if np.isfinite(bound) else "" for bound in (op.minimum, op.maximum))
    return site.add("Clip", site.x, low, high)


def gelu(site: Site, op: activation.Gelu) -> Result:
    """Gelu, which does not know the form by sigmoid."""
    if op.approximate != "sigmoid":
        return site.add("Gelu", site.x, approximate=op.approximate)
    return site.add("Mul", site.x, site.add("Sigmoid", site.add("Mul", site.x, site.number(1.702))))


def silu(site: Site, op: activation.Silu) -> Result:
    """x * sigmoid(x): Swish comes with opset 24."""
    return site.add("Mul", site.x, site.add("Sigmoid", site.x))


def dense(site: Site, op: linear.Linear) -> Result:
    """Gemm for rows with a bias, else MatMul and Add; Gemm takes matrices only."""
    if stored(site.node.input(1)):
        y = site.add("Gemm", site.rows(), site[1], site.bias(2), transB=1)
        return y if site.rank == 2 else site.reshape(y, site.node.output.shape)
    weight, turned = site.matrix(1)
    if site.rank == 2 and site.has(2):
        return site.add("Gemm", site.x, weight, site[2], transB=int(not turned))
    product = site.add("MatMul", site.x, weight if turned else site.add("Transpose", weight, perm=(1, 0)))
    return site.add("Add", product, site[2]) if site.has(2) else product


def convolution(site: Site, op: conv.Conv) -> str:
    """Conv."""
    return _conv(site, op)


def patch_embed(site: Site, op: conv.PatchEmbed) -> Result:
    """Conv, its pixels in a row, channels last."""
    image = _conv(site, conv.Conv(op.patch, op.pads))
    batch, tokens, channels = site.node.output.shape
    return site.add("Transpose", site.reshape(image, (batch, channels, tokens)), perm=(0, 2, 1))


def _conv(site: Site, op: conv.Conv) -> str:
    return site.add(
        "Conv", site.x, site[1], site.bias(2), kernel_shape=site.node.input(1).shape[2:],
        strides=op.strides, pads=op.pads, dilations=op.dilations, group=op.groups,
    )  # fmt: skip


def layer_norm(site: Site, op: norm.LayerNorm) -> Result:
    """LayerNormalization, whose scale must be there."""
    scale = site[1] or site.filled(site.node.output.shape[-1], 1.0)
    return site.add("LayerNormalization", site.x, scale, site[2], axis=-1, epsilon=op.eps)


def rms_norm(site: Site, op: norm.RMSNorm) -> Result:
    """RMSNormalization, or the formula."""
    if site.opset >= RMS_NORM_SINCE:
        scale = site[1] or site.filled(site.node.output.shape[-1], 1.0)
        return site.add("RMSNormalization", site.x, scale, axis=-1, epsilon=op.eps)
    mean = site.add("ReduceMean", site.add("Mul", site.x, site.x), site.ints([-1]), keepdims=1)
    y = site.add("Div", site.x, site.add("Sqrt", site.add("Add", mean, site.number(op.eps))))
    return site.add("Mul", y, site[1]) if site[1] else y


def batch_norm(site: Site, op: norm.BatchNorm) -> Result:
    """BatchNormalization, which has its channels on axis 1; elsewhere, and with PRepBN's shortcut, Mul and Add."""
    if type(op) is norm.BatchNorm and op.axis % site.rank == 1:
        return site.add("BatchNormalization", *site.operands(), epsilon=op.eps)
    constants = [site.node.input(index).data for index in range(1, len(site.node.inputs))]
    if any(each is None for each in constants):
        raise FormError("its statistics must be known at compile time")
    a, c = op.coefficients(*cast("list[Any]", constants[:4]))
    if isinstance(op, norm.RepNorm):
        a = a + cast("Any", constants[4]).reshape(-1)
    ones = [1] * (site.rank - 1 - op.axis % site.rank)
    factor, shift = (site.store.literal(v.astype(np.float32).reshape(-1, *ones), "affine") for v in (a, c))
    return site.add("Add", site.add("Mul", site.x, factor), shift)


def group_norm(site: Site, op: norm.GroupNorm) -> Result:
    """InstanceNormalization of joined channels, in any opset: runtimes take GroupNormalization apart into many."""
    image = site.node.output.shape
    joined = site.reshape(site.x, (image[0], op.groups, math.prod(image[1:]) // op.groups))
    scale, shift = site.filled(op.groups, 1.0), site.filled(op.groups, 0.0)
    y = site.reshape(site.add("InstanceNormalization", joined, scale, shift, epsilon=op.eps), image)
    y = site.add("Mul", y, site.along(1, 1)) if site.has(1) else y
    return site.add("Add", y, site.along(2, 1)) if site.has(2) else y


def attention(site: Site, op: Attention) -> Result:
    """Attention, or its products around a Softmax; the scale is on the queries, the smaller operand."""
    if site.opset >= ATTENTION_SINCE:
        return site.add(
            "Attention", site[0], site[1], site[2], _mask(site),
            q_num_heads=op.heads, kv_num_heads=op.heads, scale=op.scale,
        )  # fmt: skip
    q, k, v = (_heads(site, i, op.heads, perm) for i, perm in enumerate(((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))))
    q = q if op.scale == 1.0 else site.add("Mul", q, site.number(op.scale))
    scores = site.add("MatMul", q, k)
    scores = site.add("Add", scores, site[3]) if site[3] else scores
    y = site.add("MatMul", site.add("Softmax", scores, axis=-1), v)
    return site.reshape(site.add("Transpose", y, perm=(0, 2, 1, 3)), site.node.output.shape)


def _heads(site: Site, index: int, heads: int, perm: tuple[int, ...]) -> str:
    batch, tokens, channels = site.node.input(index).shape
    return site.add("Transpose", site.reshape(site[index], (batch, tokens, heads, channels // heads)), perm=perm)


def _mask(site: Site) -> str:
    """The bias in the form [1 or B, 1 or H, N, M]: runtimes broadcast the first two axes only."""
    bias = site.node.optional(3)
    if bias is None:
        return ""
    batch, heads = (*[1] * (4 - bias.type.rank), *bias.shape)[:2]
    full = (batch, heads, site.node.input(0).shape[1], site.node.input(1).shape[1])
    if bias.shape == full:
        return site[3]
    if bias.data is None:
        return site.add("Expand", site[3], site.ints(full))
    return site.store.derived(bias, np.broadcast_to(bias.data, full), full, "mask")


def window(kind: str) -> Spelling:
    """A pooling operator."""

    def spell(site: Site, op: pool.MaxPool | pool.AveragePool) -> Result:
        more = {"count_include_pad": int(op.count_include_pad)} if isinstance(op, pool.AveragePool) else {}
        sizes = {"kernel_shape": op.kernel, "strides": op.strides, "pads": op.pads}
        return site.add(kind, site.x, **sizes, ceil_mode=int(op.ceil_mode), **more)

    return spell


def remainder(site: Site, op: number.Mod) -> Result:
    """Mod of integers; that of real numbers has the sign of a where ours has that of b."""
    if site.node.output.type.numpy.kind != "f":
        return site.add("Mod", *site.operands())
    whole = site.add("Floor", site.add("Div", *site.operands()))
    return site.add("Sub", site.x, site.add("Mul", whole, site[1]))


def reduction(kind: str) -> Spelling:
    """A reduction; its axes are an operand."""
    return lambda site, op: site.add(kind, site.x, site.ints(op.axes), keepdims=int(op.keepdims))


def mean(site: Site, op: pool.Mean) -> Result:
    """GlobalAveragePool of images, which runtimes compute in the convolutions' own layout; else ReduceMean."""
    if op.keepdims and site.rank == 4 and {axis % 4 for axis in op.axes} == {2, 3}:
        return site.add("GlobalAveragePool", site.x)
    return reduction("ReduceMean")(site, op)


def cut(site: Site, op: shape.Slice) -> Result:
    """Slice; all four lists are operands."""
    return site.add("Slice", site.x, *map(site.ints, (op.starts, op.ends, op.axes, op.steps)))


def resize(site: Site, op: shape.Resize) -> Result:
    """Resize to sizes, with neither region nor scales."""
    sizes = site.ints(site.node.output.shape)
    how = {"mode": op.mode, "coordinate_transformation_mode": op.coordinates, "nearest_mode": op.nearest}
    return site.add("Resize", site.x, "", "", sizes, **how)


def to_integers(site: Site, op: Quantize) -> Result:
    """QuantizeLinear."""
    _require_integers(site, op.dtype)
    axis = {} if op.quant.axis is None else {"axis": op.quant.axis}
    return site.add("QuantizeLinear", site.x, *site.meaning(op.quant, site.node.output), **axis)


def to_reals(site: Site, op: Dequantize) -> Result:
    """DequantizeLinear; that of a constant stands where it is read first."""
    _require_integers(site, site.node.input(0).dtype)
    return site.real(site.x, op.quant, site.node.input(0))


def _require_integers(site: Site, dtype: str) -> None:
    if dtype not in ("int8", "uint8") and not (dtype in ("int16", "uint16") and site.opset >= WIDE_INTEGERS_SINCE):
        raise FormError(f"opset {site.opset} has no crossing from or to {dtype}")


SPELLINGS: dict[type[Op], Spelling] = {
    **{
        cls: same(cls.__name__)
        for cls in (
            activation.Abs, activation.Erf, activation.Exp, activation.HardSwish, activation.Log, activation.Neg,
            activation.Reciprocal, activation.Relu, activation.Sigmoid, activation.Sqrt, activation.Tanh,
            elementwise.Add, elementwise.Div, elementwise.Mul, elementwise.Pow, elementwise.Sub, linear.MatMul,
            logic.Equal, logic.Less, logic.Where, number.Cos, number.Floor, number.Round, number.Sin,
        )
    },
    elementwise.Minimum: same("Min"),
    elementwise.Maximum: same("Max"),
    elementwise.Affine: along_channels,
    activation.Clip: clip,
    activation.Gelu: gelu,
    activation.HardSigmoid: lambda site, op: site.add("HardSigmoid", site.x, alpha=op.alpha, beta=op.beta),
    activation.LeakyRelu: lambda site, op: site.add("LeakyRelu", site.x, alpha=op.alpha),
    activation.Silu: silu,
    activation.Softmax: lambda site, op: site.add("Softmax", site.x, axis=op.axis),
    Attention: attention,
    conv.Conv: convolution,
    conv.PatchEmbed: patch_embed,
    linear.Linear: dense,
    norm.BatchNorm: batch_norm,
    norm.GroupNorm: group_norm,
    norm.LayerNorm: layer_norm,
    norm.RepNorm: batch_norm,
    norm.RMSNorm: rms_norm,
    Dequantize: to_reals,
    Quantize: to_integers,
    pool.AveragePool: window("AveragePool"),
    pool.MaxPool: window("MaxPool"),
    logic.Cast: lambda site, op: site.add("Cast", site.x, to=helper.np_dtype_to_tensor_dtype(np.dtype(op.dtype))),
    number.Mod: remainder,
    number.Prod: reduction("ReduceProd"),
    number.ReduceMin: reduction("ReduceMin"),
    pool.Mean: mean,
    pool.ReduceMax: reduction("ReduceMax"),
    pool.Sum: reduction("ReduceSum"),
    shape.Concat: lambda site, op: site.add("Concat", *site.operands(), axis=op.axis),
    shape.Expand: lambda site, op: site.add("Expand", site.x, site.ints(op.shape)),
    shape.Gather: lambda site, op: site.add("Gather", site.x, site[1], axis=op.axis),
    shape.Pad: lambda site, op: site.add("Pad", site.x, site.ints(op.pads), site.number(op.value)),
    shape.Reshape: lambda site, op: site.reshape(site.x, op.shape),
    shape.Resize: resize,
    shape.Slice: cut,
    shape.Split: lambda site, op: site.several(len(op.sizes), "Split", site.x, site.ints(op.sizes), axis=op.axis),
    shape.Transpose: lambda site, op: site.add("Transpose", site.x, perm=op.perm),
}  # fmt: skip
"""The float ops, and the crossings between real numbers and integers."""
