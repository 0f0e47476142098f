"""What a spelling sees of one node of ours: operands by their ONNX names, and ways to add nodes and constants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ...ir.graph import Array, Node, Value
from ...ir.op import Op
from ...ir.ops.linear import Linear

__all__ = ["FormError", "Site", "Store"]


class FormError(Exception):
    """A form of an op that has no spelling, in words; all are raised together as one `Unsupported`."""


@dataclass
class Store:
    """Names and constants of the model to be: a name is given once, a constant's bytes are stored once."""

    taken: set[str]
    tensors: list[TensorProto] = field(default_factory=list)
    _known: dict[object, str] = field(default_factory=dict)

    def fresh(self, name: str) -> str:
        """The name, or that name with the first number that makes it unique."""
        found, count = name, 0
        while found in self.taken:
            count += 1
            found = f"{name}.{count}"
        self.taken.add(found)
        return found

    def value(self, value: Value) -> str:
        """The name of a value of ours; a constant is stored at its first use."""
        if value.data is not None and value not in self._known:
            self._known[value] = value.name
            self.tensors.append(numpy_helper.from_array(value.data, value.name))
        return value.name

    def derived(self, value: Value, array: Array, how: object, hint: str) -> str:
        """A constant of ours laid out anew; `how` tells the layouts apart."""
        key = (value, how)
        if key not in self._known:
            self._known[key] = self._store(array, self.fresh(f"{value.name}.{hint}"))
        return self._known[key]

    def literal(self, array: Array, hint: str) -> str:
        """A constant that a spelling brings along; equal ones are one."""
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self._store(array, self.fresh(hint))
        return self._known[key]

    def _store(self, array: Array, name: str) -> str:
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name


@dataclass
class Site:
    """One node of ours about to become ONNX nodes of one opset."""

    node: Node
    opset: int
    store: Store
    made: list[NodeProto] = field(default_factory=list)

    @property
    def op(self) -> Op:
        """What it does."""
        return self.node.op

    @property
    def x(self) -> str:
        """Name of the first operand."""
        return self[0]

    @property
    def rank(self) -> int:
        """Rank of the first operand."""
        return self.node.input(0).type.rank

    def __getitem__(self, index: int) -> str:
        """Name of operand `index`, "" where it is absent, as ONNX has it."""
        value = self.node.optional(index)
        return "" if value is None else self.store.value(value)

    def has(self, index: int) -> bool:
        """Whether operand `index` is there; asking for its name would store it."""
        return self.node.optional(index) is not None

    def operands(self) -> list[str]:
        """Names of all operands."""
        return [self[index] for index in range(len(self.node.inputs))]

    def add(self, kind: str, *operands: str, **attributes: Any) -> str:
        """Add an ONNX node; its only result."""
        (result,) = self.several(1, kind, *operands, **attributes)
        return result

    def several(self, count: int, kind: str, *operands: str, **attributes: Any) -> tuple[str, ...]:
        """Add an ONNX node with so many results; absent operands at the end are left out."""
        given = list(operands)
        while given and not given[-1]:
            given.pop()
        names = tuple(self.store.fresh(f"{self.node.outputs[0].name}.{kind.lower()}") for _ in range(count))
        self.made.append(helper.make_node(kind, given, names, names[0], **attributes))
        return names

    def ints(self, values: Iterable[int]) -> str:
        """A constant list of integers."""
        return self.store.literal(np.array(tuple(values), np.int64), "ints")

    def number(self, value: float) -> str:
        """A constant scalar."""
        return self.store.literal(np.array(value, np.float32), "number")

    def filled(self, size: int, value: float) -> str:
        """A constant vector of one value."""
        return self.store.literal(np.full(size, value, np.float32), "ones" if value == 1 else "filled")

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """x under another shape."""
        return self.add("Reshape", x, self.ints(shape))

    def along(self, index: int, axis: int) -> str:
        """The vector that is operand `index`, shaped so that it broadcasts along `axis` of the first operand."""
        value, after = self.node.input(index), self.rank - 1 - axis % self.rank
        shape = (value.type.size, *[1] * after)
        if value.shape == shape:
            return self[index]
        if value.data is None:
            return self.reshape(self[index], shape)
        return self.store.derived(value, value.data.reshape(shape), shape, "along")

    def matrix(self, index: int) -> tuple[str, bool]:
        """A weight [N, K] of a Linear, and whether it is stored as [K, N]: so where no other kind of op reads it."""
        value = self.node.input(index)
        if value.data is None or any(type(node.op) is not Linear or at != 1 for node, at in value.uses):
            return self[index], False
        return self.store.derived(value, value.data.T, "T", "T"), True
