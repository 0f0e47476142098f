"""Integer matrix products and rescaling: int8 weights against int8 or int16 activations, 32-bit sums.

All integer ops follow `ir.integer`: their references call it, and generated code equals them bit for bit. Weights,
biases and multipliers are constant operands; `quant` says what the output's integers mean.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .. import integer as arithmetic
from ..graph import Array, Quant, Type
from ..op import Example, Op, require
from .elementwise import broadcast

LEAST, MOST = -32768, 32767  # no clamp beyond that of the output's dtype
NARROW = ("int8", "int16")


def integers(*shape: int, low: int = -128, high: int = 127, dtype: str = "int8") -> Array:
    """Uniform integers in [low, high], the same for the same shape and range on every run."""
    seed = zlib.crc32(repr((shape, low, high)).encode())
    return np.random.default_rng(seed).integers(low, high, shape, endpoint=True).astype(dtype)


def require_dtype(name: str, type: Type, *allowed: str) -> None:
    """Raise `ShapeError` unless an operand has one of the integer dtypes given."""
    require(type.dtype in allowed, f"{name} must be {' or '.join(allowed)}, not {type.dtype}")


def require_channels(channels: int, **vectors: Type) -> None:
    """Raise `ShapeError` unless every vector is int32 [channels]."""
    for name, vector in vectors.items():
        require_dtype(name, vector, "int32")
        require(vector.shape == (channels,), f"{name} must be ({channels},), not {vector.shape}")


@dataclass(frozen=True)
class IntegerOp(Op):
    """Base of the ops that make `dtype` integers which mean `quant`."""

    quant: Quant
    dtype: str = "int8"

    @property
    def bits(self) -> int:
        """Width of the output integers."""
        return np.dtype(self.dtype).itemsize * 8

    @property
    def zero(self) -> int:
        """Zero point of the output."""
        return self.quant.zero_point

    def typed(self, shape: tuple[int, ...]) -> Type:
        """The output type."""
        require(self.dtype in NARROW, f"the output must be int8 or int16, not {self.dtype}")
        return Type(self.dtype, shape, self.quant)


@dataclass(frozen=True)
class QLinear(IntegerOp):
    """requant(bias[n] + sum_k x[..., k] * w[n, k], mult[n]), clamped to [low, high]; x's zero point is inside bias."""

    pre: int = 0
    low: int = LEAST
    high: int = MOST

    def infer(self, x: Type, w: Type, bias: Type, mult: Type) -> Type:
        """x int8|int16 [..., K], w int8 [N, K], bias and mult int32 [N] -> [..., N]."""
        require_dtype("x", x, *NARROW)
        require_dtype("w", w, "int8")
        require(w.rank == 2 and x.shape[-1:] == w.shape[1:], f"x {x.shape} does not fit the weight {w.shape}")
        require_channels(w.shape[0], bias=bias, mult=mult)
        return self.typed((*x.shape[:-1], w.shape[0]))

    def reference(self, x: Array, w: Array, bias: Array, mult: Array) -> Array:
        """See the class."""
        return arithmetic.qlinear(x, w, bias, mult, self.pre, self.zero, self.bits, self.low, self.high)

    def macs(self, x: Type, w: Type, bias: Type, mult: Type) -> int:
        """Rows times weights."""
        return x.size // x.shape[-1] * w.size

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """int8 to int8 with a zero point, int16 to int16, odd sizes, and a fused ReLU."""
        bias, mult = integers(6, low=-4000, high=4000, dtype="int32"), integers(6, low=2**18, high=2**22, dtype="int32")
        weight = integers(6, 10, low=-127)
        yield cls(Quant(0.1, 3), "int8", low=3), (integers(1, 5, 10), weight, bias, mult)
        wide = integers(1, 4, 10, low=-32000, high=32000, dtype="int16")
        yield cls(Quant(0.001), "int16"), (wide, weight, bias, mult * 8)
        offset, scale = np.array([1500], np.int32), np.array([2**29], np.int32)
        yield cls(Quant(0.5), "int16", pre=2), (integers(1, 3, 7), integers(1, 7, low=-127), offset, scale)


@dataclass(frozen=True)
class QMatMul(IntegerOp):
    """requant(sum_k a[..., m, k] * b[..., k, n], mult): a product of two activations without zero points."""

    mult: int = 0
    pre: int = 0

    def infer(self, a: Type, b: Type) -> Type:
        """A int8|int16 [..., M, K], b int8 [..., K, N] -> [..., M, N], leading axes broadcast."""
        require_dtype("a", a, *NARROW)
        require_dtype("b", b, "int8")
        require(a.rank >= 2 and b.rank >= 2, f"expects ranks >= 2, got {a.shape} and {b.shape}")
        require(a.shape[-1] == b.shape[-2], f"inner sizes differ: {a.shape} and {b.shape}")
        return self.typed((*broadcast(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]))

    def reference(self, a: Array, b: Array) -> Array:
        """See the class."""
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        left = np.broadcast_to(a, (*lead, *a.shape[-2:])).reshape(-1, *a.shape[-2:])
        right = np.broadcast_to(b, (*lead, *b.shape[-2:])).reshape(-1, *b.shape[-2:])
        sums = [arithmetic.matmul(x, np.ascontiguousarray(y.T)) for x, y in zip(left, right, strict=True)]
        acc = np.stack(sums).reshape(*lead, a.shape[-2], b.shape[-1])
        return arithmetic.requant(acc, self.mult, self.pre, self.zero, self.bits)

    def macs(self, a: Type, b: Type) -> int:
        """Output elements times inner size."""
        return self.infer(a, b).size * a.shape[-1]

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Batched, and broadcast with a wide left side."""
        yield cls(Quant(0.1), "int8", 2**22), (integers(2, 3, 4), integers(2, 4, 5))
        wide = integers(3, 4, low=-9000, high=9000, dtype="int16")
        yield cls(Quant(0.1, 1), "int16", 2**21), (wide, integers(2, 4, 5))


@dataclass(frozen=True)
class QAffine(IntegerOp):
    """requant((x << lift) + bias[c], mult[c]) along the last axis: a scale and shift per channel."""

    lift: int = 0
    inplace: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, x: Type, mult: Type, bias: Type) -> Type:
        """x int8|int16 [..., C], mult and bias int32 [C] -> the same shape."""
        require_dtype("x", x, *NARROW)
        require_channels(x.shape[-1], mult=mult, bias=bias)
        return self.typed(x.shape)

    def reference(self, x: Array, mult: Array, bias: Array) -> Array:
        """See the class."""
        return arithmetic.qaffine(x, mult, bias, self.lift, self.zero, self.bits)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """int8 and int16, negative multipliers included."""
        mult = integers(5, low=-(2**20), high=2**20, dtype="int32")
        bias = integers(5, low=-9000, high=9000, dtype="int32")
        yield cls(Quant(0.1, -5), "int8", lift=12), (integers(1, 4, 5), mult, bias)
        yield cls(Quant(0.01), "int16", lift=8), (integers(1, 3, 5, low=-32768, high=32767, dtype="int16"), mult, bias)


@dataclass(frozen=True)
class QRequantise(IntegerOp):
    """requant(x - x_zero, mult): the same real numbers at another scale, zero point or width."""

    mult: int = 0
    pre: int = 0
    x_zero: int = 0
    low: int = LEAST
    high: int = MOST
    inplace: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, x: Type) -> Type:
        """x int8|int16 -> the same shape."""
        require_dtype("x", x, *NARROW)
        return self.typed(x.shape)

    def reference(self, x: Array) -> Array:
        """See the class."""
        acc = x.astype(np.int64) - self.x_zero
        return arithmetic.requant(acc, self.mult, self.pre, self.zero, self.bits, self.low, self.high)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Narrowing, widening, and a shifted zero point."""
        yield cls(Quant(0.1), "int8", 2**25), (integers(1, 4, 6, low=-20000, high=20000, dtype="int16"),)
        yield cls(Quant(0.1), "int16", 2**30, pre=6, x_zero=4), (integers(1, 4, 6),)
        yield cls(Quant(0.1, 7), "int8", 2**30, pre=1, x_zero=-3), (integers(2, 3),)
