"""LayerNorm and RMSNorm from means, squares and roots; then scale and shift that follow them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ...graph import Value
from ...ops.activation import Reciprocal, Sqrt
from ...ops.elementwise import Add, Div, Mul, Pow, Sub
from ...ops.norm import LayerNorm, RMSNorm
from ...ops.pool import Mean
from ...rewrite import Any, Const, Match, Miss, P, Pattern, Rule
from ..base import Pass
from .spellings import vector_along

X, D = Any("x"), Any("d")
CENTRED = P(Sub, X, P(Mean, X, name="mean", where=lambda op: op.keepdims), name="d", shared=True)


def _normalised(top: Pattern, again: Any) -> Iterator[P]:
    """top / sqrt(mean(again^2) + eps), with `again` the value of `top`."""
    for square in (P(Mul, again, again), P(Pow, again, Const(2.0))):
        variance = P(Mean, square, name="square_mean", where=lambda op: op.keepdims)
        shifted = P(Add, variance, Const(name="eps"))
        for deviation in (P(Sqrt, shifted), P(Pow, shifted, Const(0.5))):
            yield P(Div, top, deviation)
            yield P(Mul, top, P(Reciprocal, deviation))
            yield P(Mul, top, P(Div, Const(1.0), deviation))
        yield P(Mul, top, P(Pow, shifted, Const(-0.5)))


def _epsilon(match: Match, *means: str) -> float:
    """The constant under the root, once all means run over the last axis."""
    last = len(match["x"].shape) - 1
    for mean in means:
        axes = match.node(mean).op.attributes()["axes"]
        if [axis % (last + 1) for axis in axes] != [last]:
            raise Miss(f"'{match[mean].name}' is a mean over axes {axes}, not over the last")
    eps = match.array("eps")
    if eps.size != 1:
        raise Miss("epsilon differs between elements")
    return float(eps.reshape(()))


def _layer_norm(match: Match) -> Value:
    result: Value = match.add(LayerNorm(_epsilon(match, "mean", "square_mean")), match["x"])
    return result


def _rms_norm(match: Match) -> Value:
    result: Value = match.add(RMSNorm(_epsilon(match, "square_mean")), match["x"])
    return result


def _scale(match: Match) -> Value:
    node = match.node("norm")
    if node.optional(1) is not None or node.optional(2) is not None:
        raise Miss("it is scaled or shifted already")
    result: Value = match.add(node.op, match["x"], _vector(match), name=node.name)
    return result


def _shift(match: Match) -> Value:
    node = match.node("norm")
    if node.optional(2) is not None:
        raise Miss("it is shifted already")
    result: Value = match.add(node.op, match["x"], node.optional(1), _vector(match), name=node.name)
    return result


def _vector(match: Match) -> Value:
    """The constant as a vector of channels; one that is a vector already is kept, shared or not."""
    constant, shape = match["c"], match["norm"].shape
    array = vector_along(constant.array, -1, shape, "constant")
    return constant if constant.shape == array.shape else match.graph.constant(array, constant.name)


@dataclass(frozen=True)
class RecogniseLayernorm(Pass):
    """(x - mean) / sqrt(var + eps) * g + b and x / sqrt(mean(x^2) + eps) * g over the last axis."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *(Rule("layer_norm", pattern, _layer_norm) for pattern in _normalised(CENTRED, D)),
        *(Rule("rms_norm", pattern, _rms_norm) for pattern in _normalised(X, X)),
        Rule("norm_scale", P(Mul, P((LayerNorm, RMSNorm), X, name="norm"), Const(name="c")), _scale),
        Rule("norm_shift", P(Add, P(LayerNorm, X, name="norm"), Const(name="c")), _shift),
    )
