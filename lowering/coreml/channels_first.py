"""The Neural Engine's layout: tokens [B, N, C] as [B, C, 1, N] from end to end, products as 1x1 convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...ir.graph import Value
from ...ir.op import Op
from ...ir.ops import activation, conv, elementwise, linear, norm, pool, shape
from ...ir.ops.attention import Attention
from .attention import joined, queries_factor, times
from .site import FIRST, PLAIN, Site, Var
from .spellings import SPELLINGS, by_root_mean_square, convolution, normalised

__all__ = ["CHANNELS_FIRST", "plain"]

AXES = {1: 3, 2: 1}
"""Where the axes of tokens [B, N, C] lie, but the batch."""

Result = Any
Spelling = Callable[[Site, Any], Result]


def plain(site: Site, value: Value) -> None:
    """Have a value at hand as our graph has it."""
    if value.data is not None or site.store.forms(value, PLAIN):
        return
    x = site.read(value, FIRST)
    if value.type.rank == 3:
        batch, tokens, channels = value.shape
        x = site.transpose(site.reshape(x, (batch, channels, tokens)), (0, 2, 1))
    site.store.bind(value, site.dtype, site.reshape(x, value.shape), PLAIN)


def first(site: Site, value: Value) -> None:
    """Have a value at hand channels first."""
    if value.data is not None or site.store.forms(value, FIRST):
        return
    x = site.read(value, PLAIN)
    if value.type.rank == 3:
        x = site.transpose(x, (0, 2, 1))
    site.store.bind(value, site.dtype, site.reshape(x, laid(value.shape)), FIRST)


def laid(dims: tuple[int, ...]) -> tuple[int, ...]:
    """The shape channels first."""
    return (dims[0], dims[2], 1, dims[1]) if len(dims) == 3 else (*dims, 1, 1)


def take(site: Site, index: int = 0) -> Var:
    """An operand channels first; so are the results from here on."""
    first(site, site.node.input(index))
    site.form = FIRST
    return site[index]


def at_hand(site: Site, index: int = 0) -> bool:
    """Whether an operand is there channels first."""
    return bool(site.store.forms(site.node.input(index), FIRST))


def like_plain(site: Site, op: Op) -> Result:
    """Element by element: the plain spelling on operands that are channels first already, or can follow one that is."""
    operands = [value for value in site.node.inputs if value is not None]
    rank = site.node.output.type.rank
    if not any(site.store.forms(value, FIRST) for value in operands):
        return NotImplemented
    if any(value.data is None and value.type.rank != rank for value in operands):
        return NotImplemented
    for value in operands:
        first(site, value)
    site.form = FIRST
    return SPELLINGS[type(op)](site, op)


def dense(site: Site, op: linear.Linear) -> Result:
    """A 1x1 convolution."""
    weight, bias = site.data(1), site.data(2)
    fixed = weight is not None and (bias is not None or not site.has(2))
    if not fixed or not (site.rank == 3 or at_hand(site)):
        return NotImplemented
    return pointwise(site, take(site), weight, bias)


def pointwise(site: Site, x: Var, weight: Any, bias: Any) -> Var:
    """A 1x1 convolution of [B, K, 1, N] with a weight [C, K]."""
    kernel = site.cast(weight[:, :, None, None])
    return site.add("conv", x=x, weight=kernel, bias=None if bias is None else site.cast(bias), pad_type="valid")


def patch_embed(site: Site, op: conv.PatchEmbed) -> Result:
    """Conv, its pixels in a row."""
    image = convolution(site, conv.Conv(op.patch, op.pads))
    site.form = FIRST
    return site.reshape(image, laid(site.node.output.shape))


def layer_norm(site: Site, op: norm.LayerNorm) -> Result:
    """layer_norm over the second axis."""
    if site.rank != 3 and not at_hand(site):
        return NotImplemented
    scale, shift = site.weight(1, "scale"), site.weight(2, "shift")
    return normalised(site, take(site), (1,), op.eps, scale, shift)


def rms_norm(site: Site, op: norm.RMSNorm) -> Result:
    """The formula over the second axis."""
    scale = site.data(1)
    if (site.rank != 3 and not at_hand(site)) or (site.has(1) and scale is None):
        return NotImplemented
    factor = None if scale is None else site.constant(scale[:, None, None], "scale")
    return by_root_mean_square(site, take(site), 1, op.eps, factor)


def affine(site: Site, op: elementwise.Affine) -> Result:
    """Mul and add along the second axis."""
    a, c = site.data(1), site.data(2)
    if not at_hand(site) or op.axis % site.rank != site.rank - 1 or a is None or c is None:
        return NotImplemented
    y = site.add("mul", x=take(site), y=site.constant(a[:, None, None], "factor"))
    return site.add("add", x=y, y=site.constant(c[:, None, None], "offset"))


def turned(site: Site, op: shape.Transpose) -> Result:
    """[B, C, N] into tokens [B, N, C] or back: the same elements in the same order, channels first."""
    if op.perm != (0, 2, 1):
        return NotImplemented
    x = site.node.input(0)
    if at_hand(site):
        return site.reshape(site.read(x, FIRST), site.node.output.shape)
    y = site.reshape(site.read(x, PLAIN), laid(site.node.output.shape))
    site.form = FIRST
    return y


def same_elements(site: Site, op: shape.Reshape) -> Result:
    """One token [B, 1, C] is a row [B, C], and a row is one token."""
    if not at_hand(site) or len(op.shape) not in (2, 3) or laid(op.shape) != laid(site.shape):
        return NotImplemented
    return take(site)


def concat(site: Site, op: shape.Concat) -> Result:
    """concat along the axis where it lies now."""
    operands = site.node.inputs
    if not any(value and site.store.forms(value, FIRST) for value in operands) or site.rank != 3:
        return NotImplemented
    for index in range(len(operands)):
        first(site, site.node.input(index))
    site.form = FIRST
    values = [site[index] for index in range(len(operands))]
    return site.add("concat", values=values, axis=AXES.get(op.axis % 3, 0)) if len(values) > 1 else values[0]


def cut(site: Site, op: shape.Slice) -> Result:
    """slice_by_index along the axes where they lie now."""
    if not at_hand(site) or site.rank != 3 or min(op.steps, default=1) < 0:
        return NotImplemented
    begin, end, stride = [0] * 4, [*laid(site.shape)], [1] * 4
    for axis, each in enumerate(op.index(3)):
        begin[AXES.get(axis, 0)], end[AXES.get(axis, 0)], stride[AXES.get(axis, 0)] = each.indices(site.shape[axis])
    return site.add("slice_by_index", x=take(site), begin=begin, end=end, stride=stride)


def picked(site: Site, op: shape.Gather) -> Result:
    """One token as a row."""
    index = site.data(1)
    if not at_hand(site) or site.rank != 3 or op.axis % 3 != 1 or index is None or index.ndim:
        return NotImplemented
    batch, tokens, channels = site.shape
    at = int(index) % tokens
    return site.add("slice_by_index", x=take(site), begin=[0, 0, 0, at], end=[batch, channels, 1, at + 1])


def split(site: Site, op: shape.Split) -> Result:
    """split along the axis where it lies now."""
    if not at_hand(site) or site.rank != 3 or len(op.sizes) < 2:
        return NotImplemented
    return site.several("split", x=take(site), split_sizes=tuple(op.sizes), axis=AXES.get(op.axis % 3, 0))


def softmax(site: Site, op: activation.Softmax) -> Result:
    """softmax along the axis where it lies now."""
    if not at_hand(site) or site.rank != 3:
        return NotImplemented
    return site.add("softmax", x=take(site), axis=AXES.get(op.axis % 3, 0))


def over_tokens(site: Site, op: pool.Mean) -> Result:
    """A reduction over the last axis, which stays: a row."""
    kinds = {pool.Mean: "reduce_mean", pool.Sum: "reduce_sum", pool.ReduceMax: "reduce_max"}
    if not at_hand(site) or site.rank != 3 or [axis % 3 for axis in op.axes] != [1]:
        return NotImplemented
    return site.add(kinds[type(op)], x=take(site), axes=(3,), keep_dims=True)


def attention(site: Site, op: Attention) -> Result:
    """Each head by itself: keys and queries as [B, 1, d, N], so that no product needs a transpose of its own."""
    heads, biases = _heads(site, op), _biases(site, op)
    site.form = FIRST
    outs = []
    for q, k, v, bias in zip(*(heads[index] for index in range(3)), biases, strict=True):
        scores = site.add("matmul", x=q, y=k, transpose_x=True)
        scores = scores if bias is None else site.add("add", x=scores, y=bias)
        shares = site.add("softmax", x=scores, axis=-1)
        outs.append(site.add("matmul", x=v, y=shares, transpose_y=True))
    y = site.add("concat", values=outs, axis=1) if op.heads > 1 else outs[0]
    return site.reshape(y, laid(site.node.output.shape))


def _heads(site: Site, op: Attention) -> dict[int, tuple[Var, ...]]:
    """Queries, keys and values, each as its heads."""
    factor = queries_factor(site, op, False)
    found: dict[int, tuple[Var, ...]] = {}
    for each in site.projections:
        first(site, each.source)
        weight, bias, widths = joined(each, op.heads, factor, interleave=False)
        y = pointwise(site, site.read(each.source, FIRST), weight, bias)
        if len(set(widths)) == 1:
            parts = _apart(site, y, op.heads * len(widths))
            found.update((index, parts[i * op.heads : (i + 1) * op.heads]) for i, index in enumerate(each.operands))
            continue
        blocks = site.several("split", x=y, split_sizes=tuple(op.heads * width for width in widths), axis=1)
        found.update((i, _apart(site, block, op.heads)) for i, block in zip(each.operands, blocks, strict=True))
    for index in range(3):
        if index not in found:
            first(site, site.node.input(index))
            x = site.read(site.node.input(index), FIRST)
            found[index] = _apart(site, x if index else times(site, x, factor), op.heads)
    return found


def _apart(site: Site, x: Var, heads: int) -> tuple[Var, ...]:
    """[B, H*d, 1, N] as H times [B, 1, d, N]."""
    batch, channels, _, tokens = x.shape
    x = site.reshape(x, (batch, heads, channels // heads, tokens))
    return site.several("split", x=x, num_splits=heads, axis=1) if heads > 1 else (x,)


def _biases(site: Site, op: Attention) -> list[Var]:
    """The part of the bias that each head adds to its scores; it broadcasts to [B, 1, N, M]."""
    if not site.has(3):
        return [None] * op.heads
    dims = (*[1] * (4 - site.node.input(3).type.rank), *site.node.input(3).shape)
    data = site.data(3)
    if dims[1] == 1:
        return [site.reshape(site.read(site.node.input(3)), dims)] * op.heads
    if data is not None:
        return [site.constant(part, "bias") for part in np.split(data.reshape(dims), op.heads, axis=1)]
    plain(site, site.node.input(3))
    return list(site.several("split", x=site.reshape(site.read(site.node.input(3)), dims), num_splits=op.heads, axis=1))


CHANNELS_FIRST: dict[type[Op], Spelling] = {
    **{
        kind: like_plain
        for kind in (
            activation.Abs, activation.Clip, activation.Erf, activation.Exp, activation.Gelu, activation.HardSigmoid,
            activation.HardSwish, activation.LeakyRelu, activation.Log, activation.Neg, activation.Reciprocal,
            activation.Relu, activation.Sigmoid, activation.Silu, activation.Sqrt, activation.Tanh, elementwise.Add,
            elementwise.Div, elementwise.Maximum, elementwise.Minimum, elementwise.Mul, elementwise.Pow,
            elementwise.Sub,
        )
    },
    activation.Softmax: softmax,
    Attention: attention,
    conv.PatchEmbed: patch_embed,
    elementwise.Affine: affine,
    linear.Linear: dense,
    norm.LayerNorm: layer_norm,
    norm.RMSNorm: rms_norm,
    pool.Mean: over_tokens,
    pool.ReduceMax: over_tokens,
    pool.Sum: over_tokens,
    shape.Concat: concat,
    shape.Gather: picked,
    shape.Reshape: same_elements,
    shape.Slice: cut,
    shape.Split: split,
    shape.Transpose: turned,
}  # fmt: skip
"""What is written otherwise where tokens lie channels first; a form that is not gives NotImplemented."""
