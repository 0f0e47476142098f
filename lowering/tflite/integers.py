"""Which layers of a graph with pairs of Quantize and Dequantize compute in integers, and how.

A layer between pairs can be one int8 operator, its activations' scales known from calibration ("static"). Where what
surrounds it stays real, as softmax, GELU and norms do, whose int8 kernels are slow, such an operator would only add
conversions: there the operator that takes real activations and int8 weights, and finds the scales of the activations
as it runs, is as fast and more exact ("dynamic").
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np

from ...ir.graph import Graph, Node, Value
from ...ir.ops.conv import Conv, PatchEmbed
from ...ir.ops.elementwise import Add, Mul, Sub
from ...ir.ops.linear import Linear
from ...ir.ops.pool import MaxPool
from ...ir.ops.quant import Dequantize, Quantize
from ...ir.ops.shape import Reshape, Slice, Split, Transpose
from ...ir.passes.quantise.observe import Observed
from ...ir.passes.quantise.qdq import QdqOptions, candidates, counts_of, quantise_operands
from .units import clamp

__all__ = ["Decision", "decide", "foreseen", "hybrid_pays", "settle", "surroundings"]

MOVES = (Reshape, Slice, Split, Transpose)
SAME_SCALE = (MaxPool,)
BINARY = (Add, Mul, Sub)

AT_A_TIME = 8
"""Input channels that int8 kernels take from every pixel of a window; fewer are padded."""

FEWEST_CHANNELS = 16
"""Of a convolution's input for int8 weights with real activations to pay."""


@dataclass
class Decision:
    """What becomes of the layers, by the names of their results.

    Attributes:
        static: Computed in integers throughout, and the nodes that their operators stand for.
        dynamic: Weights in int8, activations rounded as the layer runs.
        real: Why each other layer that has a pair stays real.
    """

    static: dict[str, tuple[Node, ...]] = field(default_factory=dict)
    dynamic: list[str] = field(default_factory=list)
    real: dict[str, str] = field(default_factory=dict)


def hybrid_pays(node: Node) -> bool:
    """Whether there are kernels for real activations and int8 weights that are faster than real ones."""
    if isinstance(node.op, Linear):
        return True
    channels = node.input(1).shape[1]
    return isinstance(node.op, Conv) and node.op.groups == 1 and channels >= FEWEST_CHANNELS and channels % 8 == 0


# ---- moving the pairs ----


def settle(graph: Graph) -> None:
    """Let integers be moved instead of real numbers, a quarter of the bytes.

    Quantize(move(x))     becomes    move(Quantize(x))
    move(Dequantize(q))   becomes    Dequantize(move(q))
    Quantize(Dequantize(q)) of the same scale becomes q
    """
    while any(_hoisted(graph, node) or _sunk(graph, node) or _cancelled(graph, node) for node in graph.nodes):
        graph.prune()


def _hoisted(graph: Graph, node: Node) -> bool:
    if node not in graph or not isinstance(node.op, Quantize):
        return False
    move = node.input(0).producer
    if move is None or not isinstance(move.op, (Reshape, Transpose)) or len(move.output.uses) > 1:
        return False
    if node.op.quant.axis is not None or move.output in graph.outputs:
        return False
    q = graph.add(node.op, move.input(0), name=f"{node.name}.early", sources=node.sources)
    graph.replace(node.output, graph.add(move.op, q, name=node.name, sources=move.sources))
    return True


def _sunk(graph: Graph, node: Node) -> bool:
    if node not in graph or not isinstance(node.op, MOVES):
        return False
    back = node.input(0).producer
    if back is None or not isinstance(back.op, Dequantize) or back.op.quant.axis is not None:
        return False
    if any(not isinstance(reader.op, MOVES) for reader in back.output.readers) or back.output in graph.outputs:
        return False
    made = graph.add(node.op, back.input(0), name=f"{node.name}.moved", sources=node.sources)
    for old, new in zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=True):
        graph.replace(old, graph.add(back.op, new, name=old.name, sources=back.sources))
    return True


def _cancelled(graph: Graph, node: Node) -> bool:
    if node not in graph or not isinstance(node.op, Quantize):
        return False
    back = node.input(0).producer
    if back is None or not isinstance(back.op, Dequantize) or back.op.quant != node.op.quant or not node.output.uses:
        return False
    if back.input(0).data is not None or node.output in graph.outputs:
        return False
    graph.replace(node.output, back.input(0))
    return True


# ---- choosing ----


def decide(graph: Graph, mode: str = "auto") -> Decision:
    """Choose what each layer with a pair becomes, and give it the operands that it then has.

    Afterwards a static layer reads integers, a dynamic one a real activation and int8 weights, and every other one real
    weights.

    Args:
        graph: After `settle`; it is changed.
        mode: "static" takes integers wherever they can be taken, "dynamic" nowhere, "auto" where they are fast and one
            such layer hands its result to another.
    """
    decision = Decision()
    chosen = _chosen(graph, mode)
    inside = {closing[-1] for closing in chosen.values()}
    for node in graph.nodes:
        if node in chosen:
            _static(graph, node, chosen[node], decision)
        elif isinstance(node.op, Conv | Linear) and _stored(node.input(1)) is not None:
            _not_static(graph, node, inside, decision)
    _unpair(graph, inside)
    graph.prune()
    return decision


def _chosen(graph: Graph, mode: str) -> dict[Node, tuple[Node, ...]]:
    """The nodes that compute in integers, each with what follows inside its operator."""
    able = {node: closing for node in graph.nodes if (closing := _closing(graph, node)) is not None}
    if mode != "auto":
        return able if mode == "static" else {}
    return _chained({node: closing for node, closing in able.items() if not _narrow(node)})


def _narrow(node: Node) -> bool:
    """Whether a convolution has so few input channels that int8 kernels, which take eight at a time, are slower."""
    depthwise = isinstance(node.op, Conv) and node.op.groups > 1 and node.input(1).shape[1] == 1
    return isinstance(node.op, Conv | PatchEmbed) and not depthwise and node.input(1).shape[1] < AT_A_TIME


def foreseen(graph: Graph, seen: Observed, options: QdqOptions, mode: str) -> QdqOptions:
    """The options under which pairs are only where `decide` would make use of them.

    Args:
        graph: A float graph; it is only read.
        seen: Statistics of its values.
        options: Where pairs could be.
        mode: See `decide`.
    """
    trial = graph.copy()
    layers = list(zip(candidates(graph), candidates(trial), strict=True))
    quantise_operands(trial, seen, replace(options, weights="minmax"))  # which are static does not depend on weights
    settle(trial)
    chosen = _chosen(trial, mode)
    others = [(node, twin) for node, twin in layers if twin not in chosen]
    light = frozenset(node.output.name for node, twin in others if hybrid_pays(twin))
    real = {node.output.name: _why_real(twin) for node, twin in others if node.output.name not in light}
    return replace(options, weights_only=light, keep={**options.keep, **real})


def _why_real(node: Node) -> str:
    if _narrow(node):
        return f"int8 kernels take {AT_A_TIME} input channels at a time, it has {node.input(1).shape[1]}"
    return "its neighbours are real, and there is no fast kernel for int8 weights alone"


def _unpair(graph: Graph, kept: set[Node]) -> None:
    """Let real numbers that were rounded for nobody go on unrounded; `kept` are Quantize nodes inside operators."""
    moved: dict[Node, tuple[Value, ...]] = {}

    def real(q: Value) -> Value | None:
        maker = q.producer
        if maker is None or maker in kept:
            return None
        if isinstance(maker.op, Quantize):
            return maker.input(0)
        if not isinstance(maker.op, MOVES) or (x := real(maker.input(0))) is None:
            return None
        if maker not in moved:
            made = graph.add(maker.op, x, name=f"{maker.name}.real", sources=maker.sources)
            moved[maker] = made if isinstance(made, tuple) else (made,)
        return moved[maker][maker.outputs.index(q)]

    for node in graph.nodes:
        if isinstance(node.op, Dequantize) and (x := real(node.input(0))) is not None:
            graph.replace(node.output, x)


def _stored(value: Value | None) -> Value | None:
    """The integers that a weight is kept in, None where it is not."""
    maker = None if value is None else value.producer
    return maker.input(0) if maker and isinstance(maker.op, Dequantize) and maker.input(0).data is not None else None


def _integers(value: Value | None) -> Value | None:
    """The int8 activation that a real one stands for."""
    maker = None if value is None else value.producer
    if maker is None or not isinstance(maker.op, Dequantize) or maker.op.quant.axis is not None:
        return None
    found = maker.input(0)
    return found if found.data is None and found.dtype == "int8" else None


def _closing(graph: Graph, node: Node) -> tuple[Node, ...] | None:
    """The nodes that follow inside one integer operator, Quantize last; None where there is no such operator."""
    if isinstance(node.op, Conv | Linear | PatchEmbed):
        known = len(node.inputs) < 3 or node.inputs[2] is None or node.input(2).data is not None
        if _integers(node.input(0)) is None or _stored(node.input(1)) is None or not known:
            return None
    elif isinstance(node.op, SAME_SCALE + BINARY):
        if any(_integers(value) is None for value in node.inputs):
            return None
    else:
        return None
    found: list[Node] = []
    last = node
    while len(last.output.uses) == 1 and last.output not in graph.outputs:
        last = last.output.readers[0]
        found.append(last)
        if isinstance(last.op, Quantize):
            fits = last.op.dtype == "int8" and last.op.quant.axis is None
            return tuple(found) if fits and _keeps_scale(node, last.op) else None
        if len(found) > 1 or clamp(last.op) is None or isinstance(node.op, SAME_SCALE):
            return None
    return None


def _keeps_scale(node: Node, after: Quantize) -> bool:
    before = node.input(0).producer
    same = before is not None and isinstance(before.op, Dequantize) and before.op.quant == after.quant
    return same or not isinstance(node.op, SAME_SCALE)


def _chained(able: dict[Node, tuple[Node, ...]]) -> dict[Node, tuple[Node, ...]]:
    """Those that hand integers to each other, with nothing but moves between."""
    made = {closing[-1].output: node for node, closing in able.items()}
    linked: set[Node] = set()
    for node in able:
        for value in node.inputs:
            origin = _origin(_integers(value))
            if origin is not None and (maker := made.get(origin)) is not None:
                linked |= {maker, node}
    return {node: closing for node, closing in able.items() if node in linked}


def _origin(value: Value | None) -> Value | None:
    """The integers that were moved."""
    while value is not None and value.producer is not None and isinstance(value.producer.op, MOVES):
        value = value.producer.input(0)
    return value


def _static(graph: Graph, node: Node, closing: tuple[Node, ...], decision: Decision) -> None:
    for index, value in enumerate(node.inputs):
        if (found := _stored(value) or _integers(value)) is not None:
            graph.set_input(node, index, found)
    decision.static[node.output.name] = (node, *closing)


def _not_static(graph: Graph, node: Node, inside: Collection[Node], decision: Decision) -> None:
    weight = _stored(node.input(1))
    assert weight is not None
    if hybrid_pays(node):
        graph.set_input(node, 0, _unrounded(node.input(0), inside))
        graph.set_input(node, 1, weight)
        decision.dynamic.append(node.output.name)
        return
    quant = weight.type.quant
    assert quant is not None
    real = graph.constant(quant.dequantise(weight.array).astype(np.float32), f"{weight.name}.real")
    graph.set_input(node, 0, _unrounded(node.input(0), inside))
    graph.set_input(node, 1, real)
    decision.real[node.output.name] = _why_real(node)


def _unrounded(value: Value, inside: Collection[Node]) -> Value:
    """The real activation before its pair, where there is one: not where the rounding is `inside` an operator."""
    q = _integers(value)
    maker = None if q is None else q.producer
    alone = maker is not None and isinstance(maker.op, Quantize) and maker not in inside
    return maker.input(0) if maker is not None and alone else value


def surroundings(graph: Graph) -> tuple[str, ...]:
    """Which ops stay real for the sake of their kernels: a sentence, none where all are integers."""
    found = counts_of(graph, SLOW)
    return (f"in float, as XNNPACK has no int8 kernels for them: {found}",) if found else ()


SLOW = frozenset(("AveragePool", "Exp", "Gelu", "HardSwish", "LayerNorm", "Log", "RMSNorm", "Softmax", "Sqrt"))
"""Ops that XNNPACK has no int8 kernels for."""
