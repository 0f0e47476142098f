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
    """Real to integer: q = saturate(round(x / scale) + zero_point), divided in the precision of x, ties to even.

    So ONNX has it (QuantizeLinear) and so processors round; `Quant.quantise`, of which integer C is made, has ties away
    from zero.
    """

    quant: Quant
    dtype: str = "int8"

    def infer(self, x: Type) -> Type:
        """Same shape, integer type, quantisation attached."""
        require(x.numpy.kind == "f", f"expects real numbers, got {x.dtype}")
        return Type(self.dtype, x.shape, self.quant)

    def reference(self, x: Array) -> Array:
        """See the class."""
        rounded = np.rint(x / self.quant.scales(x)) + self.quant.zero_point
        info = np.iinfo(self.dtype)
        return np.asarray(np.clip(rounded, info.min, info.max).astype(self.dtype))

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
        """Per tensor, and per channel as weights are."""
        yield cls(Quant(0.02, 3)), (np.arange(-8, 8, dtype=np.int8),)
        yield cls(Quant((0.01, 0.5, 0.03), 0, 0)), (np.arange(-6, 6, dtype=np.int8).reshape(3, 4),)
