"""Attention in every spelling becomes projections of the same tokens and one op, and nothing is left to move."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from edgesmith.frontend import recognised
from edgesmith.ir.graph import Array, Graph, Type, Value
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Softmax
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.conv import Conv
from edgesmith.ir.ops.elementwise import Add, Div, Mul
from edgesmith.ir.ops.linear import Linear, MatMul
from edgesmith.ir.ops.norm import BatchNorm
from edgesmith.ir.ops.pool import Mean
from edgesmith.ir.ops.shape import Gather, Reshape, Slice, Split, Transpose
from edgesmith.ir.passes.recognise import RECOGNISE
from edgesmith.ir.rewrite import Trace, tracing


def draw(*shape: int, low: float = -1.0, high: float = 1.0) -> Array:
    return np.random.default_rng(sum(shape) + len(shape)).uniform(low, high, shape).astype(np.float32)


def check(graph: Graph, x: Array, expected: dict[str, int]) -> None:
    """Recognise in place: exactly the expected ops are left, they compute the same, and a second run does nothing."""
    before = run(graph, {"x": x})
    recognised(graph)
    assert Counter(type(node.op).__name__ for node in graph.nodes) == expected
    for name, result in run(graph, {"x": x}).items():
        np.testing.assert_allclose(result, before[name], rtol=1e-4, atol=1e-5)
    assert sum(each.apply(graph) for each in RECOGNISE) == 0


def norm_vectors(graph: Graph, size: int) -> list[Value]:
    return [graph.constant(draw(size, low=0.2) + i) for i in range(4)]


HEADS, DEPTH, VALUES, TOKENS, WIDTH = 3, 4, 5, 7, 10


class AttentionSpelling:
    """Self-attention written out: how projections are packed, cut, scaled, biased and put together again."""

    def __init__(
        self,
        packing: str = "separate",
        cut: str = "split",
        scale: str = "scores",
        bias: str = "",
        product: str = "rows",
        batch: int = 1,
    ) -> None:
        self.packing, self.cut, self.scale, self.bias, self.product = packing, cut, scale, bias, product
        self.batch, self.g = batch, Graph()
        self.depth_v = DEPTH if packing == "qkv-first" else VALUES

    def linear(self, x: Value, width: int) -> Value:
        seed = self.g.constant(draw(width, WIDTH)), self.g.constant(draw(width))
        return self.g.add(Linear(), x, *seed)  # type: ignore[no-any-return]

    def pieces(self, x: Value, axis: int, sizes: tuple[int, ...]) -> list[Value]:
        ends = np.cumsum(sizes)
        if self.cut == "split":
            return list(self.g.add(Split(axis, sizes), x))
        starts = ends - sizes
        if self.cut == "slice":
            return [
                self.g.add(Slice((int(s),), (int(e),), (axis,), (1,)), x) for s, e in zip(starts, ends, strict=True)
            ]
        indices = [np.arange(s, e) for s, e in zip(starts, ends, strict=True)]
        return [self.g.add(Gather(axis), x, self.g.constant(i)) for i in indices]

    def heads(self, x: Value) -> tuple[Value, Value, Value]:
        """q, k [B, H, N, d] and v [B, H, N, dv]."""
        b, n, add = self.batch, TOKENS, self.g.add
        sizes = (DEPTH, DEPTH, self.depth_v)
        if self.packing == "separate":
            split = [add(Reshape((b, n, HEADS, d)), self.linear(x, HEADS * d)) for d in sizes]
            q, k, v = (add(Transpose((0, 2, 1, 3)), t) for t in split)
        elif self.packing == "qkv-first":  # ViT: [3, H, d] channels, to [3, B, H, N, d]
            packed = add(Reshape((b, n, 3, HEADS, DEPTH)), self.linear(x, 3 * HEADS * DEPTH))
            parts = self.pieces(add(Transpose((2, 0, 3, 1, 4)), packed), 0, (1, 1, 1))
            q, k, v = (add(Reshape((b, HEADS, n, DEPTH)), part) for part in parts)
        elif self.packing == "head-first":  # LeViT: [H, d + d + dv] channels, cut within the head
            packed = add(Reshape((b, n, HEADS, sum(sizes))), self.linear(x, HEADS * sum(sizes)))
            q, k, v = (add(Transpose((0, 2, 1, 3)), part) for part in self.pieces(packed, 3, sizes))
        elif self.packing == "head-last":  # channels [d, H]: heads are neighbours
            packed = [add(Reshape((b, n, d, HEADS)), self.linear(x, HEADS * d)) for d in sizes]
            q, k, v = (add(Transpose((0, 3, 1, 2)), part) for part in packed)
        else:  # channels cut before heads are told apart
            parts = self.pieces(self.linear(x, HEADS * sum(sizes)), 2, tuple(HEADS * d for d in sizes))
            q, k, v = (
                add(Transpose((0, 2, 1, 3)), add(Reshape((b, n, HEADS, d)), part))
                for part, d in zip(parts, sizes, strict=True)
            )
        return q, k, v

    def scaled(self, value: Value, place: str) -> Value:
        """Times the scale, or its root, where the spelling has it."""
        scale = DEPTH**-0.5
        factor = {"both": scale**0.5 if place in "qk" else 1.0, place: scale}.get(self.scale, 1.0)
        if self.scale == "divided" and place == "scores":
            return self.g.add(Div(), value, self.g.constant(np.float32(1 / scale).reshape(())))  # type: ignore[no-any-return]
        if factor == 1:
            return value
        return self.g.add(Mul(), self.g.constant(np.float32(factor).reshape(())), value)  # type: ignore[no-any-return]

    def graph(self, run_time_bias: bool = False) -> Graph:
        b, n, add = self.batch, TOKENS, self.g.add
        x = self.g.input("x", Type("float32", (b, n, WIDTH)))
        q, k, v = self.heads(x)
        keys = add(Transpose((0, 1, 3, 2)), k)
        keys = self.scaled(keys, "k")
        scores = self.scaled(add(MatMul(), self.scaled(q, "q"), keys), "scores")
        if self.bias:
            shape = {"table": (HEADS, n, n), "batched": (1, HEADS, n, n), "shared": (n, n)}[self.bias]
            scores = add(Add(), scores, self.g.constant(draw(*shape)))
        if run_time_bias:
            scores = add(Add(), scores, add(Reshape((1, 1, 1, n)), add(Mean((2,)), x)))
        weights = add(Softmax(-1), scores)
        if self.product == "rows":
            out = add(Transpose((0, 2, 1, 3)), add(MatMul(), weights, v))
        else:  # v^T p^T
            out = add(MatMul(), add(Transpose((0, 1, 3, 2)), v), add(Transpose((0, 1, 3, 2)), weights))
            out = add(Transpose((0, 3, 1, 2)), out)
        out = add(Reshape((b, n, HEADS * self.depth_v)), out)
        self.g.output(add(Linear(), out, self.g.constant(draw(WIDTH, HEADS * self.depth_v))), "y")
        return self.g


PACKINGS = ("separate", "qkv-first", "head-first", "head-last", "channels")
SPELLINGS = [
    *(dict(packing=p, cut=c) for p in PACKINGS for c in ("split", "slice", "gather")),
    *(dict(scale=s, packing="qkv-first") for s in ("q", "k", "both", "scores", "divided", "none")),
    *(dict(bias=b, scale=s) for b in ("table", "batched", "shared") for s in ("q", "scores")),
    *(dict(product="columns", packing=p) for p in PACKINGS),
    *(dict(packing=p, batch=2) for p in PACKINGS),
]


@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda s: "-".join(map(str, s.values())))
def test_attention_in_every_spelling(spelling: dict[str, str]) -> None:
    """Three projections of the same tokens and one Attention; no movement is left."""
    spelt = AttentionSpelling(**spelling)  # type: ignore[arg-type]
    graph = spelt.graph()
    x = draw(spelt.batch, TOKENS, WIDTH)
    check(graph, x, {"Linear": 4, "Attention": 1})
    (node,) = (node for node in graph.nodes if isinstance(node.op, Attention))
    assert all(node.input(i).producer.input(0) is graph.inputs[0] for i in range(3))  # type: ignore[union-attr]
    scale = 1.0 if spelling.get("scale") == "none" else DEPTH**-0.5
    assert node.op.heads == HEADS and math.isclose(node.op.scale, scale, rel_tol=1e-6)
    assert (node.optional(3) is not None) == bool(spelt.bias)


@pytest.mark.parametrize("normed", [False, True])
def test_attention_over_pixels_of_convolutions(normed: bool) -> None:
    """q, k and v cut out of one 1x1 convolution, channels first; heads are chosen among its rows."""
    graph = Graph()
    add, width = graph.add, HEADS * (2 * DEPTH + VALUES)
    x = graph.input("x", Type("float32", (1, 6, 3, 4)))
    image = add(Conv(), x, graph.constant(draw(width, 6, 1, 1)), graph.constant(draw(width)))
    if normed:
        image = add(BatchNorm(1), image, *norm_vectors(graph, width))
    split = add(Split(2, (DEPTH, DEPTH, VALUES)), add(Reshape((1, HEADS, 2 * DEPTH + VALUES, 12)), image))
    scores = add(MatMul(), add(Transpose((0, 1, 3, 2)), split[0]), split[1])
    weights = add(Softmax(-1), add(Mul(), scores, graph.constant(np.float32(0.5).reshape(()))))
    out = add(MatMul(), split[2], add(Transpose((0, 1, 3, 2)), weights))
    graph.output(add(Reshape((1, HEADS * VALUES, 3, 4)), out), "y")
    norms = {"BatchNorm": 3} if normed else {}
    check(graph, draw(1, 6, 3, 4), {"Conv": 3, "Reshape": 4, "Transpose": 4, "Attention": 1, **norms})


def test_heads_joined_with_the_batch() -> None:
    """torch.bmm style: operands [B*H, N, d]."""
    graph = Graph()
    add, b = graph.add, 2
    x = graph.input("x", Type("float32", (b, TOKENS, WIDTH)))

    def joined(width: int) -> Value:
        t = add(Linear(), x, graph.constant(draw(HEADS * width, WIDTH)))
        t = add(Transpose((0, 2, 1, 3)), add(Reshape((b, TOKENS, HEADS, width)), t))
        return add(Reshape((b * HEADS, TOKENS, width)), t)  # type: ignore[no-any-return]

    q, k, v = joined(DEPTH), joined(DEPTH), joined(VALUES)
    out = add(MatMul(), add(Softmax(-1), add(MatMul(), q, add(Transpose((0, 2, 1)), k))), v)
    out = add(Transpose((0, 2, 1, 3)), add(Reshape((b, HEADS, TOKENS, VALUES)), out))
    graph.output(add(Reshape((b, TOKENS, HEADS * VALUES)), out), "y")
    check(graph, draw(b, TOKENS, WIDTH), {"Linear": 3, "Attention": 1})


@pytest.mark.parametrize("order", ["windows, heads", "heads, windows"])
def test_windows_beside_heads(order: str) -> None:
    """Five axes: which of them counts heads is seen from the channels, and windows become the batch."""
    graph = Graph()
    add, windows, width = graph.add, 4, 2 * DEPTH + VALUES
    x = graph.input("x", Type("float32", (1, windows * TOKENS, WIDTH)))
    packed = add(Linear(), x, graph.constant(draw(HEADS * width, WIDTH)))
    packed = add(Reshape((1, windows, TOKENS, HEADS, width)), packed)
    perm, back = ((0, 1, 3, 2, 4), (0, 1, 3, 2, 4)) if order == "windows, heads" else ((0, 3, 1, 2, 4), (0, 2, 3, 1, 4))
    q, k, v = add(Split(4, (DEPTH, DEPTH, VALUES)), add(Transpose(perm), packed))
    out = add(MatMul(), add(Softmax(-1), add(MatMul(), q, add(Transpose((0, 1, 2, 4, 3)), k))), v)
    graph.output(add(Reshape((1, windows * TOKENS, HEADS * VALUES)), add(Transpose(back), out)), "y")
    check(graph, draw(1, windows * TOKENS, WIDTH), {"Linear": 3, "Attention": 1, "Reshape": 4})
    (node,) = (node for node in graph.nodes if isinstance(node.op, Attention))
    assert node.op.heads == HEADS and node.output.shape == (windows, TOKENS, HEADS * VALUES)


def test_attention_maps_as_output_stay_exact() -> None:
    """Attention maps that are also an output: they stay as they are."""
    spelt = AttentionSpelling()
    graph = spelt.graph()
    (softmax,) = (node for node in graph.nodes if isinstance(node.op, Softmax))
    graph.output(softmax.output, "map")
    x = draw(1, TOKENS, WIDTH)
    before = run(graph, {"x": x})
    recognised(graph)
    for name, result in run(graph, {"x": x}).items():
        np.testing.assert_allclose(result, before[name], rtol=1e-4, atol=1e-5)


def test_attention_with_a_mask_computed_at_run_time_is_explained() -> None:
    """The reason names what softmax is taken of."""
    spelt = AttentionSpelling()
    graph = spelt.graph(run_time_bias=True)
    trace = Trace()
    token = tracing.set(trace)
    try:
        recognised(graph)
    finally:
        tracing.reset(token)
    assert "softmax is taken of Add" in trace.nearest("attention")


def test_scores_divided_by_zero_are_left_alone() -> None:
    """A degenerate file must not stop the import."""
    graph = Graph()
    x = graph.input("x", Type("float32", (1, 2, 3, 3)))
    scores = graph.add(Div(), graph.add(MatMul(), x, x), graph.constant(np.float32(0).reshape(())))
    graph.output(graph.add(MatMul(), graph.add(Softmax(-1), scores), x), "y")
    assert Counter(type(node.op).__name__ for node in recognised(graph).nodes) == {"MatMul": 2, "Div": 1, "Softmax": 1}
