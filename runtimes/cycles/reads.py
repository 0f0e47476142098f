"""Which regions of a device an inference reads how much from, by what the compile says and where the arena lies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...targets import Target

__all__ = ["by_region"]


def by_region(target: Target, reads: Mapping[str, Any], arena: int) -> dict[str, int]:
    """Bytes by region that no data cache is sure to hold.

    Args:
        target: The device.
        reads: What `lowering.c.lower` told: bytes of constants by kind of flash, and operands by arena offset.
        arena: Address of the arena.
    """
    found: Counter[str] = Counter()
    for kind in ("flash", "external_flash"):
        regions = target.of_kind(kind)
        if regions and reads.get(kind):
            found[regions[0].name] += reads[kind]
    for operand in reads.get("operands", ()):
        if operand["held"] <= target.core.data_cache // 2:
            continue
        low, size = arena + operand["offset"], operand["bytes"]
        for region in target.of_kind("ram"):
            inside = max(0, min(low + size, region.end) - max(low, region.origin))
            found[region.name] += round(operand["read"] * inside / size)
    return dict(found)
