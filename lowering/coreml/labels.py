"""A classifier: the names of the classes, and scores that are probabilities."""

from __future__ import annotations

from pathlib import Path

from ...ir.errors import ModelError, UsageError
from ...ir.graph import Graph
from ...ir.ops.activation import Softmax

__all__ = ["names", "probabilities"]


def names(path: Path) -> tuple[str, ...]:
    """The lines of a text file.

    Raises:
        UsageError: The file is not there, is no text, or names a class twice or not at all.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"class names cannot be read from '{path}'", why=str(error)) from error
    found = [line.strip() for line in lines]
    while found and not found[-1]:
        found.pop()
    if not found or not all(found) or len(set(found)) < len(found):
        why = "a name is missing or stands there twice"
        raise UsageError(f"'{path}' does not name classes, one a line", why=why, do="give each class a name of its own")
    return tuple(found)


def probabilities(graph: Graph, classes: int) -> str:
    """Let the only output hold probabilities, by a Softmax where the model ends without one; the output's name.

    Raises:
        ModelError: The graph is no classifier of so many classes.
    """
    shapes = [value.shape for value in graph.outputs]
    if shapes != [(1, classes)]:
        what = f"{classes} class names fit a model with one output of shape (1, {classes})"
        raise ModelError(what, where=[value.name for value in graph.outputs], why=f"it has {shapes}")
    (scores,) = graph.outputs
    if scores.producer is not None and isinstance(scores.producer.op, Softmax):
        return scores.name
    name = scores.name
    graph.rename(scores, f"{name}_scores")
    graph.outputs = [
        graph.add(Softmax(-1), scores, name=name, sources=scores.producer.sources if scores.producer else ())
    ]
    return graph.outputs[0].name
