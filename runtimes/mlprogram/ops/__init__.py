"""What each MIL operation computes, by its name in the program; one file a family."""

from __future__ import annotations

from collections.abc import Mapping

from . import activation, compressed, conv, elementwise, index, linear, norm, pool, reduction, resize, shape
from .rule import Array, Rule, rule

__all__ = ["RULES", "Rule"]

FAMILIES = (elementwise, activation, linear, conv, pool, norm, reduction, shape, index, resize, compressed)


def classify(probabilities: Array, classes: Array) -> tuple[Array, Array]:
    """The most probable class and the probabilities in order of the classes."""
    return classes[int(probabilities.argmax())], probabilities.reshape(-1)


RULES: Mapping[str, Rule] = {name: rule(function) for family in FAMILIES for name, function in family.RULES.items()} | {
    "classify": rule(classify)
}
