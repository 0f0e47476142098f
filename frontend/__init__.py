"""The front end: an ONNX file becomes a recognised float graph, or an error that says what to change."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..ir.graph import Array, Graph

Shapes = Mapping[str, tuple[int, ...]]


def load(
    path: str | PathLike[str],
    shapes: Shapes | None = None,
    values: Mapping[str, object] | None = None,
    sample: Mapping[str, Array] | None = None,
    pixels: bool = False,
) -> Graph:
    """Read a model file as a graph of float ops, its blocks (attention, norms, activations) recognised.

    Args:
        path: An `.onnx` file; it is only read.
        shapes: A full shape per input that has symbolic dimensions. A symbolic batch alone is taken as 1.
        values: Inputs that never change, as numbers or arrays: they become constants, and what they decide is decided.
        sample: Typical inputs, from which open dimensions are taken where `shapes` says nothing.
        pixels: Whether inputs of bytes that are cast to real numbers become inputs of real numbers.

    Raises:
        ModelError: The file cannot be used as it is.
        Unsupported: It holds operators that the compiler does not know; all of them are named.
        UsageError: `shapes` or `values` do not fit the inputs.
    """
    return recognised(imported(path, shapes, values, sample, pixels))


def imported(
    path: str | PathLike[str],
    shapes: Shapes | None = None,
    values: Mapping[str, object] | None = None,
    sample: Mapping[str, Array] | None = None,
    pixels: bool = False,
) -> Graph:
    """Like `load`, but op for op: nothing is recognised yet."""
    from ..ir.errors import ModelError

    file = Path(path)
    if file.suffix.lower() != ".onnx":
        raise ModelError(
            f"'{file.name}' is not an ONNX file by its name",
            where=[str(file)],
            do="export the model to ONNX (torch.onnx.export) and give the .onnx file",
        )
    from .fold import fold
    from .given import fix, read_pixels_as_reals, sizes_of
    from .importer import build
    from .reader import read
    from .shapes import bind
    from .signed import sign

    model = read(file)
    fix(model, values or {})
    if pixels:
        read_pixels_as_reals(model)
    bind(model, {**sizes_of(model, sample or {}), **(shapes or {})})
    fold(model)
    graph = build(model)
    sign(graph)
    return graph


def recognised(graph: Graph) -> Graph:
    """The same graph after all recognition passes."""
    from ..ir.passes.recognise import RECOGNISE

    for each in RECOGNISE:
        each.apply(graph)
    graph.prune()
    return graph


__all__ = ["imported", "load", "recognised"]
