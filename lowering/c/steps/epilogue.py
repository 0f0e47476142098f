"""How accumulators become stored values: the C initialisers of `es_scale` and of the stores in kernels/matmul.h."""

from __future__ import annotations

import numpy as np

from ....ir.graph import Node, Value
from ....ir.ops.integer import IntegerOp
from ....ir.ops.integer_elementwise import QAdd, QTable16
from ..call import Call

ENDS = (-128, 127, -32768, 32767)
"""Ends of a clamp that are a dtype's own: as literals they make it one instruction."""

SUM = ("ma", "mb", "c", "shift")


def limits(op: IntegerOp) -> tuple[int, int]:
    """The clamp of an op's output: its own bounds within those of its dtype."""
    info = np.iinfo(op.dtype)
    return max(int(info.min), getattr(op, "low", info.min)), min(int(info.max), getattr(op, "high", info.max))


def number(call: Call, name: str, value: int, usual: tuple[int, ...] = (0,)) -> str:
    """A literal where it has its usual value, which compiles to less; else a field, so that layers share code."""
    return str(value) if value in usual else call.scalar(name, value)


def scale(call: Call, name: str, node: Node, table: Node | None = None, offset: str = "") -> str:
    """Initialiser of `es_scale` for a node with operands (x, w, bias, mult), and a table applied after it.

    `offset` is added to the multipliers: the first output of a head.
    """
    op = node.op
    assert isinstance(op, IntegerOp)
    low, high = limits(op)
    parts = [
        call.pairs(f"{name}_mult", node.input(3)) + offset,
        str(getattr(op, "pre", 0)),
        number(call, f"{name}_zero", op.zero),
        number(call, f"{name}_low", low, ENDS),
        number(call, f"{name}_high", high, ENDS),
        *_tables(call, name, table),
    ]
    return "{" + ", ".join(parts) + "}"


def _tables(call: Call, name: str, table: Node | None) -> tuple[str, str, str]:
    if table is None:
        return "NULL", "NULL", "NULL"
    points = call.array(f"{name}_table", table.input(1))
    if isinstance(table.op, QTable16):
        return "NULL", "NULL", points
    return (points, "NULL", "NULL") if table.output.dtype == "int8" else ("NULL", points, "NULL")


def bits(value: Value) -> int:
    """Width of a value's integers."""
    return value.type.numpy.itemsize * 8


def addition(call: Call, name: str, add: Node, made: Value) -> str:
    """The end of an `es_to_sum` initialiser: ma, mb, c, shift, low, high of a sum whose operand `made` is computed."""
    op = add.op
    assert isinstance(op, QAdd)
    ma, mb = (op.ma, op.mb) if add.inputs[0] is made else (op.mb, op.ma)
    terms = [call.scalar(f"{name}_{key}", value) for key, value in zip(SUM, (ma, mb, op.c, op.shift), strict=True)]
    ends = [number(call, f"{name}_{key}", end, ENDS) for key, end in zip(("low", "high"), limits(op), strict=True)]
    return ", ".join([*terms, *ends])
