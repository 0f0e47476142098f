"""What is added to the scores of windows: image, window and head apart for the addition, and joined again.

Shifted windows add a table per window to scores [images * windows, heads, N, N], on a view that has images and windows
on axes of their own. The table moves before the view, so that it stands next to the relative positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Array, Value
from ...ops.elementwise import Add
from ...ops.shape import Reshape
from ...rewrite import Any, Const, Match, Miss, P, Rule
from ..base import Pass


def regrouped(array: Array, seen: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """A constant that broadcasts to `seen`, as one that broadcasts to `shape`, of which `seen` is a view."""
    full = array.reshape((1,) * (len(seen) - array.ndim) + array.shape)
    spread, result = list(full.shape), []
    for old, new in _groups(seen, shape):
        varies = any(full.shape[i] > 1 for i in old)
        for i in old:
            spread[i] = seen[i] if varies else 1
        result += [shape[i] if varies else 1 for i in new]
    return np.ascontiguousarray(np.broadcast_to(full, spread)).reshape(result)


def _groups(a: tuple[int, ...], b: tuple[int, ...]) -> Iterator[tuple[range, range]]:
    """The finest runs of axes of two shapes that hold the same elements."""
    i = j = 0
    while i < len(a) or j < len(b):
        first, other = i, j
        left, right = math.prod(a[i : i + 1]), math.prod(b[j : j + 1])
        i, j = min(i + 1, len(a)), min(j + 1, len(b))
        while left != right:
            if left < right:
                left, i = left * a[i], i + 1
            else:
                right, j = right * b[j], j + 1
        yield range(first, i), range(other, j)


def _before(match: Match) -> Value:
    scores, seen = match["scores"], match["seen"]
    if match.root.output.shape != seen.shape:
        raise Miss(f"the table enlarges the scores {seen.shape}")
    if len(scores.shape) < 3 or scores.shape[-2:] != seen.shape[-2:] or not scores.type.size:
        raise Miss(f"{seen.shape} is no view of scores {scores.shape} by window")
    table = regrouped(match.array("table"), seen.shape, scores.shape)
    total = match.add(Add(), scores, match.graph.constant(table, match["table"].name))
    result: Value = match.graph.add(Reshape(seen.shape), total, name=match.root.name, sources=match.sources)
    return result


@dataclass(frozen=True)
class RecogniseMasks(Pass):
    """Reshape(scores) + table becomes Reshape(scores + table), and two Reshapes meet."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("window_mask", P(Add, P(Reshape, Any("scores"), name="seen"), Const(name="table")), _before),
    )
