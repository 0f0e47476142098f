"""Bytes between Quantize and Dequantize get a sign: the same numbers to the bit, and back ends need one form only."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..ir.graph import Graph, Quant, Value
from ..ir.ops.quant import Dequantize, Quantize
from ..ir.ops.shape import Expand, Reshape, Slice, Split, Transpose

MOVES = (Expand, Reshape, Slice, Split, Transpose)
HALF = 128
"""What lies between a byte without sign and the same with one."""


def sign(graph: Graph) -> None:
    """Turn uint8 into int8 where all that reads the bytes, after moves at most, asks what they stand for."""
    for value in graph.constants:
        if value.dtype == "uint8" and _only_meant(graph, value):
            array = (value.array.astype(np.int16) - HALF).astype(np.int8)
            _rewrite(graph, value, graph.constant(array, f"{value.name}.signed"))
    for node in graph.nodes:
        if isinstance(node.op, Quantize) and node.op.dtype == "uint8" and _only_meant(graph, node.output):
            op = Quantize(_shifted(node.op.quant), "int8")
            made = graph.add(op, node.input(0), name=node.name, sources=node.sources)
            _rewrite(graph, node.output, made)
    graph.prune()


def _shifted(quant: Quant) -> Quant:
    return dataclasses.replace(quant, zero_point=quant.zero_point - HALF)


def _only_meant(graph: Graph, value: Value) -> bool:
    """Whether nobody reads the integers themselves."""
    outputs, pending = set(map(id, graph.outputs)), [value]
    while pending:
        each = pending.pop()
        moves = [reader for reader in each.readers if not isinstance(reader.op, Dequantize)]
        if id(each) in outputs or not all(isinstance(reader.op, MOVES) for reader in moves):
            return False
        pending += [made for reader in moves for made in reader.outputs]
    return True


def _rewrite(graph: Graph, old: Value, new: Value) -> None:
    """Let the readers of `old`, moves and meanings, be made of `new`."""
    pending = [(old, new)]
    while pending:
        before, after = pending.pop()
        for reader in before.readers:
            if isinstance(reader.op, Dequantize):
                op = Dequantize(_shifted(reader.op.quant))
                meant = graph.add(op, after, name=reader.name, sources=reader.sources)
                graph.replace(reader.output, meant)
            else:
                made = graph.add(reader.op, after, name=reader.name, sources=reader.sources)
                pending += zip(reader.outputs, made if isinstance(made, tuple) else (made,), strict=True)
