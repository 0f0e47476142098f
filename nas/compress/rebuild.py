"""A float graph made again with other weights, other sizes or another batch; names stay, so both can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ...ir.errors import ModelError
from ...ir.graph import Array, Graph, Value
from ...ir.op import Op
from ...ir.ops.attention import Attention
from ...ir.ops.shape import Concat, Expand, Reshape

__all__ = ["batched", "rebuilt"]


def rebuilt(
    graph: Graph, weights: Mapping[str, Array] | None = None, ops: Mapping[str, Op] | None = None, batch: int = 1
) -> Graph:
    """The same nodes in the same order, with types that follow from what has changed.

    Args:
        graph: Float ops; left as it is.
        weights: Arrays in place of constants, by their names.
        ops: Ops in place of others, by the names of their first outputs.
        batch: How many samples the inputs hold along their first axis.

    Raises:
        ShapeError: What was given does not fit together.
    """
    weights, ops = weights or {}, ops or {}
    made = Graph(graph.name)
    made.metadata = dict(graph.metadata)
    twins: dict[int, Value] = {}
    for value in graph.inputs:
        twins[id(value)] = made.input(value.name, value.type.with_(shape=(batch, *value.shape[1:])))
    for value in graph.constants:
        twins[id(value)] = made.constant(weights.get(value.name, value.array), value.name, value.type.quant)
    for node in graph.nodes:
        op = ops.get(node.outputs[0].name, node.op)
        operands = [value and twins[id(value)] for value in node.inputs]
        if batch > 1 and isinstance(op, Reshape | Expand) and op.shape[:1] == (1,):
            op = replace(op, shape=(batch, *op.shape[1:]))
        if batch > 1 and isinstance(op, Attention | Concat):
            operands = [value and _repeated(made, value, batch) for value in operands]
        found = made.add(op, *operands, name=node.name, sources=node.sources)
        for old, value in zip(node.outputs, found if isinstance(found, tuple) else (found,), strict=True):
            if value.name != old.name:
                made.rename(value, old.name)
            twins[id(old)] = value
    made.outputs = [twins[id(value)] for value in graph.outputs]
    return made


def _repeated(graph: Graph, value: Value, batch: int) -> Value:
    """A constant that is the same for all samples (a class token, a learned query), once for each of them."""
    if value.data is None or value.shape[:1] != (1,):
        return value
    return graph.constant(np.repeat(value.data, batch, axis=0), f"{value.name}.repeated")


def batched(graph: Graph, batch: int) -> Graph:
    """The graph for `batch` samples at once; every op must treat its first axis as that of samples.

    Raises:
        ModelError: The graph cannot take several samples at once.
    """
    try:
        return rebuilt(graph, batch=batch)
    except ModelError as error:
        what = "the model cannot take several samples at once, which compression needs for its statistics"
        do = "export it with batch 1 and without shapes that mix the batch with other axes"
        raise ModelError(what, where=error.where, why=error.what, do=do) from error
