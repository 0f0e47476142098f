"""Products without a multiplier, as in ShiftAddViT (NeurIPS 2023): weights that are powers of two, masks of signs.

A weight of 4 bits is a sign (bit 3) and a shift s of 0 to 6 (bits 0 to 2; 7 stands for zero): +-2^(6-s) times a scale
per output. Powers count from the left, so that a product is x << (6 - s), which loses nothing; x >> s would round each
term of a sum down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..graph import Array, Type
from ..op import Example, Op, require
from .elementwise import broadcast
from .sampling import sample

__all__ = ["MatAdd", "MatShift", "ShiftLinear", "pack", "unpack"]

SPAN, ZERO, NEGATIVE = 6, 7, 8


def pack(weights: Array) -> Array:
    """Codes uint8 [N, ceil(K / 2)] of integers [N, K] that are 0 or +-2^p, p of 0 to 6; even k in the low half."""
    sizes = np.abs(weights.astype(np.int64))
    shifts = SPAN - np.round(np.log2(np.maximum(sizes, 1))).astype(np.int64)
    codes = np.where(sizes == 0, ZERO, shifts + NEGATIVE * (weights < 0)).astype(np.uint8)
    if codes.shape[1] % 2:
        codes = np.pad(codes, ((0, 0), (0, 1)), constant_values=ZERO)
    return np.asarray(codes[:, ::2] | codes[:, 1::2] << 4, np.uint8)


def unpack(codes: Array, depth: int) -> Array:
    """The integers int8 [N, K] behind codes: `pack` read backwards, K being `depth`."""
    each = np.stack([codes & 15, codes >> 4], axis=-1).reshape(len(codes), -1)[:, :depth]
    sizes = np.left_shift(1, SPAN - np.minimum(each & 7, SPAN)) * ((each & 7) != ZERO)
    return np.asarray(np.where(each & NEGATIVE, -sizes, sizes), np.int8)


def _require_codes(x: Type, codes: Type) -> None:
    require(codes.dtype == "uint8" and codes.rank == 2, f"codes must be uint8 of rank 2, not {codes.dtype}")
    require(x.rank >= 1, "expects rows")
    require(codes.shape[1] == -(-x.shape[-1] // 2), f"{x.shape[-1]} features do not fit codes of {codes.shape}")


@dataclass(frozen=True)
class ShiftLinear(Op):
    """y[..., n] = scale[n] * sum_k x[..., k] * w[n, k] (+ b[n]); each w is 0 or +-2^p, in the codes of the module."""

    def infer(self, x: Type, codes: Type, scale: Type, b: Type | None = None) -> Type:
        """x [..., K] (real), codes uint8 [N, ceil(K / 2)], scale [N], b [N] -> [..., N]."""
        _require_codes(x, codes)
        for each in (scale, *([b] if b else [])):
            require(each.shape == (codes.shape[0],), f"expects one number an output, got {each.shape}")
        return Type(x.dtype, (*x.shape[:-1], codes.shape[0]))

    def reference(self, x: Array, codes: Array, scale: Array, b: Array | None = None) -> Array:
        """See the class."""
        y = x @ unpack(codes, x.shape[-1]).T.astype(x.dtype) * scale
        return np.asarray(y if b is None else y + b)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """An even and an odd number of features, with and without bias."""
        yield cls(), (sample(2, 5, 8), _codes(3, 8), sample(3), sample(3))
        yield cls(), (sample(4, 7), _codes(6, 7), sample(6), None)


@dataclass(frozen=True)
class MatShift(Op):
    """y[..., n] = sum_k x[..., k] * w[n, k] in int32, exactly: shifts to the left and additions; w as `ShiftLinear`.

    |x| < 2^b needs b + 6 + log2 K <= 31.
    """

    def infer(self, x: Type, codes: Type) -> Type:
        """x [..., K] (int8 or int16), codes uint8 [N, ceil(K / 2)] -> int32 [..., N]."""
        require(x.dtype in ("int8", "int16"), f"expects int8 or int16, not {x.dtype}")
        _require_codes(x, codes)
        bound = x.shape[-1] << (SPAN + x.numpy.itemsize * 8 - 1)
        require(bound < 2**31, f"a sum over {x.shape[-1]} features of {x.dtype} may not fit 32 bits")
        return Type("int32", (*x.shape[:-1], codes.shape[0]))

    def reference(self, x: Array, codes: Array) -> Array:
        """See the class."""
        return np.asarray(x.astype(np.int32) @ unpack(codes, x.shape[-1]).T.astype(np.int32))

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Both widths."""
        yield cls(), (_integers(2, 5, 8), _codes(3, 8))
        yield cls(), (_integers(4, 7).astype(np.int16) * 250, _codes(6, 7))


@dataclass(frozen=True)
class MatAdd(Op):
    """Batched t @ x where t holds -1, 0 and 1 only (int8), or 0 and 1 (bool): sums and differences of rows of x."""

    def infer(self, t: Type, x: Type) -> Type:
        """t [..., M, K] and x [..., K, N] (real) -> [..., M, N], batch axes broadcast."""
        require(t.dtype in ("int8", "bool"), f"signs must be int8 or bool, not {t.dtype}")
        require(t.rank >= 2 and x.rank >= 2, f"expects ranks >= 2, got {t.shape} and {x.shape}")
        require(t.shape[-1] == x.shape[-2], f"inner sizes differ: {t.shape} and {x.shape}")
        return Type(x.dtype, (*broadcast(t.shape[:-2], x.shape[:-2]), t.shape[-2], x.shape[-1]))

    def reference(self, t: Array, x: Array) -> Array:
        """See the class."""
        return np.asarray(np.matmul(t.astype(x.dtype), x))

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Signs, and a mask that broadcasts over a batch."""
        yield cls(), (np.sign(_integers(3, 4) // 40).astype(np.int8), sample(4, 5))
        yield cls(), (_integers(5, 9) > 0, sample(2, 3, 9, 4))


def _integers(*shape: int) -> Array:
    return np.asarray(np.rint(sample(*shape) * 60), np.int8)


def _codes(outputs: int, depth: int) -> Array:
    """Codes of all kinds, zeros among them."""
    weights = np.random.default_rng(depth).choice(np.array([0, *(1 << p for p in range(7))]), (outputs, depth))
    return pack(np.where(sample(outputs, depth) < 0, -weights, weights))
