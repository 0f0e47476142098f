"""What a spelling sees of one node of ours: operands by their ONNX names, and ways to add nodes and constants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ...ir.graph import Array, Node, Quant, Value
from ...ir.op import Op
from ...ir.ops.linear import Linear
from ...ir.ops.quant import Dequantize, Quantize

__all__ = ["FormError", "Site", "Store", "stored"]


def stored(value: Value) -> bool:
    """Whether a value is a constant in integers, made real: so weights are in a quantised graph."""
    node = value.producer
    return node is not None and isinstance(node.op, Dequantize) and node.input(0).is_constant


def stored_integers(value: Value) -> tuple[Value, Quant]:
    """The constant of such a value, and what its integers mean."""
    node = value.producer
    assert node is not None and isinstance(node.op, Dequantize)
    return node.input(0), node.op.quant


class FormError(Exception):
    """A form of an op that has no spelling, in words; all are raised together as one `Unsupported`."""


@dataclass
class Store:
    """Names and constants of the model to be: a name is given once, a constant's bytes are stored once.

    `made` holds the results of nodes that several of ours share; `public` are the values whose types are promised;
    `arrays` are the constants in order of first use.
    """

    taken: set[str]
    public: frozenset[Value] = frozenset()
    arrays: dict[str, Array] = field(default_factory=dict)
    made: dict[object, str] = field(default_factory=dict)
    _known: dict[object, str] = field(default_factory=dict)

    def fresh(self, name: str) -> str:
        """The name, or that name with the first number that makes it unique."""
        found, count = name, 0
        while found in self.taken:
            count += 1
            found = f"{name}.{count}"
        self.taken.add(found)
        return found

    def unsigned(self, value: Value) -> bool:
        """Whether int8 numbers are written as uint8, all 128 greater: those that only cross from real to real.

        x86 processors multiply unsigned by signed bytes, so ONNX Runtime takes them as they are. Signed ones it first
        makes unsigned, which fails from opset 21 on (1.32 leaves the attribute `output_dtype` as it was), and some of
        them meet its slowest kernel.
        """
        node = value.producer
        crosses = node is not None and isinstance(node.op, Quantize) and node.op.quant.axis is None
        back = all(isinstance(reader.op, Dequantize) for reader in value.readers)
        return value.dtype == "int8" and crosses and back and value not in self.public

    def value(self, value: Value) -> str:
        """The name of a value of ours; a constant is stored at its first use."""
        if value.data is not None and value not in self._known:
            self._known[value] = value.name
            self.arrays[value.name] = value.data
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
        self.arrays[name] = np.asarray(array, order="C")
        return name

    @property
    def nbytes(self) -> int:
        """Bytes of all constants."""
        return sum(array.nbytes for array in self.arrays.values())

    def tensors(self) -> list[TensorProto]:
        """The constants as the model holds them."""
        return [numpy_helper.from_array(array, name) for name, array in self.arrays.items()]

    def headings(self) -> list[TensorProto]:
        """The same without their numbers."""
        kinds = ((name, array, helper.np_dtype_to_tensor_dtype(array.dtype)) for name, array in self.arrays.items())
        return [TensorProto(name=name, data_type=kind, dims=array.shape) for name, array, kind in kinds]


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
        if value is None:
            return ""
        return self.parameter(value) if stored(value) else self.store.value(value)

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
        if any(type(node.op) is not Linear or at != 1 for node, at in value.uses):
            return self[index], False
        if stored(value):
            return self.parameter(value, turned=True), True
        if value.data is None:
            return self[index], False
        return self.store.derived(value, value.data.T, "T", "T"), True

    def parameter(self, value: Value, turned: bool = False) -> str:
        """A weight that is stored as integers, made real where it is first read; `turned` for a matrix as [K, N]."""
        q, quant = stored_integers(value)
        key = (value, "turned" if turned else "")
        if key not in self.store.made:
            name = self.store.derived(q, q.array.T, "T", "T") if turned else self.store.value(q)
            axis = quant.axis if quant.axis is None or not turned else 1 - quant.axis % 2
            self.store.made[key] = self.real(name, Quant(quant.scale, quant.zero_point, axis), q)
        return self.store.made[key]

    def rows(self) -> str:
        """The first operand as a matrix of rows; where it comes from integers, these are reshaped."""
        x = self.node.input(0)
        if x.type.rank == 2:
            return self.x
        shape, made = (-1 if x.type.size == 0 else x.type.size // x.shape[-1], x.shape[-1]), x.producer
        if made is None or not isinstance(made.op, Dequantize):
            return self.reshape(self.x, shape)
        if (x, "rows") not in self.store.made:
            q = made.input(0)
            rows = self.reshape(self.store.value(q), shape)
            self.store.made[x, "rows"] = self.real(rows, made.op.quant, q)
        return self.store.made[x, "rows"]

    def meaning(self, quant: Quant, q: Value) -> list[str]:
        """The scale and zero of QuantizeLinear and DequantizeLinear; the zero tells the type of the integers."""
        scale = np.asarray(quant.scale, np.float32)
        shift, dtype = (128, "uint8") if self.store.unsigned(q) else (0, q.dtype)
        zero = np.full(scale.shape, quant.zero_point + shift, dtype)
        return [self.store.literal(scale, "scale"), self.store.literal(zero, "zero")]

    def real(self, name: str, quant: Quant, q: Value) -> str:
        """DequantizeLinear of the integers `q`, which are called `name` here."""
        axis = {} if quant.axis is None else {"axis": quant.axis}
        return self.add("DequantizeLinear", name, *self.meaning(quant, q), **axis)

    def bias(self, index: int) -> str:
        """Operand `index` as 32-bit integers made real, where the products of operands 0 and 1 are of integers.

        Runtimes take the integers as they are. They stand for the same numbers as long as the bias is whole steps.
        """
        b, made = self.node.optional(index), [self.node.input(i).producer for i in (0, 1)]
        if b is None or b.data is None:
            return self[index]
        quants = [node.op.quant for node in made if node is not None and isinstance(node.op, Dequantize)]
        if len(quants) < 2 or quants[0].axis is not None:
            return self[index]
        steps = np.asarray(quants[0].scale, np.float32) * np.broadcast_to(
            np.asarray(quants[1].scale, np.float32), b.shape
        )
        whole = np.rint(b.data / steps.astype(np.float64)).astype(np.int32)
        if not np.array_equal(whole.astype(np.float32) * steps, b.data):
            return self[index]
        name = self.store.literal(whole, f"{b.name}.q")
        scale, zero = self.store.literal(steps, "scale"), self.store.literal(np.zeros(len(steps), np.int32), "zero")
        return self.add("DequantizeLinear", name, scale, zero, axis=0)
