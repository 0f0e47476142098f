"""Holds the TVM back end to the reference where models read integers: tokens, their comparison, and what masks do."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgesmith.ir.errors import Unsupported
from edgesmith.ir.graph import Graph, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.elementwise import Add, Div
from edgesmith.ir.ops.linear import Linear
from edgesmith.ir.ops.logic import Cast, Equal, Less, Where
from edgesmith.ir.ops.number import ReduceMin
from edgesmith.ir.ops.pool import ReduceMax
from edgesmith.ir.ops.shape import Concat, Gather, Reshape, Transpose
from edgesmith.lowering.tvm.lower import lower

SHARED = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tvm_libraries.py"))))
HERE, needs_tvm, outputs, agree = SHARED.HERE, SHARED.needs_tvm, SHARED.outputs, SHARED.agree


def weight(graph, *shape):
    return graph.constant(np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32))


def reader(dtype):
    """Tokens looked up, and tokens compared with all that there are; padding is masked."""
    graph = Graph("reader")
    tokens = graph.input("tokens", Type(dtype, (2, 5)))
    graph.output(graph.add(Gather(0), weight(graph, 11, 9), tokens), "looked_up")
    graph.output(graph.add(Gather(1), weight(graph, 3, 11, 2), tokens), "along_another_axis")
    known = graph.constant(np.arange(11, dtype=dtype))
    hot = graph.add(Cast("float32"), graph.add(Equal(), graph.add(Reshape((2, 5, 1)), tokens), known))
    rows = graph.add(Linear(), hot, weight(graph, 7, 11))
    graph.output(rows, "compared")
    real = graph.add(Reshape((2, 5, 1)), graph.add(Less(), tokens, graph.constant(np.asarray(8, dtype))))
    graph.output(graph.add(Where(), real, rows, graph.constant(np.float32(-3))), "masked")
    return graph


@pytest.mark.tvm
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_tokens_are_looked_up_and_compared(dtype, tmp_path):
    needs_tvm()
    graph = reader(dtype)
    feeds = {"tokens": np.array([[0, 10, 3, 8, 7], [-1, 5, -11, 2, 9]], dtype)}
    agree(outputs(graph, feeds, tmp_path), run(graph, feeds))


@pytest.mark.tvm
def test_numbers_beyond_the_table_read_nothing_else(tmp_path):
    needs_tvm()
    graph, feeds = reader("int32"), {"tokens": np.array([[11, 2**30, -12, -(2**31), 0]] * 2, np.int32)}
    found, table = outputs(graph, feeds, tmp_path)["looked_up"], graph.nodes[0].input(0).array
    assert np.array_equal(found[0], table[[10, 10, 0, 0, 0]])


@pytest.mark.tvm
def test_extremes_and_a_quotient_that_is_nothing_where_there_is_nothing(tmp_path):
    needs_tvm()
    graph = Graph("levels")
    x = graph.input("x", Type("float32", (2, 17, 30)))
    lifted = graph.add(Add(), x, graph.add(Reshape((2, 1, 1)), graph.add(ReduceMin((1, 2)), x)))
    top = graph.add(ReduceMax((1, 2), True), lifted)
    zero = graph.constant(np.float32(0))
    graph.output(graph.add(Where(), graph.add(Equal(), top, zero), zero, graph.add(Div(), lifted, top)), "y")
    feeds = {"x": np.random.default_rng(3).standard_normal((2, 17, 30)).astype(np.float32)}
    feeds["x"][1] = 0
    agree(outputs(graph, feeds, tmp_path), run(graph, feeds))


@pytest.mark.tvm
def test_parts_that_alternate_are_joined(tmp_path):
    needs_tvm()
    graph = Graph("pairs")
    x = graph.input("x", Type("float32", (1, 12, 30)))
    both = (x, graph.add(Add(), x, x))
    parts = [graph.add(Reshape((1, 30, 12, 1)), graph.add(Transpose((0, 2, 1)), each)) for each in both]
    graph.output(graph.add(Concat(3), *parts), "y")
    feeds = {"x": np.random.default_rng(5).standard_normal((1, 12, 30)).astype(np.float32)}
    agree(outputs(graph, feeds, tmp_path), run(graph, feeds))


def test_integers_that_float32_does_not_hold_are_not_compared():
    graph = Graph("wide")
    a, b = (graph.input(name, Type("int64", (4,))) for name in "ab")
    graph.output(graph.add(Cast("float32"), graph.add(Equal(), a, b)))
    with pytest.raises(Unsupported, match="Equal"):
        lower(graph, HERE)
    graph = Graph("far")
    far = graph.constant(np.array(2**24 + 1))
    graph.output(graph.add(Cast("float32"), graph.add(Equal(), graph.input("a", Type("int64", (4,))), far)))
    with pytest.raises(Unsupported, match="Equal"):
        lower(graph, HERE)
