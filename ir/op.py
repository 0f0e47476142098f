"""What an op is: one class that holds its attributes, type rule, numpy reference, cost and examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from .errors import ShapeError
from .tensor import Array, Type

Types = Type | tuple[Type, ...]
Arrays = Array | tuple[Array, ...]
Example = tuple["Op", tuple[Array | None, ...]]


@dataclass(frozen=True)
class Op:
    """Base of all ops. A subclass is a frozen dataclass of attributes and is its own registration.

    `inplace` lists the inputs whose storage the output may take over, element by element.
    """

    inplace: ClassVar[tuple[int, ...]] = ()

    def infer(self, *types: Any) -> Types:
        """Output type(s) from operand types (None for an absent optional one).

        Raises:
            ShapeError: The operands do not fit.
        """
        raise NotImplementedError

    def reference(self, *arrays: Any) -> Arrays:
        """The meaning, in numpy; floats are computed in the precision they come in."""
        raise NotImplementedError

    def macs(self, *types: Any) -> int:
        """Multiply-accumulates of one execution (by the convention of torch's and ONNX's profilers: products only)."""
        return 0

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Small cases (op, operands) on which type rule, reference and other implementations are compared."""
        raise NotImplementedError

    def attributes(self) -> dict[str, Any]:
        """Attribute names and values, in declaration order."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def require(condition: bool, complaint: str) -> None:
    """Raise `ShapeError(complaint)` unless the condition holds."""
    if not condition:
        raise ShapeError(complaint)
