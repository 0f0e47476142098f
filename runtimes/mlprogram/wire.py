"""Protocol Buffers' wire format, read by a schema; what lies outside of its message is an error, never a crash."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .schema import SCHEMA

__all__ = ["WireError", "decode", "parts"]

DEPTH = 64
VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
FLOATS = {"float": ("<f4", FIXED32), "double": ("<f8", FIXED64)}
INTEGERS = {"int", "bool", "enum"}
FIELD = re.compile(r"(\w+) (\w+)(\*|\{\})?")


class WireError(Exception):
    """The bytes are no message of that kind."""


Field = tuple[str, str, str]
FIELDS: Mapping[str, Mapping[int, Field]] = {
    message: {number: FIELD.fullmatch(text).groups("") for number, text in fields.items()}  # type: ignore[union-attr, misc]
    for message, fields in SCHEMA.items()
}
"""By message and field number: name, kind, and how often it comes ("", "*" for a list, "{}" for a map)."""


def decode(data: memoryview, message: str, depth: int = 0) -> dict[str, Any]:
    """A message as plain data; fields that the schema does not name are passed over.

    Args:
        data: All bytes of the message.
        message: Its name in the schema.
        depth: How many messages it lies in.

    Returns:
        Values by field name, for those present: dicts for messages and maps, lists for what repeats.

    Raises:
        WireError: The bytes end too early, or are no such message.
    """
    if depth > DEPTH:
        raise WireError(f"messages lie more than {DEPTH} deep in each other")
    fields = FIELDS[message]
    result: dict[str, Any] = {}
    for number, wire, payload in parts(data):
        if number not in fields:
            continue
        name, kind, times = fields[number]
        if times == "{}":
            entry = _entry(payload, wire, kind, depth + 1)
            result.setdefault(name, {}).update(entry)
        elif times == "*":
            result.setdefault(name, []).extend(_items(payload, wire, kind, depth + 1))
        else:
            result[name] = _item(payload, wire, kind, depth + 1)
    return result


def parts(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Field number, wire type and payload of each part of a message."""
    position, size = 0, len(data)
    while position < size:
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        payload: Any
        if wire == VARINT:
            payload, position = _varint(data, position)
        elif wire in (FIXED64, FIXED32):
            position, begin = position + (8 if wire == FIXED64 else 4), position
            payload = data[begin:position]
        elif wire == DELIMITED:
            length, begin = _varint(data, position)
            position = begin + length
            payload = data[begin:position]
        else:
            raise WireError(f"there is no wire type {wire}")
        if position > size or number == 0:
            raise WireError("a field reaches past the end of its message")
        yield number, wire, payload


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise WireError("a number does not end")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _item(payload: Any, wire: int, kind: str, depth: int) -> Any:
    """One value of a field that comes once."""
    items = _items(payload, wire, kind, depth)
    if len(items) != 1:
        raise WireError(f"a single {kind} came {len(items)} times")
    return items[0]


def _items(payload: Any, wire: int, kind: str, depth: int) -> list[Any]:
    """Values of one part: numbers may come many in a part."""
    if kind in INTEGERS and wire == VARINT:
        return [_signed(payload)]
    if kind in FLOATS and wire == FLOATS[kind][1]:
        return list(np.frombuffer(payload, FLOATS[kind][0]))
    if wire != DELIMITED:
        raise WireError(f"a {kind} has wire type {wire}")
    if kind in INTEGERS:
        return list(_packed(payload))
    if kind in FLOATS:
        if len(payload) % np.dtype(FLOATS[kind][0]).itemsize:
            raise WireError(f"a list of {kind} ends in the middle of a number")
        return list(np.frombuffer(payload, FLOATS[kind][0]))
    if kind == "bytes":
        return [bytes(payload)]
    if kind == "string":
        try:
            return [str(payload, "utf-8")]
        except UnicodeDecodeError as error:
            raise WireError("a text is not UTF-8") from error
    return [decode(payload, kind, depth)]


def _packed(payload: memoryview) -> Iterator[int]:
    position = 0
    while position < len(payload):
        value, position = _varint(payload, position)
        yield _signed(value)


def _entry(payload: Any, wire: int, kind: str, depth: int) -> dict[str, Any]:
    """The one pair of a map's part."""
    if wire != DELIMITED:
        raise WireError("an entry of a map is not a message")
    key, value = "", None
    for number, inner, part in parts(payload):
        if number == 1:
            key = _item(part, inner, "string", depth)
        elif number == 2:
            value = _item(part, inner, kind, depth)
    return {key: decode(memoryview(b""), kind, depth) if value is None else value}
