"""Random graphs through all exact passes: whatever they find, the answer and the interface stay."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from edgesmith.ir.errors import ShapeError
from edgesmith.ir.graph import Graph, Value
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Gelu, Neg, Relu
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.conv import Conv
from edgesmith.ir.ops.elementwise import Add, Div, Mul, Sub
from edgesmith.ir.ops.linear import MatMul
from edgesmith.ir.ops.pool import AveragePool, Mean, Sum
from edgesmith.ir.ops.shape import Concat, Gather, Reshape, Slice, Split, Transpose
from edgesmith.ir.passes.pipelines import run_pipeline

SEEDS = range(0, 120, 40)
Step = Callable[..., Value | tuple[Value, ...]]


def linear(net, draw, x, pool):
    return net.linear(x, draw.choice([4, 6]), draw.random() < 0.6)


def conv(net, draw, x, pool):
    k, groups = draw.choice([1, 3]), draw.choice([1, 2, x.shape[1]])
    pad, stride = draw.choice([0, k // 2]), draw.choice([1, 1, 2])
    options = {"groups": groups, "strides": (stride, stride), "pads": (pad,) * 4}
    return net.conv(x, draw.choice([x.shape[1], 4, 6]), k, draw.random() < 0.6, **options)


def norm(net, draw, x, pool):
    axis = draw.choice([1, -1])
    makers = (net.batchnorm, net.repnorm, lambda x, axis: net.affine(x, axis, draw.random() < 0.5))
    return draw.choice(makers)(x, axis)


def layernorm(net, draw, x, pool):
    return net.layernorm(x, draw.random() < 0.5, draw.random() < 0.5)


def activation(net, draw, x, pool):
    return net.add(draw.choice([Relu(), Gelu(), Neg()]), x)


def combine(net, draw, x, pool):
    same = [y for y in pool if y.shape == x.shape]
    return net.add(draw.choice([Add(), Add(), Sub(), Mul()]), x, draw.choice(same))


def scale(net, draw, x, pool):
    shapes = [(), (x.shape[-1],), (x.shape[1], *[1] * (x.type.rank - 2))]
    operands = [x, net.positive(*draw.choice(shapes))]
    op = draw.choice([Add(), Sub(), Mul(), Div()])
    return net.add(op, *(operands if isinstance(op, Div) else draw.sample(operands, 2)))


def reduce(net, draw, x, pool):
    axes = draw.sample(range(x.type.rank), draw.choice([1, x.type.rank - 2 or 1]))
    return net.add(draw.choice([Mean, Mean, Sum])(tuple(axes), draw.random() < 0.4), x)


def transpose(net, draw, x, pool):
    return net.add(Transpose(tuple(draw.sample(range(x.type.rank), x.type.rank))), x)


def reshape(net, draw, x, pool):
    a, b, *rest = x.shape
    return net.add(Reshape(draw.choice([(a * b, *rest), (a, 1, b, *rest), (a, b, int(np.prod(rest)))])), x)


def cut(net, draw, x, pool):
    axis = draw.randrange(x.type.rank)
    size = x.shape[axis]
    at = draw.randrange(1, size)
    one = net.graph.constant(np.int64(at))
    ops = [(Slice((at,), (size,), (axis,), (1,)),), (Gather(axis), one), (Split(axis, (at, size - at)),)]
    op, *indices = draw.choice(ops)
    return net.graph.add(op, x, *indices)


def join(net, draw, x, pool):
    axis = draw.randrange(x.type.rank)
    fits = [y for y in pool if y.type.rank == x.type.rank]
    return net.add(Concat(axis), draw.choice(fits), x)


def attend(net, draw, x, pool):
    k = draw.choice([y for y in pool if y.type.rank == 3])
    return net.add(Attention(2, draw.choice([0.5, 1.0])), x, k, k)


def multiply(net, draw, x, pool):
    return net.add(MatMul(), x, draw.choice(pool))


def average(net, draw, x, pool):
    pads = draw.choice([(0,) * 4, (1,) * 4])
    return net.add(AveragePool((2, 2), pads=pads, count_include_pad=draw.random() < 0.5), x)


STEPS: tuple[Step, ...] = (
    *(linear, linear, linear, conv, conv, conv, norm, norm, norm, layernorm, activation, combine, combine, scale),
    *(reduce, transpose, reshape, cut, cut, join, attend, multiply, average),
)


def random_graph(net, draw: random.Random) -> Graph:
    """Up to 25 nodes on an image and a sequence, with one to three outputs; steps that do not fit are skipped."""
    pool = [net.input(1, 4, 5, 6, name="image"), net.input(2, 5, 4, name="tokens")]
    for _ in range(draw.randrange(10, 60)):
        x = draw.choice(pool[-4:] if draw.random() < 0.7 else pool)
        try:
            made = draw.choice(STEPS)(net, draw, x, pool)
        except (ShapeError, ValueError, IndexError, ZeroDivisionError):
            continue
        pool += [v for v in (made if isinstance(made, tuple) else (made,)) if v.type.rank > 1 and v.type.size < 4000]
    ends = [value for value in pool[2:] if not value.uses] or pool[-1:]
    return net.output(*ends[-draw.randrange(1, 4) :])


def random_sum(net, draw: random.Random) -> Graph:
    """A sum in random order of convolutions of one or two values, norms, and the values themselves."""
    x = net.input(1, 4, draw.randrange(5, 9), draw.randrange(5, 9))
    sources, stride = [x, x, x, net.add(Relu(), x)], (draw.choice([1, 2]), draw.choice([1, 1, 2]))
    terms = []
    while len(terms) < 4:
        k = (draw.choice([1, 2, 3, 5]), draw.choice([1, 2, 3, 5]))
        top, left = (k[0] - 1) // 2, (k[1] - 1) // 2
        more = draw.choice([0, 0, 1]) if k[0] - 1 > top else 0
        pads = (top + more, left, k[0] - 1 - top - more, k[1] - 1 - left)
        groups, source = draw.choice([1, 2, 4]), draw.choice(sources)
        weight = net.normal(4, 4 // groups, *k)
        try:
            made = net.add(Conv(stride, pads, (1, 1), groups), source, weight, draw.choice([None, net.normal(4)]))
        except ShapeError:
            continue
        assert not terms or made.shape == terms[0].shape
        choices = [made, made, made, net.batchnorm(source), source] if made.shape == x.shape else [made]
        terms.append(draw.choice(choices))
    while len(terms) > 1:
        draw.shuffle(terms)
        terms.append(net.add(Add(), terms.pop(), terms.pop()))
    return net.output(*terms)


@pytest.mark.parametrize("maker", [random_graph, random_sum])
@pytest.mark.parametrize("start", SEEDS)
def test_any_graph_keeps_its_answer(maker: Callable, start: int, build: ModuleType) -> None:
    changed = 0
    for seed in range(start, start + 40):
        graph = maker(build.Net(seed=seed), random.Random(seed))
        graph.prune()
        before = graph.copy()
        changed += any(run_pipeline(graph).values())
        feeds = build.feeds(before)
        expected, actual = run(before, feeds), run(graph, feeds)
        assert list(actual) == list(expected)
        for name, array in expected.items():
            error = np.abs(array - actual[name]).max()
            assert error <= 1e-9 * max(np.abs(array).max(), 1.0), f"seed {seed}: '{name}' moved by {error:g}"
    assert changed > 10
