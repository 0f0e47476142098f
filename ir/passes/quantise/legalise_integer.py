"""Brings a float graph into the form the integer lowering reads, exactly, and names everything it cannot lower."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from ...errors import Unsupported
from ...graph import Array, Graph, Node, Value
from ...op import Op
from ...ops import activation, attention, conv, elementwise, linear, norm, pool, shape
from ..exact.split_linear import SplitLinear

MOVES: tuple[type[Op], ...] = (
    shape.Reshape, shape.Transpose, shape.Slice, shape.Split, shape.Gather, shape.Pad, shape.Resize, pool.MaxPool,
    pool.ReduceMax,
)  # fmt: skip
PRODUCTS: tuple[type[Op], ...] = (linear.Linear, conv.Conv, conv.PatchEmbed)
ARITHMETIC: tuple[type[Op], ...] = (elementwise.Add, elementwise.Sub, elementwise.Mul, elementwise.Div)
LOWERED: tuple[type[Op], ...] = (
    *MOVES, *PRODUCTS, *ARITHMETIC, activation._Unary, activation.Softmax, attention.Attention, elementwise.Affine,
    elementwise.Pow, elementwise.Minimum, elementwise.Maximum, linear.MatMul, norm.LayerNorm, norm.RMSNorm,
    norm.GroupNorm, pool.AveragePool, pool.Mean, pool.Sum, shape.Concat,
)  # fmt: skip

KEEP_FLOAT = "compile with --dtype float32, or replace these operators before the export"
"""The C back end computes all of these in single precision."""


def prepare(graph: Graph) -> Graph:
    """A copy in which every remaining op is one that has an integer form; real numbers stay the same to rounding.

    Frozen norms become `Affine`, products with constants `Linear`, and a Linear whose output is only cut into pieces
    becomes one Linear per piece, so that queries, keys and values each get scales of their own.

    Raises:
        Unsupported: Some operators have no integer form; all of them are named.
    """
    copy = brought(graph)
    refuse(copy)
    return copy


def brought(graph: Graph) -> Graph:
    """The same, whatever it still holds."""
    copy = graph.copy()
    for node in copy.nodes:
        if isinstance(node.op, norm.BatchNorm) and all(value and value.is_constant for value in node.inputs[1:]):
            _freeze(copy, node)
        elif isinstance(node.op, linear.MatMul) and node.input(1).is_constant and len(node.input(1).shape) == 2:
            weight = copy.constant(np.ascontiguousarray(node.input(1).array.T), f"{node.input(1).name}_t")
            made = copy.add(linear.Linear(), node.input(0), weight, name=node.name, sources=node.sources)
            copy.replace(node.output, made)
    copy.prune()
    SplitLinear().apply(copy)
    return copy


def _freeze(graph: Graph, node: Node) -> None:
    """BatchNorm and RepNorm as the affine map they are."""
    assert isinstance(node.op, norm.BatchNorm)
    a, c = node.op.coefficients(*(node.input(i).array for i in range(1, 5)))
    eta = node.optional(5)
    a = a if eta is None else a + eta.array.reshape(-1)
    operands = (graph.constant(v.astype(np.float32), f"{node.name}_{part}") for v, part in ((a, "a"), (c, "c")))
    made = graph.add(elementwise.Affine(node.op.axis), node.input(0), *operands, name=node.name, sources=node.sources)
    graph.replace(node.output, made)


# ---- what cannot be lowered ----


def refuse(graph: Graph) -> None:
    """Raise `Unsupported` naming every node that has no integer form, and why."""
    found = obstacles(graph)
    if found:
        raise Unsupported(
            f"{sum(map(len, found.values()))} operators or inputs have no integer form",
            where=[name for names in found.values() for name in names],
            why="; ".join(f"{kind}: {reason}" for kind, reason in found),
            do=KEEP_FLOAT,
        )


def obstacles(graph: Graph) -> dict[tuple[str, str], list[str]]:
    """Names in the user's model of all that has no integer form, by kind of op ("input" for inputs) and reason."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for value in graph.inputs:
        if value.type.numpy.kind != "f":
            found["input", f"it is {value.dtype}"].append(value.name)
    for node in graph.nodes:
        reason = obstacle(node)
        if reason:
            found[type(node.op).__name__, reason] += node.sources or (node.name,)
    return dict(found)


def obstacle(node: Node) -> str:
    """Why a node has no integer form; empty when it has one."""
    if not isinstance(node.op, LOWERED):
        return "no integer operator computes it"
    if node.op != shape.COPY and all(value is None or value.is_constant for value in node.inputs):
        return "all its operands are constant, fold it first"
    for kind, check in CHECKS.items():
        if isinstance(node.op, kind):
            reason = check(node)
            if reason:
                return reason
    return ""


def _weights(node: Node) -> str:
    late = any(v is not None and not v.is_constant for v in node.inputs[1:])
    return "its weights are computed at run time" if late else _one_image(node)


def _one_image(node: Node) -> str:
    first = node.input(0).shape
    return f"the batch is {first[0]}, export with batch 1" if len(first) == 4 and first[0] != 1 else ""


def _with_scalar(node: Node) -> str:
    return "" if scalar_function(node) else "needs a scalar constant operand"


def _attention(node: Node) -> str:
    bias, keys = node.optional(3), node.input(1).shape[1]
    if bias is not None and not bias.is_constant:
        return "its bias is computed at run time"
    if node.input(0).shape[2] // node.op.attributes()["heads"] > 512:
        return "heads wider than 512 channels"
    return f"{keys} keys; sums of exponentials hold at most 2047" if keys > 2047 else ""


def _softmax(node: Node) -> str:
    axis = node.op.attributes()["axis"]
    length = node.input(0).shape[axis]
    return f"{length} values; sums of exponentials hold at most 2047" if length > 2047 else ""


def _norm(node: Node) -> str:
    width = node.input(0).shape[-1]
    return f"rows of {width}; the fixed-point norm holds at most 16384" if width > 16384 else ""


def _group_norm(node: Node) -> str:
    whole = int(np.prod(node.input(0).shape[1:]))
    if node.op.attributes()["groups"] != 1:
        return "only one group is known"
    return f"a group of {whole}; the fixed-point norm holds at most 16384" if whole > 16384 else _one_image(node)


def _average(node: Node) -> str:
    counted = node.op.attributes()
    both = counted["ceil_mode"] and counted["count_include_pad"]
    return "ceil_mode together with count_include_pad" if both else _one_image(node)


def _greatest(node: Node) -> str:
    rank = node.input(0).type.rank
    axes = sorted(axis % rank for axis in node.op.attributes()["axes"])
    together = axes == list(range(axes[0], axes[-1] + 1)) if axes else False
    return "" if together and axes[-1] < rank - 1 else "the greatest of channels, or along axes that lie apart"


def _gather(node: Node) -> str:
    if not node.input(1).is_constant:
        return "its indices are computed at run time"
    return "it reads a constant table, fold it first" if node.input(0).is_constant else ""


CHECKS: dict[type[Op] | tuple[type[Op], ...], Callable[[Node], str]] = {
    PRODUCTS: _weights,
    (elementwise.Pow, elementwise.Minimum, elementwise.Maximum): _with_scalar,
    attention.Attention: _attention,
    activation.Softmax: _softmax,
    (norm.LayerNorm, norm.RMSNorm): _norm,
    norm.GroupNorm: _group_norm,
    pool.AveragePool: _average,
    (pool.MaxPool, shape.Resize): _one_image,
    pool.ReduceMax: _greatest,
    shape.Gather: _gather,
}


def scalar_function(node: Node) -> tuple[Value, Callable[[Array], Array]] | None:
    """(x, f) when a node computes f(x) element by element: a unary op, or a binary one with a scalar constant."""
    op = node.op
    if isinstance(op, activation._Unary):
        return node.input(0), lambda x: np.asarray(op.reference(x))
    if len(node.inputs) != 2 or not isinstance(op, elementwise._Binary):
        return None
    a, b = node.input(0), node.input(1)
    if b.is_constant and b.array.size == 1:
        right = b.array.astype(np.float64).reshape(())
        return a, lambda x: np.asarray(op.reference(x, right))
    if a.is_constant and a.array.size == 1:
        left = a.array.astype(np.float64).reshape(())
        return b, lambda x: np.asarray(op.reference(left, x))
    return None
