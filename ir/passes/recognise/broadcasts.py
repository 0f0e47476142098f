"""What is repeated only to be combined with something larger: element-wise ops broadcast by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Value
from ...ops.elementwise import _Binary
from ...ops.shape import Expand
from ...rewrite import Any, Match, Miss, P, Rule
from ..base import Pass


def _unexpanded(match: Match) -> Value:
    node = match.root
    operands = [match["x"] if value is match["large"] else value for value in node.inputs if value is not None]
    shape = np.broadcast_shapes(*(value.shape for value in operands))
    if shape != node.output.shape:
        raise Miss(f"without Expand the result is {shape}, not {node.output.shape}")
    result: Value = match.graph.add(node.op, *operands, name=node.name, sources=match.sources)
    return result


LARGE = P(Expand, Any("x"), name="large", shared=True)


@dataclass(frozen=True)
class RecogniseBroadcasts(Pass):
    """Element-wise ops of an Expand read what was expanded, where the other operand has the size."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("broadcast", P(_Binary, LARGE, Any("other")), _unexpanded),
        Rule("broadcast", P(_Binary, Any("other"), LARGE), _unexpanded),
    )
