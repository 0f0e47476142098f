"""The `es_window` initialiser: geometry of a kernel that moves over a channels-last image."""

from __future__ import annotations

from ....ir.graph import Node
from ....ir.ops.integer_conv import QConv, QPatchEmbed
from ....ir.ops.integer_pool import QAveragePool, QMaxPool
from ..call import Call
from .epilogue import number


def window(call: Call, node: Node) -> str:
    """For a convolution, patch embedding or pool; the border's value is a field where layers may differ in it."""
    op, x = node.op, node.input(0)
    kernel: tuple[int, ...]
    grid: tuple[int, ...]
    if isinstance(op, QPatchEmbed):
        kernel, strides, dilations = op.patch, op.patch, (1, 1)
        grid = tuple((x.shape[1 + i] + op.pads[i] + op.pads[2 + i]) // op.patch[i] for i in (0, 1))
    else:
        assert isinstance(op, QConv | QMaxPool | QAveragePool)
        weight = node.input(1).shape if isinstance(op, QConv) else ()
        kernel = weight[1:3] if isinstance(op, QConv) else op.kernel
        strides, dilations = op.strides, op.dilations if isinstance(op, QConv) else (1, 1)
        grid = node.output.shape[1:3]
    zero = number(call, "border", getattr(op, "x_zero", 0)) if not isinstance(op, QPatchEmbed) else str(op.x_zero)
    sizes = (*x.shape[1:4], *kernel, *strides, *op.pads[:2], *dilations, *grid)
    return "{" + ", ".join([*map(str, sizes), zero]) + "}"
