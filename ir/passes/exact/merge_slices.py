"""A piece of a piece is one piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...graph import Value
from ...ops.shape import COPY, Slice
from ...rewrite import Any, Match, Miss, P, Rule
from ..base import Pass


def sliced(shape: Sequence[int], cuts: Sequence[range]) -> Slice:
    """The Slice of a tensor of that shape that takes these indices of each axis."""
    axes = [axis for axis, cut in enumerate(cuts) if cut != range(shape[axis])]
    ends = [cuts[axis][-1] + (1 if cuts[axis].step > 0 else -1) for axis in axes]
    ends = [end if end >= 0 else -(2**31) for end in ends]  # before the first: no index says so but one far below
    starts, steps = [cuts[axis].start for axis in axes], [cuts[axis].step for axis in axes]
    return Slice(tuple(starts), tuple(ends), tuple(axes), tuple(steps))


def _merged(match: Match) -> Value:
    x, inner, outer = match["x"], match.node("inner").op, match.root.op
    assert isinstance(inner, Slice) and isinstance(outer, Slice)
    cuts = [range(n)[cut] for n, cut in zip(x.shape, inner.index(len(x.shape)), strict=True)]
    cuts = [whole[cut] for whole, cut in zip(cuts, outer.index(len(x.shape)), strict=True)]
    if COPY in (inner, outer) or not all(cuts):
        raise Miss("nothing is cut, or nothing is left")
    result: Value = match.add(sliced(x.shape, cuts), x)
    return result


@dataclass(frozen=True)
class MergeSlices(Pass):
    """Slices of slices, as exporters write a step per axis, become one; legal when only the second reads the first."""

    rules: ClassVar[tuple[Rule, ...]] = (Rule("merge_slices", P(Slice, P(Slice, Any("x"), name="inner")), _merged),)
