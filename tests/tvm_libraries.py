"""Runs graphs through the TVM back end on this computer, for the tests that hold it to the reference."""

from __future__ import annotations

import numpy as np
import pytest

from edgesmith import runtimes, targets
from edgesmith.ir.graph import Graph, Type
from edgesmith.ir.ops.activation import Gelu, Softmax
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.conv import Conv
from edgesmith.ir.ops.elementwise import Add
from edgesmith.ir.ops.linear import Linear
from edgesmith.ir.ops.norm import LayerNorm
from edgesmith.ir.ops.pool import Mean
from edgesmith.ir.ops.shape import Reshape, Transpose
from edgesmith.ir.ops.shift import MatShift, ShiftLinear, pack
from edgesmith.lowering.tvm import child
from edgesmith.lowering.tvm.lower import lower
from edgesmith.lowering.tvm.machine import Machine

BOUND = 1e-5
HERE = Machine.of(targets.get("tvm-cpu").format)


def needs_tvm():
    return pytest.importorskip("tvm", reason="pip install edgesmith[tvm]")


def outputs(graph, feeds, folder, machine=HERE):
    """What the compiled graph computes."""
    child.build(lower(graph, machine)[0], folder / "model.so")
    session = runtimes.load("tvm").open(folder / "model.so")
    try:
        return session.run(feeds)
    finally:
        session.close()


def agree(found, wanted):
    assert set(found) == set(wanted)
    for name, reference in wanted.items():
        assert found[name].shape == reference.shape and found[name].dtype == np.float32
        assert np.abs(found[name] - reference).max() <= BOUND * np.abs(reference).max(), name


def network():
    """A little of everything: dense and depthwise convolutions, tokens, attention, shifts of both kinds."""
    graph, draw = Graph("net"), np.random.default_rng(1)

    def weight(*shape):
        return graph.constant((draw.standard_normal(shape) / np.prod(shape[1:]) ** 0.5).astype(np.float32))

    x = graph.input("image", Type("float32", (1, 3, 20, 20)))
    x = graph.add(Gelu(), graph.add(Conv((2, 2), (1, 1, 1, 1)), x, weight(16, 3, 3, 3), weight(16)))
    x = graph.add(Conv((1, 1), (1, 1, 1, 1), (1, 1), 16), x, weight(16, 1, 3, 3))
    x = graph.add(Transpose((0, 2, 1)), graph.add(Reshape((1, 16, 100)), x))
    y = graph.add(LayerNorm(), x, weight(16), weight(16))
    x = graph.add(Add(), graph.add(Attention(2, 0.35), *(graph.add(Linear(), y, weight(16, 16)) for _ in "qkv")), x)
    codes = graph.constant(pack(2 ** draw.integers(0, 7, (24, 16))))
    scale = graph.constant(np.full(24, 0.001, np.float32))
    graph.output(graph.add(MatShift(), graph.input("rows", Type("int8", (7, 16))), codes), "sums")
    x = graph.add(Mean((1,)), graph.add(ShiftLinear(), x, codes, scale))
    graph.output(graph.add(Softmax(), graph.add(Linear(), x, weight(10, 24), weight(10))), "odds")
    return graph, {"image": draw.standard_normal((1, 3, 20, 20)).astype(np.float32),
                   "rows": draw.integers(-128, 128, (7, 16)).astype(np.int8)}  # fmt: skip
