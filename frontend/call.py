"""What a rule sees of one ONNX node: operands as values, attributes with defaults, and ways to say no."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from ..ir.errors import ModelError, ShapeError
from ..ir.graph import Array, Graph, Value
from ..ir.op import Op
from ..ir.ops.shape import Reshape

LARGEST = 2**28
"""Elements of a tensor: a thousand times what an edge device holds."""
LARGEST_CONSTANT = 2**26
"""Elements of a tensor that is computed while importing."""

UNBOUNDED = frozenset({"clip", "mask_filter_value", "max", "min", "value"})
"""Attributes that may be infinite."""

Result = Value | tuple[Value, ...]


class FormError(Exception):
    """A form of an operator that is not supported, in words; all are raised together as one `Unsupported`."""


@dataclass(frozen=True)
class Call:
    """One node about to become ops of the graph."""

    graph: Graph
    node: NodeProto
    name: str
    operands: tuple[Value | None, ...]
    opset: int
    read: Set[str]
    """Names of all tensors that some node or output of the model reads."""

    def __getitem__(self, index: int) -> Value:
        """Operand `index`, which must be there."""
        value = self.get(index)
        if value is None:
            raise ModelError(f"{self.node.op_type} '{self.name}' has no operand {index}", where=[self.name])
        return value

    def get(self, index: int) -> Value | None:
        """Operand `index`, or None."""
        return self.operands[index] if index < len(self.operands) else None

    @property
    def x(self) -> Value:
        """The first operand."""
        return self[0]

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute; strings as str, lists as tuples."""
        for attribute in self.node.attribute:
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                if isinstance(value, bytes):
                    return value.decode(errors="replace")
                finite = not isinstance(value, float) or math.isfinite(value) or name in UNBOUNDED
                alike = isinstance(value, (int, float)) or not isinstance(default, (int, float))
                self.demand(finite and alike, f"{name} is {value}")
                return value if isinstance(value, (int, float, str)) else tuple(value)
        return default

    def flag(self, name: str, default: int) -> bool:
        """An attribute that is 0 or 1; what another number means, every runtime decides for itself."""
        value = self.attr(name, default)
        self.demand(value in (0, 1), f"{name} is {value}")
        return bool(value)

    def array(self, index: int, what: str) -> Array:
        """The data of a constant operand."""
        value = self[index]
        if value.data is None:
            raise FormError(f"its {what} must be known at compile time")
        return value.data

    def ints(self, index: int, what: str) -> tuple[int, ...]:
        """A constant operand as integers."""
        return tuple(int(i) for i in self.array(index, what).reshape(-1))

    def setting(self, name: str, index: int, default: Any = None) -> Any:
        """Integers that older opsets have as an attribute and newer ones as an operand."""
        return self.ints(index, name) if self.get(index) is not None else self.attr(name, default)

    def require(self, condition: bool, form: str) -> None:
        """Refuse the node unless the condition holds."""
        if not condition:
            raise FormError(form)

    def demand(self, condition: bool, complaint: str) -> None:
        """Refuse the model as unsound unless the condition holds.

        Raises:
            ModelError: It does not.
        """
        if not condition:
            raise ModelError(f"{self.node.op_type} '{self.name}': {complaint}", where=[self.name])

    def only_first(self, what: str) -> None:
        """Refuse the node if anything reads another output of it than the first."""
        self.require(not self.read & (set(self.node.output[1:]) - {""}), f"its {what} must not be read")

    def add(self, op: Op, *operands: Value | None) -> Any:
        """Add an op that stands for this node; integers and truth values of constants are computed at once.

        So is whatever has no elements or is made of it: no pass or back end ever meets an empty tensor.

        Raises:
            ModelError: The result would be absurdly large.
        """
        try:
            types = op.infer(*(None if value is None else value.type for value in operands))
        except ShapeError:
            return self.graph.add(op, *operands, name=self.name, sources=(self.name,))  # raises it with the node's name
        types = types if isinstance(types, tuple) else (types,)
        known = all(value is None or value.is_constant for value in operands)
        empty = any(value is not None and not value.type.size for value in operands)
        computed = known and (empty or all(each.numpy.kind != "f" for each in types))
        for each in types:
            if max(each.size, *each.shape, 0) > (LARGEST_CONSTANT if computed else LARGEST):
                what = f"{self.node.op_type} '{self.name}' makes a tensor of the size {each.shape}"
                raise ModelError(what, where=[self.name], do="export the model with smaller shapes")
        if computed:
            results = op.reference(*(None if value is None else value.data for value in operands))
            made = [self.graph.constant(a, self.name) for a in (results if isinstance(results, tuple) else (results,))]
        elif not any(each.size for each in types):
            made = [self.graph.constant(np.zeros(each.shape, each.dtype), self.name) for each in types]
        else:
            return self.graph.add(op, *operands, name=self.name, sources=(self.name,))
        return made[0] if len(made) == 1 else tuple(made)

    def constant(self, array: Any, hint: str, dtype: str = "float32") -> Value:
        """A constant that this node brings along."""
        return self.graph.constant(np.asarray(array, dtype), f"{self.name}.{hint}")

    def like(self, x: Value, number: float, hint: str) -> Value:
        """A single number in the element type of x."""
        return self.constant(number, hint, x.dtype)

    def vector(self, index: int, size: int) -> Value | None:
        """An optional constant operand as a vector of `size`; a single number is repeated."""
        value = self.get(index)
        if value is None or value.shape == (size,) or value.data is None:
            return value
        return self.graph.constant(np.ascontiguousarray(np.broadcast_to(value.data.reshape(-1), size)), value.name)

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """x under another shape; nothing is added when it has that shape."""
        value: Value = x if x.shape == tuple(shape) else self.add(Reshape(tuple(shape)), x)
        return value

    def axis(self, axis: int, rank: int) -> int:
        """An axis counted from the front.

        Raises:
            ModelError: There is no such axis.
        """
        if not -rank <= axis < rank:
            raise ModelError(
                f"{self.node.op_type} '{self.name}': axis {axis} is outside a tensor of rank {rank}", where=[self.name]
            )
        return axis % rank


Rule = Callable[[Call], Result]
RULES: dict[str, Rule] = {}
"""The operators that can be imported, by ONNX name; those of other domains than ONNX's own begin with the domain."""


def kind(node: NodeProto) -> str:
    """The name of a node's operator in `RULES`."""
    return str(node.op_type) if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as the import rule of ONNX operators."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register
