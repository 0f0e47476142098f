"""Weights that are powers of two become shifts, and products with signs or truth values become sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Array, Graph, Value
from ...ops.conv import Conv
from ...ops.elementwise import Affine
from ...ops.linear import Linear, MatMul
from ...ops.logic import Cast, Where
from ...ops.quant import Dequantize
from ...ops.shape import Reshape, Transpose
from ...ops.shift import SPAN, MatAdd, MatShift, ShiftLinear, pack, unpack
from ...rewrite import Any, Const, Match, Miss, P, Rule
from ..base import Pass


def powers(w: Array) -> tuple[Array, Array]:
    """Integers 0 or +-2^p [N, K] and scales [N], whose product is exactly w.

    Raises:
        Miss: w is something else.
    """
    if not w.size or not np.isfinite(w).all():
        raise Miss("weights are not finite")
    for rows in (w[:1], w):  # one row tells nearly always
        greatest = np.abs(rows).max(axis=1, keepdims=True)
        part = np.abs(rows) / np.where(greatest > 0, greatest, 1)
        mantissa, exponent = np.frexp(part)
        power = exponent - 1 + SPAN
        if not np.where(rows != 0, (mantissa == 0.5) & (power >= 0), True).all():
            raise Miss(f"weights of an output are not one number times powers of two of 0 to {SPAN}")
    whole = (np.sign(w) * np.exp2(power) * (w != 0)).astype(np.int8)
    scales = np.asarray(greatest[:, 0] * 2.0**-SPAN, w.dtype)
    if not np.array_equal(whole * scales[:, None], w):
        raise Miss("a power of two is too small for its scale")
    return whole, scales


def _shift(match: Match) -> Value:
    node = match.root
    whole, scales = powers(match.array("w"))
    name = match["w"].name
    codes, scale = match.graph.constant(pack(whole), f"{name}.codes"), match.graph.constant(scales, f"{name}.scale")
    made: Value = match.add(ShiftLinear(), match["x"], codes, scale, node.optional(2))
    return made


def _shift_pixels(match: Match) -> Value:
    node, w = match.root, match.array("w")
    if node.op != Conv() or w.shape[2:] != (1, 1):
        raise Miss("it is no convolution of single pixels")
    whole, scales = powers(w.reshape(len(w), -1))
    batch, channels, *image = match["x"].shape
    name = match["w"].name
    codes, scale = match.graph.constant(pack(whole), f"{name}.codes"), match.graph.constant(scales, f"{name}.scale")
    rows = match.add(Reshape((batch, channels, image[0] * image[1])), match["x"])
    rows = match.add(Transpose((0, 2, 1)), rows)
    rows = match.add(Transpose((0, 2, 1)), match.add(ShiftLinear(), rows, codes, scale, node.optional(2)))
    made: Value = match.add(Reshape((batch, len(w), *image)), rows)
    return made


def _shift_integers(match: Match) -> Value:
    node, quant = match.root, match.node("real").op.attributes()["quant"]
    q, codes, scale = match["q"], match.array("codes"), match.array("scale")
    if quant.axis is not None or q.dtype not in ("int8", "int16"):
        raise Miss("the numbers are not int8 or int16 of one scale")
    if q.shape[-1] << (SPAN + q.type.numpy.itemsize * 8 - 1) >= 2**31:
        raise Miss("sums may not fit 32 bits")
    factor = np.asarray(scale * np.float64(quant.scale), scale.dtype)
    rest = -factor * quant.zero_point * unpack(codes, q.shape[-1]).astype(np.int64).sum(axis=1)
    shift = rest if node.optional(3) is None else rest + node.input(3).array
    sums = match.add(Cast("float32"), match.add(MatShift(), q, match["codes"]))
    a, c = (match.graph.constant(np.asarray(each, scale.dtype), f"{node.name}.{what}")
            for each, what in ((factor, "factor"), (shift, "shift")))  # fmt: skip
    made: Value = match.add(Affine(), sums, a, c)
    return made


def _add(match: Match) -> Value:
    a, b = match["a"], match["b"]
    if _signs(a):
        left: Value = match.add(MatAdd(), _as_signs(match.graph, a), b)
        return left
    if not _signs(b):
        raise Miss("no operand is known to hold -1, 0 and 1 only")
    turn_a, turn_b = (Transpose((*range(v.type.rank - 2), v.type.rank - 1, v.type.rank - 2)) for v in (a, b))
    signs = match.add(turn_b, _as_signs(match.graph, b))
    turned = match.add(MatAdd(), signs, match.add(turn_a, a))
    rank = turned.type.rank
    right: Value = match.add(Transpose((*range(rank - 2), rank - 1, rank - 2)), turned)
    return right


def _signs(value: Value) -> bool:
    """Whether the elements are -1, 0 and 1 by the way they are made."""
    if value.data is not None:
        return value.type.rank >= 1 and bool(np.isin(value.data, (-1, 0, 1)).all())
    node = value.producer
    if node is None:
        return False
    if isinstance(node.op, Reshape | Transpose):
        return _signs(node.input(0))
    if isinstance(node.op, Cast):
        return node.input(0).dtype == "bool"
    if isinstance(node.op, Where):
        choices = [node.input(index).data for index in (1, 2)]
        return all(each is not None and bool(np.isin(each, (-1, 0, 1)).all()) for each in choices)
    return False


def _as_signs(graph: Graph, value: Value) -> Value:
    """The same elements in int8 or as truth values."""
    node = value.producer
    if node is None:
        return graph.constant(value.array.astype(np.int8), f"{value.name}.signs")
    if isinstance(node.op, Cast):
        return node.input(0)
    first = node.input(0) if isinstance(node.op, Where) else _as_signs(graph, node.input(0))
    rest = [graph.constant(each.array.astype(np.int8), f"{each.name}.signs") for each in node.inputs[1:] if each]
    made: Value = graph.add(node.op, first, *rest, name=f"{node.name}.signs", sources=node.sources)
    return made


@dataclass(frozen=True)
class ShiftAndAdd(Pass):
    """Use the primitives of ShiftAddViT where a model's numbers allow it.

        Linear(x, w, b), w = +-2^p * scale[n]                becomes    ShiftLinear(x, codes, scale, b)
        Conv of 1x1, likewise                                becomes    the same between two transposes
        ShiftLinear(Dequantize(q), codes, scale, b)          becomes    Affine(Cast(MatShift(q, codes)))
        MatMul(Cast(truth values), x), MatMul(+-1 or 0, x)   becomes    MatAdd(signs, x)

    Legal where every weight of an output is 0 or one number times a power of two out of seven: the same numbers, in
    another notation. Before folds, which give each input channel a factor of its own.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("shift", P(Linear, Any("x"), Const(name="w")), _shift),
        Rule("shift_pixels", P(Conv, Any("x"), Const(name="w")), _shift_pixels),
        Rule("shift_integers", P(ShiftLinear, P(Dequantize, Any("q"), name="real", shared=True), Const(name="codes"),
                                 Const(name="scale")), _shift_integers),
        Rule("add", P(MatMul, Any("a"), Any("b")), _add),
    )  # fmt: skip
