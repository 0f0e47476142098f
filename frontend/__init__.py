"""The front end: an ONNX file becomes a recognised float graph, or an error that says what to change."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..ir.graph import Graph


def load(path: str | PathLike[str], shapes: Mapping[str, tuple[int, ...]] | None = None) -> Graph:
    """Read a model file as a graph of float ops, its blocks (attention, norms, activations) recognised.

    Args:
        path: An `.onnx` file; it is only read.
        shapes: A full shape per input that has symbolic dimensions. A symbolic batch alone is taken as 1.

    Raises:
        ModelError: The file cannot be used as it is.
        Unsupported: It holds operators that the compiler does not know; all of them are named.
        UsageError: `shapes` does not fit the inputs.
    """
    return recognised(imported(path, shapes))


def imported(path: str | PathLike[str], shapes: Mapping[str, tuple[int, ...]] | None = None) -> Graph:
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
    from .importer import build
    from .reader import read
    from .shapes import bind

    model = read(file)
    bind(model, shapes or {})
    fold(model)
    return build(model)


def recognised(graph: Graph) -> Graph:
    """The same graph after all recognition passes."""
    from ..ir.passes.recognise import RECOGNISE

    for each in RECOGNISE:
        each.apply(graph)
    graph.prune()
    return graph


__all__ = ["imported", "load", "recognised"]
