"""Constants in flash: packed once, shared when equal, written as string literals, placed in internal or external flash.

A string literal compiles a hundred times faster than an array initialiser of the same bytes (a megabyte of the latter
takes a second and 170 MB), and is a fifth of its text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ...ir.graph import Array
from ...ir.integer_codes import encode, smallest
from ...ir.integer_layout import pack_pairs
from .text import comment

C_TYPES = {
    "bool": "uint8_t", "int8": "int8_t", "int16": "int16_t", "int32": "int32_t", "int64": "int64_t", "float32": "float",
    "uint8": "uint8_t",
}  # fmt: skip
LINE = 48


@dataclass(frozen=True)
class Constant:
    """An array in flash: its C name, element type, bytes, and how often one inference reads each byte."""

    name: str
    dtype: str
    data: bytes
    reads: int
    what: str

    @property
    def expression(self) -> str:
        """C expression of type pointer-to-element."""
        return f"{self.name}.values"


@dataclass
class Constants:
    """The pool of a library's constants; equal bytes of equal type are stored once."""

    prefix: str
    items: dict[str, Constant] = field(default_factory=dict)

    def add(self, array: Array, what: str, reads: int = 1) -> str:
        """Keep an array as it is; returns the C expression that points to it. `what` is its name in reports."""
        data = np.ascontiguousarray(array)
        key = hashlib.sha256(data.dtype.name.encode() + data.tobytes()).hexdigest()
        if key in self.items:
            old = self.items[key]
            self.items[key] = Constant(old.name, old.dtype, old.data, old.reads + reads, old.what)
        else:
            name = f"{self.prefix}_k{len(self.items)}"
            self.items[key] = Constant(name, data.dtype.name, data.tobytes(), reads, what)
        return self.items[key].expression

    def code(self, w: Array) -> str:
        """How an int8 [N, K] weight is to be stored: in the fewest bits that hold it."""
        return smallest(w)

    def matrix(self, w: Array, code: str, what: str, reads: int = 1, blocks: int = 1) -> str:
        """Keep an int8 [N, K] weight in a code that holds it, in `blocks` equal blocks of whole rows."""
        coded = np.concatenate([encode(code, part) for part in np.split(w, blocks)])
        return self.add(coded.view(np.int8), what, reads)

    def pairs(self, vector: Array, what: str) -> str:
        """Keep an int32 [N] bias or multiplier, an even number of them, as the core reads two at a time."""
        return self.add(pack_pairs(vector), what)

    @property
    def nbytes(self) -> int:
        """Bytes of all constants."""
        return sum(len(item.data) for item in self.items.values())

    def place(self, internal: int) -> set[str]:
        """Names of the constants that must go to external flash so that the others take at most `internal` bytes.

        What is read most often per byte stays inside: internal flash is the faster one.
        """
        outside: set[str] = set()
        room = internal
        for item in sorted(self.items.values(), key=lambda item: (-item.reads, len(item.data), item.name)):
            if len(item.data) <= room:
                room -= len(item.data)
            else:
                outside.add(item.name)
        return outside

    def declarations(self) -> str:
        """C text of the header: one extern union per constant."""
        items = self.items.values()
        return "".join(f"extern const union {item.name} {_members(item)} {item.name};\n" for item in items)

    def definitions(self, external: set[str]) -> Iterator[str]:
        """C text of the definitions, in pieces (it can be tens of megabytes); the declarations come before them."""
        for item in self.items.values():
            where = "ES_EXTERNAL " if item.name in external else ""
            head = f"/* {comment(item.what)} */\n{where}const union {item.name} {item.name} = "
            yield f"{head}{{\n{literal(item.data)}}};\n"


def _members(item: Constant) -> str:
    # A union may be read through another member than the one that initialised it (C99 6.5.2.3); a cast may not.
    # One byte more than the data leaves room for the literal's own terminator. Doubles align to 8 for LDRD.
    element = C_TYPES[item.dtype]
    count = len(item.data) // np.dtype(item.dtype).itemsize
    return f"{{ char bytes[{len(item.data) + 1}]; {element} values[{count}]; double align; }}"


def literal(data: bytes) -> str:
    """Bytes as adjacent C string literals, three-digit octal escapes only where a character cannot stand for itself."""
    lines = []
    for start in range(0, len(data), LINE):
        lines.append('"' + "".join(_SPELLED[byte] for byte in data[start : start + LINE]) + '"\n')
    return "".join(lines)


def _spell(byte: int) -> str:
    if 32 <= byte < 127 and chr(byte) not in '"\\?':
        return chr(byte)
    return f"\\{byte:03o}"


_SPELLED = [_spell(byte) for byte in range(256)]
