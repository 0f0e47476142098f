"""Element-wise ops as steps of a formula, alone or behind the layer whose results they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...ir.graph import Array, Node, Value
from ...ir.op import Op
from ...ir.ops import activation, elementwise, logic, norm, quant
from .kernels.elementwise import Elementwise
from .site import FormError, Fusion, Site
from .views import View, merged

__all__ = ["ELEMENTS", "elements", "extend"]

Parameters = Callable[[Any], tuple[float, ...]]


def none(op: Op) -> tuple[float, ...]:
    """No parameters."""
    return ()


def _to_integers(op: quant.Quantize) -> tuple[float, ...]:
    """Scale, zero point and the ends of the type."""
    info = np.iinfo(op.dtype)
    return (*_one_scale(op), float(info.min), float(info.max))


def _one_scale(op: quant.Quantize | quant.Dequantize) -> tuple[float, ...]:
    """Scale and zero point."""
    if not isinstance(op.quant.scale, float):
        raise FormError("its scale is not one number")
    return op.quant.scale, float(op.quant.zero_point)


def _real(op: logic.Cast) -> str:
    """The function of a conversion, which holds for numbers that float32 holds."""
    if op.dtype != "float32":
        raise FormError(f"conversion to {op.dtype}")
    return "real"


ELEMENTS: dict[type[Op], tuple[str | Callable[[Any], str], Parameters]] = {
    activation.Abs: ("abs", none),
    activation.Clip: ("clip", lambda op: (op.minimum, op.maximum)),
    activation.Erf: ("erf", none),
    activation.Exp: ("exp", none),
    activation.Gelu: (lambda op: f"gelu_{op.approximate}", none),
    activation.HardSigmoid: ("hard_sigmoid", lambda op: (op.alpha, op.beta)),
    activation.HardSwish: ("hard_swish", none),
    activation.LeakyRelu: ("leaky", lambda op: (op.alpha,)),
    activation.Log: ("log", none),
    activation.Neg: ("neg", none),
    activation.Reciprocal: ("reciprocal", none),
    activation.Relu: ("relu", none),
    activation.Sigmoid: ("sigmoid", none),
    activation.Silu: ("silu", none),
    activation.Sqrt: ("sqrt", none),
    activation.Tanh: ("tanh", none),
    elementwise.Add: ("add", none),
    elementwise.Div: ("div", none),
    elementwise.Maximum: ("max", none),
    elementwise.Minimum: ("min", none),
    elementwise.Mul: ("mul", none),
    elementwise.Pow: ("pow", none),
    elementwise.Sub: ("sub", none),
    logic.Equal: ("equal", none),
    logic.Less: ("less", none),
    logic.Where: ("where", none),
    logic.Cast: (_real, none),
    quant.Quantize: ("quantise", _to_integers),
    quant.Dequantize: ("dequantise", _one_scale),
    # Written as a product and a sum per channel.
    elementwise.Affine: ("affine", none),
    norm.BatchNorm: ("affine", none),
    norm.RepNorm: ("affine", none),
}
"""Function and parameters of each op."""


def extend(site: Site, fusion: Fusion, node: Node, known: dict[Value, int]) -> None:
    """Add a node's function; `known` numbers the values that are at hand, and gets its result."""
    function, parameters = ELEMENTS[type(node.op)]
    name = function if isinstance(function, str) else function(node.op)

    def number(value: Value) -> int:
        return known[value] if value in known else fusion.operand(site.of(value))

    if name == "affine":
        factor, shift = (fusion.operand(view) for view in _affine(site, node))
        product = fusion.step("mul", number(node.input(0)), factor)
        known[node.output] = fusion.step("add", product, shift)
        return
    operands = [number(node.input(index)) for index in range(len(node.inputs))]
    known[node.output] = fusion.step(name, *operands, parameters=parameters(node.op))


def elements(site: Site, op: Op) -> View:
    """A kernel of its own for a chain of element-wise nodes."""
    fusion = Fusion(site.shape)
    known: dict[Value, int] = {}
    for node in (site.node, *site.tail):
        extend(site, fusion, node, known)
    out = View.whole("", site.shape).access
    accesses = [view.access for view in fusion.operands]
    shape, (*inner, out) = merged(site.shape, *accesses, out)
    kernel = Elementwise(shape, fusion.formula, tuple(inner), out)
    return site.made(kernel, [view.slot for view in fusion.operands])


def _affine(site: Site, node: Node) -> tuple[View, View]:
    """Factor and shift per channel."""
    axis, rank = int(node.op.attributes()["axis"]), node.input(0).type.rank
    shape = tuple(-1 if at == axis % rank else 1 for at in range(rank))
    if isinstance(node.op, norm.BatchNorm):
        given = [node.input(index).data for index in range(1, len(node.inputs))]
        arrays = [array for array in given if array is not None]
        if len(arrays) != len(given):
            raise FormError("its statistics must be known at compile time")
        a, c = node.op.coefficients(*arrays[:4])
        if isinstance(node.op, norm.RepNorm):
            a = a + arrays[4].reshape(-1)
        factor, shift = _constant(site, a, shape), _constant(site, c, shape)
        return factor, shift
    views = [site.of(node.input(index)).through(lambda array: array.reshape(shape)) for index in (1, 2)]
    return views[0], views[1]


def _constant(site: Site, array: Array, shape: tuple[int, ...]) -> View:
    """A vector in single precision, as it broadcasts."""
    single = np.asarray(array, np.float32).reshape(shape)
    return View.whole(site.literal(single), single.shape)
