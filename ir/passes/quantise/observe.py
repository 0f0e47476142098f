"""What the values of a float graph look like on sample inputs, for the back ends that keep the graph as it is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from ...errors import ModelError
from ...graph import Array, Graph, Value
from ...interpret import trace
from .calibrate import Statistics

__all__ = ["Observed", "observe", "ranges"]

Feeds = Mapping[str, Array]
Observed = dict[str, Statistics]


def ranges(graph: Graph, samples: Iterable[Feeds]) -> dict[str, tuple[float, float]]:
    """Lowest and highest number of every real value that is computed or given, by its name.

    Args:
        graph: A float graph.
        samples: Feeds of the graph, one at least.

    Raises:
        ModelError: There are no samples, or a value is NaN or infinite on one.
    """
    found: dict[str, tuple[float, float]] = {}
    for feeds in samples:
        for value, array in _real(graph, feeds):
            low, high = found.get(value.name, (np.inf, -np.inf))
            found[value.name] = min(low, float(array.min())), max(high, float(array.max()))
    _require(bool(found))
    return found


def observe(
    graph: Graph, samples: Iterable[Feeds], axes: Mapping[str, int] | None = None, only: Collection[str] | None = None
) -> Observed:
    """Statistics of every real value that is computed or given, by its name.

    Args:
        graph: A float graph.
        samples: Feeds of the graph, one at least.
        axes: The axis, by the names of values, along which channels are told apart.
        only: Names of the values that matter; all where nothing is said.

    Raises:
        ModelError: There are no samples, or a value is NaN or infinite on one.
    """
    found: Observed = {}
    measured = False
    for feeds in samples:
        for value, array in _real(graph, feeds):
            measured = True
            if only is None or value.name in only:
                found.setdefault(value.name, Statistics()).observe(array, (axes or {}).get(value.name))
    _require(measured)
    return found


def _real(graph: Graph, feeds: Feeds) -> Iterable[tuple[Value, Array]]:
    for value, array in trace(graph, feeds):
        if value.is_constant or array.dtype.kind != "f" or not array.size:
            continue
        if not np.all(np.isfinite(array)):
            where = value.producer.sources if value.producer and value.producer.sources else (value.name,)
            what = "the network computes NaN or infinity on the data given"
            raise ModelError(what, where=where, do="check the weights and the normalisation of the inputs")
        yield value, array


def _require(measured: bool) -> None:
    if not measured:
        raise ModelError("there are no samples to measure ranges on", do="give one input at least")
