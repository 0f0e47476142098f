"""BatchNorm over tokens, freed of the transpositions and joined rows that it was exported with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from ...graph import Value
from ...ops.norm import BatchNorm, RepNorm
from ...ops.shape import Reshape, Transpose
from ...rewrite import Any, Match, Miss, P, Rule
from ..base import Pass


def batch_norm(match: Match) -> BatchNorm:
    """The plain BatchNorm bound as "norm"."""
    op = match.node("norm").op
    if not isinstance(op, BatchNorm) or isinstance(op, RepNorm):
        raise Miss("it is no plain BatchNorm")
    return op


def _after_transpose(match: Match) -> Value:
    """Transpose, BatchNorm, Transpose back: the same BatchNorm along another axis."""
    op, node = batch_norm(match), match.node("norm")
    there, back = match.node("there").op, match.root.op
    assert isinstance(there, Transpose) and isinstance(back, Transpose)
    if [there.perm[i] for i in back.perm] != list(range(len(back.perm))):
        raise Miss(f"{back.perm} does not undo {there.perm}")
    moved = dataclasses.replace(op, axis=there.perm[op.axis % len(there.perm)])
    result: Value = match.add(moved, match["x"], *node.inputs[1:], name=node.name)
    return result


def _after_reshape(match: Match) -> Value:
    """Tokens joined to a matrix first: the norm moves before the Reshape, which may then meet its inverse."""
    op, node, x = batch_norm(match), match.node("norm"), match["x"]
    shape = node.output.shape
    if len(shape) != 2 or op.axis % 2 != 1 or len(x.shape) < 3 or x.shape[-1] != shape[1]:
        raise Miss(f"{shape} is no matrix of the tokens {x.shape}")
    moved = dataclasses.replace(op, axis=len(x.shape) - 1)
    normed = match.add(moved, x, *node.inputs[1:], name=node.name)
    result: Value = match.add(Reshape(shape), normed, name=f"{node.name}.rows")
    return result


@dataclass(frozen=True)
class RecogniseTokennorm(Pass):
    """Torch's BatchNorm1d wants channels on axis 1; tokens have them last."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "token_norm",
            P(Transpose, P(BatchNorm, P(Transpose, Any("x"), name="there"), name="norm")),
            _after_transpose,
        ),
        Rule("token_norm", P(BatchNorm, P(Reshape, Any("x")), name="norm"), _after_reshape),
    )
