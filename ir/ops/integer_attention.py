"""Integer softmax, and attention with the softmax kept in 15-bit exponentials between its two products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .. import integer_rows as rows
from ..graph import Array, Quant, Type
from ..op import Example, Op, require
from .integer import NARROW, IntegerOp, integers, require_channels, require_dtype


def _of_window(bias: Array | None, index: int) -> Array | None:
    """The table of one window, or the one that all share."""
    return bias[index] if bias is not None and bias.ndim == 4 else bias


@dataclass(frozen=True)
class QAttention(Op):
    """softmax(q k^T + bias) v per head; scores are exponentiated in base 2, `mz` holds one multiplier per head.

    The scales of q and k multiply to one number per head, so 1/sqrt(d) and all channel scales live in `mz` and q.
    """

    quant: Quant
    heads: int
    mz: tuple[int, ...]
    pre: int = 0
    bias_shift: int = 0

    def infer(self, q: Type, k: Type, v: Type, mult: Type, table: Type, bias: Type | None = None) -> Type:
        """The operands' types make int8 [B, N, H*dv].

        q int8|int16 [B, N, H*d], k int8 [B, M, H*d], v int8 [B, M, H*dv], mult int32 [H*dv], table int16 [256],
        bias int16 [H, N, M], or [B, H, N, M] where it differs between windows.
        """
        require_dtype("q", q, *NARROW)
        require_dtype("k", k, "int8")
        require_dtype("v", v, "int8")
        require_dtype("table", table, "int16")
        require(q.rank == k.rank == v.rank == 3, f"expects rank 3, got {q.shape}, {k.shape}, {v.shape}")
        require(q.shape[0] == k.shape[0] == v.shape[0], f"batches differ: {q.shape}, {k.shape}, {v.shape}")
        require(k.shape[1] == v.shape[1], f"tokens of k and v differ: {k.shape}, {v.shape}")
        require(q.shape[2] == k.shape[2], f"q has {q.shape[2]} channels, k has {k.shape[2]}")
        divides = q.shape[2] % self.heads == v.shape[2] % self.heads == 0
        require(divides, f"channels {q.shape[2]} and {v.shape[2]} do not divide into {self.heads} heads")
        require(len(self.mz) == self.heads, f"expects {self.heads} score multipliers, got {len(self.mz)}")
        require(table.shape == (256,), f"the table must have 256 entries, not {table.shape}")
        require_channels(v.shape[2], mult=mult)
        if bias is not None:
            require_dtype("bias", bias, "int16")
            full = (self.heads, q.shape[1], k.shape[1])
            fits = bias.shape in (full, (q.shape[0], *full))
            require(fits, f"bias must be {full}, with or without a batch of {q.shape[0]}, not {bias.shape}")
        return Type("int8", (*q.shape[:2], v.shape[2]), self.quant)

    def reference(self, q: Array, k: Array, v: Array, mult: Array, table: Array, bias: Array | None = None) -> Array:
        """See the class."""
        zero, shift = self.quant.zero_point, self.bias_shift
        return np.stack(
            [
                rows.attention(*qkv, self.heads, self.mz, mult, table, self.pre, zero, 8, _of_window(bias, i), shift)
                for i, qkv in enumerate(zip(q, k, v, strict=True))
            ]
        )

    def macs(self, q: Type, k: Type, v: Type, mult: Type, table: Type, bias: Type | None = None) -> int:
        """Scores and weighted values."""
        return q.shape[0] * q.shape[1] * k.shape[1] * (q.shape[2] + v.shape[2])

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Self attention; one query row with wider values and a bias table; the same with a table per window."""
        q = integers(1, 5, 8, low=-9000, high=9000, dtype="int16")
        mult = np.asarray(rows.output_multiplier(np.full(8, 1.5)))
        k = v = integers(1, 5, 8)
        yield cls(Quant(0.1), 2, (20000, 40000)), (q, k, v, mult, rows.exp_table(5), None)
        mult = np.asarray(rows.output_multiplier(np.full(9, 1.2)))
        bias = integers(3, 1, 7, low=-20000, high=20000, dtype="int16")
        operands = (q[:, :1, :6].copy(), integers(1, 7, 6), integers(1, 7, 9), mult, rows.exp_table(7), bias)
        yield cls(Quant(0.1), 3, (20000, 30000, 40000), bias_shift=4), operands
        windows = integers(2, 3, 1, 7, low=-20000, high=20000, dtype="int16")
        q, k, v = integers(2, 1, 6, low=-9000, high=9000, dtype="int16"), integers(2, 7, 6), integers(2, 7, 9)
        yield cls(Quant(0.1), 3, (20000, 30000, 40000), bias_shift=4), (q, k, v, mult, rows.exp_table(7), windows)


@dataclass(frozen=True)
class QSoftmax(IntegerOp):
    """e = table[max - x], requant(e / sum(e), mult) along the last axis."""

    mult: int = 0
    inplace: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, x: Type, table: Type) -> Type:
        """x int8 [..., N], table int16 [256] -> the same shape."""
        require_dtype("x", x, "int8")
        require_dtype("table", table, "int16")
        require(table.shape == (256,), f"the table must have 256 entries, not {table.shape}")
        return self.typed(x.shape)

    def reference(self, x: Array, table: Array) -> Array:
        """See the class."""
        return rows.softmax(x, table, self.mult, self.zero, self.bits)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """To int8 and to int16, and a row of one."""
        mult = rows.softmax_multiplier(1 / 256)
        yield cls(Quant(1 / 256, -128), "int8", mult), (integers(1, 4, 6), rows.make_softmax_table(0.05, 6))
        mult = rows.softmax_multiplier(2.0**-15)
        yield cls(Quant(2.0**-15), "int16", mult), (integers(3, 11), rows.make_softmax_table(0.02, 11))
        yield cls(Quant(2.0**-15), "int16", mult), (integers(3, 1), rows.make_softmax_table(0.02, 1))
