"""Matrix products."""

from __future__ import annotations

import numpy as np

from ...ir.graph import Value
from ...ir.ops.elementwise import Add, Mul
from ...ir.ops.linear import Linear, MatMul
from ...ir.ops.shape import Transpose
from ..call import Call, Result, rule


@rule("MatMul")
def matmul(call: Call) -> Result:
    """With a constant matrix on the right it is a Linear; vectors are matrices of one row or column."""
    a, b = call[0], call[1]
    if b.data is not None and len(b.shape) == 2 and a.data is None:
        result: Value = call.add(Linear(), a, transposed(call, b))
        return result
    left = call.reshape(a, (1, *a.shape)) if len(a.shape) == 1 else a
    right = call.reshape(b, (*b.shape, 1)) if len(b.shape) == 1 else b
    product: Value = call.add(MatMul(), left, right)
    shape = list(product.shape)
    if len(b.shape) == 1:
        del shape[-1]
    if len(a.shape) == 1:
        del shape[len(shape) - (1 if len(b.shape) == 1 else 2)]
    return call.reshape(product, shape)


def transposed(call: Call, b: Value) -> Value:
    """The constant b with its two axes exchanged; nodes that share b share the result."""
    name = f"{b.name}.T"
    try:
        return call.graph.value(name)
    except KeyError:
        return call.graph.constant(np.ascontiguousarray(b.array.T), name)


@rule("Gemm")
def gemm(call: Call) -> Result:
    """alpha * a b + beta * c, either matrix transposed; with constant b and vector c it is a Linear."""
    a, b, c = call[0], call[1], call.get(2)
    alpha, beta = call.attr("alpha", 1.0), call.attr("beta", 1.0)
    if call.attr("transA", 0):
        a = call.add(Transpose((1, 0)), a)
    if b.data is None:
        right = call.add(Transpose((1, 0)), b) if call.attr("transB", 0) else b
        y: Value = call.add(MatMul(), a, right)
    else:
        weight = b if call.attr("transB", 0) else transposed(call, b)
        width = weight.shape[0]
        fits = (
            c is not None and c.data is not None and c.data.size in (1, width) and c.shape[-1:] in ((), (1,), (width,))
        )
        if alpha == beta == 1 and (c is None or fits):
            bias = None if c is None else c if c.shape == (width,) else call.vector(2, width)
            result: Value = call.add(Linear(), a, weight, bias)
            return result
        y = call.add(Linear(), a, weight)
    y = y if alpha == 1 else call.add(Mul(), y, call.constant(alpha, "alpha"))
    if c is None:
        return y
    scaled = c if beta == 1 else call.add(Mul(), c, call.constant(beta, "beta"))
    total: Value = call.add(Add(), y, scaled)
    return total
