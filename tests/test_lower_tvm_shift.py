"""Holds the TVM back end's shift and add kernels to the numpy reference, in integers bit for bit."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgesmith.ir.errors import Unsupported
from edgesmith.ir.graph import Graph, Quant, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Gelu
from edgesmith.ir.ops.conv import Conv
from edgesmith.ir.ops.elementwise import Add
from edgesmith.ir.ops.linear import Linear, MatMul
from edgesmith.ir.ops.logic import Cast, Less, Where
from edgesmith.ir.ops.norm import LayerNorm
from edgesmith.ir.ops.quant import Dequantize, Quantize
from edgesmith.ir.ops.shape import Transpose
from edgesmith.ir.ops.shift import MatAdd, MatShift, ShiftLinear, pack, unpack
from edgesmith.ir.passes.pipelines import FLOAT_TVM, run_pipeline
from edgesmith.lowering.tvm.lower import lower
from edgesmith.lowering.tvm.machine import Machine

SHARED = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tvm_libraries.py"))))
HERE, needs_tvm, outputs, agree = SHARED.HERE, SHARED.needs_tvm, SHARED.outputs, SHARED.agree
NARROW = Machine.of({"mtriple": "x86_64-linux-gnu", "zig": HERE.zig})
SIZES = [(1, 3, 1), (7, 5, 9), (13, 33, 17), (50, 1, 31), (2, 70, 100)]


def powers(draw, outputs, depth):
    """0 and +-2^p, p of 0 to 6."""
    return draw.choice([0, *(1 << p for p in range(7))], (outputs, depth)) * draw.choice([-1, 1], (outputs, depth))


@pytest.mark.parametrize("depth", [1, 2, 7, 8])
def test_codes_read_back(depth):
    whole = powers(np.random.default_rng(depth), 40, depth)
    codes = pack(whole)
    assert codes.dtype == np.uint8 and codes.shape == (40, -(-depth // 2))
    assert np.array_equal(unpack(codes, depth), whole)


def integers(graph, draw):
    """Exact ones: sums of shifts, of every size, and layers that round to integers before them."""
    for number, (rows, depth, columns) in enumerate(SIZES):
        x = graph.input(f"int{number}", Type("int16" if number == 2 else "int8", (rows, depth)))
        graph.output(graph.add(MatShift(), x, graph.constant(pack(powers(draw, columns, depth)))), f"sums{number}")
    x = graph.input("real", Type("float32", (5, 24)))
    q = graph.add(Quantize(Quant(0.0625, -3)), graph.add(LayerNorm(), x, None, None))
    graph.output(q, "rounded")
    graph.output(graph.add(MatShift(), q, graph.constant(pack(powers(draw, 12, 24)))), "sums")
    on = graph.add(Less(), x, graph.input("limit", Type("float32", (24,))))
    one, other = (graph.constant(np.array(n, np.int8)) for n in (1, -1))
    signs = graph.add(Where(), on, one, other)
    graph.output(graph.add(Transpose((1, 0)), signs), "signs")


@pytest.mark.tvm
@pytest.mark.parametrize("machine", [HERE, NARROW])
def test_integers_are_exact(machine, tmp_path):
    needs_tvm()
    graph, draw = Graph("integers"), np.random.default_rng(5)
    integers(graph, draw)
    feeds = {v.name: draw.standard_normal(v.shape).astype(np.float32) if v.dtype == "float32" else
             draw.integers(-128, 128, v.shape).astype(v.dtype) for v in graph.inputs}  # fmt: skip
    found, wanted = outputs(graph, feeds, tmp_path, machine), run(graph, feeds)
    for name, reference in wanted.items():
        assert found[name].dtype == reference.dtype and np.array_equal(found[name], reference), name


@pytest.mark.tvm
@pytest.mark.parametrize("machine", [HERE, HERE.shared("2"), NARROW])
def test_floats_are_those_of_a_product(machine, tmp_path):
    needs_tvm()
    graph, draw = Graph("floats"), np.random.default_rng(6)
    for number, (rows, depth, columns) in enumerate([*SIZES, (130, 64, 80)]):
        x, whole = graph.input(f"x{number}", Type("float32", (rows, depth))), powers(draw, columns, depth)
        scale = draw.uniform(0.01, 1, columns).astype(np.float32)
        bias = graph.constant(draw.standard_normal(columns).astype(np.float32)) if number % 2 else None
        y = graph.add(ShiftLinear(), x, graph.constant(pack(whole)), graph.constant(scale), bias)
        graph.output(graph.add(Gelu(), y), f"shift{number}")
        t = graph.input(f"t{number}", Type("float32", (2, rows, depth)))
        signs = graph.add(Less(), t, graph.constant(np.float32([0.1])))
        v = graph.input(f"v{number}", Type("float32", (depth, columns)))
        graph.output(graph.add(MatAdd(), signs, v), f"add{number}")
        whole = powers(draw, depth, rows).clip(-1, 1).astype(np.int8)
        turned = graph.add(Transpose((1, 0)), graph.constant(whole))
        graph.output(graph.add(MatAdd(), turned, v), f"signs{number}")
    feeds = {v.name: draw.standard_normal(v.shape).astype(np.float32) for v in graph.inputs}
    agree(outputs(graph, feeds, tmp_path, machine), run(graph, feeds))


def block(draw):
    """Attention of ShiftAddViT, its thresholds frozen, between layers of powers of two, as ONNX would have it."""
    graph = Graph("block")
    x = graph.input("x", Type("float32", (1, 20, 16)))

    def shifted(x, n, bias=True):
        w = (powers(draw, n, x.shape[-1]) * draw.uniform(0.01, 0.02, (n, 1)).astype(np.float32)).astype(np.float32)
        b = graph.constant(draw.standard_normal(n).astype(np.float32)) if bias else None
        return graph.add(Linear(), x, graph.constant(w), b)

    q, k, v = (shifted(x, 16) for _ in range(3))
    on = [graph.add(Cast("float32"), graph.add(Less(), graph.constant(np.float32(0.05)), each)) for each in (q, k)]
    inner = graph.add(MatMul(), graph.add(Transpose((0, 2, 1)), on[1]), v)
    y = graph.add(Add(), graph.add(MatMul(), on[0], inner), x)
    y = graph.add(Dequantize(Quant(0.05, 2)), graph.add(Quantize(Quant(0.05, 2)), y))
    y = shifted(graph.add(Gelu(), shifted(y, 32)), 16, bias=False)
    image = graph.add(Transpose((0, 2, 1)), y)
    graph.output(image, "tokens")
    pixels = graph.input("pixels", Type("float32", (1, 6, 5, 5)))
    w = powers(draw, 4, 6).reshape(4, 6, 1, 1).astype(np.float32)
    graph.output(graph.add(Conv(), pixels, graph.constant(w)), "pixels")
    return graph, {"x": draw.standard_normal((1, 20, 16)).astype(np.float32),
                   "pixels": draw.standard_normal((1, 6, 5, 5)).astype(np.float32)}  # fmt: skip


@pytest.mark.tvm
def test_a_block_of_the_paper_has_no_other_products(tmp_path):
    needs_tvm()
    graph, feeds = block(np.random.default_rng(7))
    wanted = run(graph, feeds)
    run_pipeline(graph, FLOAT_TVM, feeds)
    kinds = [call.kernel.label.split("_")[0] for call in lower(graph, HERE)[0].calls]
    assert (kinds.count("shift"), kinds.count("intshift"), kinds.count("add")) == (5, 1, 2)
    assert not {"linear", "matmul", "conv"} & set(kinds)
    agree(outputs(graph, feeds, tmp_path), wanted)


def test_numbers_that_do_not_fit_are_refused():
    graph = Graph("other")
    x = graph.input("x", Type("float32", (3, 4)))
    graph.output(graph.add(Cast("int64"), x, sources=("/long",)))
    graph.output(graph.add(Less(), x, x, sources=("/truth",)), "truth")
    each = graph.add(Quantize(Quant((0.1, 0.2, 0.3, 0.4), 0, 1)), x, sources=("/channels",))
    graph.output(graph.add(Dequantize(Quant((0.1, 0.2, 0.3, 0.4), 0, 1)), each, sources=("/back",)))
    with pytest.raises(Unsupported) as caught:
        lower(graph, HERE)
    assert {"/long", "/truth", "/channels"} <= set(caught.value.where)
