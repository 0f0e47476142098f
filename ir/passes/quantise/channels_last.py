"""Layouts: a value of the integer graph is a float value with its axes in another order.

`layout[i]` is the float axis that lies at position i. Transposes of the float graph only change the layout; elements
move when an operator needs another order, so most of an exporter's transposes cost nothing.
"""

from __future__ import annotations

Layout = tuple[int, ...]
IMAGE: Layout = (0, 2, 3, 1)


def plain(rank: int) -> Layout:
    """The float graph's own order."""
    return tuple(range(rank))


def arranged(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """The shape in memory of a float shape."""
    return tuple(shape[axis] for axis in layout)


def channels_at_end(layout: Layout, axis: int) -> Layout:
    """The layout with one float axis moved to the end, the others as they were."""
    return (*(a for a in layout if a != axis), axis)


def same_order(shape: tuple[int, ...], a: Layout, b: Layout) -> bool:
    """Whether two layouts of a float shape hold the elements in the same order (axes of size 1 do not count)."""
    return [x for x in a if shape[x] != 1] == [x for x in b if shape[x] != 1]


def after_transpose(layout: Layout, perm: tuple[int, ...]) -> Layout:
    """The layout of Transpose(perm)'s result when no element moves."""
    return tuple(perm.index(axis) for axis in layout)


def without(layout: Layout, axes: tuple[int, ...]) -> Layout:
    """The layout after some float axes have been reduced away."""
    gone = {axis % len(layout) for axis in axes}
    return tuple(axis - sum(a < axis for a in gone) for axis in layout if axis not in gone)


def after_reshape(shape: tuple[int, ...], layout: Layout, new_shape: tuple[int, ...]) -> Layout | None:
    """The layout of Reshape(new_shape)'s result when no element moves; None when elements must move.

    Axes fall into groups of equal size before and after; each group must lie together and in order.
    """
    groups = _groups(shape, new_shape)
    if groups is None:
        return None
    where = {axis: index for index, (old, _) in enumerate(groups) for axis in old if shape[axis] != 1}
    order = [axis for axis in layout if shape[axis] != 1]
    result: list[int] = [axis for old, new in groups if not any(shape[a] != 1 for a in old) for axis in new]
    at = 0
    while at < len(order):
        old, new = groups[where[order[at]]]
        real = [axis for axis in old if shape[axis] != 1]
        if order[at : at + len(real)] != real:
            return None
        result += new
        at += len(real)
    return tuple(result)


def _groups(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]] | None:
    """Smallest runs of old and new axes that hold equally many elements."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        left: list[int] = []
        right: list[int] = []
        a = b = 1
        while True:
            if a <= b and i < len(old) and (a < b or not left):
                a *= old[i]
                left.append(i)
                i += 1
            elif j < len(new) and (b < a or not right):
                b *= new[j]
                right.append(j)
                j += 1
            elif a == b:
                break
            else:
                return None
        groups.append((left, right))
    return groups
