"""Single precision, element by element: one loop nest for every function, whatever its operands' shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from ....ir.errors import Unsupported
from ....ir.graph import Array, Node, Value
from ....ir.op import Op
from ....ir.ops import activation, elementwise, logic, norm
from ..call import Call
from ..constants import C_TYPES
from .layout import strides_of

GELU = {"none": "es_geluf({x})", "sigmoid": "{x} * es_sigmoidf(1.702f * {x})", "tanh": "es_gelu_tanhf({x})"}
UNARY: dict[type[Op], Callable[..., str]] = {
    activation.Abs: lambda op: "{x} < 0.0f ? -{x} : {x}",
    activation.Clip: lambda op: f"es_clampf({{x}}, {literal(op.minimum)}, {literal(op.maximum)})",
    activation.Erf: lambda op: "es_erff({x})",
    activation.Exp: lambda op: "es_expf({x})",
    activation.Gelu: lambda op: GELU[op.approximate],
    activation.HardSigmoid: lambda op: f"es_clampf({literal(op.alpha)} * {{x}} + {literal(op.beta)}, 0.0f, 1.0f)",
    activation.HardSwish: lambda op: "es_hardswishf({x})",
    activation.LeakyRelu: lambda op: f"{{x}} > 0.0f ? {{x}} : {literal(op.alpha)} * {{x}}",
    activation.Log: lambda op: "es_logf({x})",
    activation.Neg: lambda op: "-{x}",
    activation.Reciprocal: lambda op: "1.0f / {x}",
    activation.Relu: lambda op: "es_reluf({x})",
    activation.Sigmoid: lambda op: "es_sigmoidf({x})",
    activation.Silu: lambda op: "es_siluf({x})",
    activation.Sqrt: lambda op: "es_sqrtf({x})",
    activation.Tanh: lambda op: "es_tanhf({x})",
}
BINARY: dict[type[Op], str] = {
    elementwise.Add: "{a} + {b}",
    elementwise.Div: "{a} / {b}",
    logic.Equal: "{a} == {b}",
    logic.Less: "{a} < {b}",
    elementwise.Maximum: "ES_MAX({a}, {b})",
    elementwise.Minimum: "ES_MIN({a}, {b})",
    elementwise.Mul: "{a} * {b}",
    elementwise.Pow: "es_powf({a}, {b})",
    elementwise.Sub: "{a} - {b}",
}
POWERS = {2.0: "{a} * {a}", 3.0: "{a} * {a} * {a}", 0.5: "es_sqrtf({a})", -1.0: "1.0f / {a}"}
"""Exponents that need no logarithm."""

Operands = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name -> (C pointer, shape)."""


def literal(number: float) -> str:
    """The C literal of the nearest single-precision number."""
    if math.isinf(number):
        return "__builtin_inff()" if number > 0 else "-__builtin_inff()"
    text = np.format_float_scientific(np.float32(number), trim="0")
    return f"{text}f"


def operand(call: Call, name: str, value: Value) -> str:
    """An operand in RAM or in flash."""
    return call.array(name, value) if value.is_constant else call.value(name, value)


def loops(shape: tuple[int, ...], expression: str, operands: Operands, out: str) -> str:
    """Store `expression` in every element of `out`; {name} in it is the operand's element, broadcast as in numpy.

    Args:
        shape: Of `out`.
        expression: C text with the operands' names in braces.
        operands: What it reads.
        out: C pointer.
    """
    names = ["", *operands]
    by = [strides_of(shape), *(steps(shape, given) for _, given in operands.values())]
    sizes: list[int] = []
    merged: list[list[int]] = [[] for _ in names]
    for axis in (axis for axis, size in enumerate(shape) if size > 1):
        here = [each[axis] for each in by]
        if sizes and all(own[-1] == step * shape[axis] for own, step in zip(merged, here, strict=True)):
            sizes[-1] *= shape[axis]  # the axis before runs on into this one
            for own, step in zip(merged, here, strict=True):
                own[-1] = step
            continue
        sizes.append(shape[axis])
        for own, step in zip(merged, here, strict=True):
            own.append(step)
    pointers = dict(zip(names, (out, *(pointer for pointer, _ in operands.values())), strict=True))
    places = {name: f"{pointers[name]}[{_place(own)}]" for name, own in zip(names, merged, strict=True)}
    head = [f"{'    ' * (i + 1)}for (int i{i} = 0; i{i} < {size}; i{i}++)\n" for i, size in enumerate(sizes)]
    filled = expression.format(**{name: place for name, place in places.items() if name})
    return f"{''.join(head)}{'    ' * (len(sizes) + 1)}{places['']} = {filled};\n"


def steps(shape: tuple[int, ...], given: tuple[int, ...]) -> list[int]:
    """Elements from one index of `shape` to the next in an operand of shape `given`; 0 where it is stretched."""
    own = [0 if size == 1 else step for size, step in zip(given, strides_of(given), strict=True)]
    return [0] * (len(shape) - len(given)) + own


def _place(steps: list[int]) -> str:
    terms = [f"i{i} * {step}" if step > 1 else f"i{i}" for i, step in enumerate(steps) if step]
    return " + ".join(terms) or "0"


def unary(call: Call) -> None:
    """A function of one element."""
    (node,) = call.group.nodes
    x = node.input(0)
    count, read = (x.type.size,), (operand(call, "x", x), (x.type.size,))
    call.body = loops(count, UNARY[type(node.op)](node.op), {"x": read}, call.value("out", node.output))


def binary(call: Call) -> None:
    """Arithmetic on two operands."""
    (node,) = call.group.nodes
    a, b = node.input(0), node.input(1)
    expression = BINARY[type(node.op)]
    operands = {"a": (operand(call, "a", a), a.shape)}
    power = float(b.array.flat[0]) if b.is_constant and b.type.size == 1 else None
    if isinstance(node.op, elementwise.Pow) and power in POWERS:
        expression = POWERS[power]
    else:
        operands["b"] = (operand(call, "b", b), b.shape)
    call.body = loops(node.output.shape, expression, operands, call.value("out", node.output))


def where(call: Call) -> None:
    """One of two operands, as truth values choose."""
    (node,) = call.group.nodes
    values = {name: node.input(i) for i, name in enumerate("cab")}
    operands = {name: (operand(call, name, value), value.shape) for name, value in values.items()}
    call.body = loops(node.output.shape, "{c} ? {a} : {b}", operands, call.value("out", node.output))


def cast(call: Call) -> None:
    """Another element type; C leaves open what becomes of real numbers that integers do not hold."""
    (node,) = call.group.nodes
    x, out = node.input(0), node.output
    if x.dtype == "float32" and out.dtype not in ("float32", "bool"):
        raise Unsupported(f"c: Cast of float32 to {out.dtype}", where=node.sources, do="keep the numbers real")
    expression = "{x} != 0" if out.dtype == "bool" else f"({C_TYPES[out.dtype]}){{x}}"
    read = {"x": (operand(call, "x", x), (x.type.size,))}
    call.body = loops((x.type.size,), expression, read, call.value("out", out))


def affine(call: Call) -> None:
    """A factor and a term per channel."""
    (node,) = call.group.nodes
    assert isinstance(node.op, elementwise.Affine)
    scale(call, node, node.op.axis, operand(call, "a", node.input(1)), operand(call, "c", node.input(2)))


def frozen(call: Call) -> None:
    """BatchNorm and RepNorm as the affine map that they are."""
    (node,) = call.group.nodes
    op, given = node.op, [value for value in node.inputs[1:] if value is not None]
    assert isinstance(op, norm.BatchNorm)
    if not all(value.is_constant for value in given):
        what = f"c: {type(op).__name__} with statistics computed at run time"
        raise Unsupported(what, where=node.sources, do="export the model for inference")
    a, c = op.coefficients(*(value.array for value in given[:4]))
    a = a if len(given) < 5 else a + given[4].array.reshape(-1)
    vectors: list[tuple[str, Array]] = [("a", a), ("c", c)]
    fields = [call.array(name, array.astype(np.float32), f"{node.name} {name}") for name, array in vectors]
    scale(call, node, op.axis, *fields)


def scale(call: Call, node: Node, axis: int, a: str, c: str) -> None:
    """x * a + c along an axis."""
    x = node.input(0)
    along = (x.shape[axis], *(1 for _ in x.shape[axis % len(x.shape) + 1 :]))
    operands = {"x": (operand(call, "x", x), x.shape), "a": (a, along), "c": (c, along)}
    call.body = loops(x.shape, "{x} * {a} + {c}", operands, call.value("out", node.output))


OPS = {
    **{op.__name__: unary for op in UNARY},
    **{op.__name__: binary for op in BINARY},
    "Affine": affine, "BatchNorm": frozen, "Cast": cast, "RepNorm": frozen, "Where": where,
}  # fmt: skip
