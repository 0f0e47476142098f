"""An image as the input: its normalisation goes into the weights that read it, exactly, borders included."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ...ir.errors import ModelError, UsageError
from ...ir.graph import Array, Graph, Node, Value
from ...ir.ops import elementwise
from ...ir.ops.conv import Conv, PatchEmbed
from .succession import succeed

__all__ = ["FORM", "PIXELS", "Normalisation", "fold"]

FORM = "mean=R,G,B;std=R,G,B;scale=1/255"
"""How a normalisation is written; what is left out is 0, 1 and 1/255."""

PIXELS = (0.0, 255.0)
SHRINK = 2.0**-7
"""What pixels are multiplied with where the weights that read them would be too small for float16."""

LOSS = 1e-3
"""Largest share of the weights' norm that rounding them may cost."""


@dataclass(frozen=True)
class Normalisation:
    """x = (scale * pixel - mean) / std, a mean and a deviation for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1 / 255

    @classmethod
    def parse(cls, text: str) -> Normalisation:
        """Read it from the option's text.

        Raises:
            UsageError: The text is not of that form.
        """
        given: dict[str, tuple[float, ...]] = {"mean": (0.0,), "std": (1.0,), "scale": (1 / 255,)}
        try:
            for part in filter(None, re.split(r"[;\s]+", text)):
                key, _, numbers = part.partition("=")
                if key not in given:
                    raise ValueError(f"'{key}' is not known")
                given[key] = tuple(float(Fraction(number)) for number in numbers.split(","))
            (scale,) = given["scale"]
            if scale <= 0 or min(given["std"]) <= 0:
                raise ValueError("scale and std are positive")
        except (ValueError, ZeroDivisionError) as error:
            raise UsageError(f"'{text}' is no normalisation", why=str(error), do=f"write it as '{FORM}'") from error
        return cls(given["mean"], given["std"], scale)

    def of(self, channels: int) -> tuple[Array, Array]:
        """Factor and offset of each channel: x = factor * pixel + offset."""
        if not all(len(each) in (1, channels) for each in (self.mean, self.std)):
            why = f"mean has {len(self.mean)} numbers, std {len(self.std)}"
            raise UsageError(
                f"the image has {channels} channels", why=why, do="give one number, or one for each channel"
            )
        mean, std = (np.broadcast_to(np.asarray(each, np.float64), channels) for each in (self.mean, self.std))
        return self.scale / std, -mean / std


def fold(graph: Graph, how: Normalisation, half: bool) -> tuple[Value, str]:
    """Let the graph take pixels from 0 to 255 instead of normalised numbers.

    Convolutions without a border take factor and offset whole. One with a border needs the mean taken off the pixels
    before, since its zeros stand for the mean colour. Where others read the image, it is normalised by an op.

    Args:
        graph: Changed in place; its only input of rank 4 with 1 or 3 channels is the image.
        how: The normalisation that the graph's input has undergone.
        half: Whether weights will be float16.

    Returns:
        The input, and in words what was done.

    Raises:
        ModelError: There is no such input, or there are several.
    """
    images = [
        value for value in graph.inputs if value.type.rank == 4 and value.shape[0] == 1 and value.shape[1] in (1, 3)
    ]
    if len(images) != 1:
        what = "an image is taken by models with one input of shape [1, 3, H, W] or [1, 1, H, W]"
        raise ModelError(what, where=[value.name for value in graph.inputs], do="leave the option 'image' out")
    x = images[0]
    factor, offset = how.of(x.shape[1])
    readers = x.readers
    if not all(_takes(node, x) for node in readers) or x in graph.outputs:
        _by_op(graph, x, factor, offset)
        return x, "the image is normalised by an op, since others than convolutions read it"
    said = ["the normalisation is in the weights of " + ", ".join(node.output.name for node in readers)]
    shrink = 1.0
    if half and any(_loss(_scaled(node, factor)) > LOSS for node in readers):
        shrink = SHRINK
        said.append(f"the image is multiplied with {SHRINK:g}, as the weights would be too small for float16")
    bordered = any(isinstance(node.op, Conv | PatchEmbed) and any(node.op.pads) for node in readers)
    if bordered:
        said.append("the mean is taken off by an op, as the border of a convolution stands for it")
    _prepare(graph, x, shrink, offset / factor * shrink if bordered else None)
    for node in readers:
        _refit(graph, node, factor / shrink, None if bordered else offset)
    return x, "; ".join(said)


def _takes(node: Node, x: Value) -> bool:
    """Whether a node reads the image as a convolution with known weights."""
    weights = node.inputs[1:]
    fixed = all(value is None or value.data is not None for value in weights)
    return type(node.op) in (Conv, PatchEmbed) and node.input(0) is x and fixed


def _channels(node: Node) -> Array:
    """Channel of the image that each weight [O, C/groups] reads."""
    outputs, depth = node.input(1).shape[:2]
    groups = node.op.groups if isinstance(node.op, Conv) else 1
    group = np.arange(outputs) // (outputs // groups)
    return np.asarray(group[:, None] * depth + np.arange(depth))


def _scaled(node: Node, factor: Array) -> Array:
    return np.asarray(node.input(1).array * factor[_channels(node)][:, :, None, None])


def _loss(weight: Array) -> float:
    rest = weight - weight.astype(np.float16).astype(np.float64)
    return float(np.linalg.norm(rest) / max(float(np.linalg.norm(weight)), 1e-30))


def _prepare(graph: Graph, x: Value, shrink: float, shift: Array | None) -> None:
    """Put what has to be done to the pixels themselves between them and their readers."""
    uses, y = x.uses, x
    if shrink != 1:
        y = graph.add(elementwise.Mul(), y, graph.constant(np.array(shrink, np.float32)), name=f"{x.name}_small")
    if shift is not None:
        mean = graph.constant(shift.astype(np.float32).reshape(1, -1, 1, 1), f"{x.name}_mean")
        y = graph.add(elementwise.Add(), y, mean, name=f"{x.name}_centred")
    for node, index in uses:
        graph.set_input(node, index, y)


def _refit(graph: Graph, node: Node, factor: Array, offset: Array | None) -> None:
    """Multiply a convolution's weights, and add what the offset gives to its bias."""
    old = node.input(1)
    if offset is not None:
        more = (old.array * offset[_channels(node)][:, :, None, None]).sum(axis=(1, 2, 3))
        bias = node.optional(2)
        whole = more if bias is None else bias.array + more
        constant = graph.constant(whole.astype(np.float32), f"{old.name}_image_bias")
        if len(node.inputs) < 3:
            again = graph.add(node.op, *node.inputs, constant, name=node.name, sources=node.sources)
            node = succeed(graph, node, again)
        else:
            graph.set_input(node, 2, constant)
    graph.set_input(node, 1, graph.constant(_scaled(node, factor).astype(np.float32), f"{old.name}_image"))


def _by_op(graph: Graph, x: Value, factor: Array, offset: Array) -> None:
    uses = x.uses
    vectors = (graph.constant(each.astype(np.float32), f"{x.name}_normalisation") for each in (factor, offset))
    y = graph.add(elementwise.Affine(1), x, *vectors, name=f"{x.name}_normalised")
    for node, index in uses:
        graph.set_input(node, index, y)
    graph.outputs = [y if out is x else out for out in graph.outputs]
