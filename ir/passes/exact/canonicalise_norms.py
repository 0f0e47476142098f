"""A batch norm that no layer could take becomes the multiply-add that it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph import Value
from ...ops.elementwise import Affine
from ...ops.norm import BatchNorm
from ...rewrite import Match, P, Rule
from ..base import Pass
from .channel_map import norm_map


def _to_affine(match: Match) -> Value:
    node, m = match.root, norm_map(match.root)
    dtype = node.input(0).dtype
    a = match.graph.constant(m.a.astype(dtype), f"{node.name}.a")
    c = match.graph.constant(m.c.astype(dtype), f"{node.name}.c")
    new: Value = match.add(Affine(m.axis), node.input(0), a, c)
    return new


@dataclass(frozen=True)
class CanonicaliseNorms(Pass):
    """Replace BatchNorm and RepNorm by Affine.

        BatchNorm(x, scale, bias, mean, var)         becomes    Affine(x, a, c)
        RepNorm(x, scale, bias, mean, var, eta)      becomes    Affine(x, a, c)

    Always legal. It runs after the folds: two vectors are left instead of five, and one kernel instead of three.
    """

    rules: ClassVar[tuple[Rule, ...]] = (Rule("canonicalise_norms", P(BatchNorm), _to_affine),)
