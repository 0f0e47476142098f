"""Addresses for buffers whose lifetimes are known: a quick packing, then CP-SAT where the packing may be improved.

Rectangles lie in time x address. A block is a chain of buffers that take over each other's bytes: they share one
offset. Everything is counted in units of `ALIGN` bytes while solving.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from .scratch import ALIGN, align

EFFORT = 20.0
"""CP-SAT's deterministic seconds: a measure of work, so that a slower computer finds the same plan."""


@dataclass(frozen=True)
class Rectangle:
    """`bytes` in use from step `first` to step `last`, both included; the last `untouched` of them are only read."""

    bytes: int
    first: int
    last: int
    untouched: int = 0


Block = tuple[Rectangle, ...]
Waits = Callable[[tuple[int, ...]], float]


@dataclass(frozen=True)
class Placement:
    """An offset per block, the bytes up to the highest end, and a proven least for them."""

    offsets: tuple[int, ...]
    bytes: int
    bound: int


def place(
    blocks: Sequence[Block], bound: int, effort: float = EFFORT, waits: Waits | None = None, near: Collection[int] = ()
) -> Placement:
    """Offsets (multiples of `ALIGN`) such that no two rectangles of different blocks overlap, the top as low as found.

    Args:
        blocks: The rectangles of one block do not overlap in time.
        bound: A proven least of the top, for example the greatest sum over any step.
        effort: Deterministic seconds for the solver; 0 leaves it out.
        waits: What the device waits for memory with blocks at these offsets: decides between arrangements as low.
        near: Blocks that it waits for if they lie high.
    """
    orders: tuple[Callable[[Block], tuple[int, ...]], ...] = (
        lambda b: (-sum(r.bytes * (r.last - r.first + 1) for r in b), b[0].first),
        lambda b: (-max(r.bytes for r in b), b[0].first),
        lambda b: (b[0].first, -max(r.bytes for r in b)),
    )
    packed = [
        _pack(blocks, sorted(range(len(blocks)), key=lambda i: (i not in first, *key(blocks[i]), i)))
        for first in ([(), near] if near else [()])
        for key in orders
    ]
    best = _best(blocks, packed, waits)
    if _top(blocks, best) <= bound or effort <= 0:
        return Placement(best, _top(blocks, best), bound)
    solved, proven = _solve(blocks, best, bound, effort)
    best = _best(blocks, [best, solved], waits)
    return Placement(best, _top(blocks, best), max(bound, proven))


def _best(
    blocks: Sequence[Block], found: Sequence[tuple[int, ...]], waits: Waits | None = None
) -> tuple[int, ...]:
    """The lowest arrangement, either way up; of equal ones the one that waits least, then one written to its end."""

    def rank(way: tuple[int, ...]) -> tuple[int, float, int, int]:
        top = _top(blocks, way)
        return align(top), waits(way) if waits else 0.0, top - _top(blocks, way, written=True), top

    return min((way for offsets in found for way in (offsets, _turned(blocks, offsets))), key=rank)


def _top(blocks: Sequence[Block], offsets: Sequence[int], written: bool = False) -> int:
    ends = (
        offset + r.bytes - (r.untouched if written else 0)
        for block, offset in zip(blocks, offsets, strict=True)
        for r in block
    )
    return max(ends, default=0)


def _turned(blocks: Sequence[Block], offsets: Sequence[int]) -> tuple[int, ...]:
    """Upside down, if that keeps the blocks apart: one whose rectangles shrink would leave its place."""
    top = align(_top(blocks, offsets))
    even = all(align(r.bytes) == align(block[0].bytes) for block in blocks for r in block)
    if not even:
        return tuple(offsets)
    return tuple(top - o - align(block[0].bytes) if block else 0 for block, o in zip(blocks, offsets, strict=True))


def _pack(blocks: Sequence[Block], order: Sequence[int]) -> tuple[int, ...]:
    """Each block in turn at the lowest address where it fits."""
    offsets = [0] * len(blocks)
    placed: list[tuple[int, int, Rectangle]] = []  # start, end, rectangle
    for i in order:
        rivals = [
            (start, end, mine)
            for start, end, other in placed
            for mine in blocks[i]
            if other.first <= mine.last and mine.first <= other.last
        ]
        starts = sorted({0, *(end for _, end, _ in rivals)})
        offsets[i] = next(
            at for at in starts if all(at + align(mine.bytes) <= start or end <= at for start, end, mine in rivals)
        )
        placed += [(offsets[i], offsets[i] + align(r.bytes), r) for r in blocks[i]]
    return tuple(offsets)


def _solve(
    blocks: Sequence[Block], start: tuple[int, ...], bound: int, effort: float
) -> tuple[tuple[int, ...], int]:
    """Least top by constraint programming from the packing found, and what is proven about it.

    One worker and a fixed seed make the result the same everywhere.
    """
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    most = align(_top(blocks, start)) // ALIGN
    top = model.new_int_var(bound // ALIGN, most, "top")
    places, times, addresses = [], [], []
    for i, block in enumerate(blocks):
        place = model.new_int_var(0, most, f"offset{i}")
        model.add_hint(place, start[i] // ALIGN)
        places.append(place)
        for r in block:
            size = align(r.bytes) // ALIGN
            times.append(model.new_fixed_size_interval_var(r.first, r.last - r.first + 1, ""))
            addresses.append(model.new_fixed_size_interval_var(place, size, ""))
            model.add(place + size <= top)
    model.add_no_overlap_2d(times, addresses)
    model.minimize(top)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = effort
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return start, bound
    # The solver counts whole units; the topmost buffer may leave the last of them unfilled.
    proven = round(solver.best_objective_bound) * ALIGN - (ALIGN - 1)
    return tuple(solver.value(place) * ALIGN for place in places), proven
