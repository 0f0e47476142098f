"""A program as data: typed operations in order, constants in place, the interface that applications see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

__all__ = ["Array", "Feature", "Operation", "Program", "Reference", "TensorType"]

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class TensorType:
    """Element type (MIL's name) and shape; None for a size, or a whole shape, that only the run tells."""

    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        """As MIL's own text form has it."""
        sizes = "..." if self.shape is None else ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.dtype}[{sizes}]"


@dataclass(frozen=True)
class Reference:
    """An operand that some operation, constant or input of the program makes."""

    name: str


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        kind: Its MIL type, such as "conv".
        operands: By parameter, what it reads: several in one where MIL takes a tuple; arrays where it is in place.
        outputs: Name and type of each result; the type is None for what is no tensor.
        nested: Whether it has blocks of its own (loops and conditions).
    """

    kind: str
    operands: Mapping[str, tuple[Reference | Array, ...]]
    outputs: tuple[tuple[str, TensorType | None], ...]
    nested: bool = False

    @property
    def name(self) -> str:
        """Name of its first result, which is how MIL's tools call it."""
        return self.outputs[0][0]

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Names of all values it reads, each once."""
        operands = (operand for group in self.operands.values() for operand in group)
        return tuple(dict.fromkeys(operand.name for operand in operands if isinstance(operand, Reference)))


@dataclass(frozen=True)
class Feature:
    """An input or output as applications see it.

    Attributes:
        name: Its name.
        kind: "array", "image", "dictionary", "string", ...
        colour: "RGB", "BGR" or "GRAYSCALE" for an image, else "".
    """

    name: str
    kind: str
    colour: str = ""


@dataclass(frozen=True)
class Program:
    """The main function of a package, for the newest operating system it is written for.

    Attributes:
        opset: Version of the operations, such as "CoreML8".
        inputs: Types by name, in order.
        outputs: Names, in order.
        constants: Arrays by name; texts are arrays of str.
        operations: In order of execution.
        features: Inputs and outputs as applications see them, by name.
        label: Name of the output that is the predicted class; "" where there is none.
        probabilities: Name of the output with the classes' probabilities; "" where there is none.
    """

    opset: str
    inputs: Mapping[str, TensorType]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array]
    operations: tuple[Operation, ...]
    features: Mapping[str, Feature]
    label: str = ""
    probabilities: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the model's order; empty for a model that classifies nothing."""
        names = (each.operands.get("classes", ()) for each in self.operations if each.kind == "classify")
        found = (self.constants[each.name] if isinstance(each, Reference) else each for each in next(names, ()))
        return tuple(str(name) for array in found for name in array)

    def counts(self) -> dict[str, int]:
        """How often each operation stands in it, what only unpacks weights apart; most frequent first."""
        kinds = [each.kind for each in self.operations if not each.kind.startswith("constexpr_")]
        return dict(sorted(((kind, kinds.count(kind)) for kind in set(kinds)), key=lambda pair: (-pair[1], pair[0])))
