"""How numbers are kept and summed: what the device's half precision does to a program, and what it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .program import Array

__all__ = ["HALF", "MODES", "SINGLE", "Arithmetic", "Mode", "half"]


def half(array: Array) -> Array:
    """Rounded to float16 and handed back as float32; beyond 65504 it is infinite."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return array.astype(np.float16).astype(np.float32)


@dataclass(frozen=True)
class Arithmetic:
    """Sums and products of an operation's inside; arrays are float32, and rounded at each step where `exact` is not.

    The order of summing is the simplest one, from first to last: hardware sums in blocks, which loses less.
    """

    exact: bool

    def round(self, array: Array) -> Array:
        """A result inside of an operation, as precise as the accumulator is."""
        return array if self.exact else half(array)

    def sum(self, array: Array, axes: int | Sequence[int], keepdims: bool = False) -> Array:
        """Sum over some axes."""
        axes = tuple(np.atleast_1d(np.asarray(axes, int)) % max(array.ndim, 1))
        if self.exact:
            return np.asarray(array.sum(axes, keepdims=keepdims))
        rest = [axis for axis in range(array.ndim) if axis not in axes]
        rows = array.transpose([*axes, *rest]).reshape(-1, *(array.shape[axis] for axis in rest))
        total = np.zeros(rows.shape[1:], np.float32)
        for row in rows:
            total = half(total + row)
        sizes = [1 if axis in axes else size for axis, size in enumerate(array.shape)]
        return total.reshape(sizes) if keepdims else total

    def mean(self, array: Array, axes: int | Sequence[int], keepdims: bool = False) -> Array:
        """Mean over some axes: the sum, divided."""
        total = self.sum(array, axes, keepdims)
        return self.round(total / np.float32(array.size / max(total.size, 1)))

    def matmul(self, a: Array, b: Array) -> Array:
        """Matrix product of stacks: [..., M, K] and [..., K, N] to [..., M, N]."""
        if self.exact:
            return np.asarray(a @ b)
        shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        total = np.zeros(shape, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for k in range(a.shape[-1]):
                total = half(total + a[..., :, k : k + 1] * b[..., k : k + 1, :])
        return total


SINGLE, HALF = Arithmetic(True), Arithmetic(False)

Store = Literal["declared", "float16", "float32"]


@dataclass(frozen=True)
class Mode:
    """What results are rounded to.

    Attributes:
        store: "declared": to float16 where the program says fp16; "float16": all of them; "float32": none.
        accumulate: Precision of sums inside operations whose results are rounded: "float32" or "float16".
    """

    store: Store = "declared"
    accumulate: Literal["float16", "float32"] = "float32"

    def rounds(self, dtype: str) -> bool:
        """Whether a result that the program declares as this MIL type is rounded to float16."""
        return (self.store == "float16" and dtype in ("fp16", "fp32")) or (self.store == "declared" and dtype == "fp16")

    def arithmetic(self, rounds: bool) -> Arithmetic:
        """The inside of an operation."""
        return HALF if rounds and self.accumulate == "float16" else SINGLE


MODES: Mapping[str, Mode] = {
    "declared": Mode(),
    "float32": Mode("float32"),
    "float16": Mode("float16"),
    "declared-accumulate16": Mode("declared", "float16"),
    "float16-accumulate16": Mode("float16", "float16"),
}
"""Modes by the name the command line has for them."""
