"""In what code each layer's weights are to be stored, noted in the graph, so that a model file carries it along."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ...errors import ModelError
from ...graph import Graph, Node
from .fit_codes import CODES

__all__ = ["code_of", "note_codes", "noted_codes"]

KEY = "edgesmith.codes"
"""Of the metadata of a graph, and of an ONNX file: a JSON object from names of ONNX nodes to codes."""


def note_codes(graph: Graph, codes: Mapping[str, str]) -> None:
    """Note the code of each layer by the name of its ONNX node; layers that are not named have the compile's own."""
    if codes:
        graph.metadata[KEY] = json.dumps(dict(codes), sort_keys=True, separators=(",", ":"))


def noted_codes(graph: Graph) -> dict[str, str]:
    """What `note_codes` noted.

    Raises:
        ModelError: The metadata is something else.
    """
    text = graph.metadata.get(KEY, "{}")
    do = f"write a JSON object from names of nodes to {', '.join(CODES)}"
    try:
        found = json.loads(text)
        wrong = [f"{name}: {code}" for name, code in found.items() if code not in CODES]
    except (ValueError, AttributeError, TypeError) as error:
        raise ModelError(f"the model's metadata {KEY} cannot be read", why=str(error), do=do) from error
    if wrong:
        raise ModelError(f"the model's metadata {KEY} names unknown codes", where=wrong, do=do)
    return dict(found)


def code_of(node: Node, codes: Mapping[str, str], default: str) -> str:
    """The code of the first noted layer that `node` stands for."""
    return next((codes[source] for source in node.sources if source in codes), default)
