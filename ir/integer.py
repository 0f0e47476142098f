"""The integer arithmetic every target must reproduce bit for bit, as pure numpy.

A deployed network runs on these formulas and no others: the generated C equals them on every core, so a saved
reference output is a test of a board. Intermediate values are held in int64 and checked against int32 where the
target uses int32; a bound that does not hold raises ``OverflowError``, nothing ever wraps.

Matrix products go through floating-point BLAS, which is exact while every partial sum is an integer below 2^53
(2^24 in single precision), whatever the order of summation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Int = NDArray[Any]
Int64 = NDArray[np.int64]

INT32_MAX = 2**31 - 1
LIMITS = {8: (-128, 127), 16: (-32768, 32767)}
DTYPES: dict[int, type[np.signedinteger]] = {8: np.int8, 16: np.int16, 32: np.int32}


def require_int32(values: ArrayLike, what: str) -> Int64:
    """``values`` as int64, after proving that each fits in int32."""
    wide = np.asarray(values, dtype=np.int64)
    if wide.size and (wide.max() > INT32_MAX or wide.min() < -INT32_MAX - 1):
        raise OverflowError(f"{what} leaves int32: [{wide.min()}, {wide.max()}]")
    return wide


def saturate(values: ArrayLike, bits: int, low: int | None = None, high: int | None = None) -> Int:
    """Clamp to ``bits`` wide signed integers, or to the narrower [low, high] of a fused activation."""
    least, most = LIMITS[bits]
    least, most = max(least, least if low is None else low), min(most, most if high is None else high)
    clamped: Int = np.clip(values, least, most).astype(DTYPES[bits])
    return clamped


def multiplier(scale: ArrayLike, bound: ArrayLike = 1) -> tuple[NDArray[np.int32], int]:
    """Fixed-point form of ``scale``: int32 ``mult`` and shift ``pre`` with mult = round(scale * 2^(32-pre)).

    ``pre`` is the least shift that keeps every |mult| below 2^31; it is 0 for scales below one half. ``bound`` is the
    largest |accumulator| that will be scaled, and ``bound << pre`` must stay below 2^31.
    """
    real = np.asarray(scale, dtype=np.float64)
    if not np.all(np.isfinite(real)):
        raise OverflowError("a multiplier must be finite")
    pre = 0
    while np.any(np.abs(np.rint(real * 2.0 ** (32 - pre))) > INT32_MAX):
        pre += 1
    if int(np.max(bound)) << pre > INT32_MAX:
        raise OverflowError(f"accumulators up to {int(np.max(bound))} leave no room for scale {np.abs(real).max()}")
    return np.rint(real * 2.0 ** (32 - pre)).astype(np.int32), pre


def multiply_high(a: ArrayLike, b: ArrayLike) -> Int64:
    """(a * b + 2^31) >> 32 for int32 operands: one SMMULR on Armv7E-M; a product of int32 fits int64."""
    product = require_int32(a, "left factor") * require_int32(b, "right factor")
    high: Int64 = (product + 2**31) >> 32
    return high


def requant(
    acc: ArrayLike, mult: ArrayLike, pre: int = 0, zero_point: int = 0, bits: int = 8,
    low: int | None = None, high: int | None = None,
) -> Int:
    """sat(zero_point + (((acc << pre) * mult + 2^31) >> 32)); ``mult``: a scalar or one value per last-axis channel."""
    shifted = require_int32(np.asarray(acc, dtype=np.int64) << pre, "accumulator << pre")
    return saturate(multiply_high(shifted, mult) + zero_point, bits, low, high)


def matmul(x: Int, w: Int) -> Int64:
    """x[..., K] . w[N, K] -> [..., N], exact; raises when a partial sum could leave int32 for these operands."""
    largest = [int(np.abs(operand.astype(np.int64)).max(initial=0)) for operand in (x, w)]
    reach = largest[0] * largest[1] * w.shape[-1]
    precision = np.float32 if reach < 2**24 else np.float64
    rows: NDArray[Any] = np.asarray(x.reshape(-1, x.shape[-1]), dtype=precision)
    columns: NDArray[Any] = np.asarray(w.T, dtype=precision)
    if reach > INT32_MAX:  # signs may still keep it inside: sum the magnitudes, which bounds every order of summation
        require_int32(np.abs(rows) @ np.abs(columns), "dot product (sum of magnitudes)")
    exact: Int64 = (rows @ columns).astype(np.int64).reshape(*x.shape[:-1], w.shape[0])
    return exact


def qlinear(
    x: Int, w: Int, bias: ArrayLike, mult: ArrayLike, pre: int = 0, zero_point: int = 0, bits: int = 8,
    low: int | None = None, high: int | None = None,
) -> Int:
    """x int8|int16 [..., K], w int8 [N, K], bias int32 [N] -> int8|int16 [..., N].

    out = requant(bias + sum_k x_k w_nk); x's zero point is folded into bias at compile time.
    """
    acc = require_int32(matmul(x, w) + np.asarray(bias, dtype=np.int64), "accumulator")
    return requant(acc, mult, pre, zero_point, bits, low, high)


def qadd(a: Int, b: Int, ma: int, mb: int, c: int, shift: int, bits: int = 8) -> Int:
    """sat((a*ma + b*mb + c) >> shift); ma, mb int16, c int32 holds the rounding half and all zero points."""
    total = a.astype(np.int64) * ma + b.astype(np.int64) * mb + c
    return saturate(require_int32(total, "weighted sum") >> shift, bits)


def add_constants(
    scale_a: float, scale_b: float, scale_out: float, zero_a: int = 0, zero_b: int = 0, zero_out: int = 0,
    bits_a: int = 8, bits_b: int = 8,
) -> tuple[int, int, int, int]:
    """(ma, mb, c, shift) of ``qadd``: the largest shift for which ma, mb fit int16 and no sum leaves int32."""
    ratio_a, ratio_b = scale_a / scale_out, scale_b / scale_out
    for shift in range(30, -1, -1):
        ma, mb = round(ratio_a * 2.0**shift), round(ratio_b * 2.0**shift)
        c = (zero_out << shift) - ma * zero_a - mb * zero_b + ((1 << shift) >> 1)
        reach = (abs(ma) << (bits_a - 1)) + (abs(mb) << (bits_b - 1)) + abs(c)
        if max(abs(ma), abs(mb)) <= 32767 and reach <= INT32_MAX:
            return ma, mb, c, shift
    raise OverflowError(f"no fixed point for {ratio_a} * a + {ratio_b} * b")


def qmul(
    a: Int, b: Int, mult: ArrayLike, pre: int = 0, zero_a: int = 0, zero_b: int = 0, zero_point: int = 0, bits: int = 8,
) -> Int:
    """requant((a - zero_a) * (b - zero_b)); the product must fit int32 (int16 operands have zero point 0)."""
    return requant((a.astype(np.int64) - zero_a) * (b.astype(np.int64) - zero_b), mult, pre, zero_point, bits)


def qaffine(x: Int, mult: ArrayLike, bias: ArrayLike, lift: int, zero_point: int = 0, bits: int = 8) -> Int:
    """Per channel (last axis): requant((x << lift) + bias, mult); ``lift`` gives the bias its fraction bits.

    real(out) = a*x + c with mult = a * sx / so * 2^(32-lift), bias = (c / (a * sx) - zero_x) * 2^lift.
    """
    return requant((x.astype(np.int64) << lift) + np.asarray(bias, dtype=np.int64), mult, 0, zero_point, bits)


def qmean(
    x: Int, axes: int | tuple[int, ...], mult: int, pre: int = 0, bias: int = 0, zero_point: int = 0, bits: int = 8,
    keepdims: bool = False,
) -> Int:
    """requant(sum over ``axes`` + bias); bias = -count * zero_x, mult holds 1/count."""
    return requant(x.astype(np.int64).sum(axis=axes, keepdims=keepdims) + bias, mult, pre, zero_point, bits)


def table8(x: Int, table: Int) -> Int:
    """Any unary function of int8: table[x + 128], 256 entries."""
    chosen: Int = table[x.astype(np.int64) + 128]
    return chosen


def table16(x: Int, table: Int) -> Int:
    """Any unary function of int16: 257 int16 points, linear between them.

    i = (x >> 8) + 128, f = x & 255, out = t[i] + (((t[i+1] - t[i]) * f + 128) >> 8); never leaves [t[i], t[i+1]].
    """
    wide = x.astype(np.int64)
    points = table.astype(np.int64)
    index = (wide >> 8) + 128
    rise = points[index + 1] - points[index]
    value: Int = (points[index] + ((rise * (wide & 255) + 128) >> 8)).astype(np.int16)
    return value


Unary = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def make_table8(
    function: Unary, scale_in: float, zero_in: int, scale_out: float, zero_out: int, bits: int = 8
) -> Int:
    """The 256 entries of ``table8`` for a real function: each is the exact value, rounded once."""
    real = scale_in * (np.arange(-128, 128, dtype=np.float64) - zero_in)
    return saturate(np.rint(function(real) / scale_out) + zero_out, bits)


def make_table16(function: Unary, scale_in: float, scale_out: float) -> Int:
    """The 257 points of ``table16`` at x = -32768, -32512, ..., 32768 (zero points are 0)."""
    real = scale_in * np.arange(-32768, 32769, 256, dtype=np.float64)
    return saturate(np.rint(function(real) / scale_out), 16)
