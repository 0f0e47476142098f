"""Graphs whose weights take no memory, for questions that shapes alone answer."""

from __future__ import annotations

import numpy as np

from .graph import Graph

__all__ = ["hollow"]


def hollow(graph: Graph) -> Graph:
    """A copy whose real constants are ones, each a single number in memory; integers (indices, shapes) are kept.

    So are zeros: that something is not there is a shape as well.
    """
    copy = graph.copy()
    for value in copy.constants:
        if value.type.numpy.kind == "f":
            ones = np.broadcast_to(np.array(value.array.any(), value.dtype), value.shape)
            copy.replace(value, copy.constant(ones, f"{value.name}_shape", value.type.quant))
    return copy
