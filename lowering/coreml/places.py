"""How truth values, whole numbers and places are written in MIL: what masks and tokens are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ir.op import Op
from ...ir.ops import activation, elementwise, linear, logic, number, pool, search, shape
from .site import DTYPES, FormError, Site, Var

__all__ = ["TAKES_INTEGERS", "arg_max", "compared", "gather", "scatter", "spread", "top_k", "typed", "where"]

TAKES_INTEGERS: frozenset[type[Op]] = frozenset(
    (
        activation.Abs, elementwise.Add, elementwise.Maximum, elementwise.Minimum, elementwise.Mul, elementwise.Sub,
        linear.MatMul, logic.Cast, logic.Equal, logic.Less, logic.Where, number.Mod, number.Prod, number.ReduceMin,
        pool.ReduceMax, pool.Sum, search.ArgMax, search.Scatter, search.TopK, shape.Concat, shape.Expand, shape.Gather,
        shape.Reshape, shape.Slice, shape.Split, shape.Transpose,
    )
)  # fmt: skip
"""Ops whose operands may be integers or truth values; MIL has the others of real numbers only, or divides otherwise."""

KINDS = {"int32": "int32", "int64": "int32", "bool": "bool"}
"""MIL's element types that are not real, by ours."""

MODES = {"none": "update", "add": "add", "mul": "mul", "max": "max", "min": "min"}


def truth(site: Site, index: int) -> bool:
    """Whether an operand holds truth values."""
    return site.node.input(index).dtype == "bool"


def compared(kind: str) -> Any:
    """A comparison; truth values are compared as 0 and 1."""

    def spell(site: Site, op: Op) -> Var:
        x, y = (site.add("cast", x=site[i], dtype="int32") if truth(site, i) else site[i] for i in (0, 1))
        return site.add(kind, x=x, y=y)

    return spell


def where(site: Site, op: logic.Where) -> Var:
    """select, which broadcasts nothing."""
    dims = site.node.output.shape
    known = [site.data(index) for index in range(3)]
    condition, a, b = (
        spread(site, site[index], dims) if data is None else site.constant(np.broadcast_to(data, dims), "chosen")
        for index, data in enumerate(known)
    )
    return site.add("select", cond=condition, a=a, b=b)


def spread(site: Site, x: Var, dims: Sequence[int]) -> Var:
    """x broadcast to a shape: tile, after axes of size 1 in front."""
    x = site.reshape(x, (*[1] * (len(dims) - len(x.shape)), *x.shape))
    reps = tuple(wanted // given for wanted, given in zip(dims, x.shape, strict=True))
    return site.add("tile", x=x, reps=reps) if max(reps, default=1) > 1 else x


def typed(site: Site, op: logic.Cast) -> Var:
    """cast; whole numbers have 32 bits."""
    if op.dtype not in ("float32", *KINDS):
        raise FormError(f"there are no numbers of type {op.dtype}")
    return site.add("cast", x=site.x, dtype=KINDS.get(op.dtype, DTYPES.get(site.dtype)))


def gather(site: Site, op: shape.Gather) -> Var:
    """A slice where there is one index, else gather."""
    if truth(site, 0):
        raise FormError("it picks truth values")
    axis, indices = op.axis % site.rank, site.data(1)
    if indices is not None and indices.ndim == 0:
        at = int(indices) % site.shape[axis]
        begin = [at if i == axis else 0 for i in range(site.rank)]
        end = [at + 1 if i == axis else n for i, n in enumerate(site.shape)]
        mask = [i == axis for i in range(site.rank)]
        if site.rank == 1:
            raise FormError("it picks a single number")
        return site.add("slice_by_index", x=site.x, begin=begin, end=end, squeeze_mask=mask)
    more = {"validate_indices": False} if site.release >= 17 else {}
    return site.add("gather", x=site.x, indices=from_the_front(site, 1, site.shape[axis]), axis=axis, **more)


def from_the_front(site: Site, index: int, size: int) -> Any:
    """Indices, those that count from the end of `size` elements turned into ones that do not."""
    known = site.data(index)
    if known is not None:
        return np.where(known < 0, known + size, known).astype(np.int32)
    at = site[index]
    from_end = site.add("add", x=at, y=np.int32(size))
    return site.add("select", cond=site.add("less", x=at, y=np.int32(0)), a=from_end, b=at)


def arg_max(site: Site, op: search.ArgMax) -> Var:
    """reduce_argmax."""
    return site.add("reduce_argmax", x=site.x, axis=op.axis % site.rank, keep_dims=True)


def top_k(site: Site, op: search.TopK) -> tuple[Var, ...]:
    """topk."""
    if op.count == 0:
        raise FormError("none of the greatest")
    return site.several("topk", x=site.x, k=op.count, axis=op.axis % site.rank)


def scatter(site: Site, op: search.Scatter) -> Var:
    """scatter along the first axis."""
    if truth(site, 0):
        raise FormError("it puts truth values")
    more = {"validate_indices": False} if site.release >= 17 else {}
    indices = from_the_front(site, 1, site.shape[0])
    return site.add("scatter", data=site.x, indices=indices, updates=site[2], axis=0, mode=MODES[op.reduction], **more)
