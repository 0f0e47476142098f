"""Integer graphs for tests of what comes after quantisation: transformers of any size, and random tangles."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgesmith.ir.graph import Graph, Quant, Type, Value
from edgesmith.ir.integer_rows import exp_table, norm_fraction_bits
from edgesmith.ir.ops.integer import QLinear
from edgesmith.ir.ops.integer_attention import QAttention
from edgesmith.ir.ops.integer_conv import QPatchEmbed
from edgesmith.ir.ops.integer_elementwise import QAdd, QTable8
from edgesmith.ir.ops.integer_norm import QLayerNorm
from edgesmith.ir.ops.shape import Concat, Reshape, Slice, Split

STEP = Quant(0.05)


@dataclass
class Builder:
    """Integer graphs with weights of zeros: the planner looks at shapes and types only."""

    graph: Graph

    def zeros(self, dtype: str, *shape: int) -> Any:
        return self.graph.constant(np.zeros(shape, dtype))

    def linear(self, x: Value, width: int, dtype: str = "int8") -> Any:
        operands = self.zeros("int8", width, x.shape[-1]), self.zeros("int32", width), self.zeros("int32", width)
        return self.graph.add(QLinear(STEP, dtype), x, *operands, name="linear")

    def norm(self, x: Value) -> Any:
        fraction = norm_fraction_bits(x.shape[-1])
        return self.graph.add(QLayerNorm(Quant(2.0**-fraction), fraction), x, None, None, name="norm")

    def add(self, a: Value, b: Value, dtype: str) -> Any:
        return self.graph.add(QAdd(STEP, dtype), a, b, name="add")

    def attention(self, x: Value, heads: int, depth: int = 64, queries: Value | None = None) -> Any:
        stream = x if queries is None else queries
        normed = self.norm(x)
        source = normed if queries is None else self.norm(queries)
        q = self.linear(source, heads * depth, "int16")
        k, v = self.linear(normed, heads * depth), self.linear(normed, heads * depth)
        op = QAttention(Quant(0.1), heads, (1,) * heads)
        table = self.graph.constant(exp_table(x.shape[1]))
        mixed = self.graph.add(op, q, k, v, self.zeros("int32", heads * depth), table, name="attention")
        return self.add(stream, self.linear(mixed, stream.shape[-1]), stream.dtype)

    def ffn(self, x: Value, ratio: int = 4) -> Any:
        hidden = self.linear(self.norm(x), ratio * x.shape[-1])
        hidden = self.graph.add(QTable8(STEP), hidden, self.zeros("int8", 256), name="gelu")
        return self.add(x, self.linear(hidden, x.shape[-1]), x.dtype)


def vit(
    size: int, patch: int, width: int, heads: int, depth: int, stream: str = "int8", narrow: bool = True, ratio: int = 4
) -> Graph:
    """A vision transformer with a class token; `narrow` computes only that token in the last block."""
    b = Builder(Graph("vit"))
    image = b.graph.input("image", Type("int8", (1, size, size, 3), STEP))
    weight, bias, mult = b.zeros("int8", width, patch, patch, 3), b.zeros("int32", width), b.zeros("int32", width)
    x = b.graph.add(QPatchEmbed(STEP, stream, (patch, patch)), image, weight, bias, mult, name="patches")
    token = b.graph.constant(np.zeros((1, 1, width), stream), quant=STEP)
    x = b.graph.add(Concat(1), token, x, name="tokens")
    x = b.add(x, b.zeros("int16", 1, x.shape[1], width), stream)
    for block in range(depth):
        last = narrow and block == depth - 1
        query = b.graph.add(Slice((0,), (1,), (1,), (1,)), x, name="class") if last else None
        x = b.ffn(b.attention(x, heads, width // heads, query), ratio)
    if not narrow:
        x = b.graph.add(Slice((0,), (1,), (1,), (1,)), x, name="class")
    b.graph.output(b.linear(b.norm(x), 1000), "logits")
    return b.graph


def table(b: Builder, x: Value) -> Value:
    return b.graph.add(QTable8(STEP), x, b.zeros("int8", 256), name="table")  # type: ignore[no-any-return]


def tokens(graph: Graph, rows: int, width: int, dtype: str = "int8") -> Value:
    return graph.input("x", Type(dtype, (1, rows, width), STEP))


def tangle(seed: int, size: int) -> Graph:
    """A random graph of element-wise, row-wise and moving ops: many readers, inner outputs, pieces nobody reads."""
    pick = random.Random(seed)
    b = Builder(Graph("tangle"))
    values: list[Any] = [tokens(b.graph, 4, 8)]
    for _ in range(size):
        x = pick.choice(values[-4:])
        kind = pick.choice(["table", "add", "linear", "view", "split", "join", "norm"])
        alike = [v for v in values if v.shape == x.shape and v.dtype == x.dtype]
        if kind == "add":
            values.append(b.add(x, pick.choice(alike), "int8"))
        elif kind == "linear" or (kind in ("table", "join") and x.dtype != "int8"):
            values.append(b.linear(x, pick.choice([4, 8, 13, 24])))
        elif kind == "view":
            values.append(b.graph.add(Reshape((1, x.type.size // x.shape[-1], x.shape[-1])), x))
        elif kind == "split" and x.shape[-1] > 1:
            values += b.graph.add(Split(2, (1, x.shape[-1] - 1)), x)
        elif kind == "join":
            values.append(b.graph.add(Concat(1), x, x))
        elif kind == "norm":
            values.append(b.norm(x))
        else:
            values.append(table(b, x) if x.dtype == "int8" else b.linear(x, 8))
    loose = [v for v in values if not v.readers and (v.producer is None or len(v.producer.outputs) == 1)]
    for value in loose + pick.sample(values, pick.randint(0 if loose else 1, 1)):
        if not any(value is output for output in b.graph.outputs):
            b.graph.output(value)
    b.graph.prune()
    return b.graph
