"""Element by element: sums, products, tables, softmax and changes of scale over whole tensors."""

from __future__ import annotations

from ....ir.errors import Unsupported
from ....ir.graph import Node, Value
from ....ir.ops.integer import QAffine, QRequantise
from ....ir.ops.integer_attention import QSoftmax
from ....ir.ops.integer_elementwise import QAdd, QMul
from ..call import Call
from .epilogue import SUM, bits, limits


def _operand(call: Call, name: str, value: Value) -> str:
    """An operand in RAM or in flash."""
    return call.array(name, value) if value.is_constant else call.value(name, value)


def _order(node: Node) -> tuple[Value, Value, bool]:
    """The operand of the output's size first, the one that repeats second, and whether they changed places.

    Raises:
        Unsupported: The smaller one does not repeat as a whole (it is not a suffix of the larger one's shape).
    """
    a, b = node.input(0), node.input(1)
    swapped = a.type.size < b.type.size
    large, small = (b, a) if swapped else (a, b)
    leading = next((i for i, n in enumerate(small.shape) if n > 1), len(small.shape))
    suffix = small.shape[leading:]
    if large.shape != node.output.shape or suffix != large.shape[len(large.shape) - len(suffix) :]:
        why = f"operands of shapes {a.shape} and {b.shape}"
        do = "only a suffix may be broadcast on a microcontroller: expand the operand in the model"
        what = f"c: {type(node.op).__name__} broadcasts in an unusual way"
        raise Unsupported(what, where=node.sources, why=why, do=do)
    return large, small, swapped


def add(call: Call) -> None:
    """A weighted sum; the smaller operand repeats."""
    (node,) = call.group.nodes
    op = node.op
    large, small, swapped = _order(node)
    a, b, out = _operand(call, "a", large), _operand(call, "b", small), call.value("out", node.output)
    assert isinstance(op, QAdd)
    values = (op.mb, op.ma, op.c, op.shift) if swapped else (op.ma, op.mb, op.c, op.shift)
    ma, mb, c, shift = (call.scalar(name, value) for name, value in zip(SUM, values, strict=True))
    low, high = limits(op)
    count, period = large.type.size, small.type.size
    call.body = (
        f"    for (int i = 0; i < {count}; i += {period})\n"
        f"        es_add({a} + i, {bits(large)}, {b}, {bits(small)}, {period}, {ma}, {mb}, {c}, {shift}, {low}, "
        f"{high}, {out} + i, {bits(node.output)});\n"
    )


def mul(call: Call) -> None:
    """A product; the smaller operand repeats, as a gate per channel does."""
    (node,) = call.group.nodes
    op = node.op
    large, small, swapped = _order(node)
    a, b, out = _operand(call, "a", large), _operand(call, "b", small), call.value("out", node.output)
    assert isinstance(op, QMul)
    zeros = (op.b_zero, op.a_zero) if swapped else (op.a_zero, op.b_zero)
    zero_a, zero_b = (call.scalar(name, zero) for name, zero in zip(("zero_a", "zero_b"), zeros, strict=True))
    low, high = limits(op)
    call.body = (
        f"    es_mul({a}, {bits(large)}, {zero_a}, {b}, {bits(small)}, {zero_b}, {large.type.size}, {small.type.size}, "
        f"{call.scalar('mult', op.mult)}, {op.pre}, {call.scalar('zero', op.zero)}, {low}, {high}, "
        f"{out}, {bits(node.output)});\n"
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
