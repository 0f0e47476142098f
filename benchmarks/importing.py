"""What import, recognition and exact passes cost: processor time per node by depth, and memory beside the file's size.

    python benchmarks/importing.py [models.onnx ...] [--depths 12 24 48 96] [--json FILE]

Vision transformers of each depth are written to a folder of their own and read in a process each, so that peaks of
memory do not mix; so is every file named. Memory is what the peak grew by while the file became a simplified graph,
after all packages had been loaded; it is left out where a small file does not move it. Cost that is linear in nodes
shows as equal microseconds per node.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

DEPTHS = (12, 24, 48, 96)
WIDTH, HEADS, PATCHES = 64, 4, 16
STAGES = ("import", "recognise", "simplify")


class Writer:
    """Adds nodes and drawn weights of a model."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.draw = np.random.default_rng(0)

    def constant(self, array: Any) -> str:
        """A stored array."""
        self.weights.append(numpy_helper.from_array(np.asarray(array), f"w{len(self.weights)}"))
        return self.weights[-1].name

    def weight(self, *shape: int) -> str:
        """Drawn numbers."""
        return self.constant(self.draw.normal(0, 0.1, shape).astype(np.float32))

    def number(self, value: float) -> str:
        """A scalar."""
        return self.constant(np.float32(value))

    def op(self, kind: str, *operands: str, **attributes: Any) -> str:
        """The first result of a node."""
        return self.several(kind, 1, *operands, **attributes)[0]

    def several(self, kind: str, count: int, *operands: str, **attributes: Any) -> list[str]:
        """All results of a node."""
        names = [f"v{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(kind, list(operands), names, f"/{kind}_{len(self.nodes)}", **attributes))
        return names

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        """A product and a bias, as PyTorch exports them."""
        return self.op("Add", self.op("MatMul", x, self.weight(inputs, outputs)), self.weight(outputs))

    def block(self, x: str) -> str:
        """A pre-norm layer of attention and of GELU written out, each with its layer scale."""
        tokens, depth = PATCHES + 1, WIDTH // HEADS
        packed = self.linear(self.norm(x), WIDTH, 3 * WIDTH)
        packed = self.op("Reshape", packed, self.constant(np.array([1, tokens, 3, HEADS, depth])))
        packed = self.op("Transpose", packed, perm=[2, 0, 3, 1, 4])
        parts = self.several("Split", 3, packed, self.constant(np.ones(3, np.int64)), axis=0)
        q, k, v = (self.op("Squeeze", part, self.constant(np.array([0]))) for part in parts)
        scores = self.op(
            "MatMul", self.op("Mul", q, self.number(depth**-0.5)), self.op("Transpose", k, perm=[0, 1, 3, 2])
        )
        y = self.op("Transpose", self.op("MatMul", self.op("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
        y = self.linear(self.op("Reshape", y, self.constant(np.array([1, tokens, WIDTH]))), WIDTH, WIDTH)
        x = self.op("Add", x, self.op("Mul", y, self.weight(WIDTH)))
        h = self.linear(self.norm(x), WIDTH, 4 * WIDTH)
        curve = self.op("Add", self.op("Erf", self.op("Div", h, self.number(2**0.5))), self.number(1))
        h = self.op("Mul", self.op("Mul", h, curve), self.number(0.5))
        return self.op("Add", x, self.op("Mul", self.linear(h, 4 * WIDTH, WIDTH), self.weight(WIDTH)))

    def norm(self, x: str) -> str:
        """LayerNorm."""
        return self.op("LayerNormalization", x, self.weight(WIDTH), self.weight(WIDTH))


def vit(depth: int) -> onnx.ModelProto:
    """A vision transformer of narrow tokens: what it costs is its nodes, not its numbers."""
    w = Writer()
    x = w.op("Conv", "x", w.weight(WIDTH, 3, 8, 8), w.weight(WIDTH), strides=[8, 8])
    x = w.op("Transpose", w.op("Reshape", x, w.constant(np.array([1, WIDTH, PATCHES]))), perm=[0, 2, 1])
    x = w.op("Add", w.op("Concat", w.weight(1, 1, WIDTH), x, axis=1), w.weight(1, PATCHES + 1, WIDTH))
    for _ in range(depth):
        x = w.block(x)
    x = w.op("Gather", w.norm(x), w.constant(np.array(0)), axis=1)
    y = w.op("Gemm", x, w.weight(10, WIDTH), w.weight(10), transB=1)
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 3, 32, 32]), (y, None))
    ]
    graph = helper.make_graph(w.nodes, f"vit{depth}", ports[:1], ports[1:], w.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measured(path: str) -> dict[str, float]:
    """Seconds of each stage, nodes at its end, and memory; to be called in a process of its own."""
    from edgesmith import frontend
    from edgesmith.ir.passes.pipelines import run_pipeline

    with tempfile.TemporaryDirectory() as folder:  # the first file pays for loading packages and rules
        onnx.save(vit(1), Path(folder) / "first.onnx")
        run_pipeline(frontend.load(Path(folder) / "first.onnx"))
    before, result = peak(), {"bytes": float(Path(path).stat().st_size)}
    begin = time.process_time()
    graph = frontend.imported(path)
    for stage, work in zip(STAGES, (None, frontend.recognised, run_pipeline), strict=True):
        if work is not None:
            work(graph)
        result |= {f"{stage} s": time.process_time() - begin, f"{stage} nodes": float(len(graph.nodes))}
        begin = time.process_time()
    return {**result, "memory": float(peak() - before)}


def alone(path: str | Path) -> dict[str, float]:
    """`measured` in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, (str(path),))


def table(results: dict[str, dict[str, float]]) -> Table:
    """One line a model."""
    found = Table(title="Import and exact passes: processor time and memory")
    for head in ("model", "nodes", *(f"{stage}, s" for stage in STAGES), "us a node", "file, MB", "memory / file"):
        found.add_column(head, justify="left" if head == "model" else "right")
    for name, result in results.items():
        nodes = [f"{result[f'{stage} nodes']:.0f}" for stage in STAGES]
        seconds = [result[f"{stage} s"] for stage in STAGES]
        found.add_row(name, " > ".join(nodes), *(f"{each:.2f}" for each in seconds),
                      f"{sum(seconds) / result['import nodes'] * 1e6:.0f}", f"{result['bytes'] / 1e6:.1f}",
                      f"{result['memory'] / result['bytes']:.1f}" if result["memory"] else "")  # fmt: skip
    return found


def main() -> None:
    """Measure, print, and write the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--depths", nargs="*", type=int, default=DEPTHS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for depth in options.depths:
            onnx.save(vit(depth), Path(folder) / f"vit{depth}.onnx")
            results[f"{depth} blocks"] = alone(Path(folder) / f"vit{depth}.onnx")
    results |= {path.stem: alone(path) for path in options.models}
    Console(width=130).print(table(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
