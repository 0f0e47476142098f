"""Pools, means over tokens or pixels, and resizing."""

from __future__ import annotations

import numpy as np

from ....ir.errors import Unsupported
from ....ir.ops.integer_pool import QAveragePool, QMaxPool, QMean, QResize
from ..call import Call
from .epilogue import bits
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
    """The mean over all axes but the last (and leading ones of size 1).

    Raises:
        Unsupported: Over other axes.
    """
    (node,) = call.group.nodes
    op, x = node.op, node.input(0)
    assert isinstance(op, QMean)
    axes = {axis % len(x.shape) for axis in op.axes}
    wanted = {axis for axis, size in enumerate(x.shape[:-1]) if size > 1}
    if not wanted <= axes or len(x.shape) - 1 in axes:
        what = f"c: mean over axes {op.axes} of {x.shape}"
        raise Unsupported(what, where=node.sources, do="reduce tokens or pixels only")
    channels = x.shape[-1]
    rows = x.type.size // channels
    call.body = (
        f"    es_mean({call.value('x', x)}, {bits(x)}, {rows}, {channels}, {call.scalar('bias', -rows * op.x_zero)}, "
        f"{call.scalar('mult', op.mult)}, {op.pre}, {call.scalar('zero', op.zero)}, {call.value('out', node.output)}, "
        f"{bits(node.output)});\n"
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
