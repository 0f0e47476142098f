"""Addresses: nothing alive together overlaps, small cases are optimal, and what is called proven is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.ir.memory.offsets import Rectangle, place
from edgesmith.ir.memory.scratch import ALIGN, align


@st.composite
def blocks(draw: st.DrawFn, most: int = 9) -> list[tuple[Rectangle, ...]]:
    found = []
    for _ in range(draw(st.integers(1, most))):
        first, length = draw(st.integers(0, 6)), draw(st.integers(0, 4))
        size = draw(st.integers(1, 60))
        chain = [Rectangle(size, first, first + length, draw(st.integers(0, min(size, 9))))]
        if draw(st.booleans()):
            after = first + length + 1
            chain.append(Rectangle(draw(st.integers(1, size)), after, after + draw(st.integers(0, 3))))
        found.append(tuple(chain))
    return found


def peak(found: Sequence[tuple[Rectangle, ...]]) -> int:
    every = [r for block in found for r in block]
    return max(sum(align(r.bytes) for r in every if r.first <= t <= r.last) for t in range(16)) - (ALIGN - 1)


@given(blocks())
@settings(max_examples=80, deadline=None)
def test_no_two_buffers_share_a_byte_at_the_same_time(found: list[tuple[Rectangle, ...]]) -> None:
    placed = place(found, peak(found), effort=0.2)
    cells: dict[tuple[int, int], int] = {}
    for i, block in enumerate(found):
        assert placed.offsets[i] % ALIGN == 0
        for r in block:
            addresses = range(placed.offsets[i], placed.offsets[i] + r.bytes)
            for cell in itertools.product(addresses, range(r.first, r.last + 1)):
                assert cells.setdefault(cell, i) == i
    assert max(address for address, _ in cells) + 1 == placed.bytes
    assert peak(found) <= placed.bound <= placed.bytes


def lowest(order: tuple[tuple[Rectangle, ...], ...]) -> int:
    """The top when blocks are dropped in this order to the lowest place; some order is optimal."""
    done: list[tuple[int, Rectangle]] = []
    for block in order:
        at = 0
        while any(
            at < low + align(r.bytes) and low < at + align(mine.bytes) and r.first <= mine.last and mine.first <= r.last
            for low, r in done
            for mine in block
        ):
            at += ALIGN
        done += [(at, r) for r in block]
    return max(at + align(r.bytes) for at, r in done)


@given(blocks(most=5))
@settings(max_examples=40, deadline=None)
def test_small_cases_are_optimal(found: list[tuple[Rectangle, ...]]) -> None:
    least = min(map(lowest, itertools.permutations(found)))
    placed = place(found, peak(found))
    assert align(placed.bytes) == least


def test_the_solver_improves_on_the_packing() -> None:
    found = [(Rectangle(*r),) for r in ((40, 4, 5), (48, 1, 3), (32, 3, 6), (24, 4, 4), (16, 2, 5))]
    assert place(found, peak(found), effort=0).bytes == 120
    assert place(found, peak(found)).bytes == lowest(tuple(found[i] for i in (2, 4, 1, 0, 3))) == 112


def test_an_arena_is_written_to_its_last_byte_where_that_costs_nothing() -> None:
    found = [(Rectangle(96, 0, 3),), (Rectangle(60, 1, 2, untouched=8),)]
    assert place(found, peak(found)).offsets == (64, 0)
    found = [(Rectangle(96, 0, 3, untouched=8),), (Rectangle(60, 1, 2),)]
    assert place(found, peak(found)).offsets == (0, 96)
