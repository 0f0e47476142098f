"""How many bytes of scratch the kernels need: each formula once, under the name it has in the kernel's own header.

The planner sizes buffers with these functions and the code generator places pointers with them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from ..integer_layout import packed_bytes, tile_bytes

ALIGN = 8
"""Every buffer and every piece of scratch starts on a multiple of this: the core loads and stores double words."""


def align(count: int) -> int:
    """`count` rounded up to a multiple of `ALIGN`."""
    return -(-count // ALIGN) * ALIGN


def attention_bytes(keys: int) -> int:
    """ES_ATTENTION_BYTES: scores (int32) and exponentials (int16) of three query rows, overlaid."""
    return 14 * (-(-keys // 4) * 4)


def line_bytes(patch_width: int, channels: int) -> int:
    """One line of a patch, int8, as the pixel callback delivers it."""
    return patch_width * channels


def planes_bytes(rows: int, kernel: tuple[int, int], strides: tuple[int, int], width: int) -> int:
    """Planes (int16) of four channels with what `rows` rows of a depthwise output see, and the taps of one channel.

    A row of output, `width` pixels, is made in equal blocks of at most 7; a row of a plane holds what all of them read.
    """
    block = -(-width // -(-width // 7))
    pitch = (-(-width // block) * block - 1) * strides[1] + kernel[1] + 1 & ~1
    return 2 * (4 * ((rows - 1) * strides[0] + kernel[0]) * pitch + kernel[0] * (kernel[1] + 1 & ~1))


def keys_bytes(keys: int, depth: int, heads: int) -> int:
    """Packed keys of several heads: P(keys, depth) each."""
    return heads * packed_bytes(keys, depth)


def values_bytes(keys: int, depth: int, heads: int) -> int:
    """Packed transposed values of several heads: P(depth, keys) each."""
    return heads * packed_bytes(depth, keys)


@dataclass(frozen=True)
class Need:
    """A piece of scratch before it has a place: its size, and the first and last phase of its group that use it.

    `untouched` counts the bytes at its end that are read as padding but never written.
    """

    name: str
    bytes: int
    first: int
    last: int
    untouched: int = 0


def tile_need(name: str, tile: int, rows: int, depth: int, first: int, last: int, cleared: bool = False) -> Need:
    """A tile of `tile` rows by `depth`, `rows` being all there are: with fewer, the last triple is not full."""
    missing = 0 if cleared else -min(tile, rows) % 3
    return Need(name, tile_bytes(tile, depth), first, last, 8 * missing)


@dataclass(frozen=True)
class Piece:
    """A piece of a group's scratch: `offset` counts from the scratch's own start."""

    name: str
    bytes: int
    offset: int
    untouched: int = 0


def pack(needs: Iterable[Need]) -> tuple[Piece, ...]:
    """Place pieces that are used at the same time side by side, the others over one another.

    Preferred is an arrangement written to its last byte, so that a painted arena shows all of it in use; then the
    smallest. Each is tried both ways up.
    """
    return _packed(tuple(need for need in needs if need.bytes))


@lru_cache(1 << 14)
def _packed(needs: tuple[Need, ...]) -> tuple[Piece, ...]:
    whole = [need for need in needs if not need.untouched]
    largest = max(whole, key=lambda need: need.bytes, default=None)
    found: list[tuple[Piece, ...]] = []
    for order in (
        sorted(needs, key=lambda n: (-n.bytes, n.first)),
        sorted(needs, key=lambda n: (n is not largest, -n.bytes, n.first)),
        sorted(needs, key=lambda n: (n.first - n.last, -n.bytes)),
    ):
        offsets = _lowest(order)
        top = max((offsets[need.name] + align(need.bytes) for need in needs), default=0)
        turned = {need.name: top - offsets[need.name] - align(need.bytes) for need in needs}
        for places in (offsets, turned):
            found.append(tuple(Piece(n.name, n.bytes, places[n.name], n.untouched) for n in needs))
    return min(found, key=lambda pieces: (extent(pieces) > touched(pieces), extent(pieces)))


def extent(pieces: Iterable[Piece]) -> int:
    """Bytes from the start to the end of the highest piece."""
    return max((piece.offset + piece.bytes for piece in pieces), default=0)


def touched(pieces: Iterable[Piece]) -> int:
    """Bytes from the start to the last that is written."""
    return max((piece.offset + piece.bytes - piece.untouched for piece in pieces), default=0)


def _lowest(order: Iterable[Need]) -> dict[str, int]:
    """Each piece in turn at the lowest offset where it fits."""
    offsets: dict[str, int] = {}
    placed: list[Need] = []
    for need in order:
        rivals = [other for other in placed if other.first <= need.last and need.first <= other.last]
        spans = [(offsets[other.name], offsets[other.name] + align(other.bytes)) for other in rivals]
        starts = sorted({0, *(end for _, end in spans)})
        size = align(need.bytes)
        offsets[need.name] = next(at for at in starts if all(at + size <= low or high <= at for low, high in spans))
        placed.append(need)
    return offsets


__all__ = [
    "ALIGN",
    "Need",
    "Piece",
    "align",
    "attention_bytes",
    "extent",
    "keys_bytes",
    "line_bytes",
    "pack",
    "packed_bytes",
    "planes_bytes",
    "tile_bytes",
    "tile_need",
    "touched",
    "values_bytes",
]
