"""Shift and add kernels of the TVM back end beside its ordinary products, on one thread of this computer.

Run `python benchmarks/shift.py` with the extra `tvm` installed. The shapes are those that ShiftAddViT tuned its kernels
for, and a layer of one row, whose weights are all there is to read.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from edgesmith import runtimes, targets
from edgesmith.ir.graph import Graph, Type
from edgesmith.ir.ops.linear import Linear, MatMul
from edgesmith.ir.ops.shift import MatAdd, MatShift, ShiftLinear, pack
from edgesmith.lowering.tvm import child
from edgesmith.lowering.tvm.lower import lower
from edgesmith.lowering.tvm.machine import Machine

LINEARS = ((3136, 64, 512), (3136, 512, 64), (784, 128, 1024), (784, 1024, 128), (197, 192, 768), (1, 1024, 4096))
PRODUCTS = ((1, 3136), (2, 784), (5, 196))
RUNS = 15
OPS = ("Linear", "ShiftLinear", "MatShift", "MatMul", "MatAdd")


def network() -> Graph:
    """All shapes in each form; a layer's name is its shape."""
    graph, draw = Graph("shift"), np.random.default_rng(0)
    for rows, depth, columns in LINEARS:
        shape = f"{rows} x {depth} x {columns}"
        size, sign = (draw.choice(each, (columns, depth)) for each in ([0, 1, 2, 4, 8, 16, 32, 64], [-1, 1]))
        x, codes = graph.input(f"x {shape}", Type("float32", (rows, depth))), graph.constant(pack(size * sign))
        weight = graph.constant(draw.standard_normal((columns, depth)).astype(np.float32))
        graph.output(graph.add(Linear(), x, weight, name=shape))
        graph.output(graph.add(ShiftLinear(), x, codes, graph.constant(np.ones(columns, np.float32)), name=shape))
        graph.output(graph.add(MatShift(), graph.input(f"q {shape}", Type("int8", (rows, depth))), codes, name=shape))
    for heads, tokens in PRODUCTS:
        shape = f"{heads} heads, {tokens} x 32 x 16"
        x = graph.input(f"x {shape}", Type("float32", (heads, 32, 16)))
        for op, kind in ((MatMul(), "float32"), (MatAdd(), "int8")):
            a = graph.input(f"{kind} {shape}", Type(kind, (heads, tokens, 32)))
            graph.output(graph.add(op, a, x, name=shape))
    return graph


def main() -> None:
    """Milliseconds of each, the median of `RUNS`."""
    graph, draw = network(), np.random.default_rng(1)
    feeds = {
        value.name: draw.integers(-1, 2, value.shape).astype(value.dtype)
        if value.dtype == "int8" else draw.standard_normal(value.shape).astype(np.float32)
        for value in graph.inputs
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "model.so"
        child.build(lower(graph, Machine.of(targets.get("tvm-cpu").format))[0], library)
        session = runtimes.load("tvm").open(library)
        layers = session.layers(feeds, RUNS)
    table = Table("shape", *OPS, title=f"Milliseconds, median of {RUNS}")
    times = {(layer.name, layer.kind): f"{layer.ms:.3f}" for layer in layers}
    for name in dict.fromkeys(layer.name for layer in layers):
        table.add_row(name, *(times.get((name, op), "") for op in OPS))
    Console().print(table)


if __name__ == "__main__":
    main()
