"""Small Core ML packages made by hand, so that tests need no coremltools and can break whatever they like."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from edgesmith.runtimes.mlprogram.schema import DATA_TYPES
from edgesmith.runtimes.mlprogram.weights import STORED
from edgesmith.runtimes.mlprogram.wire import FIELDS

NUMBERS = {name: number for number, (name, _, _) in DATA_TYPES.items()}


def varint(value: int) -> bytes:
    """An integer in groups of seven bits."""
    value &= (1 << 64) - 1
    groups = []
    while True:
        groups.append(value & 0x7F)
        value >>= 7
        if not value:
            return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def delimited(number: int, data: bytes) -> bytes:
    """One field of bytes."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def encode(message: str, data: dict[str, Any]) -> bytes:
    """A message from plain data, the inverse of `wire.decode`."""
    numbers = {name: (number, kind, times) for number, (name, kind, times) in FIELDS[message].items()}
    result = b""
    for name, value in data.items():
        number, kind, times = numbers[name]
        if times == "{}":
            pairs = (delimited(1, key.encode()) + delimited(2, encode(kind, each)) for key, each in value.items())
            result += b"".join(delimited(number, pair) for pair in pairs)
        else:
            result += b"".join(field(number, kind, each) for each in (value if times == "*" else [value]))
    return result


def field(number: int, kind: str, value: Any) -> bytes:
    """One field of one value."""
    if kind in ("int", "bool", "enum"):
        return varint(number << 3) + varint(int(value))
    if kind == "float":
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if kind == "string":
        return delimited(number, value.encode())
    return delimited(number, value if kind == "bytes" else encode(kind, value))


def tensor(dtype: str, shape: Any) -> dict[str, Any]:
    """A tensor type."""
    sizes = [{"unknown": {}} if size is None else {"constant": {"size": size}} for size in shape]
    return {"tensorType": {"dataType": NUMBERS[dtype], "rank": len(sizes), "dimensions": sizes}}


def immediate(value: Any, dtype: str = "") -> dict[str, Any]:
    """A constant that stands in the program itself."""
    array = np.asarray(value)
    fields = {"U": ("string", "strings"), "b": ("bool", "bools"), "i": ("int32", "ints"), "f": ("fp32", "floats")}
    found, name = fields[array.dtype.kind]
    return {
        "type": tensor(dtype or found, array.shape),
        "immediateValue": {"tensor": {name: {"values": array.ravel().tolist()}}},
    }


class Package:
    """A package in the making: a function "main" of one block.

    `add` takes operands by parameter: text is the name of a value, all else is a constant in place.
    """

    def __init__(self, opset: str = "CoreML7") -> None:
        """An empty one."""
        self.opset, self.inputs, self.outputs, self.operations = opset, [], [], []
        self.blob = bytearray(struct.pack("<II", 0, 2).ljust(64, b"\0"))
        self.description: dict[str, Any] = {}

    def input(self, name: str, shape: Any, dtype: str = "fp32") -> str:
        """Declare an input."""
        self.inputs.append({"name": name, "type": tensor(dtype, shape)})
        return name

    def weight(self, name: str, array: np.ndarray) -> str:
        """A constant in the weight file."""
        kind = {"float32": "fp32", "float16": "fp16"}.get(array.dtype.name, array.dtype.name)
        offset, data = len(self.blob), array.tobytes()
        self.blob += struct.pack("<IIQQQ", 0xDEADBEEF, STORED[kind], len(data), offset + 64, 0).ljust(64, b"\0")
        self.blob += data.ljust(-(-len(data) // 64) * 64, b"\0")
        place = {"fileName": "@model_path/weights/weight.bin", "offset": offset}
        return self.const(name, {"type": tensor(kind, array.shape), "blobFileValue": place})

    def const(self, name: str, value: dict[str, Any]) -> str:
        """A constant."""
        outputs = [{"name": name, "type": value["type"]}]
        self.operations.append({"type": "const", "outputs": outputs, "attributes": {"val": value}})
        return name

    def add(self, kind: str, name: str, shape: Any, dtype: str = "fp32", /, **operands: Any) -> str:
        """Add an operation with one result."""
        inputs = {}
        for key, given in operands.items():
            several = given if isinstance(given, list) else [given]
            bindings = [{"name": each} if isinstance(each, str) else {"value": self.value(each)} for each in several]
            inputs[key] = {"arguments": bindings}
        outputs = [{"name": name, "type": tensor(dtype, shape)}]
        self.operations.append({"type": kind, "inputs": inputs, "outputs": outputs})
        return name

    @staticmethod
    def value(given: Any) -> dict[str, Any]:
        """A constant in place, from a number, a tuple, or text in a tuple of one."""
        if isinstance(given, tuple) and given and isinstance(given[0], str):
            return immediate(np.asarray(given[0]))
        array = np.asarray(given)
        return immediate(array.astype(np.int32) if array.dtype.kind == "i" else array)

    def model(self) -> bytes:
        """The specification."""
        block = {"outputs": self.outputs, "operations": self.operations}
        function = {"inputs": self.inputs, "opset": self.opset, "block_specializations": {self.opset: block}}
        program = {"version": 1, "functions": {"main": function}}
        return encode("Model", {"specificationVersion": 8, "description": self.description, "mlProgram": program})

    def save(self, path: Path, *outputs: str) -> Path:
        """Write the folder as Core ML has it."""
        self.outputs = list(outputs) or self.outputs
        folder = path / "Data" / "com.apple.CoreML"
        (folder / "weights").mkdir(parents=True, exist_ok=True)
        (folder / "weights" / "weight.bin").write_bytes(bytes(self.blob))
        (folder / "model.mlmodel").write_bytes(self.model())
        items = {"1": {"path": "com.apple.CoreML/model.mlmodel"}, "2": {"path": "com.apple.CoreML/weights"}}
        manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": items, "rootModelIdentifier": "1"}
        (path / "Manifest.json").write_text(json.dumps(manifest))
        return path
