"""A convolution of an image with zeros between its pixels becomes one small convolution per phase of the result.

So transposed convolutions come. Of every s x s pixels of the result, each is reached by its own share of the kernel:

    y[s m + p] = sum over j of w[k0 + s j] x[m + a + j],    k0 = (pad - p) mod s,    a = (p + k0 - pad) / s

The products with zeros, s^2 - 1 of s^2, are gone. Source: Shi et al., Is the deconvolution layer the same as a
convolutional layer?, 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...graph import Graph, Node, Value, sources_of
from ...ops.activation import Clip, Relu
from ...ops.conv import Conv
from ...ops.shape import Concat, Pad, Reshape, Transpose
from ..base import Pass
from .absorb import is_public

Pair = tuple[int, int]


@dataclass(frozen=True)
class SplitPhases(Pass):
    """For strides that divide the result's size and do not exceed the kernel's."""

    def apply(self, graph: Graph) -> int:
        """Returns how many convolutions were split."""
        return sum(_split(graph, node) for node in graph.nodes if isinstance(node.op, Conv))


@dataclass(frozen=True)
class Phase:
    """Along one axis: which part of the kernel reaches this phase, and the border that its image needs."""

    start: int
    before: int
    after: int


def _split(graph: Graph, node: Node) -> bool:
    assert isinstance(node.op, Conv)
    op, bias = node.op, node.optional(2)
    chain = _zeros_between(graph, node)
    if chain is None or node.input(1).data is None or (op.strides, op.dilations) != ((1, 1), (1, 1)):
        return False
    source, strides = chain
    axes = [_phases(node, axis, strides[axis], source) for axis in (0, 1)]
    if not all(axes) or (bias is not None and bias.data is None):
        return False
    image, sources = _image(graph, source, node), sources_of(node, *_makers(node))
    last = _clamp(graph, node)
    kernels = [
        (
            node.input(1).array[:, :, y.start :: strides[0], x.start :: strides[1]],
            (y.before, x.before, y.after, x.after),
        )
        for y in axes[0]
        for x in axes[1]
    ]
    if op.groups == 1 and len({(weight.shape, pads) for weight, pads in kernels}) == 1:
        joined = None if bias is None else graph.constant(np.tile(bias.array, len(kernels)), f"{bias.name}.phases")
        kernels, bias = [(np.concatenate([weight for weight, _ in kernels]), kernels[0][1])], joined
    parts = []
    for weight, pads in kernels:
        w = graph.constant(np.ascontiguousarray(weight), f"{node.input(1).name}.phase")
        y = graph.add(replace(op, pads=pads), image, w, bias, name=f"{node.name}.phase", sources=sources)
        parts.append(y if last is node else graph.add(last.op, y, name=f"{last.name}.phase", sources=last.sources))
    graph.replace(last.output, _interleaved(graph, parts, strides, last))
    graph.prune()
    return True


def _zeros_between(graph: Graph, node: Node) -> tuple[Value, Pair] | None:
    """The value [N, C, H, 1, W, 1] that is widened by zeros to [N, C, H, sh, W, sw], and (sh, sw)."""
    flat, widened = _makers(node)
    if flat is None or widened is None or not isinstance(flat.op, Reshape) or not isinstance(widened.op, Pad):
        return None
    if any(is_public(graph, each.output) or len(each.output.uses) > 1 for each in (flat, widened)):
        return None
    source, shape = widened.input(0), widened.output.shape
    if len(shape) != 6 or source.shape != (*shape[:3], 1, shape[4], 1) or widened.op.value != 0:
        return None
    zeros = (0,) * 9 + (shape[3] - 1, 0, shape[5] - 1)
    if widened.op.pads != zeros or flat.output.shape != (*shape[:2], shape[2] * shape[3], shape[4] * shape[5]):
        return None
    return (source, (shape[3], shape[5])) if shape[3] * shape[5] > 1 else None


def _makers(node: Node) -> tuple[Node | None, Node | None]:
    flat = node.input(0).producer
    return flat, None if flat is None else flat.input(0).producer


def _phases(node: Node, axis: int, stride: int, source: Value) -> list[Phase]:
    """All phases along one axis; none where one would be empty, cropped, or of another size than the rest."""
    assert isinstance(node.op, Conv)
    size, pad = source.shape[2 + 2 * axis], node.op.pads[axis]
    kernel, result = node.input(1).shape[2 + axis], node.output.shape[2 + axis]
    if result % stride or kernel < stride:
        return []
    found = []
    for p in range(stride):
        start = (pad - p) % stride
        offset, taps = (p + start - pad) // stride, -(-(kernel - start) // stride)
        found.append(Phase(start, -offset, result // stride + offset + taps - 1 - size))
    return found if min(min(each.before, each.after) for each in found) >= 0 else []


def _image(graph: Graph, source: Value, node: Node) -> Value:
    """The value without its axes of one, [N, C, H, W], in as few moves as its makers allow."""
    maker, name = source.producer, f"{node.name}.image"
    if maker is not None and isinstance(maker.op, Transpose):
        perm, inner = maker.op.perm, maker.input(0)
        ones = {perm[3], perm[5]}
        shape = tuple(size for axis, size in enumerate(inner.shape) if axis not in ones)
        left = [axis for axis in range(6) if axis not in ones]
        order = tuple(left.index(axis) for axis in perm if axis not in ones)
        rows = _reshaped(graph, inner, shape, name, maker.sources)
        found: Value = graph.add(Transpose(order), rows, name=name, sources=maker.sources)
        return found
    shape = (*source.shape[:3], source.shape[4])
    return _reshaped(graph, source, shape, name, maker.sources if maker else ())


def _reshaped(graph: Graph, value: Value, shape: tuple[int, ...], name: str, sources: Sequence[str]) -> Value:
    while value.producer is not None and isinstance(value.producer.op, Reshape):
        value = value.producer.input(0)
    return value if value.shape == shape else graph.add(Reshape(shape), value, name=name, sources=sources)


def _clamp(graph: Graph, node: Node) -> Node:
    """The ReLU that alone reads a convolution, which runtimes compute inside of it; else the convolution itself."""
    readers = node.output.readers
    inside = len(node.output.uses) == 1 and isinstance(readers[0].op, Relu | Clip)
    return readers[0] if inside and not is_public(graph, node.output) else node


def _interleaved(graph: Graph, parts: list[Value], strides: Pair, node: Node) -> Value:
    """Phases [N, C, H, W], row by row, as one image [N, C, sh H, sw W]."""
    name, sources = node.name, node.sources
    batch, _, height, width = parts[0].shape
    together, channels = parts[0], node.output.shape[1]
    if len(parts) > 1:
        together = graph.add(Concat(1), *parts, name=f"{name}.phases", sources=sources)
    apart = graph.add(
        Reshape((batch, *strides, channels, height, width)), together, name=f"{name}.apart", sources=sources
    )
    turned = graph.add(Transpose((0, 3, 4, 1, 5, 2)), apart, name=f"{name}.turned", sources=sources)
    shape = (batch, channels, height * strides[0], width * strides[1])
    found: Value = graph.add(Reshape(shape), turned, name=name, sources=sources)
    return found
