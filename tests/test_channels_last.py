"""Layouts: transposes that cost nothing must still be transposes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.ir.passes.quantise.channels_last import (
    IMAGE,
    after_reshape,
    after_transpose,
    arranged,
    same_order,
    without,
)


@pytest.mark.parametrize(
    ("shape", "layout", "new", "expected"),
    [
        ((1, 64, 7, 7), IMAGE, (1, 64, 49), (0, 2, 1)),
        ((1, 64, 49), (0, 2, 1), (1, 64, 7, 7), IMAGE),
        ((1, 8, 4, 4), IMAGE, (1, 128), None),
        ((1, 49, 64), (0, 1, 2), (1, 7, 7, 64), (0, 1, 2, 3)),
        ((1, 64, 1, 1), IMAGE, (1, 64), (0, 1)),
    ],
)
def test_reshapes_known_from_networks(shape, layout, new, expected):
    assert after_reshape(shape, layout, new) == expected


@st.composite
def reshapes(draw):
    """A shape, an order of its axes, and another shape of the same size."""
    factors = draw(st.lists(st.sampled_from([1, 2, 3, 5]), min_size=1, max_size=5))
    cuts = draw(st.lists(st.booleans(), min_size=len(factors) - 1, max_size=len(factors) - 1))
    new = [factors[0]]
    for factor, cut in zip(factors[1:], cuts, strict=True):
        new = [*new, factor] if cut else [*new[:-1], new[-1] * factor]
    shape = tuple(factors)
    layout = tuple(draw(st.permutations(range(len(shape)))))
    return (shape, layout, tuple(new)) if draw(st.booleans()) else (tuple(new), tuple(range(len(new))), shape)


@settings(max_examples=300, deadline=None)
@given(reshapes())
def test_a_reshape_without_moving_elements_is_the_reshape(case):
    shape, layout, new = case
    result = after_reshape(shape, layout, new)
    x = np.arange(int(np.prod(shape))).reshape(shape)
    stored = x.transpose(layout)
    if layout == tuple(range(len(shape))):
        assert result is not None
    if result is not None:
        assert arranged(new, result) == x.reshape(new).transpose(result).shape
        assert np.array_equal(stored.reshape(arranged(new, result)), x.reshape(new).transpose(result))


@settings(max_examples=200, deadline=None)
@given(st.permutations(range(4)), st.permutations(range(4)), st.sets(st.integers(0, 3), max_size=3))
def test_transposes_and_reductions(layout, perm, axes):
    x = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    layout, perm, gone = tuple(layout), tuple(perm), tuple(axes)
    stored = x.transpose(layout)
    assert np.array_equal(stored, x.transpose(perm).transpose(after_transpose(layout, perm)))
    reduced = stored.sum(axis=tuple(layout.index(axis) for axis in gone))
    assert np.array_equal(reduced, x.sum(axis=gone).transpose(without(layout, gone)))


def test_axes_of_one_do_not_count():
    assert same_order((1, 64, 1, 1), IMAGE, (0, 1, 2, 3))
    assert not same_order((1, 64, 2, 1), IMAGE, (0, 1, 2, 3))
