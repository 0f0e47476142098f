"""Holds the TVM back end's threads to what one thread computes, bit for bit."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgesmith.ir.graph import Graph, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Gelu, Softmax
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.conv import Conv
from edgesmith.ir.ops.elementwise import Add
from edgesmith.ir.ops.linear import Linear, MatMul
from edgesmith.ir.ops.norm import LayerNorm
from edgesmith.ir.ops.pool import MaxPool, Mean
from edgesmith.ir.ops.shape import Resize, Transpose

SHARED = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tvm_libraries.py"))))
HERE, needs_tvm, outputs, agree = SHARED.HERE, SHARED.needs_tvm, SHARED.outputs, SHARED.agree
LAUNCH = b"TVMBackendParallelLaunch"


def heavy():
    """Layers with enough work that threads share it, in uneven parts."""
    graph, draw = Graph("heavy"), np.random.default_rng(4)

    def given(name, *shape):
        return graph.input(name, Type("float32", shape))

    def weight(*shape):
        return graph.constant(draw.standard_normal(shape).astype(np.float32))

    tokens, image = given("tokens", 1, 71, 96), given("image", 1, 20, 50, 50)
    for heads in (3, 6):
        graph.output(graph.add(Attention(heads, 0.2), tokens, tokens, tokens), f"attention {heads}")
    graph.output(graph.add(Gelu(), graph.add(Linear(), tokens, weight(300, 96), weight(300))), "columns")
    graph.output(graph.add(Linear(), tokens, weight(40, 96)), "rows")
    graph.output(graph.add(MatMul(), given("a", 2, 71, 80), given("b", 2, 80, 71)), "product")
    graph.output(graph.add(LayerNorm(), given("long", 601, 96), None, None), "norm")
    graph.output(graph.add(Softmax(), given("scores", 3, 130, 131)), "softmax")
    graph.output(graph.add(Conv((1, 1), (1, 1, 1, 1)), image, weight(24, 20, 3, 3)), "conv")
    graph.output(graph.add(Conv((1, 1), (2, 2, 2, 2), (1, 1), 20), image, weight(40, 1, 5, 5)), "depthwise")
    graph.output(graph.add(MaxPool((3, 3), (1, 1), (1, 1, 1, 1)), image), "pool")
    graph.output(graph.add(Resize((99, 101), "linear"), image), "resize")
    graph.output(graph.add(Mean((2,)), given("planes", 99, 7, 200)), "mean")
    graph.output(graph.add(Gelu(), given("flat", 99_999)), "gelu")
    graph.output(graph.add(Add(), graph.add(Transpose((1, 0)), given("turned", 300, 301)), weight(301, 1)), "add")
    return graph, {v.name: draw.standard_normal(v.shape).astype(np.float32) for v in graph.inputs}


@pytest.mark.tvm
def test_threads_compute_the_same(tmp_path):
    """Three of them, on however many this computer has, and all alone."""
    needs_tvm()
    graph, feeds = heavy()
    alone = outputs(graph, feeds, tmp_path)
    agree(alone, run(graph, feeds))
    assert LAUNCH not in (tmp_path / "model.so").read_bytes()
    for folder, number in (("two", "2"), ("three", "3")):
        (tmp_path / folder).mkdir()
        shared = outputs(graph, feeds, tmp_path / folder, HERE.shared(number))
        assert LAUNCH in (tmp_path / folder / "model.so").read_bytes()
        for name, wanted in alone.items():
            assert np.array_equal(shared[name], wanted), name
