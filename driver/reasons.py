"""Why a compile chose as it did, in sentences: where operands lie, how often weights are read, and in which code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..ir.memory import Plan, Rates
    from ..targets import Target

__all__ = ["codes", "placement"]

DECODING = {
    "dsp": {"int4": 3.1, "shift": 3.9, "ternary": 1.9},
    "mul": {"int4": 4.1, "shift": 3.9, "ternary": 1.9},
    "": {"int4": 4.6, "shift": 6.1, "ternary": 2.8},
}
"""Instructions to decode a weight for a tile, by a feature of the core (a Cortex-M7, an RV32IMC, a Cortex-M3): what
`edgesmith compile --weights` adds to a transformer of one block and 96 channels, for each weight read."""


def placement(plan: Plan, rates: Rates, device: Target) -> list[str]:
    """What waiting for memory made of loop order and place; nothing on a device that states no costs of it."""
    from ..ir.memory import streams

    if not any(region.line for region in device.regions):
        return []
    reads = plan.weight_bytes
    cost = f"a byte of weights costs as much as {rates.weight:.2f} multiply-accumulates"
    found = [f"loop order: weights are read {_mb(reads)} an inference in tiles that RAM allows; {cost} by the estimate"]
    if rates.operand:
        total = sum(stream.read for step in plan.steps for stream in streams(step.group, step.schedule))
        slow = sum(rates.slow(step.group, step.schedule, step.scratch) for step in plan.steps)
        where = f"the arena's first {rates.fast:,} bytes, which never wait"
        found.append(
            f"place: of {_mb(total)} of operands that products read, {_mb(total - slow)} lie in {where}, or in the "
            f"data cache; each other byte costs as much as {rates.operand:.2f} multiply-accumulates by the estimate"
        )
    return found


def codes(plan: Plan, device: Target) -> list[str]:
    """What weights would take in every code, beside what was taken; nothing for a graph without matrices."""
    from ..ir.integer_codes import pair_bytes

    taken: dict[str, int] = {}
    sizes = dict.fromkeys(("int8", *DECODING[""]), 0)
    stored = decoded = 0
    for n, k, passes, code in _matrices(plan):
        taken[code] = taken.get(code, 0) + 1
        pairs = -(-n // 2)
        sizes = {name: size + pairs * pair_bytes(name, k) for name, size in sizes.items()}
        stored += pairs * pair_bytes(code, k)
        decoded += n * k * passes
    if not taken:
        return []
    others = [f"{name} {sizes[name]:,} bytes{_slower(name, decoded, device)}" for name in sizes if {name} != set(taken)]
    chosen = ", ".join(f"{count} in {name}" for name, count in sorted(taken.items()))
    return [f"weights: {chosen}, {stored:,} bytes, the fewest bits that hold them; in others: {'; '.join(others)}"]


def _matrices(plan: Plan) -> Iterator[tuple[int, int, int, str]]:
    """Outputs, depth, passes and code of every weight matrix."""
    from ..ir.integer_codes import smallest
    from ..ir.memory.group import is_rowwise_linear

    for step in plan.steps:
        for node in step.group.nodes:
            if is_rowwise_linear(node) and node.input(1).dtype == "int8":
                rows = node.input(1).array.reshape(node.input(1).shape[0], -1)
                yield *rows.shape, step.schedule.weight_passes, smallest(rows)


def _slower(code: str, decoded: int, device: Target) -> str:
    """What a code does to time: where products are functions, shifts replace them; elsewhere weights are decoded."""
    if "soft" in device.core.features:
        return " and shifts instead of products" if code in ("shift", "ternary") else ""
    if code == "int8":
        return ""
    each = next(costs for feature, costs in DECODING.items() if not feature or feature in device.core.features)
    return f" and about {decoded * each[code] / 1e6:,.1f} M instructions more, to decode them for each tile"


def _mb(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"
