"""Weights in fewer than eight bits: how int8 matrices that need no more are stored, exactly, and which do.

A code is a way to store, not another arithmetic: decoded, its bytes are the int8 weights that the graph holds.

    int4     4 bits, and 4 bits of a multiplier m in 1..15 for each 32 weights of a row: w = m * q, q in -8..7
    shift    4 bits: w = 0 or a power of two from 1 to 64 with a sign
    ternary  2 bits: w = -1, 0 or 1

Rows go in pairs and columns in quads, in the order of `integer_layout`; the layouts' twin is `kernels/codes.h`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .integer import Int
from .integer_layout import pack

__all__ = ["CODES", "GROUP", "WITNESS", "encode", "pair_bytes", "smallest"]

GROUP = 32
LARGEST_MULTIPLIER = 15
SHIFTS = np.array([0, 1, 2, 4, 8, 16, 32, 64, 0, -1, -2, -4, -8, -16, -32, -64], np.int8)
Bytes = NDArray[np.uint8]


def pair_bytes(code: str, k: int) -> int:
    """Bytes of two rows of k weights."""
    quads = (k + 3) // 4
    if code == "int4":
        return (-(-k // GROUP) + 3 & ~3) + 4 * quads
    return quads * {"int8": 8, "shift": 4, "ternary": 2}[code]


def smallest(w: Int) -> str:
    """The code with the fewest bytes that holds an int8 [N, K] matrix exactly."""
    able = [code for code, fits in FITS.items() if fits(w)]
    return min((*able, "int8"), key=lambda code: pair_bytes(code, w.shape[1]))


def encode(code: str, w: Int) -> Bytes:
    """int8 [N, K] -> its bytes, pair after pair.

    Raises:
        ValueError: The code does not hold this matrix.
    """
    if code == "int8":
        return pack(w).view(np.uint8)
    if not FITS[code](w):
        raise ValueError(f"these weights do not fit the code '{code}'")
    return CODES[code](w)


def _pairs(w: Int) -> Int:
    """The packed layout as [pairs, quads, 2, 4]."""
    n, k = w.shape
    return pack(w).reshape((n + 1) // 2, (k + 3) // 4, 2, 4)


def _int4(w: Int) -> Bytes:
    m = _multipliers(w)
    q = w // np.repeat(m, GROUP, axis=1)[:, : w.shape[1]]
    codes = (_pairs(q.astype(np.int8)) + 8).astype(np.uint8)
    nibbles = codes[..., 0::2] | codes[..., 1::2] << 4  # [pairs, quads, 2, 2]
    padded = np.pad(m, ((0, len(m) % 2), (0, 0)), constant_values=1).astype(np.uint8)
    heads = padded[0::2] | padded[1::2] << 4
    heads = np.pad(heads, ((0, 0), (0, -heads.shape[1] % 4)))
    return np.concatenate([heads, nibbles.reshape(len(codes), -1)], axis=1).reshape(-1)


def _multipliers(w: Int) -> Int:
    """The least m in 1..15 for each group [N, groups] that divides all its weights to -8..7; 0 where none does."""
    n, k = w.shape
    groups = np.pad(w, ((0, 0), (0, -k % GROUP))).reshape(n, -1, GROUP).astype(np.int64)
    found = np.zeros(groups.shape[:2], np.int64)
    for m in range(LARGEST_MULTIPLIER, 0, -1):
        whole = (groups % m == 0).all(2) & (groups // m >= -8).all(2) & (groups // m <= 7).all(2)
        found[whole] = m
    return found


def _shift(w: Int) -> Bytes:
    pairs = _pairs(w).astype(np.int64)
    exponents = np.where(pairs == 0, 0, np.log2(np.maximum(np.abs(pairs), 1)).astype(np.int64) + 1)
    codes = (exponents | (pairs < 0) * 8).astype(np.uint8).reshape(-1, 2)
    return np.asarray(codes[:, 0] | codes[:, 1] << 4)


def _ternary(w: Int) -> Bytes:
    fields = (_pairs(w) + 1).astype(np.uint8).reshape(-1, 4)
    return np.asarray(np.bitwise_or.reduce(fields << np.arange(0, 8, 2, dtype=np.uint8), axis=1), np.uint8)


WITNESS = {"int8": 127, "int4": 3, "shift": 64, "ternary": 1}
"""A weight that each code holds and none that takes fewer bytes."""

CODES: dict[str, Callable[[Int], Bytes]] = {"int4": _int4, "shift": _shift, "ternary": _ternary}
"""How each code writes a matrix that it holds."""

FITS: dict[str, Callable[[Int], bool]] = {
    "int4": lambda w: bool((_multipliers(w) > 0).all()),
    "shift": lambda w: bool(np.isin(w, SHIFTS).all()),
    "ternary": lambda w: bool((np.abs(w) <= 1).all()),
}
"""Whether a code holds a matrix."""
