"""Integer forms of the products: Linear, convolution, patch embedding, and the product of two activations."""

from __future__ import annotations

import numpy as np

from ...errors import ModelError
from ...graph import Array, Node, Value
from ...integer import multiplier
from ...op import Op
from ...ops import conv, linear
from ...ops.integer import QLinear, QMatMul
from ...ops.integer_conv import QConv, QPatchEmbed
from .channels_last import IMAGE, Layout, channels_at_end, plain
from .choose_scales import Form
from .fit_weights import Fitted
from .integer_lowering import Lowering, Target, reach


def _columns(node: Node, form: Form) -> Array:
    """Weights [N, K], times the scale of their channel of x."""
    return np.asarray(node.input(1).array.astype(np.float64) * np.asarray(form.quant.scale))


def _taps(fitted: Fitted, node: Node) -> Array:
    """Fitted weights of an image's layer as O, H, W, I."""
    outputs, depth, *window = node.input(1).shape
    return fitted.w.reshape(outputs, *window, depth)


def _kernel(node: Node, form: Form, groups: int = 1) -> Array:
    """Weights OIHW as O, H, W, I, times the scale of their channel of x."""
    weight = node.input(1).array.astype(np.float64).transpose(0, 2, 3, 1)
    outputs, depth = len(weight), weight.shape[3]
    scales = np.broadcast_to(np.asarray(form.quant.scale), (groups * depth,)).reshape(groups, 1, 1, depth)
    return np.asarray(weight * np.repeat(scales, outputs // groups, axis=0))


def _parameters(fitted: Fitted, node: Node, form: Form) -> tuple[Array, int]:
    try:
        return fitted.multipliers(np.asarray(form.quant.scale))
    except ModelError as error:
        raise ModelError(error.what, where=node.sources or (node.name,), why=error.why, do=error.do) from None


def lower_linear(lowering: Lowering, node: Node) -> None:
    """Scales per channel of x go into the columns of w; those of the output into the multipliers."""
    x, target = node.input(0), lowering.target(node)
    layout = channels_at_end(lowering.layout(x), len(x.shape) - 1)
    placed = lowering.read(x, layout)
    fitted = lowering.fitted(node, lambda: _columns(node, placed.form), placed.form)
    mult, pre = _parameters(fitted, node, target.form)
    op = QLinear(target.form.quant, target.form.dtype, pre, target.low, target.high)
    _emit(lowering, node, op, (placed.value, fitted.w, fitted.bias, mult), target, layout)


def lower_conv(lowering: Lowering, node: Node) -> None:
    """As for Linear; the border is filled with the zero point, which all channels share."""
    op, target = node.op, lowering.target(node)
    assert isinstance(op, conv.Conv)
    placed = lowering.read_narrow(node.input(0), IMAGE)
    fitted = lowering.fitted(node, lambda: _kernel(node, placed.form, op.groups), placed.form)
    mult, pre = _parameters(fitted, node, target.form)
    made = QConv(
        target.form.quant, target.form.dtype, op.strides, op.pads, op.dilations, op.groups,
        placed.form.quant.zero_point, pre, target.low, target.high,
    )  # fmt: skip
    _emit(lowering, node, made, (placed.value, _taps(fitted, node), fitted.bias, mult), target, IMAGE)


def lower_patch_embed(lowering: Lowering, node: Node) -> None:
    """The same for non-overlapping patches, which come out as tokens."""
    op, target = node.op, lowering.target(node)
    assert isinstance(op, conv.PatchEmbed)
    placed = lowering.read_narrow(node.input(0), IMAGE)
    fitted = lowering.fitted(node, lambda: _kernel(node, placed.form), placed.form)
    mult, pre = _parameters(fitted, node, target.form)
    zero = placed.form.quant.zero_point
    made = QPatchEmbed(target.form.quant, target.form.dtype, op.patch, op.pads, zero, pre)
    _emit(lowering, node, made, (placed.value, _taps(fitted, node), fitted.bias, mult), target, plain(3))


Operands = tuple[Value, Array, Array, Array]  # x, weights, bias, multipliers


def _emit(lowering: Lowering, node: Node, op: Op, operands: Operands, to: Target, layout: Layout) -> None:
    x, *parameters = operands
    names = (node.input(1).name, f"{node.output.name}_bias", f"{node.output.name}_mult")
    constants = [lowering.constant(array, name) for array, name in zip(parameters, names, strict=True)]
    lowering.put(to.value, lowering.emit(node, op, x, *constants), layout, to.form)


def lower_matmul(lowering: Lowering, node: Node) -> None:
    """The right operand is int8; the left one may be int16 as far as the sums allow."""
    assert isinstance(node.op, linear.MatMul)
    a, b = node.input(0), node.input(1)
    target = lowering.target(node)
    right = lowering.read_narrow(b, plain(len(b.shape)), symmetric=True)
    left = lowering.read(a, plain(len(a.shape)))
    if left.form.quant.zero_point or reach(left.form) * 128 * a.shape[-1] >= 2**31:
        left = lowering.read_narrow(a, plain(len(a.shape)), symmetric=True)
    bound = reach(left.form) * 128 * a.shape[-1]
    mult, pre = multiplier(left.form.scale * right.form.scale / target.form.scale, bound)
    op = QMatMul(target.form.quant, target.form.dtype, int(mult), pre)
    made = lowering.emit(node, op, left.value, right.value)
    lowering.put(target.value, made, plain(len(node.output.shape)), target.form)
