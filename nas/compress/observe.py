"""What a float graph computes on calibration data: what every layer should give, and how its inputs hang together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from ...ir.errors import ModelError
from ...ir.graph import Array, Graph, Node
from ...ir.interpret import trace
from ...ir.ops.conv import Conv, pad_image, windows
from ...ir.ops.elementwise import Add
from .carry import metric
from .rebuild import batched
from .sites import is_layer

__all__ = ["CHUNK", "Observed", "Second", "chunks", "matrix", "observe", "rows", "unmatrix"]

CHUNK = 32
"""Samples that run at once: enough for the products of numpy to be quick, few enough for their windows to fit."""

Feeds = Mapping[str, Array]


@dataclass
class Second:
    """Sums over rows x: how many, of x, and of x x^T; in float64."""

    count: int
    total: Array
    products: Array

    @classmethod
    def of(cls, x: Array) -> Second:
        """Those of the rows [R, K]."""
        wide = x.astype(np.float64)
        return cls(len(x), wide.sum(axis=0), wide.T @ wide)

    def add(self, other: Second) -> None:
        """Take further rows into account."""
        self.count += other.count
        self.total = self.total + other.total
        self.products = self.products + other.products

    @property
    def moment(self) -> Array:
        """E[x x^T], [K, K]."""
        return np.asarray(self.products / self.count)


@dataclass
class Observed:
    """One pass over the calibration data.

    Attributes:
        feeds: All samples, stacked, by input name.
        wanted: Outputs of layers, of sums and of the graph by value name, [samples, ...].
        inputs: Second moments over the channels that each layer reads, by the name of its output.
        metrics: What channels of sums weigh for the layers that read them, by the name of the sum; see `carry.metric`.
    """

    feeds: dict[str, Array]
    wanted: dict[str, Array] = field(default_factory=dict)
    inputs: dict[str, Second] = field(default_factory=dict)
    metrics: dict[str, Array] = field(default_factory=dict)


def chunks(feeds: Feeds) -> Iterator[tuple[int, dict[str, Array]]]:
    """The samples in lots of `CHUNK`, each with the number of its first."""
    count = len(next(iter(feeds.values())))
    for first in range(0, count, CHUNK):
        yield first, {name: array[first : first + CHUNK] for name, array in feeds.items()}


def observe(graph: Graph, feeds: Feeds) -> Observed:
    """Run a float graph of batch 1 on stacked samples.

    Raises:
        ModelError: The graph takes single samples only, or the samples do not fit it.
    """
    for value in graph.inputs:
        given = np.shape(feeds[value.name]) if value.name in feeds else ()
        if not given or not given[0] or given[1:] != value.shape[1:]:
            what = f"calibration data for '{value.name}' has shape {given}"
            raise ModelError(what, do=f"give samples of shape {value.shape[1:]}")
    seen = Observed({name: np.asarray(array) for name, array in feeds.items()})
    parts: dict[str, list[Array]] = {}
    for _, lot in chunks(feeds):
        _watch(batched(graph, len(next(iter(lot.values())))), lot, seen, parts)
    seen.wanted = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    found = {node.outputs[0].name: metric(graph, node.outputs[0]) for node in graph.nodes}
    seen.metrics = {name: each for name, each in found.items() if each is not None}
    return seen


def _watch(graph: Graph, lot: Feeds, seen: Observed, parts: dict[str, list[Array]]) -> None:
    outputs = {id(value) for value in graph.outputs}
    for value, array in trace(graph, lot):
        node = value.producer
        if node is not None and (is_layer(node) or isinstance(node.op, Add) or id(value) in outputs):
            parts.setdefault(value.name, []).append(array)
        for reader, place in value.uses:
            if place == 0 and is_layer(reader):
                axis = 1 if isinstance(reader.op, Conv) else -1
                found = Second.of(np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis]))
                if reader.output.name in seen.inputs:
                    seen.inputs[reader.output.name].add(found)
                else:
                    seen.inputs[reader.output.name] = found


def rows(node: Node, x: Array) -> Array:
    """What each output of a layer is a product with: [samples and positions, K], K as in `matrix`."""
    if not isinstance(node.op, Conv):
        return x.reshape(-1, x.shape[-1])
    kernel, op = node.input(1).shape[2:], node.op
    view = windows(pad_image(x, op.pads), (kernel[0], kernel[1]), op.strides, op.dilations)
    turned = view.transpose(0, 2, 3, 4, 5, 1)
    return np.ascontiguousarray(turned).reshape(-1, turned.shape[3] * turned.shape[4] * turned.shape[5])


def matrix(node: Node) -> Array:
    """The weights of a layer as [N, K]: taps of a kernel row by row, channels innermost, as integers store them."""
    w = node.input(1).array
    return np.ascontiguousarray(w.transpose(0, 2, 3, 1)).reshape(len(w), -1) if isinstance(node.op, Conv) else w


def unmatrix(node: Node, w: Array) -> Array:
    """Such a matrix in the order of the layer's own weights."""
    if not isinstance(node.op, Conv):
        return w
    _, depth, *kernel = node.input(1).shape
    return np.ascontiguousarray(w.reshape(-1, *kernel, depth).transpose(0, 3, 1, 2))
