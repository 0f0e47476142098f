"""Recognition by meaning: however a block is spelt, it becomes the same op and computes the same numbers."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest

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
    Sqrt,
    Tanh,
)
from edgesmith.ir.ops.conv import Conv, PatchEmbed
from edgesmith.ir.ops.elementwise import Add, Div, Mul, Pow, Sub
from edgesmith.ir.ops.linear import Linear
from edgesmith.ir.ops.norm import BatchNorm, GroupNorm, LayerNorm, RepNorm, RMSNorm
from edgesmith.ir.ops.pool import Mean
from edgesmith.ir.ops.shape import Reshape, Transpose
from edgesmith.ir.passes.recognise import RECOGNISE
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
    assert "the argument of 'erf' is 1.5 x, not 0.707107 x" in nearest(s.graph, "gelu_erf")
    assert any(isinstance(node.op, Erf) for node in s.graph.nodes)


def test_a_value_read_elsewhere_is_named() -> None:
    """An inner value that is also an output must stay."""
    s = Speller(lambda n: 1)
    x = s.input(2, 3)
    gate = s.graph.add(Erf(), s.mul(x, s.number(math.sqrt(0.5))))
    s.graph.output(s.half_of(x, gate), "y")
    s.graph.output(gate, "gate")
    assert "also read by" in nearest(s.graph, "gelu_erf")


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
