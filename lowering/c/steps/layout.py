"""Ops that move elements: every one is a walk over the output with a stride per axis of the input."""

from __future__ import annotations

import numpy as np

from ....ir.errors import Unsupported
from ....ir.graph import Node, Value
from ....ir.ops.shape import Concat, Expand, Gather, Pad, Slice, Split, Transpose
from ..call import Call
from ..constants import C_TYPES


def strides_of(shape: tuple[int, ...]) -> list[int]:
    """Elements between neighbours along each axis of a dense tensor."""
    return [int(np.prod(shape[axis + 1 :], dtype=np.int64)) for axis in range(len(shape))]


def walk(x: str, start: int, shape: tuple[int, ...], steps: list[int], out: str, begin: int, places: list[int]) -> str:
    """C loops that copy `shape` elements from strides `steps` to strides `places`; axes of one element vanish."""
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    source, target = (index(first, by, axes) for first, by in ((start, steps), (begin, places)))
    return f"{nest(shape, axes, '    ')}{'    ' * (len(axes) + 1)}{out}[{target}] = {x}[{source}];\n"


def nest(shape: tuple[int, ...], axes: list[int], indent: str) -> str:
    """The heads of C loops over some axes of `shape`, one inside the other; axis 2 has the counter `i2`."""
    heads = [f"for (int i{axis} = 0; i{axis} < {shape[axis]}; i{axis}++)\n" for axis in axes]
    return "".join(f"{indent}{'    ' * depth}{head}" for depth, head in enumerate(heads))


def index(first: int, by: list[int], axes: list[int]) -> str:
    """C text of the position that the loop counters make; what adds nothing is left out."""
    terms = [f"i{axis}" if by[axis] == 1 else f"i{axis} * {by[axis]}" for axis in axes if by[axis]]
    return " + ".join([*([str(first)] if first or not terms else []), *terms])


def _whole(call: Call, node: Node, start: int, steps: list[int]) -> None:
    shape = node.output.shape
    x, out = _operand(call, "x", node.input(0)), call.value("out", node.output)
    call.body = walk(x, start, shape, steps, out, 0, strides_of(shape))


def _operand(call: Call, name: str, value: Value) -> str:
    """A value where it lies: constants come from flash."""
    return call.array(name, value) if value.is_constant else call.value(name, value)


def transpose(call: Call) -> None:
    """Axes in another order."""
    (node,) = call.group.nodes
    assert isinstance(node.op, Transpose)
    by = strides_of(node.input(0).shape)
    _whole(call, node, 0, [by[axis] for axis in node.op.perm])


def cut(call: Call) -> None:
    """A slice."""
    (node,) = call.group.nodes
    assert isinstance(node.op, Slice)
    shape = node.input(0).shape
    by = strides_of(shape)
    ranges = [range(*part.indices(size)) for part, size in zip(node.op.index(len(shape)), shape, strict=True)]
    start = sum(r.start * b for r, b in zip(ranges, by, strict=True))
    _whole(call, node, start, [r.step * b for r, b in zip(ranges, by, strict=True)])


def expand(call: Call) -> None:
    """A broadcast."""
    (node,) = call.group.nodes
    assert isinstance(node.op, Expand)
    shape = node.input(0).shape
    by = [0 if size == 1 else step for size, step in zip(shape, strides_of(shape), strict=True)]
    _whole(call, node, 0, [0] * (len(node.op.shape) - len(by)) + by)


def gather(call: Call) -> None:
    """Slices along one axis that indices name."""
    (node,) = call.group.nodes
    assert isinstance(node.op, Gather)
    x, indices = node.input(0), node.input(1)
    if not indices.is_constant:
        _look_up(call, node)
        return
    axis = node.op.axis % len(x.shape)
    chosen = indices.array.reshape(-1) % x.shape[axis]
    outer, inner = int(np.prod(x.shape[:axis], dtype=np.int64)), int(np.prod(x.shape[axis + 1 :], dtype=np.int64))
    source, out = call.value("x", x), call.value("out", node.output)
    if len(chosen) == 1:
        call.body = walk(source, int(chosen[0]) * inner, (outer, inner), [x.shape[axis] * inner, 1], out, 0, [inner, 1])
        return
    table = call.array("indices", chosen.astype(np.int32), f"{node.name} indices")
    call.body = (
        f"    for (int o = 0; o < {outer}; o++)\n        for (int j = 0; j < {len(chosen)}; j++)\n"
        f"            for (int i = 0; i < {inner}; i++)\n"
        f"                {out}[(o * {len(chosen)} + j) * {inner} + i] = "
        f"{source}[(o * {x.shape[axis]} + {table}[j]) * {inner} + i];\n"
    )


def _look_up(call: Call, node: Node) -> None:
    """Slices whose numbers are computed; negative ones count from the end, and beyond the ends lies the outermost."""
    x, indices = node.input(0), node.input(1)
    axis = node.op.attributes()["axis"] % len(x.shape)
    size, count = x.shape[axis], indices.type.size
    outer, inner = int(np.prod(x.shape[:axis], dtype=np.int64)), int(np.prod(x.shape[axis + 1 :], dtype=np.int64))
    source = call.array("x", x) if x.is_constant else call.value("x", x)
    numbers, out = call.value("indices", indices), call.value("out", node.output)
    call.body = (
        f"    for (int j = 0; j < {count}; j++)\n    {{\n"
        f"        {C_TYPES[indices.dtype]} at = {numbers}[j] < 0 ? {numbers}[j] + {size} : {numbers}[j];\n"
        f"        at = at < 0 ? 0 : ES_MIN(at, {size - 1});\n"
        f"        for (int o = 0; o < {outer}; o++)\n            for (int i = 0; i < {inner}; i++)\n"
        f"                {out}[(o * {count} + j) * {inner} + i] = {source}[(o * {size} + (int)at) * {inner} + i];\n"
        "    }\n"
    )


def concat(call: Call) -> None:
    """Operands one after the other; constants come from flash."""
    (node,) = call.group.nodes
    assert isinstance(node.op, Concat)
    shape = node.output.shape
    axis, by = node.op.axis % len(shape), strides_of(shape)
    out, at, parts = call.value("out", node.output), 0, []
    for index, value in enumerate(node.inputs):
        assert value is not None
        x = _operand(call, f"x{index}", value)
        parts.append(walk(x, 0, value.shape, strides_of(value.shape), out, at * by[axis], by))
        at += value.shape[axis]
    call.body = "".join(parts)


def split(call: Call) -> None:
    """Pieces of one tensor."""
    (node,) = call.group.nodes
    assert isinstance(node.op, Split)
    shape = node.input(0).shape
    axis, by = node.op.axis % len(shape), strides_of(shape)
    x, at, parts = call.value("x", node.input(0)), 0, []
    for index, value in enumerate(node.outputs):
        if value.uses or any(value is output for output in call.group.outputs):
            out = call.value(f"out{index}", value)
            parts.append(walk(x, at * by[axis], value.shape, by, out, 0, strides_of(value.shape)))
        at += value.shape[axis]
    call.body = "".join(parts)


def pad(call: Call) -> None:
    """A border of one value."""
    (node,) = call.group.nodes
    op, x, value = node.op, node.input(0), node.output
    assert isinstance(op, Pad)
    before = op.pads[: len(x.shape)]
    if min(op.pads) < 0:
        raise Unsupported("c: Pad that crops", where=node.sources, do="use Slice")
    by = strides_of(value.shape)
    source, out = call.value("x", x), call.value("out", value)
    number = float(op.value) if value.type.numpy.kind == "f" else int(op.value)
    fill = f"{out}[i] = ({C_TYPES[value.dtype]})({number});"
    border = f"    for (int i = 0; i < {value.type.size}; i++)\n        {fill}\n"
    start = sum(b * step for b, step in zip(before, by, strict=True))
    call.body = border + walk(source, 0, x.shape, strides_of(x.shape), out, start, by)


OPS = {
    "Concat": concat, "Expand": expand, "Gather": gather, "Pad": pad, "Slice": cut, "Split": split,
    "Transpose": transpose,
}  # fmt: skip
