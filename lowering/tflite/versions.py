"""The version of an operator that a file has to name: the first whose kernels take these types and options.

A runtime refuses versions newer than its own, so a version higher than needed would shut older ones out.
Source: the rules of TensorFlow Lite's op versioning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .flatbuffer import Tensor

__all__ = ["version"]

PLAIN_RANK = 4
"""What kernels of first versions take."""

ONE = {
    "CAST", "COS", "EQUAL", "FLOOR", "HARD_SWISH", "LEAKY_RELU", "LESS", "NEG", "POW", "RESHAPE", "ROUND", "SELECT_V2",
    "SIN", "TOPK_V2",
}  # fmt: skip
"""Operators that have one version for all we write."""

LATER_BROADCAST = {"SUB": 3, "DIV": 2, "MAXIMUM": 3, "MINIMUM": 3}
"""Operators whose first version broadcasts up to rank 4 only, and the one that does not."""

HIGH_RANK = {"TRANSPOSE": (4, 6), "SLICE": (5, 5), "STRIDED_SLICE": (4, 4), "PAD": (4, 4), "PADV2": (4, 4)}
"""Versions for rank 5 and for rank 6."""


def version(kind: str, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor], options: Any) -> int:
    """The version of one operator."""
    first = inputs[1] if kind == "SPLIT" else inputs[0]
    assert first is not None
    integers = first.dtype == "int8"
    rank = max(len(tensor.shape) for tensor in inputs if tensor is not None)
    if kind in PRODUCTS:
        return PRODUCTS[kind](inputs, integers, options)
    if kind in ONE:
        return 1
    if kind in LATER_BROADCAST and rank > PLAIN_RANK:
        return LATER_BROADCAST[kind]
    if kind in HIGH_RANK and len(first.shape) > PLAIN_RANK:
        return HIGH_RANK[kind][len(first.shape) > PLAIN_RANK + 1]
    if kind == "DEQUANTIZE":
        return 3 if first.dtype == "float16" else 2 if first.quant is None or first.quant.axis is None else 5
    if kind == "QUANTIZE":
        return 1
    if kind == "FLOOR_MOD":
        return 2 if first.dtype == "float32" else 1
    if kind == "ARG_MAX":
        return 1
    if kind == "BROADCAST_TO":
        return 3 if integers else 2
    if kind in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"):
        newer = options.halfPixelCenters or (kind == "RESIZE_NEAREST_NEIGHBOR" and options.alignCorners)
        return 3 if newer else 1 + integers
    if kind == "MUL" and integers and _rescales_up(inputs, outputs):
        return 3
    return 1 + integers


def _rescales_up(inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]) -> bool:
    scales = [tensor.quant.scale for tensor in (*inputs, *outputs) if tensor is not None and tensor.quant is not None]
    a, b, out = (float(scale) for scale in scales if not isinstance(scale, tuple))
    return a * b / out >= 1


def _per_channel(weight: Tensor | None) -> bool:
    return weight is not None and weight.quant is not None and weight.quant.axis is not None


def _dense(inputs: Sequence[Tensor | None], integers: bool, options: Any) -> int:
    weight = inputs[1]
    assert weight is not None
    if weight.dtype == "int8" and not integers:
        return 12 if _per_channel(weight) else 3
    if len(inputs) == 2:
        return 6
    if options.keepNumDims:
        return 5
    return 4 if integers else 1


def _convolution(inputs: Sequence[Tensor | None], integers: bool, options: Any) -> int:
    image, weight = inputs[0], inputs[1]
    assert image is not None and weight is not None
    if image.shape[3] != weight.shape[3]:
        return 6
    if integers:
        return 3
    return 5 if weight.dtype == "int8" else 1


def _depthwise(inputs: Sequence[Tensor | None], integers: bool, options: Any) -> int:
    weight = inputs[1]
    assert weight is not None
    if integers:
        return 3
    if weight.dtype == "int8":
        return 6
    return 2 if (options.dilationWFactor, options.dilationHFactor) != (1, 1) else 1


PRODUCTS = {
    "FULLY_CONNECTED": _dense,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
}
