"""A constant added after a matrix product or a convolution is its bias; a matrix from the left is a layer over rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph import Value
from ...ops.conv import Conv
from ...ops.elementwise import Add
from ...ops.linear import Linear, MatMul
from ...ops.shape import Transpose
from ...rewrite import Any, Const, Match, Miss, P, Rule
from ..base import Pass
from .spellings import vector_along


def _absorb(match: Match) -> Value:
    node = match.node("product")
    if node.optional(2) is not None:
        raise Miss("it has a bias already")
    shape = node.output.shape
    if match.root.output.shape != shape:
        raise Miss(f"the constant enlarges {shape} to {match.root.output.shape}")
    axis = len(shape) - 1 if isinstance(node.op, Linear) else 1
    array = vector_along(match.array("bias"), axis, shape, "bias")
    same = array.shape == match["bias"].shape
    bias = match["bias"] if same else match.graph.constant(array, match["bias"].name)
    result: Value = match.add(node.op, match["x"], match["w"], bias, name=node.name)
    return result


def _from_the_left(match: Match) -> Value:
    x, rank = match["x"], match["x"].type.rank
    if match["w"].type.rank != 2 or rank < 3:
        raise Miss("it is no one matrix times each matrix of a batch")
    turn = Transpose((*range(rank - 2), rank - 1, rank - 2))
    result: Value = match.add(turn, match.add(Linear(), match.add(turn, x), match["w"]))
    return result


def _absorb_column(match: Match) -> Value:
    layer, turn = match.node("product"), match.node("turned")
    if layer.optional(2) is not None or match.root.output.shape != turn.output.shape:
        raise Miss("it has a bias already, or the constant enlarges it")
    perm = turn.op.attributes()["perm"]
    column = vector_along(match.array("bias"), perm.index(len(perm) - 1), turn.output.shape, "bias")
    bias = match.graph.constant(column, match["bias"].name)
    result: Value = match.add(turn.op, match.add(layer.op, match["x"], match["w"], bias, name=layer.name))
    return result


OPERANDS = Any("x"), Const(name="w")
PRODUCT = P(Linear, *OPERANDS, name="product")


@dataclass(frozen=True)
class RecogniseLinear(Pass):
    """Linear + vector and Conv + vector, in either order of the sum.

    MatMul(w, x) + column    becomes    Transpose(Linear(Transpose(x), w, column)), as gates over tokens are written
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("left_product", P(MatMul, Const(name="w"), Any("x")), _from_the_left),
        Rule("column", P(Add, P(Transpose, PRODUCT, name="turned"), Const(name="bias")), _absorb_column),
        Rule("bias", P(Add, P((Linear, Conv), *OPERANDS, name="product"), Const(name="bias")), _absorb),
    )
