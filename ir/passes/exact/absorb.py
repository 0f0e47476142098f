"""Put a map per channel into the weights of the layers around it, all or nothing.

    after:   w (x) + b, then a * y + c    ->   (a w) x + (a b + c)
    before:  a * x + c, then w (x) + b    ->   (w a) x + (b + w c)

Sums are formed in float64 and stored in the weight's own precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import numpy as np

from ...errors import ModelError
from ...graph import Array, Graph, Node, Value, sources_of
from ...ops.conv import Conv, PatchEmbed
from ...ops.elementwise import Add
from ...ops.linear import Linear, MatMul
from ...rewrite import Miss
from .channel_map import ChannelMap, double, downstream, upstream

WEIGHTED = (Linear, Conv, PatchEmbed)

FURTHEST = 300
"""Nodes between a map and a layer that takes it: a residual stream of a hundred blocks has two sums in each."""
MOST_READS = 2000
"""Reads that are looked at on the way to layers: ways that part and join again double their number each time."""


def is_weighted(node: Node | None) -> TypeGuard[Node]:
    """Whether a node is a linear map with a weight."""
    return node is not None and isinstance(node.op, WEIGHTED)


def output_axis(node: Node) -> int:
    """The channel axis of a weighted node's output."""
    return 1 if isinstance(node.op, Conv) else node.output.type.rank - 1


def input_axis(node: Node) -> int:
    """The channel axis of a weighted node's data."""
    return node.input(0).type.rank - 1 if isinstance(node.op, Linear) else 1


def is_public(graph: Graph, value: Value) -> bool:
    """Whether a value is an output of the graph."""
    return any(value is out for out in graph.outputs)


def absorb(graph: Graph, root: Node, data: Value, maps: Sequence[ChannelMap]) -> Value:
    """Fold the map that `root` applies to `data` into weights before it, else after it.

    Args:
        graph: The graph.
        root: The node that applies the map; it is dead afterwards.
        data: Its data operand.
        maps: The map, along each axis on which it may be read (a scalar has several).

    Returns:
        The value that takes the place of the root's output.

    Raises:
        Miss: Neither side can take it; the message has both reasons.
    """
    reasons: list[str] = []
    index = next(i for i, value in enumerate(root.inputs) if value is data)
    for fold in (fold_into_writer, fold_into_readers):
        for m in maps:
            try:
                fold(graph, data if fold is fold_into_writer else root.output, m, root.sources)
                return root.input(index)
            except Miss as miss:
                reasons.append(str(miss))
    raise Miss("; ".join(dict.fromkeys(reasons)))


def fold_into_writer(graph: Graph, value: Value, m: ChannelMap, sources: Sequence[str] = ()) -> None:
    """Let the layers that compute `value`, which one node reads, compute m(value).

    Raises:
        Miss: There are no such layers, or someone else reads their output or their weight.
    """
    found = writers(graph, value, m)
    require_own_weights(graph, list(found))
    if len({node.input(1) for node in found}) < len(found):
        raise Miss(f"the layers that add up to '{value.name}' share a weight")
    for node, after in found.items():
        weight, bias = double(node.input(1)), node.optional(2)
        scaled = weight * after.a.reshape([-1] + [1] * (weight.ndim - 1))
        shifted = after.c if bias is None else after.a * double(bias) + after.c
        rebuild(graph, node, scaled, shifted if bias is not None or after.c.any() else None, sources)


def writers(graph: Graph, value: Value, m: ChannelMap, steps: int = FURTHEST) -> dict[Node, ChannelMap]:
    """The layers that must change so that `value` becomes m(value); of a sum, the first term takes the shift."""
    if len(value.uses) > 1 or is_public(graph, value):
        others = ", ".join(f"'{reader.name}'" for reader in value.readers[:-1]) or "the graph output"
        raise Miss(f"'{value.name}' is also read by {others}")
    if not steps:
        raise Miss(f"no layer is within {FURTHEST} nodes of '{value.name}'")
    node = value.producer
    if is_weighted(node) and m.is_factor:
        m = m.over(value.shape[output_axis(node)], output_axis(node))
    if is_weighted(node) and output_axis(node) == m.axis:
        return {node: m}
    if node is not None and isinstance(node.op, MatMul) and m.is_factor:
        return _factor_writers(graph, node, m, steps - 1)
    if node is not None and isinstance(node.op, Add):
        left, right = node.input(0), node.input(1)
        if left.shape != right.shape:
            raise Miss(f"'{node.name}' adds a stretched value")
        unmoved = ChannelMap(m.axis, m.a, 0 * m.c)
        return {**writers(graph, left, m, steps - 1), **writers(graph, right, unmoved, steps - 1)}
    return writers(graph, *upstream(value, m), steps - 1)


def _factor_writers(graph: Graph, product: Node, m: ChannelMap, steps: int) -> dict[Node, ChannelMap]:
    """The layers that take the factor of a product of two values: those of the left operand, else of the right."""
    left, right = (product.input(i) for i in (0, 1))
    try:
        return writers(graph, left, m.over(left.shape[-1], left.type.rank - 1), steps)
    except Miss as miss:
        try:
            return writers(graph, right, m.over(right.shape[-1], right.type.rank - 1), steps)
        except Miss as other:
            raise Miss(f"{miss}; {other}") from None


def fold_into_readers(graph: Graph, value: Value, m: ChannelMap, sources: Sequence[str] = ()) -> None:
    """Let every layer that reads `value` apply m to it first.

    Raises:
        Miss: Some reader is no linear layer, pads with zeros, or shares its weight with a layer that is not concerned.
    """
    found = _sinks(graph, value, m)
    require_own_weights(graph, list(found))
    for node, before in found.items():
        twins = [other for other in node.input(1).readers if other in found]
        if not all(before.equals(found[twin]) for twin in twins):
            raise Miss(f"the weight '{node.input(1).name}' is shared and would need several values")
    made: dict[int, Value] = {}
    for node, before in found.items():
        shared = node.input(1)
        weight, bias = preceded(node, before)
        new = rebuild(graph, node, made.get(id(shared), weight), bias, sources)
        made[id(shared)] = new.input(1)


def _sinks(graph: Graph, value: Value, m: ChannelMap) -> dict[Node, ChannelMap]:
    """The layers that a map on `value` reaches, each with what it becomes there.

    Two ways into one layer go through different channels of a Concat, so the maps compose.
    """
    found: dict[Node, ChannelMap] = {}
    pending, seen = _reads(graph, value, m), 0
    while pending:
        node, index, m = pending.pop()
        seen += 1
        if seen > MOST_READS:
            raise Miss(f"more than {MOST_READS} reads lie between '{value.name}' and the layers after it")
        if is_weighted(node) and index == 0 and input_axis(node) == m.axis:
            pads = getattr(node.op, "pads", (0,))
            if any(pads) and m.c.any():
                raise Miss(f"'{node.name}' pads with zeros: the border would differ")
            found[node] = found[node].then(m) if node in found else m
        elif is_weighted(node):
            raise Miss(f"'{node.name}' does not read it along its channels")
        else:
            for result, after in reversed(list(downstream(node, index, m))):
                pending += _reads(graph, result, after)
    return found


def _reads(graph: Graph, value: Value, m: ChannelMap) -> list[tuple[Node, int, ChannelMap]]:
    """Who reads a value that is mapped, the first one last."""
    if is_public(graph, value):
        raise Miss(f"'{value.name}' is a graph output")
    return [(node, index, m) for node, index in reversed(value.uses)]


def preceded(node: Node, m: ChannelMap) -> tuple[Array, Array | None]:
    """Weight and bias that apply m first; for a grouped convolution each group has its own channels."""
    weight, bias = double(node.input(1)), node.optional(2)
    groups = node.op.groups if isinstance(node.op, Conv) else 1
    per_output = [np.repeat(v.reshape(groups, -1), weight.shape[0] // groups, axis=0) for v in (m.a, m.c)]
    a, c = (v.reshape(*v.shape, *[1] * (weight.ndim - 2)) for v in per_output)
    moved = (weight * c).sum(axis=tuple(range(1, weight.ndim)))
    if bias is None and not m.c.any():
        return weight * a, None
    return weight * a, moved if bias is None else double(bias) + moved


def require_own_weights(graph: Graph, nodes: Sequence[Node]) -> None:
    """Refuse to change weights that layers outside `nodes` read: a copy would be stored twice.

    Raises:
        Miss: Such a weight, or a weight or bias that is computed at run time.
    """
    concerned, weights = set(nodes), dict.fromkeys(node.input(1) for node in nodes)
    for each in (*weights, *dict.fromkeys(node.optional(2) for node in nodes)):
        if each is not None and each.data is None:
            raise Miss(f"'{each.name}' is not a constant")
    for weight in weights:
        others = [reader.name for reader in weight.readers if reader not in concerned]
        if others or is_public(graph, weight):
            raise Miss(f"the weight '{weight.name}' is shared with '{others[0] if others else 'the graph output'}'")


def rebuild(
    graph: Graph, node: Node, weight: Array | Value, bias: Array | None, sources: Sequence[str] = ()
) -> Node:
    """Replace a layer by one with other weights, under its name.

    Returns:
        The new node.
    """
    value, name = node.output, node.output.name
    operands = parameters(graph, node, weight, bias)
    all_sources = sources_of(node, extra=sources)
    new: Value = graph.add(node.op, node.input(0), *operands, name=node.name, sources=all_sources)
    graph.replace(value, new)
    graph.erase(node)
    graph.rename(new, name)
    assert new.producer is not None
    return new.producer


def parameters(graph: Graph, node: Node, weight: Array | Value, bias: Array | None) -> list[Value]:
    """Constants for a layer that takes the place of `node`, under the names and in the precision of its own."""
    dtype = node.output.dtype
    layer = is_weighted(node)
    if isinstance(weight, np.ndarray):
        weight = renewed(graph, node.input(1) if layer else f"{node.name}.weight", _stored(weight, dtype, node))
    if bias is None:
        return [weight]
    old = node.optional(2) if layer else None
    return [weight, renewed(graph, f"{node.name}.bias" if old is None else old, _stored(bias, dtype, node))]


def _stored(array: Array, dtype: str, node: Node) -> Array:
    """Folded numbers in the precision of the layer.

    Raises:
        ModelError: They leave its range.
    """
    with np.errstate(over="ignore"):
        result = array.astype(dtype)
    if not np.isfinite(result).all():
        raise ModelError(
            f"folding a neighbour into the weights of a layer overflows {dtype}",
            where=node.sources or (node.name,),
            why=f"the product reaches {np.abs(array).max():.3g}",
            do="check the weights and the statistics of the norms next to it",
        )
    return result


def renewed(graph: Graph, old: Value | str, array: Array) -> Value:
    """A constant in place of another, whose name it takes over when that one loses its only reader."""
    if isinstance(old, str):
        return graph.constant(array, old)
    name = old.name
    if len(old.readers) == 1 and not is_public(graph, old):
        graph.rename(old, f"{name}.old")
    return graph.constant(array, name)


__all__ = [
    "WEIGHTED",
    "absorb",
    "fold_into_readers",
    "fold_into_writer",
    "input_axis",
    "is_public",
    "is_weighted",
    "output_axis",
    "parameters",
    "preceded",
    "rebuild",
    "renewed",
    "require_own_weights",
    "writers",
]
