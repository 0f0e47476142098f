"""Every hazard of float16 through the driver: numbers break without its repair, agree with it, and it is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

import edgesmith
from edgesmith.ir.graph import Graph, Type, Value
from edgesmith.ir.ops.activation import Exp, Gelu, Log, Softmax
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.elementwise import Add, Div, Mul, Sub
from edgesmith.ir.ops.linear import Linear, MatMul
from edgesmith.ir.ops.norm import LayerNorm, RMSNorm
from edgesmith.ir.ops.pool import AveragePool, Mean, Sum
from edgesmith.ir.ops.shape import Slice
from edgesmith.lowering.coreml import half
from edgesmith.lowering.coreml.site import Site

pytestmark = pytest.mark.coreml

NARROW = "declared-accumulate16"
"""Sums inside operations are in halves too: as pessimistic as a device may be."""


def draw(*shape: int, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    """The same numbers for the same shape."""
    return np.random.default_rng(7).uniform(low, high, shape).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """A network that float16 spoils.

    Attributes:
        hazard: How the report begins.
        build: From the graph and its inputs to the output.
        data: Arrays of two samples each, one for each input.
        fixed: Whether the graph is changed, or else something stays in float32.
        harmless: Whether the evaluator gives right numbers all the same: other devices need not.
    """

    hazard: str
    build: Callable[..., Value]
    data: tuple[np.ndarray, ...]
    fixed: bool = False
    harmless: bool = False


def number(graph: Graph, value: float) -> Value:
    return graph.constant(np.array(value, np.float32))


def twice_masked(graph: Graph, x: Value) -> Value:
    """Two masks on the scores of a row of which nothing is left."""
    mask = np.zeros((4, 4), np.float32)
    mask[0] = -1e5
    for _ in range(2):
        x = graph.add(Add(), x, graph.constant(mask))
    return graph.add(MatMul(), graph.add(Softmax(-1), x), graph.constant(draw(4, 8)))


def late_scale(graph: Graph, x: Value) -> Value:
    """Scores that are scaled after their product."""
    product = graph.add(MatMul(), x, graph.constant(np.full((64, 4), 36, np.float32) * draw(1, 4, low=0.5)))
    return graph.add(Mul(), product, number(graph, 0.125))


def softplus(graph: Graph, x: Value) -> Value:
    """log(1 + exp(x)) as written."""
    return graph.add(Log(), graph.add(Add(), graph.add(Exp(), x), number(graph, 1.0)))


def square(graph: Graph, x: Value) -> Value:
    """Too large, and then small again."""
    return graph.add(Mul(), graph.add(Mul(), x, x), graph.constant(np.full((1, 8), 1e-3, np.float32)))


def loudness(graph: Graph, x: Value) -> Value:
    """Of differences between loud numbers, in decibels."""
    bands = graph.add(Linear(), x, graph.constant(np.diff(np.eye(9, dtype=np.float32), axis=0)))
    return graph.add(Log(), graph.add(Mul(), bands, bands))


def there_and_back(graph: Graph, x: Value) -> Value:
    """A row of which the halves of a weight take opposite sums."""
    weight = np.where(np.arange(4096) < 2048, 1.0, -1.0) * (1 + np.arange(3)[:, None])
    return graph.add(Linear(), x, graph.constant(weight.astype(np.float32)))


def turned(size: float) -> np.ndarray:
    """Rows whose first half is large, and whose second is, or is not, its opposite."""
    return np.where(np.arange(64) < 32, 200, size) + draw(2, 1, 3, 64) * 1e-2


def attended(graph: Graph, q: Value, k: Value, v: Value) -> Value:
    return graph.add(Attention(1, 0.125), q, k, v)


LARGE = np.float32([[1e6, 4e5, 2e5, 1e5]])
CASES = {
    "norm of large numbers": Case(
        "squares", lambda g, x: g.add(LayerNorm(1e-5), x, None, None), (draw(2, 4, 64, high=2000.0),), fixed=True
    ),
    "mean square of many numbers": Case(
        "squares", lambda g, x: g.add(RMSNorm(1e-5), x, None), (draw(2, 4, 2048, low=-20, high=20),), fixed=True
    ),
    "epsilon": Case(
        "epsilon", lambda g, x: g.add(LayerNorm(1e-12), x, None, None), (draw(2, 4, 8) * [[1], [0], [1], [1]],), True
    ),
    "mask": Case("mask", twice_masked, (draw(2, 4, 4, low=-0.05, high=0.05),), fixed=True),
    "late scale": Case("scores", late_scale, (draw(2, 4, 64, low=35, high=36),), fixed=True),
    "softplus": Case("exponential", softplus, (draw(2, 1, 8, low=9, high=20),)),
    "cube": Case(
        "cube", lambda g, x: g.add(Gelu("tanh"), x), (draw(2, 1, 8, low=-60, high=60),), harmless=True
    ),
    "overflow": Case("overflow", square, (draw(2, 1, 8, low=100, high=900),)),
    "large constant": Case("constant", lambda g, x: g.add(Mul(), x, g.constant(LARGE)), (draw(2, 1, 4) * 1e-2,)),
    "small constant": Case(
        "constant", lambda g, x: g.add(Mul(), x, g.constant(np.float32([[1e-9, 3e-8, 2e-8]]))), (draw(2, 1, 3) * 1e4,)
    ),
    "quotient": Case(
        "quotient", lambda g, x, y: g.add(Div(), x, y),
        (draw(2, 1, 8) * 1e-6, draw(2, 1, 8, low=1e-9, high=1e-8)),
    ),
    "logarithm of squares": Case("quotient", loudness, (4 + draw(2, 1, 9) * 1e-2,)),
    "mean of an image": Case(
        "sum", lambda g, x: g.add(Mean((2, 3)), x), (draw(2, 1, 3, 64, 64, low=20, high=40),), fixed=True
    ),
    "mean of tokens": Case("sum", lambda g, x: g.add(Mean((1,)), x), (draw(2, 1, 4096, 3, low=20, high=40),)),
    "sum": Case(
        "sum", lambda g, x: g.add(Mul(), g.add(Sum((1,), True), x), number(g, 1e-4)), (draw(2, 1, 4096, 3) + 40,)
    ),
    "large window": Case(
        "sum", lambda g, x: g.add(AveragePool((64, 64), (1, 1)), x), (draw(2, 1, 3, 65, 64, low=20, high=40),)
    ),
    "partial sums": Case("product", there_and_back, (draw(2, 1, 4096, low=40, high=60),)),
    "partial scores": Case("product", attended, (turned(-200), turned(200), draw(2, 1, 3, 64))),
    "cancellation": Case(
        "cancellation", lambda g, x, y: g.add(Sub(), x, y), (50000 + draw(2, 1, 8), np.full((2, 1, 8), 50000.0))
    ),
    "offset": Case(
        "offset", lambda g, x: g.add(Slice((5000,), (5004,), (1,), (1,)), x), (draw(2, 1, 6000),), harmless=True
    ),
}  # fmt: skip


def network(case: Case) -> tuple[Graph, dict[str, np.ndarray]]:
    graph = Graph("net")
    data = {f"x{i}": array.astype(np.float32) for i, array in enumerate(case.data)}
    shapes = [array.shape[1:] if array.shape[1] == 1 else (1, *array.shape[1:]) for array in data.values()]
    inputs = [graph.input(name, Type("float32", shape)) for name, shape in zip(data, shapes, strict=True)]
    graph.output(case.build(graph, *inputs), "y")
    return graph, {
        name: array.reshape(2, *shape[1:]) for (name, array), shape in zip(data.items(), shapes, strict=True)
    }


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_hazard_is_found_named_and_mended(case, tmp_path, monkeypatch):
    graph, data = network(case)
    made = edgesmith.compile(graph, "iphone13", out=tmp_path / "mended", calibration=data)
    found = edgesmith.run(made, check=True, runs=2, arithmetic=NARROW)
    assert found.equal == found.samples == 2
    float16 = made.manifest["details"]["float16"]
    named = float16["changed" if case.fixed else "kept"]
    assert float16["measured"] and any(f"{case.hazard}: " in why for why in named.values())
    assert any(case.hazard in note for note in made.manifest["notes"])
    if case.fixed:
        assert not float16["kept"]
    monkeypatch.setattr(half, "examine", lambda graph, measured: half.Lint())
    monkeypatch.setattr(Site, "number", lambda site, value: site.cast(np.asarray(value, np.float64))[()])
    bare = edgesmith.compile(graph, "iphone13", out=tmp_path / "bare", calibration=data, check=False)
    spoilt = edgesmith.run(bare, check=True, runs=2, arithmetic=NARROW)
    assert (spoilt.equal == 2) == case.harmless
