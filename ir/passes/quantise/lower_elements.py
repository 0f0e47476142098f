"""Integer forms of what happens to one element at a time: sums, products, scales per channel, and tables."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...errors import ModelError
from ...graph import Array, Node, Value
from ...integer import add_constants, make_table8, make_table16, multiplier
from ...ops import elementwise
from ...ops.integer import QAffine, QRequantise
from ...ops.integer_elementwise import QAdd, QMul, QTable8, QTable16
from . import observers
from .channels_last import Layout, channels_at_end
from .choose_scales import Form
from .fit_weights import fit_affine
from .integer_lowering import Lowering, Placed, limits, reach
from .legalise_integer import scalar_function


def lower_unary(lowering: Lowering, node: Node) -> None:
    """Any function of one element: 256 entries for int8, 257 points and straight lines for int16."""
    if any(node is fused for fused in lowering.chooser.fused.values()):
        return
    found = scalar_function(node)
    assert found is not None
    x, function = found
    form, placed = lowering.chooser.form(node.output), lowering.read(x)
    stats = lowering.chooser.statistics(node.output)
    safe = _within(function, stats.low, stats.high)
    if placed.form.dtype == "int8":
        zero, out = placed.form.quant.zero_point, form.quant
        entries = make_table8(safe, placed.form.scale, zero, form.scale, out.zero_point, form.bits)
        low, high = limits(form)
        table = lowering.constant(np.clip(entries, low, high).astype(form.dtype), f"{node.output.name}_table")
        made = lowering.emit(node, QTable8(form.quant, form.dtype), placed.value, table)
        lowering.put(node.output, made, placed.layout, form)
        return
    wide = form if form.dtype == "int16" else Form("int16", observers.symmetric(stats.largest * 1.05, 32767))
    most = min(wide.most, 32767)
    points = np.clip(make_table16(safe, placed.form.scale, wide.scale), -most, most).astype(np.int16)
    table = lowering.constant(points, f"{node.output.name}_table")
    name = node.output.name if wide is form else f"{node.output.name}_wide"
    made = lowering.emit(node, QTable16(wide.quant), placed.value, table, name=name)
    lowering.put(node.output, made, placed.layout, wide)
    if wide is not form:
        narrowed = lowering.read(node.output, form=form)
        lowering.put(node.output, narrowed.value, narrowed.layout, form)


def _within(function: Callable[[Array], Array], low: float, high: float) -> Callable[[Array], Array]:
    """The function where it is finite, and twice the observed range elsewhere (log 0, 1 / 0)."""
    spread = max(high - low, 1e-6)

    def safe(x: Array) -> Array:
        with np.errstate(all="ignore"):
            y = function(x)
        finite = np.nan_to_num(y, nan=0.0, posinf=np.inf, neginf=-np.inf)
        return np.asarray(np.clip(finite, low - spread, high + spread))

    return safe


def lower_sum(lowering: Lowering, node: Node) -> None:
    """a + b and a - b; a constant scalar or vector of channels becomes a shift per channel."""
    a, b = node.input(0), node.input(1)
    minus = -1.0 if isinstance(node.op, elementwise.Sub) else 1.0
    if b.is_constant and _channels(b, node.output) is not None:
        return _affine(lowering, node, a, np.ones(1), minus * b.array, node.output.shape[-1])
    if a.is_constant and _channels(a, node.output) is not None:
        return _affine(lowering, node, b, np.full(1, minus), a.array, node.output.shape[-1])
    target = lowering.target(node)
    # A table needs no more bits than the sum has, nor many more than the weights beside it.
    few = target.form.dtype == "int8" or lowering.code(node) != "int8"
    left, right = _operands(lowering, node, "int8" if few else "int16")
    ma, mb, c, shift = add_constants(
        left.form.scale, minus * right.form.scale, target.form.scale, left.form.quant.zero_point,
        right.form.quant.zero_point, target.form.quant.zero_point, left.form.bits, right.form.bits,
    )  # fmt: skip
    op = QAdd(target.form.quant, target.form.dtype, ma, mb, c, shift, target.low, target.high)
    lowering.put(target.value, lowering.emit(node, op, left.value, right.value), left.layout, target.form)


def lower_product(lowering: Lowering, node: Node) -> None:
    """a * b, and a / b; a constant scalar or vector of channels becomes a scale per channel."""
    a, b = node.input(0), node.input(1)
    divide = isinstance(node.op, elementwise.Div)
    for x, factor in ((a, b),) if divide else ((a, b), (b, a)):
        if factor.is_constant and _channels(factor, node.output) is not None:
            values = 1.0 / factor.array.astype(np.float64) if divide else factor.array
            return _affine(lowering, node, x, values, np.zeros(1), node.output.shape[-1])
    if divide and b.is_constant:
        raise ModelError("division by a constant image", where=node.sources, do="multiply by its reciprocal instead")
    target = lowering.target(node)
    left, right = _operands(lowering, node, "int16")
    if divide:
        right = _inverse(lowering, node, left.layout)
    ratio = left.form.scale * right.form.scale / target.form.scale
    bound = _offset_reach(left.form) * _offset_reach(right.form)
    mult, pre = multiplier(ratio, bound)
    zeros = (left.form.quant.zero_point, right.form.quant.zero_point)
    op = QMul(target.form.quant, target.form.dtype, *zeros, int(mult), pre, target.low, target.high)
    lowering.put(target.value, lowering.emit(node, op, left.value, right.value), left.layout, target.form)


def _inverse(lowering: Lowering, node: Node, layout: Layout) -> Placed:
    """1 / b of a quotient's computed divisor, from a table for int8.

    A divisor that its own scale cannot tell from 0 counts as one step of it. Where linear attention divides by a sum
    of products that vanishes, the dividend is a sum of the same products.
    """
    placed = _stretched(lowering, node.input(1), len(node.output.shape), layout, narrow=True)
    steps = np.arange(-128, 128) - placed.form.quant.zero_point
    steps[steps == 0] = 1
    form = Form("int16", observers.symmetric(1.0 / placed.form.scale, 32767))
    name = f"{node.output.name}_inverse"
    table = lowering.constant(np.rint(32767.0 / steps).astype(np.int16), f"{name}_table")
    made = lowering.emit(node, QTable8(form.quant, "int16"), placed.value, table, name=name)
    return Placed(made, placed.layout, form)


def lower_affine(lowering: Lowering, node: Node) -> None:
    """a * x + c along one axis, which is brought to the end."""
    assert isinstance(node.op, elementwise.Affine)
    x = node.input(0)
    _affine(lowering, node, x, node.input(1).array, node.input(2).array, x.shape[node.op.axis], node.op.axis)


def _affine(lowering: Lowering, node: Node, x: Value, a: Array, c: Array, size: int, axis: int = -1) -> None:
    """A node y = a x + c with a and c of `size` or 1 along a float axis of x."""
    rank = len(x.shape)
    form = lowering.chooser.form(node.output)
    layout = lowering.layout(x)
    a, c = (np.asarray(v, np.float64).reshape(-1) for v in (a, c))
    scalar = len(a) == len(c) == 1
    placed = lowering.read(x, layout if scalar else channels_at_end(layout, axis % rank))
    source = placed.form
    if scalar and not c.any():
        mult, pre = multiplier(a[0] * source.scale / form.scale, _offset_reach(source))
        op = QRequantise(form.quant, form.dtype, int(mult), pre, source.quant.zero_point, *limits(form))
        made = lowering.emit(node, op, placed.value)
    else:
        size = placed.value.shape[-1] if scalar else size
        a, c = np.broadcast_to(a, size), np.broadcast_to(c, size)
        mults, bias, lift = fit_affine(a, c, source.scale, source.quant.zero_point, form.scale, reach(source))
        names = (f"{node.output.name}_mult", f"{node.output.name}_bias")
        operands = [lowering.constant(array, name) for array, name in zip((mults, bias), names, strict=True)]
        made = lowering.emit(node, QAffine(form.quant, form.dtype, lift), placed.value, *operands)
    lowering.put(node.output, made, placed.layout, form)


def _channels(constant: Value, result: Value) -> Array | None:
    """The constant as a vector along the last axis, or None when it is anything else."""
    small = constant.array.size == 1 or (constant.array.size == constant.shape[-1] == result.shape[-1])
    return constant.array.reshape(-1) if small else None


def _operands(lowering: Lowering, node: Node, dtype: str) -> tuple[Placed, Placed]:
    """Both operands in one layout of the result's rank, constants as integers of their own scale.

    Constants are `dtype`; those of images, where everything is int8, that.
    """
    dtype = "int8" if id(node.output) in lowering.chooser.images else dtype
    values = (node.input(0), node.input(1))
    rank = len(node.output.shape)
    leader = max((v for v in values if not v.is_constant), key=lambda v: (len(v.shape), v.type.size))
    layout = lowering.layout(leader)
    left, right = (
        _constant(lowering, v, layout, dtype) if v.is_constant else _stretched(lowering, v, rank, layout)
        for v in values
    )
    return left, right


def _constant(lowering: Lowering, value: Value, layout: Layout, dtype: str) -> Placed:
    array = value.array.astype(np.float64)
    array = array.reshape((1,) * (len(layout) - array.ndim) + array.shape).transpose(layout)
    most = 127 if dtype == "int8" else 32767
    quant = observers.symmetric(float(np.abs(array).max(initial=0.0)), most)
    made = lowering.constant(quant.quantise(array, dtype), value.name, quant)
    return Placed(made, layout, Form(dtype, quant))


def _stretched(lowering: Lowering, value: Value, rank: int, layout: Layout, narrow: bool = False) -> Placed:
    """A computed operand in the common layout, leading axes of 1 added where it has fewer; as int8 if `narrow`."""
    read = lowering.read_narrow if narrow else lowering.read
    if len(value.shape) == rank:
        return read(value, layout)
    own = read(value, tuple(range(len(value.shape))))
    full = (1,) * (rank - len(value.shape)) + value.shape
    return lowering.reshaped(own, full, layout)


def _offset_reach(form: Form) -> int:
    """The greatest |q - zero point|."""
    return reach(form) + abs(form.quant.zero_point)
