"""From a saved `.mlpackage` (or `.mlmodel`) to its program: nothing is taken on trust from the file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.errors import ModelError, UsageError
from ...lowering import artifact as artifacts
from . import wire
from .program import Array, Feature, Operation, Program, Reference, TensorType
from .schema import DATA_TYPES, KINDS
from .weights import Weights, unpack

__all__ = ["SUFFIXES", "located", "model_file", "read"]

MANIFEST = "Manifest.json"
DATA = "Data"
MODEL_PATH = "@model_path"
SUFFIXES = (".mlpackage", ".mlmodel")
LARGEST = 1 << 31
COLOURS = {10: "GRAYSCALE", 20: "RGB", 30: "BGR", 40: "GRAYSCALE"}
FEATURES = {
    "multiArrayType": "array", "imageType": "image", "dictionaryType": "dictionary", "stringType": "string",
    "int64Type": "integer", "doubleType": "number", "sequenceType": "sequence", "stateType": "state",
}  # fmt: skip
AGAIN = "copy or convert it again"

Record = Mapping[str, Any]


def read(path: Path) -> Program:
    """Read a package, its program and the weights it names.

    Args:
        path: The `.mlpackage` folder, or a bare `.mlmodel` specification file.

    Raises:
        ModelError: It is none, is damaged, or holds another kind of model than an ML Program.
    """
    file = model_file(path)
    try:
        data = memoryview(file.read_bytes())
        model = wire.decode(data, "Model")
    except OSError as error:
        raise ModelError("the model cannot be read", where=[str(file)], why=str(error)) from error
    except wire.WireError as error:
        what, why = "the model file is damaged, or none of Core ML's", f"{error}; it has {len(data)} bytes"
        raise ModelError(what, where=[str(file)], why=why, do=AGAIN) from error
    if "mlProgram" not in model:
        raise _other_kind(file, data)
    try:
        return _Reader(file, model).program()
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        why = f"{type(error).__name__}: {error}"
        raise ModelError("the model's program is incomplete", where=[str(file)], why=why, do=AGAIN) from error


def located(artifact: Path) -> Path:
    """The package of an artifact's folder, or what already is a package.

    Raises:
        UsageError: It is neither.
    """
    if artifact.suffix in SUFFIXES:
        return artifact
    file = artifacts.load(artifact).manifest.get("file") or {}
    name = str(file.get("name", ""))
    if Path(name).suffix not in SUFFIXES:
        what = "the artifact holds no Core ML package"
        raise UsageError(what, where=[str(artifact)], do="compile for a Core ML target, or give a .mlpackage")
    return artifact / name


def model_file(path: Path) -> Path:
    """The specification file of a package, by its manifest.

    Raises:
        ModelError: There is none.
    """
    if path.is_file():
        return path
    where = [str(path)]
    if not path.is_dir():
        raise ModelError("there is no such package", where=where)
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        item = str(manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"])
        file = path / DATA / item
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"{MANIFEST}: {type(error).__name__}: {error}"
        raise ModelError("the folder is no Core ML package", where=where, why=why, do=AGAIN) from error
    if not file.is_file() or not _inside(file, path):
        raise ModelError("the package lacks the model that its manifest names", where=[str(file)], do=AGAIN)
    return file


def _inside(file: Path, folder: Path) -> bool:
    return file.resolve().is_relative_to(folder.resolve())


def _other_kind(file: Path, data: memoryview) -> ModelError:
    numbers = [number for number, _, _ in wire.parts(data)]
    kinds = [KINDS.get(number, f"model kind {number}") for number in numbers if 200 <= number <= 3000]
    why = f"it is a {kinds[0]}" if kinds else "it holds no model"
    do = "convert it as an ML Program (iOS 15 or later)"
    return ModelError("the Core ML model is not an ML Program", where=[str(file)], why=why, do=do)


class _Reader:
    """Turns the decoded message of one file into a program."""

    def __init__(self, file: Path, model: Record) -> None:
        self.file, self.model = file, model
        self.weights: dict[str, Weights] = {}

    def program(self) -> Program:
        description = self.model.get("description", {})
        name = description.get("defaultFunctionName") or "main"
        functions = self.model["mlProgram"].get("functions", {})
        if name not in functions:
            raise KeyError(f"function '{name}' is not among {', '.join(functions) or 'none'}")
        function = functions[name]
        for described in description.get("functions", ()):
            description = described if described.get("name") == name else description
        opset = function["opset"]
        block = function["block_specializations"][opset]
        constants: dict[str, Array] = {}
        operations = []
        for record in block.get("operations", ()):
            operation = self._operation(record)
            if operation.kind == "const":
                constants[operation.name] = self._constant(operation)
            else:
                operations.append(operation)
        inputs = {item["name"]: _type(item["type"]) for item in function.get("inputs", ())}
        if stray := [name for name, type in inputs.items() if type is None]:
            why = "states and lists are not evaluated"
            raise ModelError("an input of the program is no tensor", where=stray, why=why)
        outputs = tuple(block["outputs"])
        types = {name: type for name, type in inputs.items() if type is not None}
        features = {each.name: each for each in _features(description)}
        label, odds = (description.get(key, "") for key in ("predictedFeatureName", "predictedProbabilitiesName"))
        return Program(opset, types, outputs, constants, tuple(operations), features, label, odds)

    def _operation(self, record: Record) -> Operation:
        operands: dict[str, tuple[Reference | Array, ...]] = {}
        for name, value in record.get("attributes", {}).items():
            if name != "name":
                operands[name] = (self._value(value),)
        for name, argument in record.get("inputs", {}).items():
            operands[name] = tuple(self._binding(each) for each in argument.get("arguments", ()))
        outputs = tuple((item["name"], _type(item.get("type", {}))) for item in record["outputs"])
        if not outputs:
            raise ValueError(f"an operation of type '{record['type']}' makes nothing")
        return Operation(record["type"], operands, outputs, bool(record.get("blocks")))

    def _binding(self, record: Record) -> Reference | Array:
        return Reference(record["name"]) if "name" in record else self._value(record["value"])

    @staticmethod
    def _constant(operation: Operation) -> Array:
        (value,) = operation.operands["val"]
        if isinstance(value, Reference):
            raise ValueError(f"constant '{operation.name}' refers to '{value.name}'")
        return value

    def _value(self, record: Record) -> Array:
        """A constant in place or in a weight file, as an array of its declared type and shape."""
        if "immediateValue" in record and "tensor" not in record["immediateValue"]:
            (items,) = record["immediateValue"].values()
            return np.stack([self._value(each) for each in items["values"]])
        kind = record["type"]["tensorType"]
        dtype, shape = _dtype(kind), _sizes(kind)
        if shape is None or None in shape:
            raise ValueError("a constant has no fixed shape")
        sizes = tuple(size for size in shape if size is not None)
        count = prod(sizes)
        if count > LARGEST:
            raise ValueError(f"a constant has {count} elements")
        if "blobFileValue" in record:
            blob = record["blobFileValue"]
            flat = self._file(blob["fileName"]).read(blob.get("offset", 0), *dtype, count)
        else:
            flat = _immediate(record.get("immediateValue", {}).get("tensor", {}), *dtype[1:], count)
        return flat.reshape(sizes)

    def _file(self, name: str) -> Weights:
        if name not in self.weights:
            relative = name.removeprefix(MODEL_PATH).lstrip("/")
            path = self.file.parent / relative
            if not _inside(path, self.file.parent):
                raise ValueError(f"weight file '{name}' lies outside of the package")
            self.weights[name] = Weights(path)
        return self.weights[name]


def _dtype(tensor: Record) -> tuple[str, str, int]:
    number = tensor.get("dataType", 0)
    if number not in DATA_TYPES:
        raise ValueError(f"element type {number} is unknown")
    return DATA_TYPES[number]


def _sizes(tensor: Record) -> tuple[int | None, ...] | None:
    sizes = [each["constant"].get("size", 0) if "constant" in each else None for each in tensor.get("dimensions", ())]
    if any(size is not None and size < 0 for size in sizes):
        raise ValueError("a tensor has a negative size")
    return tuple(sizes) if len(sizes) == tensor.get("rank", 0) else None


def _type(record: Record) -> TensorType | None:
    if "tensorType" not in record:
        return None
    return TensorType(_dtype(record["tensorType"])[0], _sizes(record["tensorType"]))


def _immediate(tensor: Record, dtype: str, bits: int, count: int) -> Array:
    """The elements that stand in the program itself, flat."""
    for field in tensor.values():
        values: Sequence[Any] | bytes = field.get("values", ())
        if isinstance(values, bytes):
            if len(values) * 8 < count * bits:
                raise ValueError(f"{len(values)} bytes hold no {count} elements of {bits} bits")
            return unpack(np.frombuffer(values, np.uint8), dtype, bits, count)
        array = np.asarray(values, dtype) if len(values) else np.zeros(0, dtype)
        if len(array) != count:
            raise ValueError(f"{len(array)} elements where {count} are declared")
        return array
    if count and dtype != "str":
        raise ValueError(f"none of {count} elements is given")
    return np.full(count, "", "str") if dtype == "str" else np.zeros(0, dtype)


def _features(description: Record) -> Iterator[Feature]:
    for record in (*description.get("input", ()), *description.get("output", ())):
        kinds = record.get("type", {})
        kind = next((name for name in kinds if name in FEATURES), "")
        colour = COLOURS.get(kinds[kind].get("colorSpace", 0), "") if kind == "imageType" else ""
        yield Feature(record["name"], FEATURES.get(kind, "unknown"), colour)
