"""Operators that move elements: layout, joining, cutting."""

from __future__ import annotations

import math

import numpy as np

from ...ir.graph import Value
from ...ir.ops import shape as ops
from ..call import Call, Result, rule
from ..model import dtype_of
from .terms import NUMBERS, choose


@rule("Reshape")
def reshape(call: Call) -> Result:
    """0 copies a size and -1 is what remains."""
    x, asked = call.x, list(call.ints(1, "shape"))
    if not call.attr("allowzero", 0):
        asked = [x.shape[i] if n == 0 and i < len(x.shape) else n for i, n in enumerate(asked)]
    if asked.count(-1) == 1:
        rest = math.prod(n for n in asked if n != -1)
        asked[asked.index(-1)] = math.prod(x.shape) // max(rest, 1)
    result: Value = call.add(ops.Reshape(tuple(asked)), x)
    return result


@rule("Flatten")
def flatten(call: Call) -> Result:
    """To a matrix, split at `axis`."""
    axis, rank = call.attr("axis", 1), len(call.x.shape)
    axis = axis + rank if axis < 0 else axis
    return call.reshape(call.x, (math.prod(call.x.shape[:axis]), math.prod(call.x.shape[axis:])))


@rule("Squeeze")
def squeeze(call: Call) -> Result:
    """Axes are an attribute up to opset 12 and an operand after."""
    x = call.x
    axes = call.setting("axes", 1)
    gone = {i for i, n in enumerate(x.shape) if n == 1} if axes is None else {call.axis(a, len(x.shape)) for a in axes}
    return call.reshape(x, [n for i, n in enumerate(x.shape) if i not in gone])


@rule("Unsqueeze")
def unsqueeze(call: Call) -> Result:
    """Axes count in the result."""
    axes = call.setting("axes", 1, ())
    rank = len(call.x.shape) + len(axes)
    new, sizes = {call.axis(a, rank) for a in axes}, iter(call.x.shape)
    call.demand(len(new) == len(axes), f"the axes {axes} repeat")
    return call.reshape(call.x, [1 if i in new else next(sizes) for i in range(rank)])


@rule("Transpose")
def transpose(call: Call) -> Result:
    """All axes backwards unless told."""
    perm = call.attr("perm", tuple(reversed(range(len(call.x.shape)))))
    result: Value = call.add(ops.Transpose(perm), call.x)
    return result


@rule("Concat")
def concat(call: Call) -> Result:
    """Along an axis."""
    operands = [call[i] for i in range(len(call.operands))]
    axis = call.axis(call.attr("axis"), len(operands[0].shape))
    operands = [each for each in operands if each.shape[axis]] or operands[:1]
    result: Value = operands[0] if len(operands) == 1 else call.add(ops.Concat(axis), *operands)
    return result


@rule("Split")
def split(call: Call) -> Result:
    """Sizes are an attribute up to opset 12 and an operand after; without them pieces are equal, the last one less."""
    x, pieces = call.x, len(call.node.output)
    axis = call.axis(call.attr("axis", 0), len(x.shape))
    sizes = call.setting("split", 1)
    if sizes is None:
        each = -(-x.shape[axis] // pieces)
        sizes = (each,) * (pieces - 1) + (x.shape[axis] - each * (pieces - 1),)
    call.demand(len(sizes) == pieces, f"{len(sizes)} sizes for {pieces} outputs")
    result: Value | tuple[Value, ...] = call.add(ops.Split(axis, tuple(sizes)), x)
    return result


@rule("Slice")
def cut(call: Call) -> Result:
    """Bounds far outside mean the end."""
    x = call.x
    starts, ends = call.setting("starts", 1), call.setting("ends", 2)
    axes = call.setting("axes", 3) or tuple(range(len(starts)))
    steps = call.ints(4, "steps") if call.get(4) is not None else (1,) * len(starts)
    axes = tuple(call.axis(a, len(x.shape)) for a in axes)
    result: Value = call.add(ops.Slice(starts, ends, axes, steps), x)
    return result


@rule("Expand")
def expand(call: Call) -> Result:
    """Broadcast both ways, as ONNX has it."""
    x, asked = call.x, call.ints(1, "shape")
    result: Value = call.add(ops.Expand(tuple(np.broadcast_shapes(x.shape, asked))), x)
    return result


@rule("Tile")
def tile(call: Call) -> Result:
    """Copies one after the other: an axis of copies before each axis, joined with it."""
    x, repeats = call.x, call.ints(1, "repeats")
    apart = [size for n in x.shape for size in (1, n)]
    copied = [size for n, count in zip(x.shape, repeats, strict=True) for size in (count, n)]
    copies = call.add(ops.Expand(tuple(copied)), call.reshape(x, apart))
    return call.reshape(copies, [n * count for n, count in zip(x.shape, repeats, strict=True)])


@rule("Pad")
def pad(call: Call) -> Result:
    """A border of one value, or of what lies near the edge; before opset 11 amounts and value are attributes."""
    x, mode = call.x, call.attr("mode", "constant")
    rank = len(x.shape)
    amounts = call.setting("pads", 1)
    given = call.get(3) is not None
    axes = [call.axis(a, rank) for a in (call.ints(3, "axes") if given else range(rank))]
    call.demand(amounts is not None and len(amounts) == 2 * len(axes), f"pads {amounts} do not fit {len(axes)} axes")
    full = [0] * (2 * rank)
    for i, axis in enumerate(axes):
        full[axis], full[rank + axis] = amounts[i], amounts[len(axes) + i]
    if mode != "constant":
        return _mirrored(call, mode, full)
    value = call.get(2)
    number = 0.0 if value is not None and value.data is None else _pad_value(call)
    y: Value = call.add(ops.Pad(tuple(full), number), x)
    if value is None or value.data is not None:
        return y
    inside = ops.Pad(tuple(full), 0.0).reference(np.ones(x.shape, np.bool_))
    return choose(call, call.constant(inside, "inside", "bool"), y, call.reshape(value, ()))


def _pad_value(call: Call) -> float:
    return float(call.array(2, "value").reshape(())) if call.get(2) is not None else call.attr("value", 0.0)


def _mirrored(call: Call, mode: str, pads: list[int]) -> Value:
    """A border that repeats what lies inside: elements picked along each axis."""
    x, rank = call.x, len(call.x.shape)
    call.require(mode in ("reflect", "edge", "wrap"), f"mode {mode}")
    for axis, size in enumerate(x.shape):
        before, after = pads[axis], pads[rank + axis]
        if before or after:
            call.require(size > 0, "of nothing")
            kept = np.arange(max(0, -before), size - max(0, -after))
            call.demand(kept.size > 0, f"pads {pads} crop all of {x.shape}")
            picks = np.pad(kept, (max(0, before), max(0, after)), mode=mode)  # type: ignore[call-overload]
            x = call.add(ops.Gather(axis), x, call.constant(picks, f"axis{axis}", "int64"))
    return x


@rule("CenterCropPad")
def centre(call: Call) -> Result:
    """Cut or bordered alike on both sides; an odd element more is cut or added at the end."""
    x, sizes = call.x, call.ints(1, "shape")
    rank = len(x.shape)
    axes = [call.axis(a, rank) for a in call.attr("axes", range(rank))]
    full = [0] * (2 * rank)
    for axis, size in zip(axes, sizes, strict=True):
        more = size - x.shape[axis]
        before = more // 2 if more > 0 else -(-more // 2)
        full[axis], full[rank + axis] = before, more - before
    result: Value = call.add(ops.Pad(tuple(full), 0.0), x)
    return result


@rule("Trilu")
def triangle(call: Call) -> Result:
    """Zero on one side of a diagonal."""
    x = call.x
    k = int(call.array(1, "k").reshape(())) if call.get(1) is not None else 0
    call.demand(len(x.shape) >= 2, f"{x.shape} is no matrix")
    ones = np.ones(x.shape[-2:], np.bool_)
    kept = np.triu(ones, k) if call.flag("upper", 1) else np.tril(ones, k)
    return choose(call, call.constant(kept, "kept", "bool"), x, 0)


@rule("EyeLike")
def eye(call: Call) -> Result:
    """Ones on a diagonal: a constant, as shapes are known."""
    dtype = dtype_of(call.attr("dtype")) if call.attr("dtype") else call.x.dtype
    call.require(dtype in NUMBERS, f"of {dtype}")
    rows, columns = call.x.shape
    return call.constant(np.eye(rows, columns, k=call.attr("k", 0)), "eye", dtype)


@rule("Shape")
def sizes_of(call: Call) -> Result:
    """A constant, as shapes are known."""
    sizes = call.x.shape[slice(call.attr("start", 0), call.attr("end", None))]
    return call.constant(sizes, "sizes", "int64")


@rule("Size")
def count_of(call: Call) -> Result:
    """A constant, as shapes are known."""
    return call.constant(call.x.type.size, "size", "int64")


@rule("DepthToSpace", "SpaceToDepth")
def pixel_shuffle(call: Call) -> Result:
    """Blocks of pixels from channels, or into them: a transposition of finer axes."""
    b, c, h, w = call.x.shape
    n, depth_first = call.attr("blocksize"), call.attr("mode", "DCR") == "DCR"
    if call.node.op_type == "SpaceToDepth":
        call.require(h % n == w % n == 0, f"of {h}x{w} pixels in blocks of {n}")
        fine, shape = (b, c, h // n, n, w // n, n), (b, c * n * n, h // n, w // n)
        perm = (0, 3, 5, 1, 2, 4) if depth_first else (0, 1, 3, 5, 2, 4)
    elif depth_first:
        fine, perm, shape = (b, n, n, c // n**2, h, w), (0, 3, 4, 1, 5, 2), (b, c // n**2, h * n, w * n)
    else:
        fine, perm, shape = (b, c // n**2, n, n, h, w), (0, 1, 4, 2, 5, 3), (b, c // n**2, h * n, w * n)
    return call.reshape(call.add(ops.Transpose(perm), call.reshape(call.x, fine)), shape)
