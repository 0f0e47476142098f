"""After something was taken out, every layer left is fitted anew to what it gave before: no labels, no training.

The calibration data runs through the smaller network once. When it reaches a layer, the inputs x are those that this
layer will really get, made by layers that are final already; its weights become the ridge regression of what is wanted
on x, drawn towards the weights it had. What is wanted is the layer's output in the original, or, where the layer ends a
branch, what is missing from the stream: so each branch makes up for what was lost before it. Weights that are to be
stored in a code of few bits are rounded at once, so that later layers make up for that as well. (Layer by layer as in
Optimal Brain Compression, arXiv 2208.11580, section 4; on the inputs of the compressed network as in section A.5.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ...ir.graph import Array, Graph, Node, Value
from ...ir.ops.attention import Attention
from ...ir.ops.conv import Conv
from ...ir.ops.elementwise import Add
from .carry import carried
from .low_rank import break_even, factors
from .observe import Observed, matrix, rows, unmatrix
from .rebuild import batched, rebuilt
from .rounding import nearest, rounded
from .sites import is_layer

__all__ = ["Fit", "applied", "corrected"]


@dataclass(frozen=True)
class Fit:
    """New weights of a layer: one matrix [N, K], or two factors, the one that reads the input first; and its bias."""

    matrices: tuple[Array, ...]
    bias: Array | None


@dataclass
class _Pass:
    """The run through the network: values that somebody still reads, and what the layers have become."""

    seen: Observed
    kept: Mapping[str, Array]
    codes: Mapping[str, str]
    ranks: Mapping[str, int]
    live: dict[int, Array] = field(default_factory=dict)
    fits: dict[str, Fit] = field(default_factory=dict)

    def run(self, graph: Graph) -> None:
        """All nodes in order."""
        pending = {id(value): len(value.uses) for value in _values(graph)}
        for value in graph.inputs:
            self.live[id(value)] = self.seen.feeds[value.name]
        for value in graph.constants:
            self.live[id(value)] = value.array
        for node in graph.nodes:
            found = self._computed(node)
            for operand in node.inputs:
                if operand is not None:
                    pending[id(operand)] -= 1
                    if not pending[id(operand)]:
                        del self.live[id(operand)]
            for value, array in zip(node.outputs, found if isinstance(found, tuple) else (found,), strict=True):
                self.live[id(value)] = array

    def _computed(self, node: Node) -> Array | tuple[Array, ...]:
        if is_layer(node) and node.output.name in self.seen.wanted:
            return self._layer(node)
        return node.op.reference(*(None if value is None else self.live[id(value)] for value in node.inputs))

    def _layer(self, node: Node) -> Array:
        """Fit a layer, and give what it makes from now on."""
        name, given = node.output.name, self.live[id(node.input(0))]
        x, wanted = rows(node, given), self._wanted(node)
        axis = 1 if isinstance(node.op, Conv) else -1
        y = np.moveaxis(wanted, axis, -1).reshape(len(x), -1)
        read = node.input(0).producer
        scaled = read is not None and isinstance(read.op, Attention)
        regression = _Regression.of(x, y, matrix(node), node.optional(2) is not None)
        fit, effective = regression.fit(self.codes.get(name, "int8"), self.ranks.get(name), scaled)
        self.fits[name] = fit
        made = x @ effective.T.astype(x.dtype)
        made = made if fit.bias is None else made + fit.bias.astype(x.dtype)
        if not isinstance(node.op, Conv):
            return np.asarray(made.reshape(node.output.shape))
        batch, outputs, *size = node.output.shape
        return np.ascontiguousarray(made.reshape(batch, *size, outputs).transpose(0, 3, 1, 2))

    def _wanted(self, node: Node) -> Array:
        """The original's output; at the end of a branch, the original's sum less the stream as it is now."""
        out, before = node.output, self.seen.wanted
        if len(out.uses) == 1 and isinstance(out.readers[0].op, Add) and out.readers[0].output.name in before:
            after, place = out.uses[0]
            stream = after.input(1 - place)
            if id(stream) in self.live and not stream.is_constant:
                return self._missing(node, after.output.name, self.live[id(stream)])
        return self._left(out, before[out.name])

    def _missing(self, node: Node, name: str, stream: Array) -> Array:
        """What the last layer of a branch should add to a stream, the sum being called `name`."""
        whole = self.seen.wanted[name]
        missing = np.asarray(self._left(node.output, whole) - stream)
        weight = self.seen.metrics.get(name)
        if weight is None or node.output.name not in self.kept:
            return missing
        axis = 1 if isinstance(node.op, Conv) else -1
        flat = [np.moveaxis(each, axis, -1).reshape(-1, each.shape[axis]) for each in (whole, stream, missing)]
        made = carried(flat[0], flat[1], rows(node, self.live[id(node.input(0))]), flat[2], weight)
        return np.moveaxis(made.reshape(np.moveaxis(missing, axis, -1).shape), -1, axis)

    def _left(self, value: Value, array: Array) -> Array:
        """Of an original array, the channels that a value still has."""
        at = self.kept.get(value.name)
        return array if at is None else np.take(array, at, axis=1 if array.ndim == 4 else -1)


@dataclass(frozen=True)
class _Regression:
    """Outputs [R, N] on inputs [R, K]: means, covariance of the inputs, that of both, and the weights to stay near."""

    x_mean: Array
    y_mean: Array
    covariance: Array
    cross: Array
    before: Array
    rows: int
    biased: bool

    @classmethod
    def of(cls, x: Array, y: Array, before: Array, biased: bool) -> _Regression:
        """Without a bias nothing is centred: the layer cannot add what the means differ by."""
        x_mean = x.mean(axis=0, dtype=np.float64) * biased
        y_mean = y.mean(axis=0, dtype=np.float64) * biased
        a, b = x - x_mean.astype(x.dtype), y - y_mean.astype(y.dtype)
        covariance, cross = (a.T @ a).astype(np.float64), (b.T @ a).astype(np.float64)
        return cls(x_mean, y_mean, covariance / len(x), cross / len(x), before.astype(np.float64), len(x), biased)

    def fit(self, code: str, rank: int | None, scaled: bool) -> tuple[Fit, Array]:
        """The new weights, rounded to a code, and the matrix [N, K] that they amount to.

        Args:
            code: What the weights are to be stored in.
            rank: Of two factors, where that is below what a single matrix takes; None for a single one.
            scaled: Whether integers will have a scale for each input, so that the code's values are not known here:
                the weights are then left to the quantiser.
        """
        best = self._solve(self.covariance, self.cross, self.before)
        if rank is not None and rank <= break_even(*best.shape):
            second, first = factors(best, self.covariance, rank)
            first, narrow = self._coded(first, self.covariance, code, scaled)
            inner = narrow @ self.covariance @ narrow.T
            second = self._solve(inner, self.cross @ narrow.T, second)
            second, outer = self._coded(second, inner, code, False)
            matrices, effective = [first, second], outer @ narrow
        else:
            only, effective = self._coded(best, self.covariance, code, scaled)
            matrices = [only]
        bias = (self.y_mean - effective @ self.x_mean).astype(np.float32) if self.biased else None
        return Fit(tuple(each.astype(np.float32) for each in matrices), bias), effective

    def _solve(self, covariance: Array, cross: Array, before: Array) -> Array:
        """Ridge regression towards `before`, the more so the fewer rows there are for each input."""
        depth = len(covariance)
        ridge = max(float(np.trace(covariance)) / depth * max(depth / self.rows, 1e-4), 1e-12)
        return np.asarray(np.linalg.solve(covariance + ridge * np.eye(depth), (cross + ridge * before).T).T)

    @staticmethod
    def _coded(w: Array, covariance: Array, code: str, scaled: bool) -> tuple[Array, Array]:
        """Weights to keep, and what they will act like."""
        if not scaled:
            made = rounded(w, covariance, code)
            return made, made
        reach = np.sqrt(np.maximum(np.diag(covariance), 1e-24))
        return w, nearest(w * reach, code) / reach


def _values(graph: Graph) -> list[Value]:
    return [*graph.inputs, *graph.constants, *(value for node in graph.nodes for value in node.outputs)]


def corrected(
    graph: Graph, seen: Observed, kept: Mapping[str, Array], codes: Mapping[str, str], ranks: Mapping[str, int]
) -> dict[str, Fit]:
    """New weights for every layer of a graph that came of another by taking something out.

    Args:
        graph: Float ops of batch 1, values named as in the original; left as it is.
        seen: What the original computes.
        kept: Which channels of the original's a value still has, by its name; all where it is not named.
        codes: What layers' weights are to be stored in, by the names of their outputs; int8 where nothing is said.
        ranks: Ranks of layers that are to become two factors where that is smaller, by the same names.
    """
    run = _Pass(seen, kept, codes, ranks)
    run.run(batched(graph, len(next(iter(seen.feeds.values())))))
    return run.fits


def applied(graph: Graph, fits: Mapping[str, Fit]) -> Graph:
    """The graph with new weights; the first of two factors gets a node of its own, named after the layer."""
    weights: dict[str, Array] = {}
    for name, fit in fits.items():
        node = graph.value(name).producer
        assert node is not None
        if len(fit.matrices) == 1:
            weights[node.input(1).name] = unmatrix(node, fit.matrices[0])
        bias = node.optional(2)
        if bias is not None and fit.bias is not None:
            weights[bias.name] = fit.bias
    made = rebuilt(graph, weights)
    for name, fit in fits.items():
        if len(fit.matrices) == 2:
            _split(made, name, *fit.matrices)
    made.prune()
    return made


def _split(graph: Graph, name: str, first: Array, second: Array) -> None:
    node = graph.value(name).producer
    assert node is not None
    w = node.input(1)
    inner = graph.constant(unmatrix(node, first), f"{w.name}.first")
    outer = graph.constant(second[:, :, None, None] if isinstance(node.op, Conv) else second, f"{w.name}.second")
    narrow = graph.add(node.op, node.input(0), inner, name=f"{name}.first", sources=node.sources)
    op = Conv() if isinstance(node.op, Conv) else node.op
    wide = graph.add(op, narrow, outer, node.optional(2), name=f"{name}.second", sources=node.sources)
    graph.replace(node.output, wide)
    graph.prune()
    if wide.name != name:
        graph.rename(wide, name)
