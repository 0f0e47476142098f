"""Single precision on images, channels first: convolutions, patch embeddings, group norms, pools, resizing."""

from __future__ import annotations

import numpy as np

from ....ir.errors import Unsupported
from ....ir.graph import Node
from ....ir.ops.conv import Conv, PatchEmbed
from ....ir.ops.norm import GroupNorm
from ....ir.ops.pool import AveragePool, MaxPool
from ....ir.ops.shape import Resize
from ..call import Call
from .float_elementwise import literal, loops, operand


def window(node: Node, kernel: tuple[int, int], grid: tuple[int, int], dilations: tuple[int, int] = (1, 1)) -> str:
    """The statement that describes a kernel moving over the node's first operand; `grid` is the output's size."""
    op, (channels, height, width) = node.op, node.input(0).shape[1:]
    assert isinstance(op, Conv | PatchEmbed | AveragePool | MaxPool)
    strides = op.patch if isinstance(op, PatchEmbed) else op.strides
    top, left = op.pads[:2]
    sizes = (height, width, channels, *kernel, *strides, top, left, *dilations, *grid, 0)
    return f"    const es_window g = {{{', '.join(map(str, sizes))}}};\n"


def each(batches: int, statement: str) -> str:
    """A statement for every image of a batch."""
    return f"    for (int batch = 0; batch < {batches}; batch++)\n        {statement}\n"


def convolution(call: Call) -> None:
    """Dense, grouped and depthwise; a patch embedding writes its pixels as rows. Weights are stored channels last."""
    (node,) = call.group.nodes
    op, x, weight, bias, out = node.op, node.input(0), node.input(1), node.optional(2), node.output
    assert isinstance(op, Conv | PatchEmbed)
    if not weight.is_constant:
        what = f"c: {type(op).__name__} with weights computed at run time"
        raise Unsupported(what, where=node.sources, do="fold them into the model")
    outputs, kernel = weight.shape[0], (weight.shape[2], weight.shape[3])
    if isinstance(op, PatchEmbed):
        down, right = (x.shape[2 + i] + op.pads[i] + op.pads[2 + i] for i in (0, 1))
        grid = (down // kernel[0], right // kernel[1])
        head, groups = window(node, kernel, grid), 1
    else:
        grid = (out.shape[2], out.shape[3])
        head, groups = window(node, kernel, grid, op.dilations), op.groups
    places = (outputs, 1) if isinstance(op, PatchEmbed) else (1, grid[0] * grid[1])
    taps = call.array("w", np.ascontiguousarray(weight.array.transpose(0, 2, 3, 1)), weight.name)
    image, made = x.type.size // x.shape[0], out.type.size // out.shape[0]
    call.body = head + each(
        x.shape[0],
        f"es_conv_f32({operand(call, 'x', x)} + batch * {image}, &g, {groups}, {taps}, "
        f"{'NULL' if bias is None else operand(call, 'b', bias)}, {outputs}, "
        f"{call.value('out', out)} + batch * {made}, {places[0]}, {places[1]});",
    )


def group_norm(call: Call) -> None:
    """Rows are the groups; scale and shift per channel follow in place."""
    (node,) = call.group.nodes
    op, x = node.op, node.input(0)
    assert isinstance(op, GroupNorm)
    rows = x.shape[0] * op.groups
    out = call.value("out", node.output)
    width, source = x.type.size // rows, operand(call, "x", x)
    body = f"    es_norm_f32({source}, {rows}, {width}, 1, NULL, NULL, {literal(op.eps)}, {out});\n"
    operands, terms = {"x": (out, x.shape)}, ["{x}"]
    along = (x.shape[1], *(1 for _ in x.shape[2:]))
    for name, sign, value in (("g", "*", node.optional(1)), ("b", "+", node.optional(2))):
        if value is not None:
            operands[name] = (operand(call, name, value), along)
            terms.append(f" {sign} {{{name}}}")
    call.body = body + (loops(x.shape, "".join(terms), operands, out) if len(terms) > 1 else "")


def pool(call: Call) -> None:
    """The greatest pixel of each window, or the mean."""
    (node,) = call.group.nodes
    op, x, out = node.op, node.input(0), node.output
    assert isinstance(op, MaxPool | AveragePool)
    average = 0 if isinstance(op, MaxPool) else 1 + op.count_include_pad
    ends = (x.shape[2] + op.pads[2], x.shape[3] + op.pads[3])
    image, made = x.type.size // x.shape[0], out.type.size // out.shape[0]
    call.body = window(node, op.kernel, (out.shape[2], out.shape[3])) + each(
        x.shape[0],
        f"es_pool_f32({operand(call, 'x', x)} + batch * {image}, &g, {average}, {ends[0]}, {ends[1]}, "
        f"{call.value('out', out)} + batch * {made});",
    )


def resize(call: Call) -> None:
    """Nearest pixels, or a blend of neighbours; where each output pixel reads is worked out here."""
    (node,) = call.group.nodes
    op, x, out = node.op, node.input(0), node.output
    assert isinstance(op, Resize)
    taps: list[list[str]] = []
    for name, source, target in zip(("rows", "cols"), x.shape[2:], op.size, strict=True):
        if op.mode == "nearest":
            picks = op.picks(source, target).astype(np.int32)
            taps.append([call.array(name, picks, f"{node.name} {name}"), str(target)])
            continue
        at = np.clip(op.positions(source, target), 0, source - 1)
        low = np.floor(at)
        first = call.array(name, low.astype(np.int32), f"{node.name} {name}")
        share = call.array(f"{name}_share", (at - low).astype(np.float32), f"{node.name} {name} shares")
        taps.append([first, share, str(target)])
    kernel = "es_pick_f32" if op.mode == "nearest" else "es_blend_f32"
    sizes = ", ".join(map(str, (x.shape[0] * x.shape[1], *x.shape[2:])))
    places = ", ".join([*taps[0], *taps[1]])
    call.body = f"    {kernel}({operand(call, 'x', x)}, {sizes}, {places}, {call.value('out', out)});\n"


OPS = {
    "AveragePool": pool, "Conv": convolution, "GroupNorm": group_norm, "MaxPool": pool, "PatchEmbed": convolution,
    "Resize": resize,
}  # fmt: skip
