"""Crossing between real numbers and integers: Quantize and Dequantize."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..graph import Array, Quant, Type
from ..op import Example, Op, require
from .sampling import sample


@dataclass(frozen=True)
class Quantize(Op):
    """Real to integer: q = saturate(round(x / scale) + zero_point), ties away from zero."""

    quant: Quant
    dtype: str = "int8"

    def infer(self, x: Type) -> Type:
        """Same shape, integer type, quantisation attached."""
        require(x.numpy.kind == "f", f"expects real numbers, got {x.dtype}")
        return Type(self.dtype, x.shape, self.quant)

    def reference(self, x: Array) -> Array:
        """See the class."""
        return self.quant.quantise(x, self.dtype)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Per tensor and per channel."""
        yield cls(Quant(0.02, 3)), (sample(2, 5),)
        yield cls(Quant((0.01, 0.02, 0.03), 0, 1), "int16"), (sample(2, 3),)


@dataclass(frozen=True)
class Dequantize(Op):
    """Integer to real: x = scale * (q - zero_point), float32."""

    quant: Quant

    def infer(self, q: Type) -> Type:
        """Same shape, float32."""
        require(q.numpy.kind in "iu", f"expects integers, got {q.dtype}")
        return Type("float32", q.shape)

    def reference(self, q: Array) -> Array:
        """See the class."""
        return self.quant.dequantise(q).astype(np.float32)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Per tensor."""
        yield cls(Quant(0.02, 3)), (np.arange(-8, 8, dtype=np.int8),)
