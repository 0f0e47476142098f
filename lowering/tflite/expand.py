"""Ops that TFLite writes as several, taken apart in the graph: the layouts between their parts are chosen as well."""

from __future__ import annotations

import numpy as np

from ...ir.graph import Array, Graph, Node, Value, sources_of
from ...ir.ops.activation import Softmax
from ...ir.ops.attention import Attention
from ...ir.ops.conv import Conv, PatchEmbed
from ...ir.ops.elementwise import Add, Mul
from ...ir.ops.linear import Linear, MatMul
from ...ir.ops.quant import Dequantize
from ...ir.ops.shape import Reshape, Slice, Split, Transpose

__all__ = ["expand"]

HEADS_FIRST = (0, 2, 1, 3)


def expand(graph: Graph, joined: bool = False) -> None:
    """Take every Attention and PatchEmbed of the graph apart; nothing of constants alone is left to compute.

    Args:
        graph: It is changed.
        joined: Compute q, k and v of one input by one Linear. These are fewer operators, but their results have to be
            cut apart, which costs more than the operators saved do.
    """
    for node in graph.nodes:
        if isinstance(node.op, Attention):
            together = _projections(node) if joined else []
            graph.replace(node.output, _attention(graph, node, node.op, together))
        elif isinstance(node.op, PatchEmbed):
            graph.replace(node.output, _patches(graph, node, node.op))
    _fold(graph)
    graph.prune()


def _fold(graph: Graph) -> None:
    """Compute what depends on constants alone; weights kept in integers are left so, and outputs as well."""
    for node in graph.nodes:
        operands = [value for value in node.inputs if value is not None]
        public = any(value in graph.outputs for value in node.outputs)
        if public or isinstance(node.op, Dequantize) or not all(value.is_constant for value in operands):
            continue
        results = node.op.reference(*(None if value is None else value.array for value in node.inputs))
        for old, array in zip(node.outputs, results if isinstance(results, tuple) else (results,), strict=True):
            graph.replace(old, graph.constant(np.asarray(array), f"{old.name}.known", old.type.quant))


def _patches(graph: Graph, node: Node, op: PatchEmbed) -> Value:
    """A convolution whose pixels are read in a row."""
    name, sources = node.name, node.sources
    batch, tokens, channels = node.output.shape
    image = graph.add(Conv(op.patch, op.pads), *node.inputs, name=f"{name}.conv", sources=sources)
    flat = graph.add(Reshape((batch, channels, tokens)), image, name=f"{name}.flat", sources=sources)
    found: Value = graph.add(Transpose((0, 2, 1)), flat, name=name, sources=sources)
    return found


def _attention(graph: Graph, node: Node, op: Attention, together: list[int]) -> Value:
    """Two batched products with a softmax between, over [B, H, N, d]."""
    name, sources = node.name, node.sources
    queries, keys, values = _heads(graph, node, op, together)
    if op.scale != 1:
        factor = graph.constant(np.array(op.scale, np.float32), f"{name}.scale")
        queries = graph.add(Mul(), queries, factor, name=f"{name}.scaled", sources=sources)
    turned = graph.add(Transpose((0, 1, 3, 2)), keys, name=f"{name}.turned", sources=sources)
    scores = graph.add(MatMul(), queries, turned, name=f"{name}.scores", sources=sources)
    if (bias := node.optional(3)) is not None:
        scores = graph.add(Add(), scores, bias, name=f"{name}.biased", sources=sources)
    shares = graph.add(Softmax(-1), scores, name=f"{name}.shares", sources=sources)
    mixed = graph.add(MatMul(), shares, values, name=f"{name}.mixed", sources=sources)
    tokens = graph.add(Transpose(HEADS_FIRST), mixed, name=f"{name}.tokens", sources=sources)
    found: Value = graph.add(Reshape(node.output.shape), tokens, name=name, sources=sources)
    return found


def _heads(graph: Graph, node: Node, op: Attention, together: list[int]) -> list[Value]:
    """q, k and v as [B, H, N, d]; some of them computed together."""
    parts = [node.input(index) for index in range(3)]
    found: dict[int, Value] = {}
    if len(together) > 1:
        joined = _joined(graph, node, op, [parts[index] for index in together])
        found.update(zip(together, joined, strict=True))
    for index, part in enumerate(parts):
        if index not in found:
            found[index] = _split_heads(graph, node, op.heads, part, f"{node.name}.{'qkv'[index]}")
    return [found[index] for index in range(3)]


def _split_heads(graph: Graph, node: Node, heads: int, part: Value, name: str) -> Value:
    """[B, N, H*d] to [B, H, N, d]."""
    (batch, tokens, channels), sources = part.shape, node.sources
    apart = graph.add(Reshape((batch, tokens, heads, channels // heads)), part, name=f"{name}.apart", sources=sources)
    found: Value = graph.add(Transpose(HEADS_FIRST), apart, name=f"{name}.heads", sources=sources)
    return found


def _projections(node: Node) -> list[int]:
    """Which of q, k, v are Linears of the same input that nothing else reads, with constant weights."""
    groups: dict[Value, list[int]] = {}
    for index in range(3):
        maker = node.input(index).producer
        if maker is None or not isinstance(maker.op, Linear) or len(maker.output.uses) > 1:
            continue
        if all(value is None or value.data is not None for value in maker.inputs[1:]):
            groups.setdefault(maker.input(0), []).append(index)
    return max(groups.values(), key=len, default=[])


def _joined(graph: Graph, node: Node, op: Attention, parts: list[Value]) -> list[Value]:
    """Projections as one Linear, then its parts as [B, H, N, d].

    Parts of the same width lie one after the other and are cut apart between heads, where cutting is one operator and
    moves whole blocks; others lie together head by head.
    """
    makers = [part.producer for part in parts]
    linears = [maker for maker in makers if maker is not None]
    widths = [part.shape[2] // op.heads for part in parts]
    equal = len(set(widths)) == 1
    batch, tokens = parts[0].shape[:2]
    weight, bias = (_rows(linears, index, op.heads, widths, equal) for index in (1, 2))
    assert weight is not None
    name, sources = f"{node.name}.projected", sources_of(*linears, extra=node.sources)
    weights = [graph.constant(weight, f"{name}.weight"), None if bias is None else graph.constant(bias, f"{name}.bias")]
    y = graph.add(Linear(), linears[0].input(0), *weights, name=name, sources=sources)
    groups, depth = (op.heads * len(parts), widths[0]) if equal else (op.heads, sum(widths))
    apart = graph.add(Reshape((batch, tokens, groups, depth)), y, name=f"{name}.apart", sources=sources)
    heads = graph.add(Transpose(HEADS_FIRST), apart, name=f"{name}.heads", sources=sources)
    if equal:
        return list(graph.add(Split(1, (op.heads,) * len(parts)), heads, name=f"{name}.parts", sources=sources))
    ends = np.cumsum(widths).tolist()
    return [
        graph.add(Slice((end - width,), (end,), (3,), (1,)), heads, name=f"{name}.part", sources=sources)
        for end, width in zip(ends, widths, strict=True)
    ]


def _rows(linears: list[Node], index: int, heads: int, widths: list[int], equal: bool) -> Array | None:
    """The weights (1) or biases (2) of several Linears as those of one; absent biases are zero."""
    given = [linear.optional(index) for linear in linears]
    if all(value is None for value in given):
        return None
    sizes = [linear.output.shape[2] for linear in linears]
    arrays = [np.zeros(size, np.float32) if v is None else v.array for v, size in zip(given, sizes, strict=True)]
    if equal:
        return np.concatenate(arrays)
    by_head = [array.reshape(heads, width, *array.shape[1:]) for array, width in zip(arrays, widths, strict=True)]
    return np.concatenate(by_head, axis=1).reshape(-1, *arrays[0].shape[1:])
