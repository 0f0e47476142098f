"""Matrix products."""

from __future__ import annotations

import dataclasses

import numpy as np

from ...ir.graph import Value
from ...ir.ops.elementwise import Add, Mul
from ...ir.ops.linear import Linear, MatMul
from ...ir.ops.quant import Dequantize
from ...ir.ops.shape import Reshape, Transpose
from ..call import Call, Result, rule


@rule("MatMul")
def matmul(call: Call) -> Result:
    """See `product`."""
    return product(call, call[0], call[1])


def product(call: Call, a: Value, b: Value) -> Value:
    """a @ b: a Linear if b is a stored matrix and a is not; vectors are matrices of one row or column."""
    call.demand(bool(a.shape and b.shape), f"{a.shape} and {b.shape} have no product")
    if len(b.shape) == 2 and a.data is None:
        weight = transposed(call, b) if b.data is not None else _stored_transposed(call, b)
        if weight is not None:
            result: Value = call.add(Linear(), a, weight)
            return result
    left = call.reshape(a, (1, *a.shape)) if len(a.shape) == 1 else a
    right = call.reshape(b, (*b.shape, 1)) if len(b.shape) == 1 else b
    y: Value = call.add(MatMul(), left, right)
    shape = list(y.shape)
    if len(b.shape) == 1:
        del shape[-1]
    if len(a.shape) == 1:
        del shape[len(shape) - (1 if len(b.shape) == 1 else 2)]
    return call.reshape(y, shape)


def _stored_transposed(call: Call, b: Value) -> Value | None:
    """A matrix that is stored in integers, with its axes exchanged; None if it is none."""
    node = b.producer
    if node is None or not isinstance(node.op, Dequantize) or node.input(0).data is None:
        return None
    quant = node.op.quant
    turned = quant if quant.axis is None else dataclasses.replace(quant, axis=1 - quant.axis % 2)
    result: Value = call.add(Dequantize(turned), transposed(call, node.input(0)))
    return result


def transposed(call: Call, b: Value) -> Value:
    """The constant b with its two axes exchanged; nodes that share b share the result."""
    name = f"{b.name}.T"
    try:
        return call.graph.value(name)
    except KeyError:
        return call.graph.constant(np.ascontiguousarray(b.array.T), name)


def _unflattened(a: Value) -> Value:
    """Rows before they were joined to a matrix, as optimisers do for Gemm; a Linear takes them as they were."""
    maker = a.producer
    if maker is None or not isinstance(maker.op, Reshape) or a.shape[0] == 1:
        return a
    source = maker.input(0)
    return source if source.shape[-1:] == a.shape[-1:] else a


@rule("Gemm")
def gemm(call: Call) -> Result:
    """alpha * a b + beta * c, either matrix transposed; with constant b and vector c it is a Linear."""
    a, b, c = call[0], call[1], call.get(2)
    alpha, beta = call.attr("alpha", 1.0), call.attr("beta", 1.0)
    if call.flag("transA", 0):
        a = call.add(Transpose((1, 0)), a)
    stored = _stored_transposed(call, b) if b.data is None else transposed(call, b)
    if stored is None:
        right = call.add(Transpose((1, 0)), b) if call.flag("transB", 0) else b
        y: Value = call.add(MatMul(), a, right)
    else:
        weight = b if call.flag("transB", 0) else stored
        width = weight.shape[0]
        fits = (
            c is not None and c.data is not None and c.data.size in (1, width) and c.shape[-1:] in ((), (1,), (width,))
        )
        if alpha == beta == 1 and (c is None or fits):
            bias = None if c is None else c if c.shape == (width,) else call.vector(2, width)
            return call.reshape(call.add(Linear(), _unflattened(a), weight, bias), (a.shape[0], width))
        y = call.add(Linear(), a, weight)
    y = y if alpha == 1 else call.add(Mul(), y, call.constant(alpha, "alpha"))
    if c is None:
        return y
    scaled = c if beta == 1 else call.add(Mul(), c, call.constant(beta, "beta"))
    total: Value = call.add(Add(), y, scaled)
    return total
