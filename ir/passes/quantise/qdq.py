"""Pairs of Quantize and Dequantize around the layers that shall be computed in integers, the rest left as it is.

    x -> Linear(., w, b) -> y    becomes    x -> Q -> DQ -> Linear(., DQ(w8), b) -> Q -> DQ -> y

The graph still computes in real numbers, and its numpy reference is what the integers of a runtime come to: a layer
whose operands all come from Dequantize and whose result goes into Quantize is what runtimes make one integer kernel of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from ...errors import UsageError
from ...graph import Array, Graph, Node, Quant, Value
from ...ops.activation import Clip, Relu
from ...ops.conv import Conv, PatchEmbed
from ...ops.linear import Linear
from ...ops.pool import MaxPool
from ...ops.quant import Dequantize, Quantize
from ...ops.shape import Reshape, Slice, Split, Transpose
from . import observers
from .calibrate import Statistics
from .int8_weights import MOST_BIAS, TINY, Weights, rounded, single
from .observe import Observed

__all__ = [
    "LAYERS", "MOVES", "Known", "Notes", "QdqOptions", "candidates", "closing", "counts_of", "measured",
    "quantise_operands",
]  # fmt: skip

LAYERS = (Linear, Conv, PatchEmbed)
MOVES = (Reshape, Transpose, Slice, Split, MaxPool)
"""They make no new numbers: integers go through them as they are."""

Known = dict[tuple[int, bytes], Weights]
"""Rounded weights by the identity of their array and the least scales that were asked for."""

MOST_TERMS = 2**31 // (255 * 127) - 1
"""So many products of eight bits are sure to fit 32, with any zero point."""


@dataclass(frozen=True)
class QdqOptions:
    """How operands become integers.

    Attributes:
        observer: "minmax", "percentile" or "mse", for activations.
        weights: "minmax" or "mse", for the scale of each output's weights.
        pairs: Whether weights are kept so small that processors that add two products in 16 bits do not saturate.
        results: Which layers' results become integers as well; a runtime needs that of some to compute in integers.
        weights_only: Results' names of the layers whose activations stay real.
        keep: Why layers stay in real numbers altogether, by their results' names.
    """

    observer: str = "mse"
    weights: str = "mse"
    pairs: bool = False
    results: tuple[type[Linear | Conv | PatchEmbed], ...] = LAYERS
    weights_only: frozenset[str] = frozenset()
    keep: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse values that are not among those listed."""
        for name, allowed in {"observer": observers.OBSERVERS, "weights": ("minmax", "mse")}.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}")


@dataclass
class Notes:
    """What became of the layers, by the names of their results.

    Attributes:
        quantised: Those with int8 operands, in order.
        weights_only: Those with int8 weights and real activations, in order.
        kept: Why each other one stays in real numbers.
    """

    quantised: list[str] = field(default_factory=list)
    weights_only: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)


def candidates(graph: Graph) -> Iterator[Node]:
    """The layers that could have int8 operands, in order."""
    return (node for node in graph.nodes if isinstance(node.op, LAYERS) and why_real(node) is None)


def why_real(node: Node) -> str | None:
    """Why a layer cannot have int8 operands; None if it can."""
    x, w = node.input(0), node.input(1)
    if w.data is None:
        return "its weights are computed"
    if x.data is not None:
        return "its input is a constant"
    if x.dtype != "float32" or w.dtype != "float32":
        return f"its operands are {x.dtype} and {w.dtype}"
    if (terms := w.type.size // w.shape[0]) > MOST_TERMS:
        return f"a sum of {terms} products can leave 32 bits"
    if (bias := node.optional(2)) is not None and bias.data is None:
        return "its bias is computed"
    return None


def measured(graph: Graph) -> frozenset[str]:
    """Names of the values whose statistics `quantise_operands` needs."""
    layers = list(candidates(graph))
    return frozenset(value.name for node in layers for value in (node.input(0), closing(node).output))


def quantise_operands(
    graph: Graph, seen: Observed, options: QdqOptions | None = None, known: Known | None = None
) -> Notes:
    """Place pairs of Quantize and Dequantize around the operands of Linear, Conv and PatchEmbed.

    Activations get one scale and an integer for zero, weights a scale for each output (axis 0, symmetric). Biases are
    rounded to multiples of the product of both scales, so that they are 32-bit integers without further loss. Whoever
    reads a value that became integers reads the same pair.

    Args:
        graph: A float graph; it is changed.
        seen: Statistics of the values that `measured` names, from `observe`.
        options: See there.
        known: Weights rounded before under the same options, kept for the next graph that has the same arrays.
    """
    statistics = {id(graph.value(name)): each for name, each in seen.items()}
    work = _Work(graph, statistics, options or QdqOptions(), {} if known is None else known)
    for node in graph.nodes:
        if isinstance(node.op, LAYERS):
            work.layer(node)
    return work.notes


@dataclass
class _Work:
    graph: Graph
    seen: dict[int, Statistics]
    options: QdqOptions
    known: Known
    notes: Notes = field(default_factory=Notes)
    weights: dict[tuple[int, Quant], Value] = field(default_factory=dict)
    pairs: dict[int, Value] = field(default_factory=dict)

    def layer(self, node: Node) -> None:
        """Place the pairs of one layer, or say why not."""
        name = node.output.name
        reason = self.options.keep.get(name) or why_real(node)
        if reason is not None:
            self.notes.kept[name] = reason
            return
        if name in self.options.weights_only:
            self.graph.set_input(node, 1, self.weight(node.input(1), np.full(node.input(1).shape[0], TINY)))
            self.notes.weights_only.append(name)
            return
        x, w, b = node.input(0), node.input(1), node.optional(2)
        self.graph.set_input(node, 0, self.operand(x))
        step = _quant(node.input(0)).scale
        assert isinstance(step, float)
        floor = np.zeros(len(w.array)) if b is None else np.abs(b.array) / (step * MOST_BIAS)
        made = self.weight(w, np.maximum(floor, TINY / min(step, 1.0)))
        self.graph.set_input(node, 1, made)
        if b is not None:
            self.graph.set_input(node, 2, self.graph.constant(_snapped(b.array, _quant(made), step), b.name))
        if isinstance(node.op, self.options.results):
            self.result(closing(node).output)
        self.notes.quantised.append(name)

    def operand(self, x: Value) -> Value:
        """The pair that stands for an activation, made at its first use."""
        if x.producer is not None and isinstance(x.producer.op, Dequantize):
            return x
        if id(x) not in self.pairs:
            self.pairs[id(x)] = self.pair(x)
        return self.pairs[id(x)]

    def result(self, y: Value) -> None:
        """Let all readers of a result read its pair."""
        made = self.pair(y)
        quantize = made.producer.input(0).producer if made.producer else None
        assert quantize is not None
        self.graph.replace(y, made)
        self.graph.set_input(quantize, 0, y)
        self.pairs[id(y)] = made

    def pair(self, x: Value) -> Value:
        """Quantize and Dequantize; integers that were only moved keep their scale."""
        sources = x.producer.sources if x.producer else ()
        quant = _moved(x) or self.quant(x)
        q = self.graph.add(Quantize(quant), x, name=f"{x.name}.q", sources=sources)
        made: Value = self.graph.add(Dequantize(quant), q, name=f"{x.name}.dq", sources=sources)
        return made

    def quant(self, x: Value) -> Quant:
        """Scale and zero point of an activation."""
        low, high = observers.interval(self.seen[id(x)], self.options.observer)
        return single(observers.asymmetric(low, high))

    def weight(self, w: Value, floor: Array) -> Value:
        """The int8 form of a weight; readers that need the same scales share it."""
        before = (id(w.array), floor.tobytes())
        if before not in self.known:
            self.known[before] = rounded(w.array, floor, self.options.weights == "mse", self.options.pairs)
        made = self.known[before]
        key = (id(w), made.quant)
        if key not in self.weights:
            stored = self.graph.constant(made.integers, f"{w.name}.q", made.quant)
            self.weights[key] = self.graph.add(Dequantize(made.quant), stored, name=f"{w.name}.dq")
        return self.weights[key]


def counts_of(graph: Graph, kinds: Collection[str]) -> str:
    """How often ops of these names stand in a graph, for people: "12 Gelu, 25 LayerNorm"; "" where none does."""
    counts = Counter(name for node in graph.nodes if (name := type(node.op).__name__) in kinds)
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _quant(made: Value) -> Quant:
    node = made.producer
    assert node is not None and isinstance(node.op, Dequantize)
    return node.op.quant


def _snapped(bias: Array, weights: Quant, step: float) -> Array:
    """The bias in whole steps of the products, as float32 computes them from integers."""
    steps = np.asarray(weights.scale, np.float32) * np.float32(step)
    return np.asarray(np.rint(bias / steps.astype(np.float64)).astype(np.float32) * steps)


def closing(node: Node) -> Node:
    """The node whose result is rounded: a ReLU after a layer belongs to it."""
    reader = node.output.readers[0] if len(node.output.uses) == 1 else None
    return reader if reader is not None and isinstance(reader.op, Relu | Clip) else node


def _moved(x: Value) -> Quant | None:
    """The scale of the integers that a value is, if only moves are between."""
    node = x.producer
    while node is not None and isinstance(node.op, MOVES):
        node = node.input(0).producer
    if node is None or not isinstance(node.op, Dequantize) or node.op.quant.axis is not None:
        return None
    return node.op.quant
