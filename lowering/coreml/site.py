"""What a spelling sees of one node of ours: operands as MIL variables in the node's precision, and ways to add ops."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ir.graph import Array, Node, Value
from ...ir.op import Op

if TYPE_CHECKING:
    from .attention import Projection

__all__ = ["DTYPES", "FIRST", "PLAIN", "FormError", "Site", "Store", "Var"]

Var = Any
"""A variable of a MIL program; coremltools ships no types."""

DTYPES = {"float32": "fp32", "float16": "fp16"}
INTEGER, TRUTH = "int32", "bool"
"""MIL's element types: of real numbers by ours, and the others."""

RESERVED = frozenset(
    "any bool program func tensor list dict tuple true false string state main bf16 fp16 fp32 fp64 "
    "int4 int8 int16 int32 int64 uint1 uint2 uint3 uint4 uint6 uint8 uint16 uint32 uint64".split()
)
"""Words of MIL's text form, which cannot be names."""


PLAIN, FIRST = "plain", "first"
"""Layouts of a value: as our graph has it, or channels first: [B, N, C] as [B, C, 1, N], [B, C] as [B, C, 1, 1]."""


def held(value: Value, dtype: str) -> str:
    """The element type in which a value is kept where real numbers have that precision."""
    return {"f": dtype, "b": TRUTH}.get(value.type.numpy.kind, INTEGER)


class FormError(Exception):
    """A form of an op that has no spelling, in words; all are raised together as one `Unsupported`."""


def legal(name: str) -> str:
    """The name as MIL takes it: letters, digits and underscores, no digit in front, no word of its own."""
    found = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return f"v_{found}" if not found or found[0].isdigit() or found in RESERVED else found


def channels_first(array: Array, rank: int) -> Array:
    """An array that broadcasts against tokens [B, N, C] or rows [B, C], laid out to do so channels first."""
    full = array.reshape(*[1] * (rank - array.ndim), *array.shape)
    if rank == 2:
        return full[:, :, None, None]
    return full.transpose(0, 2, 1)[:, :, None, :]


@dataclass
class Store:
    """Names and variables of the program to be: a name is given once, a constant is stored once per precision."""

    builder: Any
    release: int
    taken: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)
    known: dict[object, Var] = field(default_factory=dict)
    projections: Mapping[Node, tuple[Projection, ...]] = field(default_factory=dict)

    def reserve(self, value: Value) -> str:
        """The legal name of a value of ours; the same at every call."""
        if value.name not in self.names:
            self.names[value.name] = self.fresh(value.name)
        return self.names[value.name]

    def fresh(self, name: str) -> str:
        """The name made legal, with the first number that makes it unique."""
        base = found = legal(name)
        count = 0
        while found in self.taken:
            count += 1
            found = f"{base}_{count}"
        self.taken.add(found)
        return found

    def bind(self, value: Value, dtype: str, var: Var, form: str = PLAIN) -> None:
        """Let `var` be the value, in one precision, if it is real, and one layout."""
        self.known[(value, held(value, dtype), form)] = var

    def forms(self, value: Value, form: str) -> tuple[str, ...]:
        """Precisions, or other types, in which a value is at hand in that layout."""
        return tuple(dtype for dtype in (*DTYPES, INTEGER, TRUTH) if (value, dtype, form) in self.known)

    def constant(self, array: Array, hint: str) -> Var:
        """A constant that a spelling brings along; equal ones are one."""
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self.known:
            self.known[key] = self.builder.const(val=np.ascontiguousarray(array), name=self.fresh(hint))
        return self.known[key]


@dataclass
class Site:
    """One node of ours about to become MIL ops, all of one precision."""

    node: Node
    store: Store
    dtype: str
    form: str = PLAIN
    made: list[Var] = field(default_factory=list)

    @property
    def op(self) -> Op:
        """What it does."""
        return self.node.op

    @property
    def release(self) -> int:
        """The oldest iOS that must take it."""
        return self.store.release

    @property
    def projections(self) -> tuple[Projection, ...]:
        """The Linears that are written together with this Attention."""
        return self.store.projections.get(self.node, ())

    @property
    def x(self) -> Var:
        """The first operand."""
        return self[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first operand, as our graph has it."""
        return self.node.input(0).shape

    @property
    def rank(self) -> int:
        """Rank of the first operand, as our graph has it."""
        return len(self.shape)

    def __getitem__(self, index: int) -> Var:
        """Operand `index`, in the node's precision and in the site's layout."""
        return self.read(self.node.input(index), self.form)

    def has(self, index: int) -> bool:
        """Whether operand `index` is there."""
        return self.node.optional(index) is not None

    def data(self, index: int) -> Array | None:
        """Operand `index` where it is known at compile time, in the precision that our graph has."""
        value = self.node.optional(index)
        return None if value is None else value.data

    def weight(self, index: int, what: str) -> Array | None:
        """Operand `index`, which must be known at compile time or absent, in the node's precision."""
        if not self.has(index):
            return None
        data = self.data(index)
        if data is None:
            raise FormError(f"its {what} must be known at compile time")
        return self.cast(data)

    def cast(self, array: Array) -> Array:
        """An array in the node's precision, beyond whose range it saturates; integers as MIL has them, likewise."""
        if array.dtype.kind in "iu":
            whole = np.iinfo(INTEGER)
            return np.clip(array.astype(np.int64), whole.min, whole.max).astype(INTEGER)
        if array.dtype.kind != "f":
            return array
        limit = np.finfo(self.dtype).max
        if array.ndim and array.size and not any(array.strides):  # one number that takes no memory stays so
            one = np.clip(array.flat[0], -limit, limit).astype(self.dtype)
            return np.broadcast_to(one, array.shape)
        return np.clip(array, -limit, limit).astype(self.dtype)

    def number(self, value: float) -> Any:
        """A scalar in the node's precision; its infinities are the ends of the range, its least positive is kept."""
        found = self.cast(np.asarray(value, np.float64))[()]
        return np.finfo(self.dtype).smallest_subnormal if found == 0 < value else found

    def read(self, value: Value, form: str = PLAIN) -> Var:
        """A value of ours, in the node's precision if it is real; a constant is stored at its first use, a result once.

        Where a result is at hand in another precision only, it is cast.
        """
        rank, kind = self.node.outputs[0].type.rank, held(value, self.dtype)
        key = (value, kind, form if value.data is None or form == PLAIN else f"{form} of rank {rank}")
        if key in self.store.known:
            return self.store.known[key]
        if value.data is not None:
            data = value.data if form == PLAIN else channels_first(value.data, rank)
            found = self.store.builder.const(val=self.cast(data), name=self.store.fresh(value.name))
        else:
            (there,) = self.store.forms(value, form)
            found = self.store.builder.cast(
                x=self.store.known[(value, there, form)], dtype=DTYPES[self.dtype],
                name=self.store.fresh(f"{value.name}_to_{DTYPES[self.dtype]}"),
            )  # fmt: skip
        self.store.known[key] = found
        return found

    def constant(self, array: Array, hint: str) -> Var:
        """An array that comes along, in the node's precision."""
        return self.store.constant(self.cast(array), f"{self.node.output.name}_{hint}")

    def add(self, kind: str, **operands: Any) -> Var:
        """Add a MIL op; its only result. Operands that are None are left out."""
        (result,) = self.several(kind, **operands)
        return result

    def several(self, kind: str, **operands: Any) -> tuple[Var, ...]:
        """Add a MIL op; all its results."""
        given = {key: value for key, value in operands.items() if value is not None}
        name = self.store.fresh(f"{self.node.outputs[0].name}_{kind}")
        made = getattr(self.store.builder, kind)(**given, name=name)
        results = tuple(made) if isinstance(made, (list, tuple)) else (made,)
        self.made += results
        return results

    def reshape(self, x: Var, shape: Sequence[int]) -> Var:
        """x under another shape; nothing where it has it already."""
        return x if tuple(x.shape) == tuple(shape) else self.add("reshape", x=x, shape=tuple(shape))

    def transpose(self, x: Var, perm: Sequence[int]) -> Var:
        """x with its axes in another order; a reshape where only axes of size 1 move."""
        moved = [axis for axis in perm if x.shape[axis] != 1]
        if moved == sorted(moved):
            return self.reshape(x, [x.shape[axis] for axis in perm])
        return self.add("transpose", x=x, perm=tuple(perm))

    def along(self, index: int, axis: int) -> Var:
        """The vector that is operand `index`, shaped so that it broadcasts along `axis` of the first operand."""
        shape = (self.node.input(index).type.size, *[1] * (self.rank - 1 - axis % self.rank))
        data = self.data(index)
        if data is None:
            return self.reshape(self[index], shape)
        return self.constant(data.reshape(shape), "along")
