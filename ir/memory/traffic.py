"""What a step reads again and again: operands of products from the arena, which memory may make it wait for.

A pair of outputs reads a whole tile, so an operand of R rows by K is read once for every two outputs. Rows that pass
once, on their way into a tile or out of a norm, are left out: they are a hundredth of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..integer_layout import packed_bytes
from ..ops.integer_attention import QAttention
from ..ops.integer_conv import QConv
from .group import Group, is_rowwise_linear, row_count
from .schedule import Schedule

__all__ = ["Stream", "streams"]


@dataclass(frozen=True)
class Stream:
    """Bytes that products read from one piece of scratch during a step: all of it, or its heads, many times over.

    `held` is what a core goes through before it begins anew: a data cache of that size makes the rest hits.
    """

    piece: str
    held: int
    read: int


def streams(group: Group, schedule: Schedule) -> tuple[Stream, ...]:
    """What the products of a group read; empty for groups without a kernel that tiles."""
    if group.kind == "attention":
        return tuple(_attention(group, schedule))
    if group.kind in ("ffn", "rows"):
        linears = [node for node in group.nodes if is_rowwise_linear(node)]
        shapes = [(node.input(1).shape[0], node.input(1).shape[-1]) for node in linears]
        rows = row_count(group.output)
        return tuple(_tile(f"tile{i}", schedule.rows, rows, k, n) for i, (n, k) in enumerate(shapes))
    if group.kind in ("embed", "conv") and schedule.name in ("pixels", "image", "windows"):
        node = group.roles[group.kind]
        weight = node.input(1)
        split = node.op.groups if isinstance(node.op, QConv) else 1
        return (_tile("tile", schedule.rows, row_count(node.output), prod(weight.shape[1:]), weight.shape[0] // split),)
    return ()


def _tile(piece: str, tile: int, rows: int, depth: int, outputs: int) -> Stream:
    """A tile of `tile` rows by `depth`, filled until `rows` have passed, read once for every two outputs."""
    row = 2 * (-(-depth // 4) * 4)
    return Stream(piece, min(tile, rows) * row, rows * row * -(-outputs // 2))


def _attention(group: Group, schedule: Schedule) -> list[Stream]:
    roles = group.roles
    node = roles["attention"]
    op = node.op
    assert isinstance(op, QAttention)
    q, k, v = node.input(0), node.input(1), node.input(2)
    batch, n, m, heads = q.shape[0], q.shape[-2], k.shape[-2], op.heads
    d, dv = q.shape[-1] // heads, v.shape[-1] // heads
    q_tile = min(schedule.rows, -(-n // 3) * 3)
    found = []
    for side, rows, tile in (("q", n, q_tile), ("k", m, schedule.rows), ("v", m, schedule.rows)):
        if side in roles:
            outputs, depth = roles[side].input(1).shape[0], roles[side].input(1).shape[-1]
            found.append(_tile("tile", tile, rows, depth, outputs))
    head = _tile("queries", 3, n, d, m)
    found.append(Stream("queries", head.held, heads * head.read))
    triples = heads * -(-n // 3)
    found.append(Stream("keys", packed_bytes(m, d), triples * packed_bytes(m, d)))
    found.append(Stream("values", packed_bytes(dv, m), triples * packed_bytes(dv, m)))
    weights = _tile("attention", 3, n, m, dv)
    found.append(Stream("attention", weights.held, heads * weights.read))
    if "projection" in roles:
        outputs, depth = roles["projection"].input(1).shape[0], roles["projection"].input(1).shape[-1]
        found.append(_tile("mixed_tile", q_tile, n, depth, outputs))
    return [Stream(each.piece, each.held, batch * each.read) for each in found]
