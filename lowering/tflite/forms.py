"""In which orders of axes an op can run: its forms, one layout for every operand and result.

A layout is a permutation: position i in memory holds axis layout[i] of the graph's value. Constants have none, as they
are stored in whatever order is wanted. Transposes of the graph move nothing here: they rename axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...ir.graph import Value
from ...ir.op import Op
from ...ir.ops import activation, conv, linear, norm, number, pool, search, shape
from ...ir.passes.quantise.channels_last import (
    IMAGE,
    Layout,
    after_reshape,
    after_transpose,
    arranged,
    channels_at_end,
    plain,
    same_order,
    without,
)  # fmt: skip
from .units import Unit

__all__ = ["RESHAPE", "TRANSPOSE", "Form", "Known", "conversion", "forms", "lower_rank", "moves"]

TRANSPOSE, RESHAPE, NOTHING = 1000.0, 300.0, 0.0
"""What an operator that only moves elements costs; ties are broken by how many elements it moves."""

Known = Mapping[Value, Sequence[Layout]]
"""Layouts that a value may have, as far as they are known."""


@dataclass(frozen=True)
class Form:
    """One way to run a unit: layouts of its operands (None: absent or constant) and results, and what it adds."""

    inputs: tuple[Layout | None, ...]
    outputs: tuple[Layout, ...]
    cost: float = NOTHING

    def ports(self, unit: Unit) -> list[tuple[Value, Layout]]:
        """The values that have a layout in it, each with that."""
        pairs = (*zip(unit.inputs, self.inputs, strict=True), *zip(unit.outputs, self.outputs, strict=True))
        return [(value, layout) for value, layout in pairs if value is not None and layout is not None]


def moves(size: tuple[int, ...], a: Layout, b: Layout) -> str:
    """The operator that brings a value from one layout to another: "" when nothing tells them apart."""
    if same_order(size, a, b):
        return "" if arranged(size, a) == arranged(size, b) else "RESHAPE"
    return "TRANSPOSE"


def conversion(value: Value, a: Layout, b: Layout) -> float:
    """What it costs to bring a value from one layout to another."""
    weight = {"": NOTHING, "RESHAPE": RESHAPE, "TRANSPOSE": TRANSPOSE}[moves(value.shape, a, b)]
    return weight and weight + min(value.type.size * 1e-5, 100)


def forms(unit: Unit, known: Known) -> list[Form]:
    """All forms of a unit over the layouts known so far, each once."""
    highest = max((value.type.rank for value in unit.inputs if value is not None and value.data is None), default=0)
    rule = RULES.get(type(unit.op), _aligned if highest <= unit.outputs[0].type.rank else _plain)
    return list(dict.fromkeys(rule(unit, known)))


def _layouts(values: Iterable[Value | None], rank: int, known: Known) -> list[Layout]:
    """Layouts of the values of that rank, each once."""
    free = [value for value in values if value is not None and value.data is None and value.type.rank == rank]
    return list(dict.fromkeys(layout for value in free for layout in known[value]))


def _own(value: Value | None) -> Layout | None:
    """The graph's own order of an operand; None where it is absent or constant."""
    return None if value is None or value.data is not None else plain(value.type.rank)


def lower_rank(layout: Layout, rank: int) -> Layout:
    """The layout of an operand that lacks the first axes of the result."""
    gone = len(layout) - rank
    return tuple(axis - gone for axis in layout if axis >= gone)


def _ports(unit: Unit, layout: Layout) -> tuple[Layout | None, ...]:
    """The same layout at all operands, those of lower rank at the end of the axes."""
    return tuple(
        None if value is None or value.data is not None else lower_rank(layout, value.type.rank)
        for value in unit.inputs
    )  # fmt: skip


def _aligned(unit: Unit, known: Known, fits: Callable[[Layout], bool] = lambda layout: True) -> Iterable[Form]:
    """Ops that take their axes in any order, as long as all operands and results have the same."""
    rank = unit.outputs[0].type.rank
    for layout in _layouts((*unit.inputs, *unit.outputs), rank, known):
        if fits(layout):
            yield Form(_ports(unit, layout), (layout,) * len(unit.outputs), _widening(unit, layout))


def _widening(unit: Unit, layout: Layout) -> float:
    """RESHAPEs that operands of lower rank need where their missing axes do not come first in memory."""
    rank = len(layout)
    lacking = [value.type.rank for value in unit.inputs if value is not None and value.data is None]
    return RESHAPE * sum(any(axis < rank - low for axis in layout[rank - low :]) for low in lacking if low < rank)


def _along_last(axis: Callable[[Any, int], int]) -> Callable[[Unit, Known], Iterable[Form]]:
    """Ops that work along one axis, which must lie together in memory."""

    def rule(unit: Unit, known: Known) -> Iterable[Form]:
        rank = unit.outputs[0].type.rank
        last = axis(unit.op, rank) % rank
        for layout in dict.fromkeys(
            channels_at_end(each, last) for each in _layouts((*unit.inputs[:1], *unit.outputs), rank, known)
        ):
            yield Form((layout, *map(_own, unit.inputs[1:])), (layout,))

    return rule


def _image(unit: Unit, known: Known) -> Iterable[Form]:
    """Windows over channels-last images."""
    yield Form((IMAGE, *map(_own, unit.inputs[1:])), (IMAGE,))


def _convolved(unit: Unit, known: Known) -> Iterable[Form]:
    """As for images; a weight that is computed has its outputs first, or last where each channel is a group."""
    weight, op = unit.inputs[1], unit.op
    assert weight is not None and isinstance(op, conv.Conv)
    order = (1, 2, 3, 0) if op.groups > 1 and weight.shape[1] == 1 else IMAGE
    yield Form((IMAGE, _own(weight) and order, *map(_own, unit.inputs[2:])), (IMAGE,))


def _transposed(unit: Unit, known: Known) -> Iterable[Form]:
    """No element moves: each layout of the operand is one of the result."""
    (x,), (y,), op = unit.inputs, unit.outputs, unit.op
    assert isinstance(op, shape.Transpose) and x is not None
    for layout in _layouts([x], x.type.rank, known):
        yield Form((layout,), (after_transpose(layout, op.perm),))
    for layout in known[y]:
        yield Form((tuple(op.perm[axis] for axis in layout),), (layout,))


def _reshaped(unit: Unit, known: Known) -> Iterable[Form]:
    """Every order in which no element moves; how axes of size 1 lie is free."""
    x, y = unit.inputs[0], unit.outputs[0]
    assert x is not None
    before = list(known[x]) if x.data is None else [plain(x.type.rank)]
    before += [found for each in known[y] if (found := after_reshape(y.shape, each, x.shape)) is not None]
    for layout in dict.fromkeys(before):
        moved = after_reshape(x.shape, layout, y.shape)
        if moved is None:
            continue
        for other in dict.fromkeys((moved, *known[y])):
            if same_order(y.shape, moved, other):
                cost = NOTHING if arranged(x.shape, layout) == arranged(y.shape, other) else RESHAPE
                yield Form((layout,), (other,), cost)


def _reduced(unit: Unit, known: Known) -> Iterable[Form]:
    """Any order; axes that go leave the others in theirs."""
    x, op = unit.inputs[0], unit.op
    assert x is not None and isinstance(op, REDUCTIONS)
    if op.keepdims:
        yield from _aligned(unit, known)
        return
    for layout in known[x]:
        yield Form((layout,), (without(layout, op.axes),))


def _gathered(unit: Unit, known: Known) -> Iterable[Form]:
    """Any order where one index, or a list of them, replaces the axis; else the graph's own."""
    x, indices, op = unit.inputs[0], unit.inputs[1], unit.op
    assert x is not None and indices is not None and isinstance(op, shape.Gather)
    if x.data is None and indices.data is not None and indices.type.rank == 0:
        for layout in known[x]:
            yield Form((layout, None), (without(layout, (op.axis,)),))
    elif x.data is None and indices.data is not None and indices.type.rank == 1:
        yield from _aligned_first(unit, known)
    else:
        yield from _plain(unit, known)


def _aligned_first(unit: Unit, known: Known) -> Iterable[Form]:
    for layout in _layouts((unit.inputs[0], *unit.outputs), unit.outputs[0].type.rank, known):
        yield Form((layout, None), (layout,))


def _plain(unit: Unit, known: Known) -> Iterable[Form]:
    """The graph's own order everywhere."""
    yield Form(tuple(map(_own, unit.inputs)), tuple(plain(value.type.rank) for value in unit.outputs))


def _expanded(unit: Unit, known: Known) -> Iterable[Form]:
    x = unit.inputs[0]
    same = x is not None and x.type.rank == unit.outputs[0].type.rank
    yield from _aligned(unit, known) if same else _plain(unit, known)


def _product(unit: Unit, known: Known) -> Iterable[Form]:
    """BATCH_MATMUL turns its second operand by itself; the result turned is the product of the operands swapped."""
    a, b, y = unit.inputs[0], unit.inputs[1], unit.outputs[0]
    assert a is not None and b is not None
    rank = y.type.rank
    orders = [plain(rank - 2)]
    if a.type.rank == b.type.rank == rank:
        orders += [each[:-2] for each in _layouts((a, b, y), rank, known) if sorted(each[-2:]) == [rank - 2, rank - 1]]

    def port(value: Value, order: Layout, turned: bool) -> Layout | None:
        last = (value.type.rank - 1, value.type.rank - 2) if turned else (value.type.rank - 2, value.type.rank - 1)
        batch = lower_rank(order, value.type.rank - 2) if value.type.rank < rank else order
        return None if value.data is not None else (*batch, *last)

    for order in dict.fromkeys(orders):
        straight, swapped = (*order, rank - 2, rank - 1), (*order, rank - 1, rank - 2)
        for turned in (False, True):
            yield Form((port(a, order, False), port(b, order, turned)), (straight,))
            yield Form((port(a, order, turned), port(b, order, True)), (swapped,))


def _group_norm(unit: Unit, known: Known) -> Iterable[Form]:
    """One group, or one per channel, is a mean over whole axes; groups between need the channels at the end."""
    op, y = unit.op, unit.outputs[0]
    assert isinstance(op, norm.GroupNorm)
    whole = op.groups in (1, y.shape[1])
    yield from _aligned(unit, known, lambda layout: whole or (layout[0] == 0 and layout[-1] == 1))
    if not whole:
        layout = channels_at_end(plain(y.type.rank), 1)
        yield Form(_ports(unit, layout), (layout,))


def _last(op: Any, rank: int) -> int:
    return rank - 1


REDUCTIONS = (number.Prod, number.ReduceMin, pool.Mean, pool.ReduceMax, pool.Sum)

RULES: dict[type[Op], Callable[[Unit, Known], Iterable[Form]]] = {
    activation.Softmax: _along_last(lambda op, rank: op.axis),
    conv.Conv: _convolved,
    linear.Linear: _along_last(_last),
    linear.MatMul: _product,
    norm.GroupNorm: _group_norm,
    norm.LayerNorm: _along_last(_last),
    norm.RMSNorm: _along_last(_last),
    pool.AveragePool: _image,
    pool.MaxPool: _image,
    number.Prod: _reduced,
    number.ReduceMin: _reduced,
    pool.Mean: _reduced,
    pool.ReduceMax: _reduced,
    pool.Sum: _reduced,
    search.Scatter: _plain,
    search.TopK: _plain,
    shape.Expand: _expanded,
    shape.Gather: _gathered,
    shape.Reshape: _reshaped,
    shape.Resize: _image,
    shape.Transpose: _transposed,
}
"""Every op that is not here takes its axes in any order, if its result has as many as its operands."""
