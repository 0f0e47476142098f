"""Models that read integers, such as tokens and masks, compute what they should where a back end takes them."""

from __future__ import annotations

import numpy as np
import pytest

import edgesmith
from edgesmith.ir.graph import Graph, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.elementwise import Add, Div, Mul
from edgesmith.ir.ops.linear import Linear
from edgesmith.ir.ops.logic import Cast, Equal, Less, Where
from edgesmith.ir.ops.norm import LayerNorm
from edgesmith.ir.ops.number import ReduceMin
from edgesmith.ir.ops.pool import ReduceMax, Sum
from edgesmith.ir.ops.shape import Concat, Gather, Reshape, Transpose

WORDS, WIDTH, LENGTH = 11, 8, 5
HOST = pytest.param("host", marks=pytest.mark.compiler)
TVM = pytest.param("tvm-cpu", marks=pytest.mark.tvm)
ANDROID = pytest.param("android", marks=pytest.mark.tflite)
IPHONE = pytest.param("iphone15", marks=pytest.mark.coreml)
PACKAGES = {"android": "ai_edge_litert", "iphone15": "coremltools", "tvm-cpu": "tvm"}


def weight(graph, *shape):
    return graph.constant(np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32))


def reader(dtype):
    """Tokens looked up, and compared with all that there are; the mean of those that a mask counts."""
    graph = Graph("reader")
    tokens, mask = (graph.input(name, Type(dtype, (1, LENGTH))) for name in ("tokens", "mask"))
    rows = graph.add(Gather(0), weight(graph, WORDS, WIDTH), tokens)
    known = graph.constant(np.arange(WORDS, dtype=dtype))
    hot = graph.add(Cast("float32"), graph.add(Equal(), graph.add(Reshape((1, LENGTH, 1)), tokens), known))
    rows = graph.add(Add(), rows, graph.add(Linear(), hot, weight(graph, WIDTH, WORDS)))
    rows = graph.add(LayerNorm(1e-5), rows, weight(graph, WIDTH), weight(graph, WIDTH))
    rare = graph.add(Less(), graph.constant(np.asarray(7, dtype)), graph.add(Reshape((1, LENGTH, 1)), tokens))
    rows = graph.add(Where(), rare, graph.add(Mul(), rows, graph.constant(np.float32(0.5))), rows)
    counts = graph.add(Cast("float32"), graph.add(Reshape((1, LENGTH, 1)), mask))
    total = graph.add(Sum((1,)), graph.add(Mul(), rows, counts))
    graph.output(graph.add(Div(), total, graph.add(Sum((1,)), counts)), "mean")
    return graph


def levels():
    """Levels between the least and the greatest; nothing where all are the same; parts that alternate."""
    graph = Graph("levels")
    x = graph.input("x", Type("float32", (1, 6, 20)))
    low = graph.add(Reshape((1, 1, 1)), graph.add(ReduceMin((1, 2)), x))
    lifted = graph.add(Add(), x, graph.add(Mul(), low, graph.constant(np.float32(-1))))
    top = graph.add(Reshape((1, 1, 1)), graph.add(ReduceMax((1, 2)), lifted))
    zero = graph.constant(np.float32(0))
    y = graph.add(Where(), graph.add(Equal(), top, zero), zero, graph.add(Div(), lifted, top))
    both = (y, graph.add(Mul(), y, y))
    parts = [graph.add(Reshape((1, 20, 6, 1)), graph.add(Transpose((0, 2, 1)), each)) for each in both]
    graph.output(graph.add(Concat(3), *parts), "y")
    return graph


def compiled(graph, target, data, folder):
    if target in PACKAGES:
        pytest.importorskip(PACKAGES[target])
    edgesmith.compile(graph, target, out=folder, dtype="float32", calibration=data)

    return edgesmith.run(folder, "host" if target == "host" else None, inputs=data, runs=4).outputs


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("target", [HOST, "onnx", ANDROID, IPHONE, TVM])
def test_tokens_are_looked_up_compared_and_masked(target, dtype, tmp_path):
    graph, draw = reader(dtype), np.random.default_rng(7)
    data = {
        "tokens": draw.integers(0, WORDS, (4, LENGTH)).astype(dtype),
        "mask": draw.integers(0, 2, (4, LENGTH)).astype(dtype),
    }
    data["mask"][:, 0] = 1
    data["tokens"][1] = [-1, 0, WORDS - 1, -WORDS, 8]
    found = compiled(graph, target, data, tmp_path / "out")["mean"]
    for i in range(4):
        wanted = run(graph, {name: array[i : i + 1] for name, array in data.items()})["mean"]
        assert np.abs(found[i] - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("target", [HOST, "onnx", ANDROID, IPHONE, TVM])
def test_levels_between_extremes(target, tmp_path):
    graph, draw = levels(), np.random.default_rng(8)
    data = {"x": draw.standard_normal((3, 6, 20)).astype(np.float32)}
    data["x"][1] = 2.5
    found = compiled(graph, target, data, tmp_path / "out")["y"]
    for i in range(3):
        assert np.abs(found[i] - run(graph, {"x": data["x"][i : i + 1]})["y"]).max() <= 1e-4


@pytest.mark.compiler
def test_a_state_beside_one_sample_is_no_batch(tmp_path):
    graph = Graph("recurrent")
    x, state = graph.input("x", Type("float32", (1, 6))), graph.input("state", Type("float32", (2, 1, 6)))
    graph.output(graph.add(Add(), state, x), "next")
    draw = np.random.default_rng(9)
    data = {"x": draw.standard_normal((3, 6)), "state": draw.standard_normal((6, 1, 6))}
    data = {name: array.astype(np.float32) for name, array in data.items()}
    found = compiled(graph, "host", data, tmp_path / "out")["next"]
    for i in range(3):
        assert np.allclose(found[i], data["state"][2 * i : 2 * i + 2] + data["x"][i])
