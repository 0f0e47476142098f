"""How matrices lie in memory for the dot-product core: packed operands and tiles.

Packed matrix P(N, K): N rounded up to 2 and K to 4 with zeros; for each pair of rows and each four k eight bytes,
[n0: k0 k2 k1 k3][n1: k0 k2 k1 k3]: sign-extending the even and the odd bytes of a word gives (k0, k1) and (k2, k3).
Weights are packed offline, keys and values at run time, always alike.

Tile of R rows (a multiple of 3): for each three rows and each four k twelve int16, four per row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .integer import Int

ORDER = (0, 2, 1, 3)


def packed_bytes(n: int, k: int) -> int:
    """Size of P(n, k)."""
    return (n + 1 & ~1) * (k + 3 & ~3)


def pack(w: Int) -> NDArray[np.int8]:
    """int8 [N, K] -> the bytes of P(N, K)."""
    n, k = w.shape
    padded = np.pad(w, ((0, n % 2), (0, -k % 4)))
    quads = padded.reshape(-1, 2, padded.shape[1] // 4, 4)[..., ORDER]
    return np.ascontiguousarray(quads.transpose(0, 2, 1, 3)).reshape(-1).astype(np.int8)


def unpack(packed: Int, n: int, k: int) -> NDArray[np.int8]:
    """The inverse of ``pack``."""
    quads = packed.reshape((n + 1) // 2, (k + 3) // 4, 2, 4)[..., ORDER]
    return np.ascontiguousarray(quads.transpose(0, 2, 1, 3).reshape(-1, (k + 3) // 4 * 4)[:n, :k]).astype(np.int8)


def pack_pairs(values: Int) -> NDArray[np.int32]:
    """Bias or mult int32 [N] with N rounded up to 2, as the core reads them two at a time."""
    return np.pad(values, (0, len(values) % 2)).astype(np.int32)


def tile_bytes(rows: int, k: int) -> int:
    """Size of a tile of ``rows`` (rounded up to 3) by k (rounded up to 4) int16."""
    return (rows + 2) // 3 * 3 * (k + 3 & ~3) * 2


def pack_tile(x: Int) -> NDArray[np.int16]:
    """int8|int16 [R, K] -> the int16 of its tile, padding zero."""
    rows, k = x.shape
    padded = np.pad(x.astype(np.int16), ((0, -rows % 3), (0, -k % 4)))
    return np.ascontiguousarray(padded.reshape(-1, 3, padded.shape[1] // 4, 4).transpose(0, 2, 1, 3)).reshape(-1)
