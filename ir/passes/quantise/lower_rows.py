"""Integer forms of row-wise functions: norms, softmax, attention."""

from __future__ import annotations

import numpy as np

from ... import integer_rows
from ...graph import Array, Node, Value
from ...ops import activation, attention, norm, shape
from ...ops.integer_attention import QAttention, QSoftmax
from ...ops.integer_norm import QLayerNorm, QRMSNorm
from . import observers
from .channels_last import Layout, channels_at_end, plain
from .choose_scales import HEADROOM, Form, attention_bias, query_limit, score_floor
from .fit_weights import fit_affine
from .integer_lowering import Lowering, Placed, reach

Parameters = tuple[Value | None, Value | None]


def lower_norm(lowering: Lowering, node: Node) -> None:
    """LayerNorm and RMSNorm of rows; int16 rows wider than the kernel's bound are narrowed first."""
    op, x = node.op, node.input(0)
    assert isinstance(op, norm.LayerNorm | norm.RMSNorm)
    layout, form = channels_at_end(lowering.layout(x), len(x.shape) - 1), lowering.chooser.form(node.output)
    wide = form if form.dtype == "int16" else _wide(lowering, node)
    placed = lowering.read(x, layout)
    if x.shape[-1] > 1024:
        placed = lowering.read_narrow(x, layout)
    width = x.shape[-1]
    gain, shift = (None if v is None else v.array for v in (node.optional(1), node.optional(2)))
    parameters, lift = _scaling(lowering, node, (gain, shift), wide, width)
    bits, eps_q = integer_rows.norm_fraction_bits(width), integer_rows.norm_epsilon(op.eps, width, placed.form.scale)
    if isinstance(op, norm.LayerNorm):
        made = lowering.emit(node, QLayerNorm(wide.quant, bits, eps_q, lift), placed.value, *parameters)
    else:
        zero = placed.form.quant.zero_point
        made = lowering.emit(node, QRMSNorm(wide.quant, bits, eps_q, lift, zero), placed.value, *parameters)
    _put(lowering, node, made, layout, wide)


def _wide(lowering: Lowering, node: Node) -> Form:
    """What a norm stores where its readers want something else: int16, as all norms do."""
    return Form("int16", observers.symmetric(lowering.chooser.statistics(node.output).largest * HEADROOM, 32767))


def _put(lowering: Lowering, node: Node, made: Value, layout: Layout, wide: Form) -> None:
    """A norm's result in the form that its readers want."""
    lowering.put(node.output, made, layout, wide)
    form = lowering.chooser.form(node.output)
    if form != wide:
        lowering.put(node.output, lowering.read(node.output, form=form).value, layout, form)


def _scaling(
    lowering: Lowering, node: Node, real: tuple[Array | None, Array | None], form: Form, width: int
) -> tuple[Parameters, int]:
    """(mult, bias) and lift of a norm's gain and shift per channel; absent when it has none."""
    gain, shift = real
    if gain is None and shift is None:
        return (None, None), 0
    a = np.ones(width) if gain is None else gain
    c = np.zeros(width) if shift is None else shift
    unit = 2.0 ** -integer_rows.norm_fraction_bits(width)
    mult, bias, lift = fit_affine(a, c, unit, 0, form.scale, 32768)
    name = node.output.name
    return (lowering.constant(mult, f"{name}_mult"), lowering.constant(bias, f"{name}_bias")), lift


def lower_group_norm(lowering: Lowering, node: Node) -> None:
    """One group: the whole image is one row; gain and shift per channel repeat over its pixels."""
    op, x = node.op, node.input(0)
    assert isinstance(op, norm.GroupNorm)
    layout = channels_at_end(lowering.layout(x), 1)
    placed, wide = lowering.read_narrow(x, layout), _wide(lowering, node)
    size, channels = x.type.size, x.shape[1]
    vectors = (node.optional(1), node.optional(2))
    gain, shift = (None if v is None else np.tile(v.array, size // channels) for v in vectors)
    gain = np.ones(size) if gain is None else gain
    parameters, lift = _scaling(lowering, node, (gain, shift), wide, size)
    bits, eps_q = integer_rows.norm_fraction_bits(size), integer_rows.norm_epsilon(op.eps, size, placed.form.scale)
    name = node.output.name
    row = lowering.emit(node, shape.Reshape((1, size)), placed.value, name=f"{name}_row")
    normed = lowering.emit(node, QLayerNorm(wide.quant, bits, eps_q, lift), row, *parameters, name=f"{name}_normed")
    made = lowering.emit(node, shape.Reshape(placed.value.shape), normed, name=f"{name}_wide")
    _put(lowering, node, made, layout, wide)


def lower_softmax(lowering: Lowering, node: Node) -> None:
    """The axis comes last; the exponential of every int8 difference is a table entry."""
    op, x = node.op, node.input(0)
    assert isinstance(op, activation.Softmax)
    layout = channels_at_end(lowering.layout(x), op.axis % len(x.shape))
    placed, form = lowering.read_narrow(x, layout), lowering.chooser.form(node.output)
    entries = integer_rows.make_softmax_table(placed.form.scale, placed.value.shape[-1])
    table = lowering.constant(entries, f"{node.output.name}_table")
    mult = integer_rows.softmax_multiplier(form.scale)
    made = lowering.emit(node, QSoftmax(form.quant, form.dtype, mult), placed.value, table)
    lowering.put(node.output, made, layout, form)


def lower_attention(lowering: Lowering, node: Node) -> None:
    """The score scale of each head becomes its base-2 multiplier; the ratio of v's and the output's scales, `mult`."""
    op = node.op
    assert isinstance(op, attention.Attention)
    k, v = (lowering.read_narrow(node.input(i), plain(3), symmetric=True) for i in (1, 2))
    q = _queries(lowering, node, k)
    form = lowering.chooser.form(node.output)
    width, out_width = node.input(0).shape[2], node.input(2).shape[2]
    products = np.broadcast_to(np.asarray(q.form.quant.scale) * np.asarray(k.form.quant.scale), (width,))
    scores = products.reshape(op.heads, -1)[:, 0] * op.scale
    mz, pre = integer_rows.score_multiplier(scores)
    ratio = np.broadcast_to(np.asarray(v.form.quant.scale) / np.asarray(form.quant.scale), (out_width,))
    mult = lowering.constant(integer_rows.output_multiplier(ratio), f"{node.output.name}_mult")
    keys = node.input(1).shape[1]
    table = lowering.constant(integer_rows.exp_table(keys), f"exp_table_{keys}")
    bias, bias_shift = _bias(lowering, node, scores)
    made = QAttention(form.quant, op.heads, tuple(mz.tolist()), pre, bias_shift)
    value = lowering.emit(node, made, q.value, k.value, v.value, mult, table, bias)
    lowering.put(node.output, value, plain(3), form)


def _queries(lowering: Lowering, node: Node, k: Placed) -> Placed:
    """Queries as they are where their sums stay in int32, else at a scale where they do."""
    value, op = node.input(0), node.op
    assert isinstance(op, attention.Attention)
    q = lowering.read(value, plain(3))
    most, least = query_limit(value.shape[2] // op.heads), score_floor(node)
    fits = q.form.quant.zero_point == 0 and (not q.form.uniform or q.form.dtype == "int8" or reach(q.form) <= most + 1)
    if fits and float(np.min(np.asarray(q.form.quant.scale) * np.asarray(k.form.quant.scale))) >= least * (1 - 1e-9):
        return q
    floor = least / float(np.min(k.form.quant.scale))
    scale = max(lowering.chooser.statistics(lowering.chooser.source(value)).largest * HEADROOM / most, floor)
    return lowering.read(value, plain(3), Form("int16", observers.symmetric(scale * most, most), most))


def _bias(lowering: Lowering, node: Node, scores: Array) -> tuple[Value | None, int]:
    """The bias in units of the scores, int16 after a common shift."""
    bias = attention_bias(node)
    if bias is None:
        return None, 0
    units = bias / scores[:, None, None]
    shift = 0
    while np.abs(units).max(initial=0.0) / 2**shift > 32767:
        shift += 1
    return lowering.constant(np.rint(units / 2**shift).astype(np.int16), f"{node.output.name}_bias"), shift
