"""Operations on each element: arithmetic with broadcasting, comparisons, functions of one variable."""

from __future__ import annotations

import numpy as np

from ....ir.ops.activation import erf
from .rule import Array, Rules

__all__ = ["RULES"]

DTYPES = {"fp16": "float32", "fp32": "float32", "bool": "bool", "string": "str"}
"""Halves are kept as float32; the evaluator rounds what is declared as half."""


def cast(x: Array, dtype: str) -> Array:
    """Another element type; fractions are cut off."""
    return x.astype(DTYPES.get(dtype, dtype))


def clip(x: Array, alpha: float, beta: float) -> Array:
    """Between two bounds."""
    return np.clip(x, np.float32(alpha), np.float32(beta))


def inverse(x: Array, epsilon: float = 1e-4) -> Array:
    """Reciprocal; the epsilon is part of the operation."""
    return 1 / (x + np.float32(epsilon))


def log(x: Array, epsilon: float = 1e-45) -> Array:
    """Natural logarithm."""
    return np.log(x + np.float32(epsilon))


def rsqrt(x: Array, epsilon: float = 1e-12) -> Array:
    """One over the square root."""
    return 1 / np.sqrt(x + np.float32(epsilon))


def threshold(x: Array, alpha: float) -> Array:
    """At least alpha."""
    return np.maximum(x, np.float32(alpha))


def select(cond: Array, a: Array, b: Array) -> Array:
    """The first where the condition holds."""
    return np.where(cond, a, b)


RULES: Rules = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "real_div": lambda x, y: x / y,
    "floor_div": lambda x, y: np.floor_divide(x, y),
    "mod": lambda x, y: np.mod(x, y),
    "pow": lambda x, y: np.power(x, y),
    "maximum": lambda x, y: np.maximum(x, y),
    "minimum": lambda x, y: np.minimum(x, y),
    "equal": lambda x, y: x == y,
    "not_equal": lambda x, y: x != y,
    "greater": lambda x, y: x > y,
    "greater_equal": lambda x, y: x >= y,
    "less": lambda x, y: x < y,
    "less_equal": lambda x, y: x <= y,
    "logical_and": lambda x, y: np.logical_and(x, y),
    "logical_or": lambda x, y: np.logical_or(x, y),
    "logical_xor": lambda x, y: np.logical_xor(x, y),
    "logical_not": lambda x: np.logical_not(x),
    "identity": lambda x: x,
    "abs": lambda x: np.abs(x),
    "acos": lambda x: np.arccos(x),
    "asin": lambda x: np.arcsin(x),
    "atan": lambda x: np.arctan(x),
    "atanh": lambda x: np.arctanh(x),
    "ceil": lambda x: np.ceil(x),
    "cos": lambda x: np.cos(x),
    "cosh": lambda x: np.cosh(x),
    "erf": lambda x: erf(x),
    "exp": lambda x: np.exp(x),
    "exp2": lambda x: np.exp2(x),
    "floor": lambda x: np.floor(x),
    "round": lambda x: np.round(x),
    "sign": lambda x: np.sign(x),
    "sin": lambda x: np.sin(x),
    "sinh": lambda x: np.sinh(x),
    "sqrt": lambda x: np.sqrt(x),
    "square": lambda x: x * x,
    "tan": lambda x: np.tan(x),
    "tanh": lambda x: np.tanh(x),
    "cast": cast,
    "clip": clip,
    "inverse": inverse,
    "log": log,
    "rsqrt": rsqrt,
    "threshold": threshold,
    "select": select,
}
