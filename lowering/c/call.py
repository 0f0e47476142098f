"""One step of the generated library: a C function whose sizes are literals, and the call that gives it its buffers.

Steps that differ only in buffers, weights and scales share one function: sizes are part of its text, everything else
reaches it through pointers and a constant struct.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...ir.graph import Value
from ...ir.integer_codes import pair_bytes
from ...ir.memory import Group, Plan, Schedule, Step
from .constants import C_TYPES, Constants


@dataclass(frozen=True)
class Matrix:
    """A weight in flash, as C calls it: where it begins, its code, and the bytes of a block that can be taken alone."""

    pointer: str
    code: str
    block: int

    def __str__(self) -> str:
        """An `es_matrix`: the whole."""
        return self.at("")

    def at(self, block: str) -> str:
        """An `es_matrix` that begins with the block of this number, a C expression."""
        place = f"{self.pointer} + {block} * {self.block}" if block else self.pointer
        return f"(es_matrix){{{place}, {CODES[self.code]}, {'NULL' if self.code == 'int8' else 'decoded'}}}"


CODES = {"int8": "ES_INT8", "int4": "ES_INT4", "shift": "ES_SHIFT", "ternary": "ES_TERNARY"}


@dataclass
class Call:
    """A step being written: where its operands lie, what it reads from flash, and the text of its function.

    Attributes:
        kind: What the function is named after.
        plan: Where every value lies in the arena.
        step: The group, its schedule, and where its scratch lies.
        constants: The library's pool.
        arguments: (C type, name, arena offset) in the order of the C signature.
        fields: (C type, name, C expression) of the constant struct.
        values: The arguments that are values, by name; the others are scratch.
        pixels: Whether it reads the image through the callback.
        decoded: Bytes of stack for a pair of rows of weights that are stored in fewer than eight bits.
        body: The statements of the function.
    """

    kind: str
    plan: Plan
    step: Step
    constants: Constants
    arguments: list[tuple[str, str, int]] = field(default_factory=list)
    fields: list[tuple[str, str, str]] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    pixels: bool = False
    decoded: int = 0
    body: str = ""

    @property
    def group(self) -> Group:
        """The nodes to run."""
        return self.step.group

    @property
    def schedule(self) -> Schedule:
        """The way to run them."""
        return self.step.schedule

    def value(self, name: str, value: Value) -> str:
        """Pass a value that lies in RAM; returns its C name."""
        self.values[name] = value
        return self._argument(C_TYPES[value.dtype], name, self.plan.buffer(value.name).offset)

    def scratch(self, name: str, ctype: str = "int16_t") -> str:
        """Pass a piece of the schedule's scratch under its own name."""
        return self._argument(ctype, name, self.step.piece(name))

    def _argument(self, ctype: str, name: str, offset: int) -> str:
        if all(name != known for _, known, _ in self.arguments):
            self.arguments.append((ctype, name, offset))
        return name

    def matrix(self, name: str, value: Value, reads: int = 1, blocks: int = 1) -> Matrix:
        """An int8 [N, ...] weight in flash, in the fewest bits; a head or group is a block that can be taken alone."""
        rows = value.array.reshape(value.shape[0], -1)
        code, k = self.constants.code(rows), rows.shape[1]
        if code != "int8":
            self.decoded = max(self.decoded, pair_bytes("int8", k))
        pointer = self._field("const int8_t *", name, self.constants.matrix(rows, code, value.name, reads, blocks))
        return Matrix(pointer, code, (len(rows) // blocks + 1) // 2 * pair_bytes(code, k))

    def pairs(self, name: str, value: Value) -> str:
        """An int32 [N] bias or multiplier."""
        return self._field("const int32_t *", name, self.constants.pairs(value.array, value.name))

    def array(self, name: str, value: Any, what: str = "") -> str:
        """Any constant as it is: a `Value` or a numpy array."""
        array, label = (value.array, value.name) if isinstance(value, Value) else (value, what)
        return self._field(f"const {C_TYPES[array.dtype.name]} *", name, self.constants.add(array, label))

    def scalar(self, name: str, number: int) -> str:
        """A number that differs from layer to layer and must not split the function."""
        return self._field("int64_t" if abs(number) > 2**31 - 1 else "int32_t", name, str(number))

    def _field(self, ctype: str, name: str, expression: str) -> str:
        self.fields.append((ctype, name, expression))
        return f"w->{name}"

    def signature(self) -> tuple[object, ...]:
        """What two calls must have in common to share a function."""
        arguments = tuple((ctype, name) for ctype, name, _ in self.arguments)
        fields = tuple((ctype, name) for ctype, name, _ in self.fields)
        return (self.kind, arguments, fields, self.pixels, self.decoded, self.body)
