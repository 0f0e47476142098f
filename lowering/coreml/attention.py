"""Attention in MIL: the projections of one source joined into one product, heads on an axis of their own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...ir.graph import Array, Graph, Node, Value
from ...ir.ops.attention import Attention
from ...ir.ops.conv import Conv
from ...ir.ops.linear import Linear
from ...ir.ops.shape import Reshape, Transpose
from .site import FIRST, Site, Var
from .succession import succeed

__all__ = ["Projection", "absorbed", "attention", "joined", "projections", "queries_factor", "scaled", "times"]

WHOLE_SINCE = 18
"""The iOS that brought scaled_dot_product_attention, which divides by the root of the head's width by itself."""


@dataclass(frozen=True)
class Projection:
    """Operands of an Attention (0: q, 1: k, 2: v) that Linears make of one source and nobody else reads."""

    source: Value
    operands: tuple[int, ...]
    linears: tuple[Node, ...]


def projections(node: Node, outputs: list[Value], kept: Collection[str] = ()) -> tuple[Projection, ...]:
    """The Linears in front of an Attention that are written together with it, by source.

    None whose output, or the Attention's, is among those `kept` in another precision.
    """
    groups: dict[Value, list[tuple[int, Node]]] = {}
    for index in range(3):
        value = node.input(index)
        made = value.producer
        if made is None or type(made.op) is not Linear or value in outputs or len(value.uses) > 1:
            continue
        if value.name in kept or node.output.name in kept:
            continue
        if all(each is None or each.data is not None for each in made.inputs[1:]):
            groups.setdefault(made.input(0), []).append((index, made))
    return tuple(
        Projection(source, tuple(index for index, _ in found), tuple(linear for _, linear in found))
        for source, found in groups.items()
    )


def absorbed(graph: Graph, kept: Collection[str] = ()) -> dict[Node, tuple[Projection, ...]]:
    """The projections of every Attention of a graph."""
    return {node: projections(node, graph.outputs, kept) for node in graph.nodes if type(node.op) is Attention}


def attention(site: Site, op: Attention) -> Var:
    """Attention as one op where there is one, else as two products around a softmax.

    The result is given in both layouts; the one that nobody reads is dead code, which coremltools removes.
    """
    heads = _heads(site, op)
    q, k, v = (heads[index] for index in range(3))
    bias = site[3] if site.has(3) else None
    if site.release >= WHOLE_SINCE:
        if bias is not None and len(bias.shape) < 4:
            bias = site.reshape(bias, (*[1] * (4 - len(bias.shape)), *bias.shape))
        y = site.add("scaled_dot_product_attention", query=q, key=k, value=v, attn_mask=bias)
    else:
        scores = site.add("matmul", x=q, y=k, transpose_y=True)
        scores = scores if bias is None else site.add("add", x=scores, y=bias)
        y = site.add("matmul", x=site.add("softmax", x=scores, axis=-1), y=v)
    batch, tokens, channels = site.node.output.shape
    first = site.reshape(site.transpose(y, (0, 1, 3, 2)), (batch, channels, 1, tokens))
    site.store.bind(site.node.output, site.dtype, first, FIRST)
    return site.reshape(site.transpose(y, (0, 2, 1, 3)), site.node.output.shape)


def queries_factor(site: Site, op: Attention, whole: bool) -> float:
    """What the queries must be multiplied with, so that the scores come out scaled."""
    width = site.node.input(0).shape[2] // op.heads
    return float(op.scale * np.sqrt(width)) if whole else op.scale


def scaled(graph: Graph, release: int) -> None:
    """Move what is left of the scale of an Attention into the weights that its queries come from.

    Queries of a Linear are scaled where it is written; here it is a convolution, behind moves of elements.
    """
    for node in graph.nodes:
        if not isinstance(node.op, Attention):
            continue
        width = node.input(0).shape[2] // node.op.heads
        wanted = 1 / np.sqrt(width) if release >= WHOLE_SINCE else 1.0
        maker, moved = _maker(node.input(0), graph.outputs)
        if maker is None or abs(node.op.scale / wanted - 1) < 1e-7:
            continue
        for index in (1, 2):
            value = maker.optional(index)
            if value is not None:
                by = value.array * np.float32(node.op.scale / wanted)
                graph.set_input(maker, index, graph.constant(by.astype(np.float32), f"{value.name}_scaled"))
        again = graph.add(replace(node.op, scale=float(wanted)), *node.inputs, name=node.name, sources=node.sources)
        succeed(graph, node, again)
        for value in moved:
            graph.rename(value, f"{value.name}_scaled")


def _maker(value: Value, outputs: list[Value]) -> tuple[Node | None, list[Value]]:
    """The convolution with known weights that makes a value, behind moves of elements; nobody else reads it.

    With it its result and those of the moves, which are no longer what our graph calls so once it is scaled.
    """
    moved = []
    while value.producer is not None and len(value.uses) == 1 and value not in outputs:
        moved.append(value)
        made = value.producer
        if isinstance(made.op, Conv):
            known = all(each is None or each.data is not None for each in made.inputs[1:])
            return (made if known else None), moved
        if not isinstance(made.op, Reshape | Transpose):
            break
        value = made.input(0)
    return None, []


def times(site: Site, x: Var, factor: float) -> Var:
    """x times a number."""
    return x if abs(factor - 1) < 1e-7 else site.add("mul", x=x, y=site.number(factor))


def _heads(site: Site, op: Attention) -> dict[int, Var]:
    """Queries, keys and values as [B, H, N, d]."""
    factor = queries_factor(site, op, site.release >= WHOLE_SINCE)
    found: dict[int, Var] = {}
    for each in site.projections:
        weight, bias, widths = joined(each, op.heads, factor)
        y = site.add("linear", x=site.read(each.source), weight=site.cast(weight),
                     bias=None if bias is None else site.cast(bias))  # fmt: skip
        found.update(zip(each.operands, _apart(site, y, op.heads, widths), strict=True))
    for index in range(3):
        if index not in found:
            x = _alone(site, site.node.input(index), op.heads)
            found[index] = x if index else times(site, x, factor)
    return found


def _alone(site: Site, value: Value, heads: int) -> Var:
    """One operand as [B, H, N, d], with the fewest moves from the layouts that are at hand."""
    batch, tokens, channels = value.shape
    if value.data is None and site.store.forms(value, FIRST):
        x = site.reshape(site.read(value, FIRST), (batch, heads, channels // heads, tokens))
        return site.transpose(x, (0, 1, 3, 2))
    return _apart(site, site.read(value), heads, (channels // heads,))[0]


def _apart(site: Site, x: Var, heads: int, widths: tuple[int, ...]) -> tuple[Var, ...]:
    """Operands side by side in [B, N, C] as [B, H, N, d] each: equal widths lie one after the other along the heads."""
    batch, tokens, channels = x.shape
    equal = len(set(widths)) == 1
    many = heads * len(widths) if equal else heads
    x = site.transpose(site.reshape(x, (batch, tokens, many, channels // many)), (0, 2, 1, 3))
    if len(widths) == 1:
        return (x,)
    sizes, axis = ((heads,) * len(widths), 1) if equal else (widths, 3)
    return site.several("split", x=x, split_sizes=sizes, axis=axis)


def joined(
    each: Projection, heads: int, factor: float, interleave: bool = True
) -> tuple[Array, Array | None, tuple[int, ...]]:
    """Weight and bias of one product for several operands, and the width of a head in each of them.

    Operands whose heads are equally wide follow one another; else, if `interleave`, every head holds its part of each.
    The queries are multiplied with `factor`.
    """
    parts = [(node.input(1).array, None if node.optional(2) is None else node.input(2).array) for node in each.linears]
    factors = [factor if index == 0 else 1.0 for index in each.operands]
    widths = tuple(weight.shape[0] // heads for weight, _ in parts)
    biased = any(bias is not None for _, bias in parts)
    weights = [weight * np.float64(by) for (weight, _), by in zip(parts, factors, strict=True)]
    biases = [
        np.zeros(len(weight)) if bias is None else bias * np.float64(by)
        for (weight, bias), by in zip(parts, factors, strict=True)
    ]
    if len(set(widths)) == 1 or not interleave:
        return np.concatenate(weights), np.concatenate(biases) if biased else None, widths
    return _interleaved(weights, heads), _interleaved(biases, heads) if biased else None, widths


def _interleaved(parts: list[Any], heads: int) -> Array:
    """Rows of several arrays, head by head."""
    by_head = [part.reshape(heads, -1, *part.shape[1:]) for part in parts]
    whole = np.concatenate(by_head, axis=1)
    return whole.reshape(-1, *whole.shape[2:])
