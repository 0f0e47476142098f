"""A rule: what one MIL operation computes, as a numpy function whose signature says which operands it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arithmetic import Arithmetic
from ..program import Array

__all__ = ["Array", "Arrays", "Axes", "Bools", "Ints", "Rule", "Rules", "pairs", "rule"]

Ints = tuple[int, ...]
Bools = tuple[bool, ...]
Arrays = tuple[Array, ...]
Axes = Ints | None

Rules = dict[str, Callable[..., Any]]
"""By MIL's name: parameters are named as MIL names them; the first is `f`, an Arithmetic, where the inside rounds."""


def _array(values: Arrays) -> Array:
    (value,) = values
    return value


def _ints(values: Arrays) -> Ints:
    return tuple(int(each) for each in np.ravel(_array(values)))


READERS: Mapping[str, Callable[[Arrays], Any]] = {
    "Array": _array,
    "Arrays": lambda values: values,
    "Ints": _ints,
    "Axes": _ints,
    "Bools": lambda values: tuple(bool(each) for each in np.ravel(_array(values))),
    "int": lambda values: int(_array(values)),
    "float": lambda values: float(_array(values)),
    "bool": lambda values: bool(_array(values)),
    "str": lambda values: str(_array(values)),
}
"""How a parameter's annotation reads the operand's arrays."""


@dataclass(frozen=True)
class Rule:
    """A function with its parameters.

    Attributes:
        function: What is computed.
        inner: Whether it takes the arithmetic of its inside first.
        parameters: By name, how the operand is read.
        needed: Those that must be there.
    """

    function: Callable[..., Any]
    inner: bool
    parameters: Mapping[str, Callable[[Arrays], Any]]
    needed: frozenset[str]

    def __call__(self, arithmetic: Arithmetic, operands: Mapping[str, Arrays]) -> Any:
        """Compute: an array, or a tuple of them where the operation has several results."""
        given = {name: self.parameters[name](values) for name, values in operands.items()}
        with np.errstate(all="ignore"):
            return self.function(arithmetic, **given) if self.inner else self.function(**given)


def rule(function: Callable[..., Any]) -> Rule:
    """Read a function's signature."""
    parameters = dict(inspect.signature(function).parameters)
    inner = next(iter(parameters), "") == "f"
    if inner:
        del parameters["f"]
    kinds = {name: str(each.annotation).removesuffix(" | None") for name, each in parameters.items()}
    readers = {name: READERS["Array" if kind == str(inspect.Parameter.empty) else kind] for name, kind in kinds.items()}
    needed = frozenset(name for name, each in parameters.items() if each.default is inspect.Parameter.empty)
    return Rule(function, inner, readers, needed)


def pairs(values: Ints) -> list[tuple[int, int]]:
    """Before and after, for each axis."""
    return list(zip(values[::2], values[1::2], strict=True))
