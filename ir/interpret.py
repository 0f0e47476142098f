"""Run a graph on the ops' numpy references: the oracle every other implementation is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from .errors import ModelError
from .graph import Array, Graph, Value


def run(graph: Graph, feeds: Mapping[str, Array], dtype: str | None = None) -> dict[str, Array]:
    """Compute the graph's outputs.

    Args:
        graph: Any legal graph.
        feeds: An array per input name, of the declared shape.
        dtype: Compute all real numbers in this precision instead ("float64" to tell rounding from error).

    Returns:
        An array per output name.

    Raises:
        ModelError: A feed is missing or has the wrong shape.
    """
    wanted = {id(value) for value in graph.outputs}
    kept: dict[int, Array] = {}
    for value, array in trace(graph, feeds, dtype):
        if id(value) in wanted:
            kept[id(value)] = array
    return {value.name: kept[id(value)] for value in graph.outputs}


def trace(graph: Graph, feeds: Mapping[str, Array], dtype: str | None = None) -> Iterator[tuple[Value, Array]]:
    """Yield (value, array) for inputs, used constants and every result, in order of execution.

    Arrays are dropped after their last reader, so memory stays near the graph's own peak.
    """
    cast: Callable[[Array], Array] = lambda a: a.astype(dtype) if dtype and a.dtype.kind == "f" else a  # noqa: E731
    live: dict[int, Array] = {}
    pending: dict[int, int] = {}

    def keep(value: Value, array: Array) -> tuple[Value, Array]:
        if value.uses:
            live[id(value)] = array
            pending[id(value)] = len(value.uses)
        return value, array

    for value in graph.inputs:
        yield keep(value, cast(_feed(value, feeds)))
    for value in graph.constants:
        yield keep(value, cast(value.array))
    for node in graph.nodes:
        operands = [None if v is None else live[id(v)] for v in node.inputs]
        with np.errstate(all="ignore"):  # infinity and NaN are answers, as they are of the devices
            results = node.op.reference(*operands)
        for v in node.inputs:
            if v is not None:
                pending[id(v)] -= 1
                if not pending[id(v)]:
                    del live[id(v)]
        for value, array in zip(node.outputs, results if isinstance(results, tuple) else (results,), strict=True):
            yield keep(value, array)


def _feed(value: Value, feeds: Mapping[str, Array]) -> Array:
    if value.name not in feeds:
        raise ModelError(f"no array was given for input '{value.name}'", do=f"give one of shape {value.shape}")
    array = np.asarray(feeds[value.name])
    if array.shape != value.shape:
        raise ModelError(f"input '{value.name}' has shape {array.shape}, the graph expects {value.shape}")
    return array.astype(value.dtype) if array.dtype.kind == value.type.numpy.kind == "f" else array
