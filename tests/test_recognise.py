"""Recognition by meaning: however a block is spelt, it becomes the same op and computes the same numbers."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.frontend import recognised
from edgesmith.ir.graph import Array, Graph, Type, Value
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import (
    Clip,
    Erf,
    Gelu,
    HardSigmoid,
    HardSwish,
    Reciprocal,
    Sigmoid,
    Silu,
    Softmax,
    Sqrt,
    Tanh,
)
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.conv import Conv, PatchEmbed
from edgesmith.ir.ops.elementwise import Add, Div, Mul, Pow, Sub
from edgesmith.ir.ops.linear import Linear, MatMul
from edgesmith.ir.ops.norm import BatchNorm, GroupNorm, LayerNorm, RepNorm, RMSNorm
from edgesmith.ir.ops.pool import Mean
from edgesmith.ir.ops.shape import Expand, Gather, Pad, Reshape, Slice, Split, Transpose
from edgesmith.ir.passes.recognise import RECOGNISE
from edgesmith.ir.passes.simplify_shapes import SimplifyShapes, shortest
from edgesmith.ir.rewrite import Trace, tracing

Chooser = Callable[[int], int]


def draw(*shape: int, low: float = -1.0, high: float = 1.0) -> Array:
    return np.random.default_rng(sum(shape) + len(shape)).uniform(low, high, shape).astype(np.float32)


class Speller:
    """Writes arithmetic into a graph; every free choice of spelling is asked of `choose`."""

    def __init__(self, choose: Chooser) -> None:
        self.choose, self.graph = choose, Graph()

    def input(self, *shape: int) -> Value:
        return self.graph.input("x", Type("float32", shape))

    def number(self, value: float) -> Value:
        return self.graph.constant(np.asarray(value, np.float32).reshape((1,) * self.choose(2)))

    def add(self, a: Value, b: Value) -> Value:
        return self.graph.add(Add(), *((a, b) if self.choose(2) else (b, a)))  # type: ignore[no-any-return]

    def mul(self, a: Value, b: Value) -> Value:
        return self.graph.add(Mul(), *((a, b) if self.choose(2) else (b, a)))  # type: ignore[no-any-return]

    def plus(self, a: Value, number: float) -> Value:
        return self.add(a, self.number(number))

    def times(self, a: Value, number: float) -> Value:
        if self.choose(2):
            return self.mul(a, self.number(number))
        return self.graph.add(Div(), a, self.number(1 / number))  # type: ignore[no-any-return]

    def product(self, a: Value, b: Value, number: float) -> Value:
        """number * a * b in one of three associations."""
        place = self.choose(3)
        if place == 0:
            return self.times(self.mul(a, b), number)
        return self.mul(self.times(a, number), b) if place == 1 else self.mul(a, self.times(b, number))

    def half_of(self, x: Value, curve: Value) -> Value:
        """x / 2 * (1 + curve)."""
        if self.choose(4) == 0:
            return self.mul(x, self.plus(self.times(curve, 0.5), 0.5))
        return self.product(x, self.plus(curve, 1.0), 0.5)

    def square(self, x: Value) -> Value:
        power = self.graph.add(Pow(), x, self.number(2.0)) if self.choose(2) else self.mul(x, x)
        return power  # type: ignore[no-any-return]


def gelu_erf(s: Speller, x: Value) -> Value:
    return s.half_of(x, s.graph.add(Erf(), s.times(x, math.sqrt(0.5))))


def gelu_tanh(s: Speller, x: Value) -> Value:
    slope = math.sqrt(2 / math.pi)
    if s.choose(2):
        cube = s.graph.add(Pow(), x, s.number(3.0)) if s.choose(2) else s.mul(x, s.square(x))
        inner = s.times(s.add(x, s.times(cube, 0.044715)), slope)
    else:
        inner = s.product(x, s.plus(s.times(s.square(x), 0.044715), 1.0), slope)
    return s.half_of(x, s.graph.add(Tanh(), inner))


def gelu_sigmoid(s: Speller, x: Value) -> Value:
    return s.mul(x, s.graph.add(Sigmoid(), s.times(x, 1.702)))


def silu(s: Speller, x: Value) -> Value:
    return s.mul(x, s.graph.add(Sigmoid(), x))


def hard_swish(s: Speller, x: Value) -> Value:
    form = s.choose(3)
    if form == 0:
        return s.mul(x, s.graph.add(HardSigmoid(1 / 6, 0.5), x))
    if form == 1:
        return s.product(x, s.graph.add(Clip(0.0, 6.0), s.plus(x, 3.0)), 1 / 6)
    return s.mul(x, s.graph.add(Clip(0.0, 1.0), s.plus(s.times(x, 1 / 6), 0.5)))


def hard_sigmoid(s: Speller, x: Value) -> Value:
    return s.times(s.graph.add(Clip(0.0, 6.0), s.plus(x, 3.0)), 1 / 6)


def over_root(s: Speller, top: Value, squares: Value) -> Value:
    variance = s.graph.add(Mean((-1,) if s.choose(2) else (2,), True), squares)
    shifted, form = s.plus(variance, 1e-5), s.choose(5)
    if form == 0:
        return s.mul(top, s.graph.add(Pow(), shifted, s.number(-0.5)))
    root = s.graph.add(Sqrt(), shifted) if s.choose(2) else s.graph.add(Pow(), shifted, s.number(0.5))
    if form == 1:
        return s.mul(top, s.graph.add(Reciprocal(), root))
    if form == 2:
        return s.mul(top, s.graph.add(Div(), s.number(1.0), root))
    return s.graph.add(Div(), top, root)  # type: ignore[no-any-return]


def layer_norm(s: Speller, x: Value) -> Value:
    def centred() -> Value:
        return s.graph.add(Sub(), x, s.graph.add(Mean((-1,), True), x))  # type: ignore[no-any-return]

    top = centred()
    below = top if s.choose(2) else centred()
    y = over_root(s, top, s.square(below))
    if s.choose(2):
        y = s.mul(y, s.graph.constant(draw(6).reshape((1,) * s.choose(3) + (6,))))
        y = s.add(y, s.graph.constant(draw(6)))
    return y


def rms_norm(s: Speller, x: Value) -> Value:
    return s.mul(over_root(s, x, s.square(x)), s.graph.constant(draw(6)))


FAMILIES = {
    gelu_erf: Gelu("none"),
    gelu_tanh: Gelu("tanh"),
    gelu_sigmoid: Gelu("sigmoid"),
    silu: Silu(),
    hard_swish: HardSwish(),
    hard_sigmoid: HardSigmoid(1 / 6, 0.5),
    layer_norm: LayerNorm(float(np.float32(1e-5))),
    rms_norm: RMSNorm(float(np.float32(1e-5))),
}


def spellings(limit: int) -> Iterator[Chooser]:
    """Choosers that answer reproducibly, each in its own way."""
    for seed in range(limit):
        generator = np.random.default_rng(seed)
        yield lambda n, g=generator: int(g.integers(n))  # type: ignore[misc]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_every_spelling_becomes_the_one_op(family: Callable[[Speller, Value], Value]) -> None:
    """Forty drawn spellings of each block: one node is left, and it computes what they computed."""
    x = draw(2, 5, 6, low=-4, high=4)
    for choose in spellings(40):
        speller = Speller(choose)
        speller.graph.output(family(speller, speller.input(2, 5, 6)), "y")
        before = run(speller.graph, {"x": x})["y"]
        graph = recognised(speller.graph)
        assert [node.op for node in graph.nodes] == [FAMILIES[family]]
        np.testing.assert_allclose(run(graph, {"x": x})["y"], before, rtol=1e-5, atol=2e-6)


def test_sources_of_all_swallowed_nodes_are_kept() -> None:
    """The op knows every ONNX node it stands for."""
    graph = Graph()
    x = graph.input("x", Type("float32", (2, 3)))
    half = graph.constant(np.float32(0.5).reshape(()))
    root, one = graph.constant(np.float32(math.sqrt(2)).reshape(())), graph.constant(np.float32(1).reshape(()))
    erf = graph.add(Erf(), graph.add(Div(), x, root, sources=["div"]), sources=["erf"])
    y = graph.add(Mul(), x, graph.add(Add(), erf, one, sources=["add"]), sources=["mul"])
    graph.output(graph.add(Mul(), y, half, sources=["half"]), "y")
    (node,) = recognised(graph).nodes
    assert node.sources == ("div", "erf", "add", "mul", "half")


# ---- near misses ----


def nearest(graph: Graph, rule: str) -> str:
    """What the trace says that came closest to a rule."""
    trace = Trace()
    token = tracing.set(trace)
    try:
        recognised(graph)
    finally:
        tracing.reset(token)
    return trace.nearest(rule)


def test_a_wrong_constant_is_named() -> None:
    """erf(1.5 x) is no GELU, and the trace says which constant is at fault."""
    s = Speller(lambda n: 1)
    x = s.input(2, 3)
    s.graph.output(s.half_of(x, s.graph.add(Erf(), s.mul(s.number(1.5), x))), "y")
    assert "is not the constant 0.707107" in nearest(s.graph, "gelu_erf")
    assert any(isinstance(node.op, Erf) for node in s.graph.nodes)


def test_a_value_read_elsewhere_is_named() -> None:
    """An inner value that is also an output must stay."""
    s = Speller(lambda n: 1)
    x = s.input(2, 3)
    gate = s.graph.add(Erf(), s.mul(x, s.number(math.sqrt(0.5))))
    s.graph.output(s.half_of(x, gate), "y")
    s.graph.output(gate, "gate")
    assert "also read by" in nearest(s.graph, "gelu_erf")


def test_attention_with_a_mask_computed_at_run_time_is_explained() -> None:
    """The reason names what softmax is taken of."""
    spelt = AttentionSpelling()
    graph = spelt.graph(run_time_bias=True)
    assert "softmax is taken of Add" in nearest(graph, "attention")


# ---- norms over images and tokens, linear maps, patches ----


def test_group_norm_of_the_old_exporter() -> None:
    """Reshape, InstanceNorm, Reshape, Mul, Add."""
    graph = Graph()
    x = graph.input("x", Type("float32", (1, 6, 4, 5)))
    ones, zeros = graph.constant(np.ones(2, np.float32)), graph.constant(np.zeros(2, np.float32))
    y = graph.add(GroupNorm(2, 1e-5), graph.add(Reshape((1, 2, 60)), x), ones, zeros)
    y = graph.add(Mul(), graph.add(Reshape((1, 6, 4, 5)), y), graph.constant(draw(6, 1, 1)))
    graph.output(graph.add(Add(), graph.constant(draw(1, 6, 1, 1)), y), "y")
    check(graph, draw(1, 6, 4, 5), {"GroupNorm": 1})
    assert graph.nodes[0].op == GroupNorm(2, 1e-5)


def norm_vectors(graph: Graph, size: int) -> list[Value]:
    return [graph.constant(draw(size, low=0.2) + i) for i in range(4)]


@pytest.mark.parametrize("way", ["plain", "transposed", "rows"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_rep_norm(way: str, per_channel: bool) -> None:
    """BatchNorm over tokens plus eta times them; the norm between transpositions, on joined rows, or direct."""
    graph = Graph()
    x = graph.input("x", Type("float32", (1, 5, 6)))
    if way == "transposed":
        t = graph.add(BatchNorm(1), graph.add(Transpose((0, 2, 1)), x), *norm_vectors(graph, 6))
        y = graph.add(Transpose((0, 2, 1)), t)
    elif way == "rows":
        rows = graph.add(BatchNorm(1), graph.add(Reshape((5, 6)), x), *norm_vectors(graph, 6))
        y = graph.add(Reshape((1, 5, 6)), rows)
    else:
        y = graph.add(BatchNorm(2), x, *norm_vectors(graph, 6))
    eta = graph.constant(draw(6) if per_channel else draw(1))
    graph.output(graph.add(Add(), graph.add(Mul(), eta, x), y), "y")
    check(graph, draw(1, 5, 6), {"RepNorm": 1})
    assert graph.nodes[0].op == RepNorm(2)


@pytest.mark.parametrize("shape", [(6,), (1, 6), (1, 1, 6), (1,), ()])
def test_linear_takes_a_vector_of_any_rank_as_bias(shape: tuple[int, ...]) -> None:
    """The constant may come first, and may be one number."""
    graph = Graph()
    x = graph.input("x", Type("float32", (2, 3, 4)))
    y = graph.add(Linear(), x, graph.constant(draw(6, 4)))
    graph.output(graph.add(Add(), graph.constant(draw(*shape)), y), "y")
    check(graph, draw(2, 3, 4), {"Linear": 1})


def test_a_table_of_positions_is_no_bias() -> None:
    """A constant that differs between tokens stays an Add."""
    graph = Graph()
    x = graph.input("x", Type("float32", (1, 3, 4)))
    y = graph.add(Linear(), x, graph.constant(draw(6, 4)))
    graph.output(graph.add(Add(), y, graph.constant(draw(1, 3, 6))), "y")
    check(graph, draw(1, 3, 4), {"Linear": 1, "Add": 1})


@pytest.mark.parametrize("order", ["reshape first", "transpose first", "by way of rows"])
def test_patch_embedding(order: str) -> None:
    """A convolution by patches, its grid read row by row, in every order of movements."""
    graph = Graph()
    x = graph.input("x", Type("float32", (1, 3, 8, 12)))
    y = graph.add(Conv((4, 4)), x, graph.constant(draw(5, 3, 4, 4)), graph.constant(draw(5)))
    moves = {
        "reshape first": [Reshape((1, 5, 6)), Transpose((0, 2, 1))],
        "transpose first": [Transpose((0, 2, 3, 1)), Reshape((1, 6, 5))],
        "by way of rows": [Reshape((5, 2, 3)), Transpose((1, 2, 0)), Reshape((1, 6, 5))],
    }[order]
    for op in moves:
        y = graph.add(op, y)
    graph.output(y, "y")
    check(graph, draw(1, 3, 8, 12), {"PatchEmbed": 1})
    assert graph.nodes[0].op == PatchEmbed((4, 4))


def check(graph: Graph, x: Array, expected: dict[str, int]) -> None:
    """Recognise in place: exactly the expected ops are left, they compute the same, and a second run does nothing."""
    before = run(graph, {"x": x})
    recognised(graph)
    assert Counter(type(node.op).__name__ for node in graph.nodes) == expected
    for name, result in run(graph, {"x": x}).items():
        np.testing.assert_allclose(result, before[name], rtol=1e-4, atol=1e-5)
    assert sum(each.apply(graph) for each in RECOGNISE) == 0


# ---- attention ----

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


# ---- movement ----


def test_identities_vanish() -> None:
    """Movements that move nothing, one of each kind."""
    graph = Graph()
    x = graph.input("x", Type("float32", (1, 3, 4, 5)))
    y = graph.add(Reshape((1, 3, 4, 5)), x)
    y = graph.add(Transpose((0, 1, 2, 3)), y)
    y = graph.add(Slice((0, 0), (3, 2**62), (1, 2), (1, 1)), y)
    y = graph.add(Expand((1, 3, 4, 5)), y)
    y = graph.add(Pad((0,) * 8), y)
    graph.output(graph.add(Sigmoid(), y), "y")
    check(graph, draw(1, 3, 4, 5), {"Sigmoid": 1})


def test_a_reversing_slice_is_no_identity() -> None:
    """It keeps the shape but turns the order."""
    graph = Graph()
    x = graph.input("x", Type("float32", (1, 3)))
    graph.output(graph.add(Slice((-1,), (-(2**62),), (1,), (-1,)), x), "y")
    check(graph, draw(1, 3), {"Slice": 1})


def test_movement_of_constants_is_computed() -> None:
    """A class token that is expanded and joined with another becomes one constant."""
    graph = Graph()
    x = graph.input("x", Type("float32", (1, 2, 4)))
    token = graph.add(Expand((1, 2, 4)), graph.constant(draw(1, 1, 4)))
    graph.output(graph.add(Mul(), x, graph.add(Transpose((0, 1, 2)), token)), "y")
    check(graph, draw(1, 2, 4), {"Mul": 1})


def test_an_output_keeps_its_own_storage() -> None:
    """A Reshape between input and output is the copy that the output is made of."""
    graph = Graph()
    x = graph.input("x", Type("float32", (2, 3)))
    graph.output(graph.add(Reshape((2, 3)), x), "y")
    recognised(graph)
    assert [value.name for value in graph.outputs] == ["y"] and len(graph.nodes) == 1


def factorisations(size: int, axes: int) -> list[tuple[int, ...]]:
    """All shapes of so many axes and that size."""
    if axes == 1:
        return [(size,)]
    return [(n, *rest) for n in range(1, size + 1) if size % n == 0 for rest in factorisations(size // n, axes - 1)]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_chains_of_movements_shrink_and_stay_equal(data: st.DataObject) -> None:
    """Any chain of Reshapes and Transposes: never longer than before, at most three ops, the same numbers."""
    size = data.draw(st.sampled_from([12, 24, 30, 64]))
    shape = data.draw(st.sampled_from(factorisations(size, data.draw(st.integers(1, 4)))))
    graph = Graph()
    value = graph.input("x", Type("float32", shape))
    count = data.draw(st.integers(1, 6))
    for _ in range(count):
        if data.draw(st.booleans()):
            target = data.draw(st.sampled_from(factorisations(size, data.draw(st.integers(1, 4)))))
            value = graph.add(Reshape(target), value)
        else:
            value = graph.add(Transpose(tuple(data.draw(st.permutations(range(len(value.shape)))))), value)
    graph.output(graph.add(Sigmoid(), value), "y")
    x = np.arange(size, dtype=np.float32).reshape(shape)
    before = run(graph, {"x": x})["y"]
    SimplifyShapes().apply(graph)
    np.testing.assert_array_equal(run(graph, {"x": x})["y"], before)
    assert len(graph.nodes) <= count + 1


def test_shortest_forms() -> None:
    """The cases that matter: heads turned there and back, pixels to tokens, and what cannot get shorter."""
    heads = [Reshape((1, 7, 3, 4)), Transpose((0, 2, 1, 3)), Transpose((0, 2, 1, 3)), Reshape((1, 7, 12))]
    assert shortest((1, 7, 12), heads) == []
    tokens = [Reshape((1, 5, 6)), Transpose((0, 2, 1))]
    assert shortest((1, 5, 2, 3), [Transpose((0, 2, 3, 1)), Reshape((1, 6, 5))]) == tokens
    window = [Reshape((1, 2, 2, 2, 2, 3)), Transpose((0, 1, 3, 2, 4, 5)), Reshape((4, 4, 3))]
    assert len(shortest((1, 4, 4, 3), window) or []) == 3
    assert shortest((2, 3), [Transpose((1, 0)), Reshape((2, 3))]) is None


def test_order_of_passes_does_not_repeat() -> None:
    """Every pass but the clean-up stands once, and each has its reason beside it."""
    counts = Counter(type(each).__name__ for each in RECOGNISE)
    assert {name for name, count in counts.items() if count > 1} == {"SimplifyShapes"}
    names = [each.name for each in RECOGNISE]
    assert names.index("recognise_linear") < names.index("recognise_attention")
    assert all(each.exact and each.needs == "none" for each in RECOGNISE)


def test_duplicates_merge_across_constants_of_one_name() -> None:
    """Equal nodes on the same operands are one; equal numbers in different constants are left alone."""
    graph = Graph()
    x = graph.input("x", Type("float32", (2, 3)))
    pairs = itertools.starmap(graph.add, ((Sigmoid(), x), (Sigmoid(), x)))
    graph.output(graph.add(Add(), *pairs), "y")
    check(graph, draw(2, 3), {"Sigmoid": 1, "Add": 1})
