"""Pooling mixers without their difference: the stream carries the factor that is left, as far as it can be carried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Array, Graph, Node, Value
from ...ops.elementwise import Add, Mul, Sub
from ...ops.norm import GroupNorm
from ...ops.pool import AveragePool
from ...rewrite import Any, Const, Match, Miss, P, Rule, rewrite
from ..base import Pass
from .absorb import (
    fold_into_writer,
    input_axis,
    is_public,
    is_weighted,
    preceded,
    rebuild,
    require_own_weights,
    writers,
)
from .channel_map import ChannelMap, double

LEAST = 0.05
"""Of |1 - g|: the stream is divided by it."""
LARGEST = 64.0
"""Factor, either way, that a stream may gather: it must stay within half precision."""

X = Any("x")
POOLED = P(AveragePool, X, name="pooled")
NORMED = P(GroupNorm, name="x", shared=True)
MIXED_NORM = P(Mul, P(Sub, P(AveragePool, NORMED, name="pooled"), NORMED, name="less"), Const(name="g"))


def _along_channels(constant: Value, x: Value) -> Array:
    """A constant as a vector of the channels of an image.

    Raises:
        Miss: It is none.
    """
    shape = (1,) * (4 - constant.type.rank) + constant.shape
    if x.type.rank != 4 or len(shape) != 4 or shape[1] not in (1, x.shape[1]) or shape[0] * shape[2] * shape[3] != 1:
        raise Miss(f"'{constant.name}' is no vector of channels")
    return np.broadcast_to(double(constant).reshape(-1), x.shape[1])


def _times(graph: Graph, value: Value, vector: Array, name: str, sources: tuple[str, ...]) -> Value:
    constant = graph.constant(vector.reshape(-1, 1, 1).astype(value.dtype), f"{name}.gain")
    result: Value = graph.add(Mul(), value, constant, name=name, sources=sources)
    return result


def _mix(match: Match) -> Value:
    graph, x, pooled = match.graph, match["x"], match["pooled"]
    g = _along_channels(match["g"], x)
    if not x.shape == pooled.shape == match.root.output.shape:
        raise Miss("the average has another size")
    if not np.all(np.abs(1 - g) >= LEAST):
        raise Miss(f"1 - '{match['g'].name}' comes close to zero")
    scaled = match.node("scaled")
    more = _times(graph, pooled, g / (1 - g), scaled.name, scaled.sources)
    total = match.add(Add(), x, more)
    return _times(graph, total, 1 - g, f"{match.root.name}.rest", match.root.sources)


def _carry(match: Match) -> Value:
    graph, u, v = match.graph, match["x"], match.root.output
    a = _along_channels(match["a"], u)
    if is_public(graph, v) or u.shape != v.shape:
        raise Miss("it is an output, or stretches its operand")
    if not np.all((np.abs(a) <= LARGEST) & (np.abs(a) * LARGEST >= 1)):
        raise Miss(f"'{match['a'].name}' has gathered too large a factor")
    layers = [node for node in v.readers if is_weighted(node)]
    for node in layers:
        if input_axis(node) != 1 or v in node.inputs[1:] or len(node.input(1).readers) > 1:
            raise Miss(f"'{node.name}' does not read it along its channels, or shares its weight")
    require_own_weights(graph, layers)
    others = [node for node in v.readers if node not in layers]
    if others:
        _carry_on(match, a, others)
    for node in [node for node in v.readers if is_weighted(node)]:
        rebuild(graph, node, *preceded(node, ChannelMap(1, a, np.zeros_like(a))))
    return u


def _carry_on(match: Match, a: Array, readers: list[Node]) -> None:
    """Past the one sum in the stream that also reads the value: (a u) + w = a (u + w / a)."""
    graph, u, v = match.graph, match["x"], match.root.output
    sums = [node for node in readers if isinstance(node.op, Add)]
    pools = [node for node in readers if isinstance(node.op, AveragePool)]
    if len(sums) != 1 or len(sums) + len(pools) != len(readers) or len(pools) > 1:
        raise Miss(f"'{v.name}' is read by {', '.join(node.name for node in readers)}")
    total = sums[0]
    other = total.input(1 if total.inputs[0] is v else 0)
    if other is v or other.shape != v.shape:
        raise Miss(f"'{total.name}' adds it to itself or stretches it")
    if pools:
        gain = other.producer
        if gain is None or not isinstance(gain.op, Mul) or pools[0].output not in gain.inputs or len(other.uses) > 1:
            raise Miss(f"'{total.name}' does not add up a mixer")
        constant = gain.input(1 if gain.inputs[0] is pools[0].output else 0)
        vector = _along_channels(constant, v)
        if len(pools[0].output.uses) > 1 or is_public(graph, pools[0].output) or is_public(graph, other):
            raise Miss(f"'{pools[0].name}' is also read elsewhere")
        pooled = graph.add(pools[0].op, u, name=pools[0].name, sources=pools[0].sources)
        term = _times(graph, pooled, vector, gain.name, gain.sources)
    else:
        divided = ChannelMap(1, 1 / a, np.zeros_like(a))
        require_own_weights(graph, list(writers(graph, other, divided)))
        fold_into_writer(graph, other, divided)
        term = total.input(1 if total.inputs[0] is v else 0)
    new = graph.add(Add(), u, term, name=total.name, sources=total.sources)
    graph.replace(total.output, _times(graph, new, a, f"{total.name}.rest", total.sources))


def _join(match: Match) -> Value:
    x = match["x"]
    if match.root.output.shape != x.shape:
        raise Miss("it stretches its operand")
    a, b = (_along_channels(match[name], x) for name in "ab")
    return _times(match.graph, x, a * b, match.root.name, match.root.sources)


def _into_norm(match: Match) -> Value:
    graph, node, normed = match.graph, match.node("x"), match["x"]
    op = node.op
    assert isinstance(op, GroupNorm)
    g = _along_channels(match["g"], normed)
    if len(normed.uses) != 2 or is_public(graph, normed):
        raise Miss(f"'{normed.name}' is also read by others")
    scale, shift = node.optional(1), node.optional(2)
    vectors = [np.ones_like(g) if scale is None else double(scale), None if shift is None else double(shift)]
    names = [f"{node.name}.scale" if scale is None else scale.name, "" if shift is None else shift.name]
    constants = [
        None if vector is None else graph.constant((g * vector).astype(normed.dtype), name)
        for vector, name in zip(vectors, names, strict=True)
    ]
    new = graph.add(op, node.input(0), *constants, name=node.name, sources=node.sources)
    pooled = match.node("pooled")
    again = graph.add(pooled.op, new, name=pooled.name, sources=pooled.sources)
    result: Value = match.add(match.node("less").op, again, new)
    return result


@dataclass(frozen=True)
class MixInPlace(Pass):
    """Keep the stream of pooling mixers divided by what they leave of it.

        x + g * (pool(x) - x)     becomes    (1 - g) * u,  u = x + g / (1 - g) * pool(x)
        conv((1 - g) * u)         becomes    conv'(u)
        (1 - g) * u + conv(h)     becomes    (1 - g) * (u + conv'(h))
        g * (pool(n) - n)         becomes    pool(n') - n'   where a GroupNorm makes n, whose scale takes g up

    Factors so move down the stream into the weights on the way, one Mul at most being left at its end; a mixer costs
    three ops instead of four. Legal per channel of images; done where 1 - g stays away from zero, the factors that
    gather stay small, and the layers concerned own their weights.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("mix_in_place", P(Add, X, P(Mul, P(Sub, POOLED, X), Const(name="g"), name="scaled")), _mix),
        Rule("mix_norm", MIXED_NORM, _into_norm),
    )
    carrying: ClassVar[tuple[Rule, ...]] = (
        Rule("join_factors", P(Mul, P(Mul, X, Const(name="a")), Const(name="b")), _join),
        Rule("carry_factor", P(Mul, X, Const(name="a")), _carry),
    )

    def apply(self, graph: Graph) -> int:
        """Carry factors on only where mixers have made them."""
        count = rewrite(graph, self.rules)
        return count + (rewrite(graph, self.carrying) if count else 0)
