"""How one meaning is spelt: scaling by a constant in every form, and constants that are vectors along an axis."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...graph import Array
from ...ops.elementwise import Div, Mul
from ...rewrite import Const, Miss, P, Pattern


def scaled(x: Pattern, factor: float) -> Iterator[P]:
    """factor * x, as a product or a quotient."""
    yield P(Mul, x, Const(factor))
    yield P(Div, x, Const(1 / factor))


def scaled_product(a: Pattern, b: Pattern, factor: float) -> Iterator[P]:
    """factor * a * b, multiplied in any order."""
    yield from scaled(P(Mul, a, b), factor)
    yield from (P(Mul, half, b) for half in scaled(a, factor))
    yield from (P(Mul, a, half) for half in scaled(b, factor))


def vector_along(array: Array, axis: int, shape: tuple[int, ...], what: str) -> Array:
    """A constant that broadcasts to `shape` as the vector along `axis` that it is.

    Raises:
        Miss: It varies along another axis, or makes the result larger.
    """
    full = (1,) * (len(shape) - array.ndim) + array.shape
    axis %= len(shape)
    fits = len(full) == len(shape) and all(n == 1 for i, n in enumerate(full) if i != axis)
    if not fits or full[axis] not in (1, shape[axis]):
        raise Miss(f"the {what} of shape {array.shape} is no vector along axis {axis} of {shape}")
    return np.ascontiguousarray(np.broadcast_to(array.reshape(-1), shape[axis]))
