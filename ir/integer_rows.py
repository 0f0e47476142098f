"""Row-wise integer functions that need a root, an exponential or a reciprocal: norms, softmax, attention.

Same contract as ``integer``: int64 numpy, checked against int32, equal to the C kernels bit for bit. A result depends
only on its own row, so no tile size and no order of heads can change a bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .integer import INT32_MAX, Int, Int64, matmul, multiplier, multiply_high, requant, require_int32, saturate

RSQRT_A = 2290044389  # 2.13277 and 1.21873 in 30 fraction bits: the line nearest to 1/sqrt(x) on [1/4, 1), error 8.6 %
RSQRT_B = 1308601373
EXP_PEAK = 32767
INVERSE_BITS = 44


def bit_length(values: Int64) -> Int64:
    """Number of bits of each value in [0, 2^53), where float64 holds it exactly."""
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)


def rsqrt(v: Int64) -> Int64:
    """2^46 / sqrt(v) for v in [2^30, 2^32), as an int32 in [2^30, 2^31); relative error below 2^-25.

    A line, then four Newton steps y <- y (3 - v y^2) / 2 in unsigned 32 x 32 -> 64 products: no division.
    """
    x = np.asarray(v).astype(np.uint64)
    y = np.uint64(RSQRT_A) - ((np.uint64(RSQRT_B) * x) >> np.uint64(32))
    for _ in range(4):
        square = (y * y) >> np.uint64(32)
        y = (y * (np.uint64(3 << 28) - ((square * x) >> np.uint64(32)))) >> np.uint64(29)
    return np.minimum(y.astype(np.int64), INT32_MAX)


def isqrt(n: ArrayLike) -> Int64:
    """floor(sqrt(n)) of uint32 values: v * rsqrt(v), then at most one unit of correction either way."""
    wide = np.asarray(n, dtype=np.int64)
    half = (32 - bit_length(np.maximum(wide, 1))) >> 1
    v = np.maximum(wide, 1) << (2 * half)
    root = ((v.astype(np.uint64) * rsqrt(v).astype(np.uint64)) >> np.uint64(46)).astype(np.int64) >> half
    root = np.where(wide == 0, 0, root)
    root += (root + 1) ** 2 <= wide
    root -= root**2 > wide
    return root


def norm_fraction_bits(width: int) -> int:
    """Fraction bits of a normalised row: a standardised value never exceeds sqrt(width), which must fit int16."""
    return 15 - _root_bits(width)


def _root_bits(width: int) -> int:
    """ceil(log2(sqrt(width)))."""
    return ((width - 1).bit_length() + 1) >> 1


def _scale_by_root(d: Int64, energy: Int64, width: int) -> Int:
    """d / sqrt(energy) as int16 with ``norm_fraction_bits`` fraction bits; needs |d| <= sqrt(width * energy).

    energy = v * 4^s with v in [2^30, 2^32) gives |d| < 2^(16 + s + c), c = root bits, so d << (15 - s - c) fills int32
    and the product with rsqrt(v) always has 29 - c fraction bits: one shift per row, one constant shift per element.
    """
    s = (bit_length(energy) - 31) >> 1
    v = np.where(s >= 0, energy >> np.maximum(s * 2, 0), energy << np.maximum(-2 * s, 0))
    lift = 15 - s - _root_bits(width)
    if np.any(lift < 0):
        raise OverflowError(f"a row of {width} has too much energy for the fixed-point norm")
    product = multiply_high(d << lift[:, None], rsqrt(v)[:, None])
    return saturate((product + (1 << 13)) >> 14, 16)


def layernorm(x: Int, eps_q: int) -> Int:
    """(x - mean) / sqrt(var + eps) of int8|int16 rows [..., E] -> int16 with ``norm_fraction_bits(E)``.

    d_i = E x_i - sum, V = E sum(x^2) - sum^2 + eps_q, n_i = d_i / sqrt(V); eps_q = max(1, round(eps E^2 / scale^2)).
    The zero point cancels. Bounds: E <= 1024 for int16 rows, 16384 for int8; V < 2^53.
    """
    rows = x.reshape(-1, x.shape[-1]).astype(np.int64)
    width = rows.shape[1]
    total = rows.sum(axis=1)
    energy = width * (rows * rows).sum(axis=1) - total * total + eps_q
    d = require_int32(width * rows - total[:, None], "centred row")
    return _scale_by_root(d, _checked_energy(energy, width, x), width).reshape(x.shape)


def rmsnorm(x: Int, eps_q: int, zero_point: int = 0) -> Int:
    """x / sqrt(mean(x^2) + eps) of int8|int16 rows -> int16, as ``layernorm`` without the mean.

    d_i = E (x_i - zero_point), V = E sum((x - zero_point)^2) + eps_q.
    """
    rows = x.reshape(-1, x.shape[-1]).astype(np.int64) - zero_point
    width = rows.shape[1]
    energy = width * (rows * rows).sum(axis=1) + eps_q
    d = require_int32(width * rows, "scaled row")
    return _scale_by_root(d, _checked_energy(energy, width, x), width).reshape(x.shape)


def _checked_energy(energy: Int64, width: int, x: Int) -> Int64:
    if energy.min() < 1 or energy.max() >= 2**53 or width > (16384 if x.dtype == np.int8 else 1024):
        raise OverflowError(f"norm of {width} {x.dtype} values leaves the fixed-point range")
    return energy


def norm_epsilon(eps: float, width: int, scale: float) -> int:
    """``eps_q`` of the norms for a real epsilon and the scale of the row."""
    return max(1, round(eps * width * width / (scale * scale)))


def exp_peak(length: int) -> int:
    """Value of e at the row maximum: 15 bits, less for rows over 512 so that 128 * sum(e) stays below 2^31."""
    peak = min(EXP_PEAK, INT32_MAX // (128 * length))
    if peak <= 8192:
        raise OverflowError(f"a softmax over {length} values needs more than 32-bit sums (at most 2047)")
    return peak


def exp_table(length: int) -> Int:
    """One octave of 2^-x in 256 steps, from ``exp_peak``: table[i] = round(peak * 2^(-i/256))."""
    table: Int = np.rint(exp_peak(length) * np.exp2(-np.arange(256) / 256)).astype(np.int16)
    return table


def exponentials(scores: Int64, mz: ArrayLike, table: Int, pre: int = 0) -> Int64:
    """e_j = table[z & 255] >> (z >> 8), z = ((max - s_j) << pre) * mz in 1/256 octaves, at most 4095 (where e = 0)."""
    gap = require_int32((scores.max(axis=-1, keepdims=True) - scores) << pre, "score difference << pre")
    z = np.minimum(multiply_high(gap, mz), 4095)
    e: Int64 = table.astype(np.int64)[z & 255] >> (z >> 8)
    return e


def inverse(total: Int64) -> Int64:
    """2^44 / total for total in (2^13, 2^24): one 32-bit division, relative error below 2^-15.

    total is normalised to 16 bits d (rounded); floor((2^32 - 1) / d) is shifted back.
    """
    if np.any(total <= 8192) or np.any(total >= 2**24):
        raise OverflowError("row total outside (2^13, 2^24)")
    zeros = 32 - bit_length(total)
    normal = total << zeros
    d = (normal >> 16) + ((normal >> 15) & 1)
    return require_int32((0xFFFFFFFF // d) << (zeros - 4), "inverse")


def score_multiplier(scale: ArrayLike) -> tuple[NDArray[np.int32], int]:
    """(mz, pre) of ``exponentials`` for scores of a real ``scale`` (one per head): scale * log2(e) * 256."""
    return multiplier(np.asarray(scale, dtype=np.float64) * (256 / np.log(2.0)))


def output_multiplier(ratio: ArrayLike) -> NDArray[np.int32]:
    """``mult`` of attention's output for ratio = scale of v / scale of out; e.v / sum(e) has 12 fraction bits."""
    return multiplier(np.asarray(ratio, dtype=np.float64) * 2.0**-12)[0]


def attention(
    q: Int, k: Int, v: Int, heads: int, mz: ArrayLike, mult: ArrayLike, table: Int, pre: int = 0, zero_point: int = 0,
    bits: int = 8, bias: Int | None = None, bias_shift: int = 0,
) -> Int:
    """softmax(q k^T + bias) v, head by head: q int16|int8 [N, H d], k int8 [M, H d], v int8 [M, H dv] -> [N, H dv].

    s_j = q . k_j (+ bias[h, n, j] << bias_shift), e = ``exponentials``, L = sum e,
    out_c = sat(zero_point + requant((sum_j e_j v_jc) * inverse(L) >> 32, mult_c)). mz: one per head; mult: one per
    output channel.
    """
    d, dv = q.shape[1] // heads, v.shape[1] // heads
    per_head = np.broadcast_to(np.asarray(mz), (heads,))
    per_channel = np.broadcast_to(np.asarray(mult), (heads * dv,))
    out = []
    for h in range(heads):
        here, there = slice(h * d, (h + 1) * d), slice(h * dv, (h + 1) * dv)
        scores = matmul(q[:, here], k[:, here])
        if bias is not None:
            scores = require_int32(scores + (bias[h].astype(np.int64) << bias_shift), "score + bias")
        e = exponentials(scores, per_head[h], table, pre)
        acc = require_int32(matmul(e, np.ascontiguousarray(v[:, there].T)), "weighted values")
        mean = multiply_high(acc, inverse(e.sum(axis=-1))[:, None])
        out.append(requant(mean, per_channel[there], 0, zero_point, bits))
    return np.concatenate(out, axis=1)


def make_softmax_table(scale: float, length: int) -> Int:
    """256 exponentials of an int8 softmax: table[g] = round(peak * exp(-scale * g)), g = max - x."""
    table: Int = np.rint(exp_peak(length) * np.exp(-scale * np.arange(256))).astype(np.int16)
    return table


def softmax_multiplier(scale_out: float) -> int:
    """``mult`` of ``softmax``: probabilities arrive with 27 fraction bits."""
    mult = round(32.0 / scale_out)
    if mult > INT32_MAX:
        raise OverflowError(f"softmax output scale {scale_out} is too fine")
    return mult


def softmax(x: Int, table: Int, mult: int, zero_point: int = 0, bits: int = 8) -> Int:
    """Softmax over the last axis of int8 -> int8|int16: e = table[max - x], p = e / sum(e), out = requant(p).

    p has 27 fraction bits: ((e << 15) * inverse(L) + 2^31) >> 32.
    """
    gap = x.max(axis=-1, keepdims=True).astype(np.int64) - x
    e = table.astype(np.int64)[gap]
    share = multiply_high(e << 15, inverse(e.sum(axis=-1, keepdims=True)))
    return requant(share, mult, 0, zero_point, bits)
