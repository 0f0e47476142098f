"""Addresses for buffers whose lifetimes are known: a quick packing, then CP-SAT where the packing may be improved.

Rectangles lie in time x address. A block is a chain of buffers that take over each other's bytes: they share one
offset. Everything is counted in units of `ALIGN` bytes while solving.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .scratch import ALIGN, align

EFFORT = 20.0
"""CP-SAT's deterministic seconds: a measure of work, so that a slower computer finds the same plan."""


@dataclass(frozen=True)
class Rectangle:
    """`bytes` in use from step `first` to step `last`, both included."""

    bytes: int
    first: int
    last: int


Block = tuple[Rectangle, ...]


@dataclass(frozen=True)
class Placement:
    """An offset per block, the bytes up to the highest end, and a proven least for them."""

    offsets: tuple[int, ...]
    bytes: int
    bound: int


def place(blocks: Sequence[Block], bound: int, effort: float = EFFORT) -> Placement:
    """Offsets (multiples of `ALIGN`) such that no two rectangles of different blocks overlap, the top as low as found.

    Args:
        blocks: The rectangles of one block do not overlap in time.
        bound: A proven least of the top, for example the greatest sum over any step.
        effort: Deterministic seconds for the solver; 0 leaves it out.
    """
    orders: tuple[Callable[[Block], tuple[int, ...]], ...] = (
        lambda b: (-max(r.bytes for r in b), b[0].first),
        lambda b: (-sum(r.bytes * (r.last - r.first + 1) for r in b), b[0].first),
        lambda b: (b[0].first, -max(r.bytes for r in b)),
    )
    best: Placement | None = None
    for key in orders:
        offsets = _pack(blocks, sorted(range(len(blocks)), key=lambda i: (*key(blocks[i]), i)))
        top = _top(blocks, offsets)
        if best is None or top < best.bytes:
            best = Placement(offsets, top, bound)
    assert best is not None
    return best if best.bytes <= bound or effort <= 0 else _solve(blocks, best, effort)


def _top(blocks: Sequence[Block], offsets: Sequence[int]) -> int:
    return max((o + r.bytes for block, o in zip(blocks, offsets, strict=True) for r in block), default=0)


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


def _solve(blocks: Sequence[Block], start: Placement, effort: float) -> Placement:
    """Least top by constraint programming, from the packing found; one worker and a fixed seed for equal results."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    most = align(start.bytes) // ALIGN
    top = model.new_int_var(start.bound // ALIGN, most, "top")
    places, times, addresses = [], [], []
    for i, block in enumerate(blocks):
        place = model.new_int_var(0, most, f"offset{i}")
        model.add_hint(place, start.offsets[i] // ALIGN)
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
        return start
    offsets = tuple(solver.value(place) * ALIGN for place in places)
    bytes_ = _top(blocks, offsets)
    bound = max(start.bound, round(solver.best_objective_bound) * ALIGN - (ALIGN - 1))
    if status == cp_model.OPTIMAL:
        bound = bytes_ if bytes_ <= start.bytes else start.bytes
    return Placement(offsets, bytes_, bound) if bytes_ < start.bytes else Placement(start.offsets, start.bytes, bound)
