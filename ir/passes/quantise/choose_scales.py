"""Chooses what integers each value becomes: width, scale, zero point, from who reads it and what calibration saw.

Inside token networks values are int16 (tiles of the dot-product kernel are 16 bits wide anyway, so it costs nothing
there); keys, values and attention outputs are int8 with a scale per channel; the residual stream is int8 or int16 by
option. Images between convolutions are int8 with a zero point.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ... import integer_rows
from ...graph import Array, Graph, Node, Quant, Value
from ...op import Op
from ...ops import activation, attention, conv, elementwise, linear, norm, pool, shape
from . import observers
from .balance_channels import balanced
from .calibrate import Calibration, Statistics
from .legalise_integer import MOVES

WIDE = 32767
SUM_LIMIT = 2**31 - 2**27  # what sums of products may reach; the rest is for the bias
HEADROOM = 1.25  # 16-bit intervals are wider than what was seen: resolution is ample, clipping is not forgiven
MASKED = 60.0  # nats below the row's greatest bias that mean "never"
CONVOLVES: tuple[type[Op], ...] = (conv.Conv, pool.MaxPool, pool.AveragePool, shape.Resize, norm.GroupNorm)
NARROW_READERS: tuple[type[Op], ...] = (conv.Conv, conv.PatchEmbed, activation.Softmax)


@dataclass(frozen=True)
class Form:
    """What integers stand for a value; none exceeds `most` in magnitude if they are int16."""

    dtype: str
    quant: Quant
    most: int = WIDE

    @property
    def uniform(self) -> bool:
        """One scale for the whole tensor."""
        return self.quant.axis is None

    @property
    def scale(self) -> float:
        """The one scale."""
        assert isinstance(self.quant.scale, float)
        return self.quant.scale

    @property
    def bits(self) -> int:
        """Width in bits."""
        return 8 if self.dtype == "int8" else 16


@dataclass(frozen=True)
class Read:
    """One read of a value by something that computes, perhaps through ops that only move elements."""

    node: Node
    index: int
    direct: bool


class ScaleChooser:
    """Forms of all values of a prepared float graph, decided when first asked for and then fixed."""

    def __init__(
        self, graph: Graph, calibration: Calibration, stream: str, output: str, observer: str, channels: bool = True
    ) -> None:
        """`stream` and `output` are the dtypes of residual stream and results; `channels` allows scales per channel."""
        self.graph, self.calibration = graph, calibration
        self.stream, self.output, self.observer, self.channels = stream, output, observer, channels
        self.fused = dict(_fusions(graph))
        self.images = _images(graph)
        self._outputs = {id(value) for value in graph.outputs}
        self._forms: dict[int, Form] = {}

    def form(self, value: Value) -> Form:
        """The integers that stand for `value`; moved elements keep the form of their source."""
        source = self.source(value)
        if id(source) not in self._forms:
            self._forms[id(source)] = self._choose(source)
        return self._forms[id(source)]

    def narrow(self, value: Value, symmetric: bool) -> Form:
        """An int8 form for readers that need one although the value itself is wider."""
        stats = self.statistics(self.source(value))
        low, high = observers.interval(stats, self.observer, 8, symmetric)
        return Form("int8", observers.symmetric(high, 127) if symmetric else observers.asymmetric(low, high))

    def source(self, value: Value) -> Value:
        """The computed value whose elements these are."""
        while value.producer is not None and isinstance(value.producer.op, MOVES):
            value = value.producer.input(0)
        return value

    def statistics(self, value: Value) -> Statistics:
        """What calibration saw of a value; a constant speaks for itself."""
        if value.is_constant:
            stats = Statistics()
            stats.observe(value.array)
            return stats
        return self.calibration[value.name]

    def reads(self, value: Value, direct: bool = True) -> Iterator[Read]:
        """Every computing reader, through moves and through activations fused into the producer."""
        for node, index in value.uses:
            if isinstance(node.op, MOVES) and index == 0:
                for output in node.outputs:
                    yield from self.reads(output, False)
            else:
                yield Read(node, index, direct)

    def _choose(self, value: Value) -> Form:
        reads = list(self.reads(value))
        fixed = self._fixed(value, reads)
        if fixed is not None:
            return fixed
        joined = {id(read.node): read.node for read in reads}
        if len(joined) == 1 and isinstance(reads[0].node.op, shape.Concat) and value not in self.graph.inputs:
            return self.form(reads[0].node.output)
        if self._is_output(value):
            return self._wide(value, []) if self.output == "int16" else self.narrow(value, False)
        role = self._attention_role(value, reads)
        if role is not None:
            return role
        if self._between_convolutions(value, reads):
            return self._balanced(value, self.narrow(value, False), reads)
        if reads and all(_needs_narrow(read) for read in reads):
            return self.narrow(value, any(isinstance(read.node.op, linear.MatMul) for read in reads))
        if id(value) in self.images or value in self.graph.inputs:
            return self.narrow(value, False)
        producer = value.producer
        residual = producer is not None and isinstance(producer.op, elementwise.Add | elementwise.Sub)
        if residual and self.stream == "int8":
            return self.narrow(value, False)
        return self._wide(value, reads)

    def _fixed(self, value: Value, reads: list[Read]) -> Form | None:
        """Forms that follow from the producer alone."""
        node = value.producer
        if node is None:
            return None
        if isinstance(node.op, norm.LayerNorm | norm.RMSNorm) and node.optional(1) is None:
            return Form("int16", Quant(2.0 ** -integer_rows.norm_fraction_bits(value.shape[-1])))
        if isinstance(node.op, activation.Softmax):
            return Form("int16", Quant(2.0**-15))
        if isinstance(node.op, attention.Attention):
            single = all(isinstance(read.node.op, linear.Linear) and read.direct for read in reads)
            form = self.narrow(value, True)
            return self._balanced(value, form, reads) if self.channels and reads and single else form
        return None

    def _attention_role(self, value: Value, reads: list[Read]) -> Form | None:
        """Queries, keys and values."""
        if not reads or not all(isinstance(read.node.op, attention.Attention) for read in reads):
            return None
        indices = {read.index for read in reads}
        if indices == {0} and len(reads) == 1:
            return self._query(value, reads[0])
        if 0 in indices:
            return None
        nodes = [read.node for read in reads]
        channels = self.statistics(value).channels
        scaled = self._scales_channels(value) and all(read.direct for read in reads)
        if 1 in indices:
            scaled = scaled and all(self._scales_channels(node.input(0), node) for node in nodes)
        if scaled and channels is not None:
            return Form("int8", observers.per_channel(channels, 127))
        return self.narrow(value, True)

    def _query(self, value: Value, read: Read) -> Form:
        """int16 queries; if keys have a scale per channel, queries take its inverse: one number S per head remains."""
        key, width, op = self.form(read.node.input(1)), read.node.input(0).shape[2], read.node.op
        assert isinstance(op, attention.Attention)
        most = query_limit(width // op.heads)
        stats, least = self.statistics(value), score_floor(read.node)
        if key.uniform or stats.channels is None:
            floor = least / (key.scale if key.uniform else float(np.min(key.quant.scale)))
            return Form("int16", Quant(max(observers.extent(stats.largest * HEADROOM) / most, floor)), most)
        keys = np.asarray(key.quant.scale)
        spread = (stats.channels * keys).reshape(op.heads, -1).max(axis=1) * HEADROOM
        product = np.maximum(spread / most, max(least, observers.extent(float(spread.max())) * 1e-6 / most))
        scales = np.repeat(product, width // op.heads) / keys
        return Form("int16", Quant(tuple(scales.tolist()), 0, -1), most)

    def _scales_channels(self, value: Value, only: Node | None = None) -> bool:
        """Whether the producer can give each channel a scale of its own (and, if given, `only` reads the value)."""
        alone = only is None or (value.readers == [only] and len(value.uses) == 1 and id(value) not in self._outputs)
        return self.channels and alone and value.producer is not None and isinstance(value.producer.op, linear.Linear)

    def _balanced(self, value: Value, whole: Form, reads: list[Read]) -> Form:
        """A scale per channel as far as the weights of the readers bear it."""
        return Form("int8", balanced(self.statistics(value), whole.quant, [read.node for read in reads]))

    def _between_convolutions(self, value: Value, reads: list[Read]) -> bool:
        """Whether a convolution (or its ReLU) makes the value and only convolutions read it: scales fold into both."""
        maker = value.producer
        if maker is not None and isinstance(maker.op, activation.Relu) and id(maker.input(0)) in self.fused:
            maker = maker.input(0).producer
        made = maker is not None and isinstance(maker.op, conv.Conv)
        read = bool(reads) and all(each.direct and isinstance(each.node.op, conv.Conv) for each in reads)
        return self.channels and made and read

    def _wide(self, value: Value, reads: list[Read]) -> Form:
        """int16; fewer magnitudes where a reader's 32-bit sums would overflow otherwise."""
        most = min([WIDE, *(_largest_factor(read) for read in reads)])
        return Form("int16", observers.symmetric(self.statistics(value).largest * HEADROOM, most), most)

    def _is_output(self, value: Value) -> bool:
        moved = [out for node in value.readers if isinstance(node.op, MOVES) for out in node.outputs]
        return id(value) in self._outputs or any(self._is_output(out) for out in moved)


def query_limit(width: int) -> int:
    """The greatest |query| for which differences of scores over `width` channels of int8 keys stay in int32."""
    return min(WIDE, (2**30 - 1) // (2 * 128 * width))


def attention_bias(node: Node) -> Array | None:
    """The bias of an Attention as [H, N, M], or [B, H, N, M] where it differs between windows.

    Masked scores are cut off where their exponentials have long been 0.
    """
    bias, op = node.optional(3), node.op
    if bias is None:
        return None
    assert isinstance(op, attention.Attention)
    table = bias.array.astype(np.float64)
    table = table[0] if table.ndim == 4 and len(table) == 1 else table
    full = (*table.shape[:-3], op.heads, node.input(0).shape[1], node.input(1).shape[1])
    array = np.broadcast_to(table, full)
    return np.asarray(np.maximum(array, array.max(axis=-1, keepdims=True) - MASKED))


def score_floor(node: Node) -> float:
    """The least scale of scores at which the bias, as an integer, stays far inside int32."""
    bias = attention_bias(node)
    assert isinstance(node.op, attention.Attention)
    return 0.0 if bias is None else float(np.abs(bias).max()) / (node.op.scale * 2**28)


def _needs_narrow(read: Read) -> bool:
    second = (read.index == 1 and isinstance(read.node.op, linear.MatMul)) or (
        read.index in (1, 2) and isinstance(read.node.op, attention.Attention)
    )
    return second or (read.index == 0 and isinstance(read.node.op, NARROW_READERS))


def _largest_factor(read: Read) -> int:
    """The greatest |x| for which the reader's sum of |weight * x| stays below the limit."""
    if isinstance(read.node.op, linear.MatMul) and read.index == 0:
        return SUM_LIMIT // (127 * read.node.input(0).shape[-1])
    if not isinstance(read.node.op, linear.Linear) or read.index:
        return WIDE
    weight = np.abs(read.node.input(1).array.astype(np.float64))
    rows = weight / np.maximum(weight.max(axis=1, keepdims=True), observers.SMALLEST) * 127
    return int(SUM_LIMIT // max(1.0, float((rows.sum(axis=1) + weight.shape[1] / 2).max())))


def _fusions(graph: Graph) -> Iterator[tuple[int, Node]]:
    """(id of the value before, node) for each clamp that its producer can apply while storing."""
    for node in graph.nodes:
        if not isinstance(node.op, activation.Relu | activation.Clip):
            continue
        before = node.input(0)
        maker = before.producer
        alone = len(before.uses) == 1 and not any(before is out for out in graph.outputs)
        if maker is None or not alone:
            continue
        if isinstance(maker.op, linear.Linear | conv.Conv):
            yield id(before), node
        elif isinstance(maker.op, elementwise.Add | elementwise.Sub | elementwise.Mul):
            if not any(operand.is_constant for operand in maker.inputs if operand):
                yield id(before), node


def _images(graph: Graph) -> set[int]:
    """Ids of values that are images [B, C, H, W]: what convolutions make and read, and arithmetic on it."""
    found: set[int] = set()
    for value in graph.inputs:
        if len(value.shape) == 4 and any(isinstance(n.op, (*CONVOLVES, conv.PatchEmbed)) for n in value.readers):
            found.add(id(value))
    for node in graph.nodes:
        made = isinstance(node.op, CONVOLVES) or (
            not isinstance(node.op, shape.Reshape | shape.Transpose | linear.MatMul | linear.Linear)
            and any(id(operand) in found for operand in node.inputs)
        )
        found.update(id(value) for value in node.outputs if made and len(value.shape) == 4)
    return found
