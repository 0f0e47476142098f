"""What a target's memory costs beside its core: the rates by which the planner chooses loop order and place."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.memory import Rates
from ...targets import Region, Target
from .lower import code_reserve

__all__ = ["STACK", "fast_bytes", "rates", "run_of_ram"]

STACK = 8192
"""Bytes at the start of RAM that are kept for the stack."""

PER_MAC = {"mve": 0.3, "dsp": 0.95}
"""Instructions for a multiply-accumulate of the matrix kernels, by the feature that makes them; 2.1 without."""


def rates(target: Target, weights: int) -> Rates:
    """Rates of a target for a graph with so many bytes of constants; those that say nothing where it states no lines.

    A byte costs the middle of what its region's lines cost. What does not fit the internal flash comes from the
    external one; which weights those will be is not known yet, so every byte costs the mean.
    """
    if not any(region.line for region in target.regions):
        return Rates()
    mac = cycles_per_mac(target)
    inside = max(0, (target.flash_budget or 0) - code_reserve(target))
    near = min(1.0, inside / max(1, weights)) if target.of_kind("external_flash") else 1.0
    flash, far = (_per_byte(target.of_kind(kind)) for kind in ("flash", "external_flash"))
    operand = _per_byte(run_of_ram(target))
    weight = near * flash + (1 - near) * far
    return Rates(weight / mac, operand / mac, fast_bytes(target), target.core.data_cache)


def cycles_per_mac(target: Target) -> float:
    """About what a multiply-accumulate takes, at the middle of the target's band."""
    per_mac = next((count for feature, count in PER_MAC.items() if feature in target.core.features), 2.1)
    return per_mac * (target.latency.cycles_low + target.latency.cycles_high) / 2 if target.latency else per_mac


def run_of_ram(target: Target) -> tuple[Region, ...]:
    """The regions that `Target.ram` joins, in order."""
    whole = target.ram
    return tuple(region for region in target.of_kind("ram") if whole and region.origin in whole)


def fast_bytes(target: Target) -> int:
    """Bytes at the arena's start, behind the stack, in RAM that never lets the core wait."""
    fast = 0
    for region in run_of_ram(target):
        if region.line:
            break
        fast += region.size
    return max(0, fast - STACK)


def _per_byte(regions: Sequence[Region]) -> float:
    """Cycles for a byte of the slowest of these, in the middle of its band."""
    return max((sum(region.fill) / 2 / region.line for region in regions if region.line), default=0.0)
