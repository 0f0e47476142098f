"""Integer sums, products and tables: what happens to one element at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .. import integer as arithmetic
from ..graph import Array, Quant, Type
from ..op import Example, Op, require
from .elementwise import broadcast
from .integer import LEAST, MOST, NARROW, IntegerOp, integers, require_dtype


class _Pair(IntegerOp):
    """An op of two operands, broadcast against each other."""

    inplace: ClassVar[tuple[int, ...]] = (0, 1)

    def infer(self, a: Type, b: Type) -> Type:
        """a, b int8|int16 in any mix, broadcast as in numpy."""
        require_dtype("a", a, *NARROW)
        require_dtype("b", b, *NARROW)
        return self.typed(broadcast(a.shape, b.shape))


@dataclass(frozen=True)
class QAdd(_Pair):
    """(a * ma + b * mb + c) >> shift, clamped to [low, high]; c holds the rounding half and all zero points."""

    ma: int = 1
    mb: int = 1
    c: int = 0
    shift: int = 0
    low: int = LEAST
    high: int = MOST

    def reference(self, a: Array, b: Array) -> Array:
        """See the class."""
        wide = arithmetic.qadd(a, b, self.ma, self.mb, self.c, self.shift, self.bits)
        return arithmetic.saturate(wide, self.bits, self.low, self.high)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Both narrow, wide plus narrow, a broadcast table, and a difference with a fused ReLU."""
        ma, mb, c, shift = arithmetic.add_constants(0.1, 0.05, 0.12, 3, -4, 1)
        yield cls(Quant(0.12, 1), "int8", ma, mb, c, shift), (integers(1, 4, 5), integers(1, 4, 5, low=-100))
        ma, mb, c, shift = arithmetic.add_constants(0.001, 0.02, 0.0015, bits_a=16)
        wide = integers(1, 4, 5, low=-32768, high=32767, dtype="int16")
        yield cls(Quant(0.0015), "int16", ma, mb, c, shift), (wide, integers(1, 1, 5))
        ma, mb, c, shift = arithmetic.add_constants(0.1, -0.1, 0.1, zero_out=-128)
        yield cls(Quant(0.1, -128), "int8", ma, mb, c, shift, -128, 90), (integers(2, 3), integers(2, 3, low=-9))


@dataclass(frozen=True)
class QMul(_Pair):
    """requant((a - a_zero) * (b - b_zero), mult), clamped to [low, high]; b may be a gate that is broadcast."""

    a_zero: int = 0
    b_zero: int = 0
    mult: int = 0
    pre: int = 0
    low: int = LEAST
    high: int = MOST

    def reference(self, a: Array, b: Array) -> Array:
        """See the class."""
        wide = arithmetic.qmul(a, b, self.mult, self.pre, self.a_zero, self.b_zero, self.zero, self.bits)
        return arithmetic.saturate(wide, self.bits, self.low, self.high)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """A gate per channel, and two wide operands."""
        yield cls(Quant(0.1, 5), "int8", 3, -128, 2**24), (integers(1, 3, 4, 5), integers(1, 1, 1, 5))
        wide = integers(1, 4, 5, low=-32767, high=32767, dtype="int16")
        yield cls(Quant(0.1), "int16", mult=2**16), (wide, wide[:, ::-1].copy())


@dataclass(frozen=True)
class QTable8(IntegerOp):
    """table[x + 128]: any function of one int8."""

    inplace: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, x: Type, table: Type) -> Type:
        """x int8, table [256] of the output's dtype."""
        require_dtype("x", x, "int8")
        require_dtype("table", table, self.dtype)
        require(table.shape == (256,), f"the table must have 256 entries, not {table.shape}")
        return self.typed(x.shape)

    def reference(self, x: Array, table: Array) -> Array:
        """See the class."""
        return arithmetic.table8(x, table)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """To int8 and to int16; every input value once."""
        every = np.arange(-128, 128, dtype=np.int8).reshape(1, 16, 16)
        yield cls(Quant(0.1, 4), "int8"), (every, arithmetic.make_table8(np.tanh, 0.05, 3, 0.1, 4))
        yield cls(Quant(1e-4), "int16"), (every, arithmetic.make_table8(np.tanh, 0.05, 0, 1e-4, 0, 16))


@dataclass(frozen=True)
class QTable16(Op):
    """Any function of one int16 by 257 points with straight lines between them; no zero points."""

    quant: Quant
    inplace: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, x: Type, table: Type) -> Type:
        """x int16, table int16 [257] -> int16."""
        require_dtype("x", x, "int16")
        require_dtype("table", table, "int16")
        require(table.shape == (257,), f"the table must have 257 points, not {table.shape}")
        return Type("int16", x.shape, self.quant)

    def reference(self, x: Array, table: Array) -> Array:
        """See the class."""
        return arithmetic.table16(x, table)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Both ends of the range and numbers between."""
        x = integers(1, 99, low=-32768, high=32767, dtype="int16")
        x[0, :2] = -32768, 32767
        yield cls(Quant(1e-4)), (x, arithmetic.make_table16(np.tanh, 1e-4, 1e-4))
