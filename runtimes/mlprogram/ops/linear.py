"""Matrix products, and attention that is made of them."""

from __future__ import annotations

import math

import numpy as np

from ..arithmetic import Arithmetic
from .activation import softmax
from .rule import Array, Arrays, Rules

__all__ = ["RULES"]


def linear(f: Arithmetic, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x [..., K] times the transpose of weight [N, K], plus bias [N]."""
    rows = f.matmul(x.reshape(-1, x.shape[-1]), weight.T).reshape(*x.shape[:-1], len(weight))
    return rows if bias is None else rows + bias


def matmul(f: Arithmetic, x: Array, y: Array, transpose_x: bool = False, transpose_y: bool = False) -> Array:
    """Matrix product of stacks with broadcasting; vectors are taken as numpy takes them."""
    x = x.swapaxes(-1, -2) if transpose_x and x.ndim > 1 else x
    y = y.swapaxes(-1, -2) if transpose_y and y.ndim > 1 else y
    row, column = x.ndim == 1, y.ndim == 1
    product = f.matmul(x[None] if row else x, y[:, None] if column else y)
    product = product[..., 0] if column else product
    return np.squeeze(product, -1 if column else -2) if row else product


def einsum(f: Arithmetic, values: Arrays, equation: str) -> Array:
    """Two operands, summed over the letters that the result lacks: one stack of matrix products."""
    text = equation.replace(" ", "")
    operands, result = text.split("->")
    left, right = operands.split(",")
    a, b = values
    both = [c for c in left if c in right and c in result]
    summed = [c for c in left if c in right and c not in result]
    rows, columns = ([c for c in side if c not in other] for side, other in ((left, right), (right, left)))
    sizes = {c: max(n, m) for c, n, m in _sizes(left, right, a, b)}
    a, b = _ordered(a, left, [*both, *rows, *summed]), _ordered(b, right, [*both, *summed, *columns])
    stack, m, k, n = ([sizes[c] for c in letters] for letters in (both, rows, summed, columns))
    if lone := [c for c in (*rows, *columns) if c not in result]:
        raise ValueError(f"einsum {equation} sums {lone} over one operand only")
    a = np.broadcast_to(a, (*stack, *m, *k)).reshape(*stack, math.prod(m), math.prod(k))
    b = np.broadcast_to(b, (*stack, *k, *n)).reshape(*stack, math.prod(k), math.prod(n))
    product = f.matmul(a, b).reshape(*stack, *m, *n)
    return product.transpose([[*both, *rows, *columns].index(c) for c in result])


def _sizes(left: str, right: str, a: Array, b: Array) -> list[tuple[str, int, int]]:
    of_a, of_b = dict(zip(left, a.shape, strict=True)), dict(zip(right, b.shape, strict=True))
    return [(c, of_a.get(c, 1), of_b.get(c, 1)) for c in {*left, *right}]


def _ordered(array: Array, letters: str, order: list[str]) -> Array:
    return array.transpose([letters.index(c) for c in order])


def scaled_dot_product_attention(
    f: Arithmetic, query: Array, key: Array, value: Array, attn_mask: Array | None = None
) -> Array:
    """softmax(Q K^T / sqrt(E) + mask) V over the last two axes; a mask of bool says what takes part."""
    scale = np.float32(1 / math.sqrt(query.shape[-1]))
    scores = f.round(f.matmul(query, key.swapaxes(-1, -2)) * scale)
    if attn_mask is not None:
        added = np.where(attn_mask, np.float32(0), np.float32(-np.inf)) if attn_mask.dtype == bool else attn_mask
        scores = f.round(scores + added)
    return f.matmul(f.round(softmax(f, scores)), value)


RULES: Rules = {
    "linear": linear,
    "matmul": matmul,
    "einsum": einsum,
    "scaled_dot_product_attention": scaled_dot_product_attention,
}
