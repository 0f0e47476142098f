"""Element by element: sums, products, tables, softmax and changes of scale over whole tensors."""

from __future__ import annotations

from ....ir.graph import Node, Value
from ....ir.ops.integer import QAffine, QRequantise
from ....ir.ops.integer_attention import QSoftmax
from ....ir.ops.integer_elementwise import QAdd, QMul
from ..call import Call
from ..constants import C_TYPES
from .epilogue import SUM, bits, limits
from .float_elementwise import loops, operand


def _repeated(node: Node) -> tuple[Value, Value, bool] | None:
    """The operand of the output's size, the one that repeats as a whole, and whether they changed places.

    None when no operand is such: both are stretched, or one repeats along an inner axis.
    """
    a, b = node.input(0), node.input(1)
    swapped = a.type.size < b.type.size
    large, small = (b, a) if swapped else (a, b)
    leading = next((i for i, n in enumerate(small.shape) if n > 1), len(small.shape))
    suffix = small.shape[leading:]
    whole = large.type.size == node.output.type.size
    return (large, small, swapped) if whole and suffix == large.shape[len(large.shape) - len(suffix) :] else None


def _nest(call: Call, expression: str, ends: tuple[int, int]) -> str:
    """C loops over an output whose operands, {a} and {b} in `expression`, are broadcast in any way."""
    (node,) = call.group.nodes
    values = {"a": node.input(0), "b": node.input(1)}
    operands = {name: (operand(call, name, value), value.shape) for name, value in values.items()}
    clamped = f"({C_TYPES[node.output.dtype]})es_clamp({expression}, {ends[0]}, {ends[1]})"
    return loops(node.output.shape, clamped, operands, call.value("out", node.output))


def add(call: Call) -> None:
    """A weighted sum; an operand may repeat."""
    (node,) = call.group.nodes
    op = node.op
    assert isinstance(op, QAdd)
    repeated = _repeated(node)
    swapped = repeated is not None and repeated[2]
    values = (op.mb, op.ma, op.c, op.shift) if swapped else (op.ma, op.mb, op.c, op.shift)
    ma, mb, c, shift = (call.scalar(name, value) for name, value in zip(SUM, values, strict=True))
    low, high = limits(op)
    if repeated is None:
        call.body = _nest(call, f"({{a}} * {ma} + {{b}} * {mb} + {c}) >> {shift}", (low, high))
        return
    large, small, _ = repeated
    a, b, out = operand(call, "a", large), operand(call, "b", small), call.value("out", node.output)
    count, period = large.type.size, small.type.size
    call.body = (
        f"    for (int i = 0; i < {count}; i += {period})\n"
        f"        es_add({a} + i, {bits(large)}, {b}, {bits(small)}, {period}, {ma}, {mb}, {c}, {shift}, {low}, "
        f"{high}, {out} + i, {bits(node.output)});\n"
    )


def mul(call: Call) -> None:
    """A product; an operand may repeat, as a gate per channel or per pixel does."""
    (node,) = call.group.nodes
    op = node.op
    assert isinstance(op, QMul)
    repeated = _repeated(node)
    zeros = (op.b_zero, op.a_zero) if repeated is not None and repeated[2] else (op.a_zero, op.b_zero)
    zero_a, zero_b = (call.scalar(name, zero) for name, zero in zip(("zero_a", "zero_b"), zeros, strict=True))
    mult, zero = call.scalar("mult", op.mult), call.scalar("zero", op.zero)
    low, high = limits(op)
    if repeated is None:
        product = f"({{a}} - {zero_a}) * ({{b}} - {zero_b})"
        call.body = _nest(call, f"es_requant({product}, {mult}, {op.pre}, {zero})", (low, high))
        return
    large, small, _ = repeated
    a, b, out = operand(call, "a", large), operand(call, "b", small), call.value("out", node.output)
    call.body = (
        f"    es_mul({a}, {bits(large)}, {zero_a}, {b}, {bits(small)}, {zero_b}, {large.type.size}, {small.type.size}, "
        f"{mult}, {op.pre}, {zero}, {low}, {high}, {out}, {bits(node.output)});\n"
    )


def requantise(call: Call) -> None:
    """Another scale, zero point or width."""
    (node,) = call.group.nodes
    op, x = node.op, node.input(0)
    assert isinstance(op, QRequantise)
    low, high = limits(op)
    call.body = (
        f"    es_rescale({call.value('x', x)}, {bits(x)}, 1, {x.type.size}, {call.scalar('x_zero', op.x_zero)}, "
        f"{call.scalar('mult', op.mult)}, {op.pre}, {call.scalar('zero', op.zero)}, {low}, {high}, "
        f"{call.value('out', node.output)}, {bits(node.output)}, 0);\n"
    )


def affine(call: Call) -> None:
    """A scale and shift per channel."""
    (node,) = call.group.nodes
    op, x = node.op, node.input(0)
    assert isinstance(op, QAffine)
    channels = x.shape[-1]
    call.body = (
        f"    es_affine({call.value('x', x)}, {bits(x)}, {x.type.size // channels}, {channels}, "
        f"{call.array('mult', node.input(1))}, {call.array('bias', node.input(2))}, {op.lift}, "
        f"{call.scalar('zero', op.zero)}, {call.value('out', node.output)}, {bits(node.output)});\n"
    )


def table8(call: Call) -> None:
    """A function of int8."""
    (node,) = call.group.nodes
    x, table = node.input(0), node.input(1)
    call.body = (
        f"    es_table8({call.value('x', x)}, {x.type.size}, {call.array('table', table)}, {bits(node.output)}, "
        f"{call.value('out', node.output)});\n"
    )


def table16(call: Call) -> None:
    """A function of int16."""
    (node,) = call.group.nodes
    x, table = node.input(0), node.input(1)
    call.body = (
        f"    es_table16({call.value('x', x)}, {x.type.size}, {call.array('table', table)}, "
        f"{call.value('out', node.output)});\n"
    )


def softmax(call: Call) -> None:
    """Rows of int8 to probabilities."""
    (node,) = call.group.nodes
    op, x = node.op, node.input(0)
    assert isinstance(op, QSoftmax)
    width = x.shape[-1]
    call.body = (
        f"    es_softmax({call.value('x', x)}, {x.type.size // width}, {width}, {call.array('table', node.input(1))}, "
        f"{call.scalar('mult', op.mult)}, {call.scalar('zero', op.zero)}, {bits(node.output)}, "
        f"{call.value('out', node.output)});\n"
    )


OPS = {
    "QAdd": add, "QAffine": affine, "QMul": mul, "QRequantise": requantise, "QSoftmax": softmax, "QTable16": table16,
    "QTable8": table8,
}  # fmt: skip
