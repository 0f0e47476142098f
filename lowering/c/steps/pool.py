"""Pools, means and resizing."""

from __future__ import annotations

import numpy as np

from ....ir.ops.integer_pool import QAveragePool, QMaxPool, QMean, QResize
from ..call import Call
from ..constants import C_TYPES
from .epilogue import bits
from .layout import index, nest, strides_of
from .window import window


def maximum(call: Call) -> None:
    """The greatest pixel of each window."""
    (node,) = call.group.nodes
    assert isinstance(node.op, QMaxPool)
    x, out = call.value("x", node.input(0)), call.value("out", node.output)
    call.body = f"    const es_window g = {window(call, node)};\n    es_maxpool({x}, {bits(node.output)}, &g, {out});\n"


def average(call: Call) -> None:
    """The mean of each window."""
    (node,) = call.group.nodes
    op, x = node.op, node.input(0)
    assert isinstance(op, QAveragePool)
    mults = call.array("mults", np.asarray(op.mults, np.int32), f"{node.name} multipliers")
    call.body = (
        f"    const es_window g = {window(call, node)};\n"
        f"    es_avgpool({call.value('x', x)}, {bits(x)}, &g, {int(op.count_include_pad)}, {mults}, {op.pre}, "
        f"{call.scalar('zero', op.zero)}, {call.value('out', node.output)}, {bits(node.output)});\n"
    )


def mean(call: Call) -> None:
    """The mean over any axes; a kernel serves all but the last, a loop nest the others."""
    (node,) = call.group.nodes
    op, x = node.op, node.input(0)
    assert isinstance(op, QMean)
    last = len(x.shape) - 1
    axes = {axis % len(x.shape) for axis in op.axes}
    count = int(np.prod([x.shape[axis] for axis in axes], dtype=np.int64))
    source, out = call.value("x", x), call.value("out", node.output)
    numbers = (("bias", -count * op.x_zero), ("mult", op.mult), ("zero", op.zero))
    bias, mult, zero = (call.scalar(name, number) for name, number in numbers)
    long = {axis for axis, size in enumerate(x.shape) if size > 1}
    if long - {last} <= axes and last not in axes:
        call.body = (
            f"    es_mean({source}, {bits(x)}, {count}, {x.shape[-1]}, {bias}, {mult}, {op.pre}, {zero}, {out}, "
            f"{bits(node.output)});\n"
        )
        return
    kept, summed = sorted(long - axes), sorted(long & axes)
    target = dict.fromkeys(range(len(x.shape)), 0)
    target |= zip(kept, strides_of(tuple(x.shape[axis] for axis in kept)), strict=True)
    outer, inner = "    " * (len(kept) + 1), "    " * (len(kept) + len(summed) + 2)
    narrow = C_TYPES[node.output.dtype]
    stored = f"({narrow})es_saturate(es_requant(sum, {mult}, {op.pre}, {zero}), {bits(node.output)})"
    call.body = (
        f"{nest(x.shape, kept, '    ')}{outer}{{\n{outer}    int32_t sum = {bias};\n"
        f"{nest(x.shape, summed, outer + '    ')}"
        f"{inner}sum += {source}[{index(0, strides_of(x.shape), sorted(kept + summed))}];\n"
        f"{outer}    {out}[{index(0, list(target.values()), kept)}] = {stored};\n{outer}}}\n"
    )


def resize(call: Call) -> None:
    """Images by precomputed taps."""
    (node,) = call.group.nodes
    op, x = node.op, node.input(0)
    assert isinstance(op, QResize)
    rows, cols = op.taps((x.shape[1], x.shape[2]))
    kernel = "es_resize_nearest" if op.mode == "nearest" else "es_resize_bilinear"
    named = (("rows", rows), ("cols", cols))
    taps = [call.array(name, taps.astype(np.int16), f"{node.name} {name}") for name, taps in named]
    call.body = (
        f"    {kernel}({call.value('x', x)}, {bits(x)}, {x.shape[2]}, {x.shape[3]}, {taps[0]}, {op.size[0]}, "
        f"{taps[1]}, {op.size[1]}, {call.value('out', node.output)});\n"
    )


OPS = {"QAveragePool": average, "QMaxPool": maximum, "QMean": mean, "QResize": resize}
