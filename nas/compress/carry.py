"""What a stream that has lost channels should carry: the branch that ends in it adds what its readers miss most.

The channels that are left are r + P h: r comes from before the branch, P is its last layer and h what that reads. The
readers then see C (r + P h) in the place of the whole stream S, with the best C. P and C are found in turns, each by
least squares in the metric of the readers' weights, from P = what the same channels had before.
"""

from __future__ import annotations

import numpy as np

from ...ir.graph import Array, Graph, Value
from ...ir.ops.elementwise import Add
from .sites import is_layer

__all__ = ["carried", "metric"]

TURNS = 8
"""How often P and C are found: most of the gain is in the first."""

RIDGE = 1e-4
"""Of the mean of a diagonal, added to it before it is inverted."""


def metric(graph: Graph, value: Value) -> Array | None:
    """What a unit of each channel of a sum [C, C] weighs for the layers that read it; None where others do as well."""
    read = [reader for reader, place in value.uses if place == 0 and is_layer(reader)]
    public = any(value is output for output in graph.outputs)
    if value.producer is None or not isinstance(value.producer.op, Add) or public or len(read) != len(value.uses):
        return None
    turned = [np.moveaxis(reader.input(1).array, 1, -1).astype(np.float64) for reader in read]
    columns = np.concatenate([w.reshape(-1, w.shape[-1]) for w in turned]) if turned else None
    return None if columns is None else np.asarray(columns.T @ columns)


def carried(whole: Array, stream: Array, hidden: Array, before: Array, weight: Array) -> Array:
    """What the last layer of a branch should give.

    Args:
        whole: The sum in the original, rows [R, C].
        stream: Its other operand as it is now, [R, K].
        hidden: What the layer reads, [R, H].
        before: What the layer would give if nothing were missing, [R, K].
        weight: See `metric`.
    """
    s, r, h, y = (each.astype(np.float64) - each.mean(axis=0, dtype=np.float64)
                  for each in (whole, stream, hidden, before))  # fmt: skip
    kept = r.shape[1]
    both = np.concatenate([r, h], axis=1)
    inner, outer = both.T @ both / len(both), s.T @ both / len(both)
    spread = _ridged(inner[kept:, kept:])
    p = np.linalg.solve(spread, h.T @ y / len(both)).T
    for _ in range(TURNS):
        mix = np.concatenate([np.eye(kept), p], axis=1)
        c = np.linalg.solve(_ridged(mix @ inner @ mix.T), mix @ outer.T).T
        missing = outer[:, kept:] - c @ inner[:kept, kept:]
        p = np.linalg.solve(_ridged(c.T @ weight @ c), c.T @ weight @ missing) @ np.linalg.inv(spread)
    return np.asarray(h @ p.T + before.mean(axis=0, dtype=np.float64), before.dtype)


def _ridged(square: Array) -> Array:
    return np.asarray(square + np.eye(len(square)) * max(RIDGE * float(np.trace(square)) / len(square), 1e-12))
