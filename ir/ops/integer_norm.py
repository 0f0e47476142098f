"""Integer normalisation of token rows: exact sums, a fixed-point reciprocal root, and no calibrated scale at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .. import integer as arithmetic
from .. import integer_rows as rows
from ..graph import Array, Quant, Type
from ..op import Example, Op, require
from .integer import NARROW, integers, require_channels, require_dtype


@dataclass(frozen=True)
class _QNorm(Op):
    """A row over its root mean square, as int16 with `bits` fraction bits; then, if given, mult and bias per channel.

    The standardised number cannot exceed sqrt(E), so `bits` follows from E alone. `lift` is that of `QAffine`.
    """

    quant: Quant
    bits: int
    eps_q: int = 1
    lift: int = 0

    def infer(self, x: Type, mult: Type | None = None, bias: Type | None = None) -> Type:
        """x int8|int16 [..., E], mult and bias int32 [E], both or neither -> int16 of the same shape."""
        require_dtype("x", x, *NARROW)
        most = rows.norm_fraction_bits(x.shape[-1])
        require(self.bits == most, f"rows of {x.shape[-1]} have {most} fraction bits, not {self.bits}")
        require((mult is None) == (bias is None), "expects mult and bias, or neither")
        if mult is not None and bias is not None:
            require_channels(x.shape[-1], mult=mult, bias=bias)
        return Type("int16", x.shape, self.quant)

    def scaled(self, normed: Array, mult: Array | None, bias: Array | None) -> Array:
        """The normalised rows after the optional scale and shift per channel."""
        if mult is None or bias is None:
            return normed
        return arithmetic.qaffine(normed, mult, bias, self.lift, self.quant.zero_point, 16)


@dataclass(frozen=True)
class QLayerNorm(_QNorm):
    """(x - mean) / sqrt(var + eps) of each row; the zero point of x cancels."""

    def reference(self, x: Array, mult: Array | None = None, bias: Array | None = None) -> Array:
        """See the class."""
        return self.scaled(rows.layernorm(x, self.eps_q), mult, bias)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """int8 and int16 rows, a constant row, and a scale per channel."""
        bits = rows.norm_fraction_bits(10)
        narrow = integers(1, 4, 10)
        narrow[0, 1] = 7
        yield cls(Quant(2.0**-bits), bits, 3), (narrow, None, None)
        wide = integers(1, 4, 10, low=-32768, high=32767, dtype="int16")
        mult = integers(10, low=-(2**23), high=2**23, dtype="int32")
        bias = integers(10, low=-(2**20), high=2**20, dtype="int32")
        yield cls(Quant(0.001), bits, 100, 8), (wide, mult, bias)


@dataclass(frozen=True)
class QRMSNorm(_QNorm):
    """(x - x_zero) / sqrt(mean((x - x_zero)^2) + eps) of each row."""

    x_zero: int = 0

    def reference(self, x: Array, mult: Array | None = None, bias: Array | None = None) -> Array:
        """See the class."""
        return self.scaled(rows.rmsnorm(x, self.eps_q, self.x_zero), mult, bias)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """int8 with a zero point, int16 with a scale per channel."""
        bits = rows.norm_fraction_bits(7)
        yield cls(Quant(2.0**-bits), bits, 3, x_zero=-9), (integers(1, 4, 7), None, None)
        wide = integers(1, 4, 7, low=-32768, high=32767, dtype="int16")
        mult, bias = integers(7, low=2**20, high=2**23, dtype="int32"), integers(7, low=0, high=0, dtype="int32")
        yield cls(Quant(0.001), bits, 100, 8), (wide, mult, bias)
