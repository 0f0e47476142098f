"""Integers for as many layers as the outputs bear: those that lose most keep real numbers.

Layers are ranked by what rounding each one alone does to the value that its result goes into. Of that order the
shortest beginning is left real with which the outputs agree: it is found by halves, since every layer left real helps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...graph import Array, Graph, Node, Quant, Value
from ...interpret import run, trace
from ...ops.elementwise import Add
from ...ops.quant import Dequantize, Quantize
from . import observers
from .convert import cosine
from .int8_weights import rounded, single
from .observe import Observed
from .qdq import MOVES, Known, Notes, QdqOptions, candidates, closing, quantise_operands

__all__ = ["LEAST_COSINE", "Mixed", "quantise_within", "rank"]

Feeds = Mapping[str, Array]

LEAST_COSINE = 0.99
"""Of every output with the float one, the mean over samples."""


@dataclass(frozen=True)
class Mixed:
    """A graph in integers and real numbers.

    Attributes:
        graph: With its pairs.
        notes: What became of the layers.
        cosine: Agreement with the float graph on the samples that were looked at.
        spared: Names of the layers that stay real since integers there cost the outputs too much.
    """

    graph: Graph
    notes: Notes
    cosine: float
    spared: tuple[str, ...] = ()


def quantise_within(
    graph: Graph, seen: Observed, options: QdqOptions, samples: Sequence[Feeds], least: float = LEAST_COSINE
) -> Mixed:
    """Place pairs as `quantise_operands` does, but leave layers real until the outputs are as close as is asked.

    Args:
        graph: A float graph; it is only read.
        seen: Statistics of its values.
        options: Where integers may be.
        samples: A few feeds to compare outputs on.
        least: The cosine to reach, of the worst output, the mean over samples.
    """
    wanted = [run(graph, feeds) for feeds in samples]
    known: Known = {}

    def attempt(keep: Mapping[str, str]) -> Mixed:
        made = graph.copy()
        notes = quantise_operands(made, seen, replace(options, keep={**options.keep, **keep}), known)
        return Mixed(made, notes, _agreement(made, samples, wanted), tuple(keep))

    best = attempt({})
    if best.cosine >= least:
        return best
    order = [(name, share) for name, share in rank(graph, seen, options, samples) if name not in options.keep]
    reasons = {name: f"kept for accuracy: rounded alone it errs by {share:.1%}" for name, share in order}
    names, too_few, best = list(reasons), 0, attempt(reasons)
    enough = len(names)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        found = attempt({name: reasons[name] for name in names[:middle]})
        if found.cosine >= least:
            enough, best = middle, found
        else:
            too_few = middle
    return best


def rank(graph: Graph, seen: Observed, options: QdqOptions, samples: Iterable[Feeds]) -> list[tuple[str, float]]:
    """Layers by what rounding does, the worst first: their results' names and the error's share of the signal.

    The signal is that of the value into which the result goes: a small result that is added to a large stream may err.
    """
    layers = {id(node.output): node for node in candidates(graph)}
    goes_into = {name: _sum(node.output) for name, node in layers.items()}
    weights = {name: _weight(node, options) for name, node in layers.items()}
    errors, signals = dict.fromkeys(layers, 0.0), dict.fromkeys(map(id, goes_into.values()), 0.0)
    for feeds in samples:
        inputs: dict[int, Array] = {}
        for value, array in trace(graph, feeds):
            inputs |= {id(value): array} if any(id(node.output) in layers for node in value.readers) else {}
            if (node := layers.get(id(value))) is not None:
                made = _rounded(node, weights[id(value)], inputs, seen, options)
                errors[id(value)] += float(np.square(made - array, dtype=np.float64).sum())
            if id(value) in signals:
                signals[id(value)] += float(np.square(array, dtype=np.float64).sum())
    shares = [
        (node.output.name, float(np.sqrt(errors[name] / max(signals[id(goes_into[name])], 1e-30))))
        for name, node in layers.items()
    ]
    return sorted(shares, key=lambda each: -each[1])


def _weight(node: Node, options: QdqOptions) -> Array:
    made = rounded(node.input(1).array, clip=options.weights == "mse", pairs=options.pairs)
    return made.quant.dequantise(made.integers).astype(np.float32)


def _rounded(node: Node, weight: Array, inputs: Mapping[int, Array], seen: Observed, options: QdqOptions) -> Array:
    """The result of one layer with its operands, and its own result where that becomes integers, rounded."""
    x, bias = node.input(0), node.optional(2)
    whole = node.output.name not in options.weights_only
    operands = [_through(inputs[id(x)], _quant(x, seen, options)) if whole else inputs[id(x)], weight]
    y = np.asarray(node.op.reference(*operands, *([bias.array] if bias is not None else [])))
    if whole and isinstance(node.op, options.results) and closing(node) is node:
        y = _through(y, _quant(node.output, seen, options))
    return y


def _quant(value: Value, seen: Observed, options: QdqOptions) -> Quant:
    return single(observers.asymmetric(*observers.interval(seen[value.name], options.observer)))


def _through(x: Array, quant: Quant) -> Array:
    """Real numbers to integers and back."""
    return Dequantize(quant).reference(Quantize(quant).reference(x))


def _sum(value: Value) -> Value:
    """The sum that a value goes into, with nothing but moves between; the value itself where there is none."""
    at = value
    while len(at.uses) == 1:
        reader = at.readers[0]
        if isinstance(reader.op, Add):
            return reader.output
        if not isinstance(reader.op, MOVES) or len(reader.outputs) > 1:
            break
        at = reader.output
    return value


def _agreement(graph: Graph, samples: Sequence[Feeds], wanted: Sequence[Feeds]) -> float:
    """Cosine of the worst output, the mean over samples."""
    found = [run(graph, feeds) for feeds in samples]
    pairs = zip(found, wanted, strict=True)
    return float(np.mean([min(cosine(one[name], other[name]) for name in other) for one, other in pairs]))
