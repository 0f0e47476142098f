"""How many bytes of scratch the kernels need: each formula once, under the name it has in the kernel's own header.

The planner sizes buffers with these functions and the code generator places pointers with them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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


def keys_bytes(keys: int, depth: int, heads: int) -> int:
    """Packed keys of several heads: P(keys, depth) each."""
    return heads * packed_bytes(keys, depth)


def values_bytes(keys: int, depth: int, heads: int) -> int:
    """Packed transposed values of several heads: P(depth, keys) each."""
    return heads * packed_bytes(depth, keys)


@dataclass(frozen=True)
class Need:
    """A piece of scratch before it has a place: its size, and the first and last phase of its group that use it.

    `ragged` says that its last bytes may stay untouched (padding that no kernel writes).
    """

    name: str
    bytes: int
    first: int
    last: int
    ragged: bool = False


@dataclass(frozen=True)
class Piece:
    """A piece of a group's scratch: `offset` counts from the scratch's own start."""

    name: str
    bytes: int
    offset: int


def pack(needs: Iterable[Need]) -> tuple[Piece, ...]:
    """Place pieces that are used at the same time side by side, the others over one another; largest first.

    The piece on top should be one that is written to its last byte, so that a painted arena shows the whole
    scratch in use: where it is not, the arrangement is turned upside down.
    """
    needs = [need for need in needs if need.bytes]
    offsets: dict[str, int] = {}
    placed: list[Need] = []
    for need in sorted(needs, key=lambda n: (-n.bytes, n.first, n.name)):
        rivals = [other for other in placed if other.first <= need.last and need.first <= other.last]
        starts = sorted({0, *(offsets[other.name] + align(other.bytes) for other in rivals)})
        offsets[need.name] = next(start for start in starts if _fits(start, need, rivals, offsets))
        placed.append(need)
    top = max((offsets[need.name] + align(need.bytes) for need in needs), default=0)
    if any(need.ragged and offsets[need.name] + align(need.bytes) == top for need in needs):
        offsets = {need.name: top - offsets[need.name] - align(need.bytes) for need in needs}
    return tuple(Piece(need.name, need.bytes, offsets[need.name]) for need in needs)


def _fits(start: int, need: Need, rivals: list[Need], offsets: dict[str, int]) -> bool:
    end = start + align(need.bytes)
    return all(end <= offsets[o.name] or offsets[o.name] + align(o.bytes) <= start for o in rivals)


__all__ = [
    "ALIGN",
    "Need",
    "Piece",
    "align",
    "attention_bytes",
    "keys_bytes",
    "line_bytes",
    "pack",
    "packed_bytes",
    "tile_bytes",
    "values_bytes",
]
