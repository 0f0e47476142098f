"""What a `.tflite` file holds, read with every offset checked: LiteRT itself follows them into foreign memory."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..ir.errors import ModelError, Unsupported
from .artifact import Tensor
from .litert_operators import flaw

__all__ = ["Contents", "read"]

IDENTIFIER = b"TFL3"
CUSTOM = 32
KNOWN_CUSTOM = {"TFLite_Detection_PostProcess", "NumericVerify", "Mfcc", "AudioSpectrogram"}
"""Operators beside the built-in ones that the Python wheel has kernels for."""

TYPES = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 8: "complex64", 9: "int8",
    10: "float64", 11: "complex128", 12: "uint64", 15: "uint32", 16: "uint16",
}  # fmt: skip
"""TensorType of the schema, where numpy has it too."""

PACKED = {17: 4, 18: 16, 19: 2, 20: 4}
"""Bits of an element, of the types that numpy lacks."""

LARGEST = 2**31 - 1
"""Elements of a tensor: the runtime counts them in 32 bits."""


@dataclass(frozen=True)
class Contents:
    """The main graph of a file, as far as running it needs.

    Attributes:
        inputs: In the graph's order, by the names of the file's signature; where it has none, of its tensors.
        outputs: Likewise.
        places: Number of the tensor behind each input and output name.
        operators: Built-in code of each operator in the file's order, and the name of the first tensor it makes.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    places: dict[str, int]
    operators: tuple[tuple[int, str], ...]


def read(path: Path) -> Contents:
    """Check the structure of a file and read its interface.

    Raises:
        ModelError: It is missing, no TFLite file, cut short, or inconsistent.
        Unsupported: It holds operators that only TensorFlow or its author have; all are named.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _contents(data)
    except (OSError, ValueError) as error:
        why = str(error) if path.exists() else "there is no such file"
        raise ModelError("the TFLite file cannot be read", where=[str(path)], why=why) from error
    except ModelError as error:
        raise type(error)(error.what, where=error.where or [str(path)], why=error.why, do=error.do) from error


def _contents(data: mmap.mmap) -> Contents:
    if data[4:8] != IDENTIFIER:
        raise ModelError("this is no TFLite file", why=f"bytes 4 to 8 are {data[4:8]!r}, not {IDENTIFIER!r}")
    model = _Table(data, _number(data, "<I", 0))
    buffers, codes, graphs = list(model.tables(4)), list(model.tables(1)), list(model.tables(2))
    for buffer in buffers:
        _check_buffer(buffer)
    _check_operators(codes)
    if not graphs:
        raise ModelError("the TFLite file holds no graph")
    kinds = [max(code.scalar(0, "<b"), code.scalar(3, "<i")) for code in codes]
    for graph in graphs:
        _check_graph(graph, buffers, kinds)
    main, tensors = graphs[0], list(graphs[0].tables(0))
    takes, gives = _interface(model, main, tensors)
    operators = tuple((kinds[op.scalar(0, "<I")], _name(tensors, op.numbers(2))) for op in main.tables(3))
    inputs = tuple(_tensor(name, tensors[place]) for name, place in takes.items())
    outputs = tuple(_tensor(name, tensors[place]) for name, place in gives.items())
    return Contents(inputs, outputs, {**takes, **gives}, operators)


def _check_buffer(buffer: _Table) -> None:
    """Data inside the flatbuffer were checked by reading them; large files keep them behind it."""
    buffer.vector(0, 1)
    start, size = buffer.scalar(1, "<Q"), buffer.scalar(2, "<Q")
    if start + size > len(buffer.data):
        raise _cut_short()


def _check_operators(codes: Sequence[_Table]) -> None:
    """Refuse operators that need another library than LiteRT."""
    custom = {code.text(1) for code in codes if CUSTOM in (code.scalar(0, "<b"), code.scalar(3, "<i"))}
    if foreign := sorted(custom - KNOWN_CUSTOM):
        why = "they need TensorFlow" if all(name.startswith("Flex") for name in foreign) else "LiteRT has no kernels"
        do = "convert the model with built-in operators only"
        raise Unsupported("the TFLite file holds custom operators", where=foreign, why=why, do=do)


def _check_graph(graph: _Table, buffers: Sequence[_Table], kinds: Sequence[int]) -> None:
    """Every number that stands for a tensor, a buffer or an operator's kind means one that is there and fits."""
    tensors = list(graph.tables(0))
    for tensor in tensors:
        shape = tensor.numbers(0)
        if min(shape, default=0) < 0 or prod(shape) > LARGEST:
            raise ModelError("a tensor of the TFLite file has an impossible shape", where=[tensor.text(3)],
                             why=str(list(shape)))  # fmt: skip
        number = tensor.scalar(2, "<I")
        if number >= len(buffers):
            raise _inconsistent(f"tensor '{tensor.text(3)}' has buffer {number} of {len(buffers)}")
        _check_size(tensor, shape, buffers[number])
        _scales(tensor)
    used = [*graph.numbers(1), *graph.numbers(2)]
    operators = list(graph.tables(3))
    for operator in operators:
        if operator.scalar(0, "<I") >= len(kinds):
            raise _inconsistent("an operator is of a kind that is not listed")
        operator.table(4)
        operator.table(12)
        operator.vector(5, 1)
        used += [each for each in (*operator.numbers(1), *operator.numbers(2), *operator.numbers(8)) if each != -1]
    if strange := [each for each in used if not 0 <= each < len(tensors)]:
        raise _inconsistent(f"tensor {strange[0]} of {len(tensors)} is used")
    _check_flow(graph, operators, tensors, buffers, kinds)


def _check_flow(
    graph: _Table, operators: Sequence[_Table], tensors: Sequence[_Table], buffers: Sequence[_Table],
    kinds: Sequence[int],
) -> None:  # fmt: skip
    """Operators have the operands that they must have, read what is there by then, and write into no constant."""
    constant = {number for number, each in enumerate(tensors) if _held(buffers[each.scalar(2, "<I")])}
    # Sizes that a converter knew ahead are stored and made as well: the runtime works them out before it runs.
    real = {number for number, each in enumerate(tensors) if TYPES.get(each.scalar(1, "<b"), "").startswith("float")}
    there = constant | {*graph.numbers(1)} | {number for number, each in enumerate(tensors) if _needs_no_maker(each)}
    _check_written(graph.numbers(1), constant, tensors)
    for operator in operators:
        takes, makes = operator.numbers(1), operator.numbers(2)
        if lacking := flaw(kinds[operator.scalar(0, "<I")], takes, makes):
            raise _inconsistent(f"{lacking}; it makes '{_name(tensors, [each for each in makes if each >= 0])}'")
        if early := [number for number in takes if number not in there and number != -1]:
            raise _inconsistent(f"tensor '{tensors[early[0]].text(3)}' is read before anything makes it")
        _check_written(makes, constant & real, tensors)
        there |= {*makes}
    if missing := [number for number in graph.numbers(2) if number not in there]:
        raise _inconsistent(f"output '{tensors[missing[0]].text(3)}' is made by nothing")


def _check_written(numbers: Sequence[int], constant: set[int], tensors: Sequence[_Table]) -> None:
    """What is stored in the file lies in memory that nobody may write."""
    if wrong := [number for number in numbers if number in constant]:
        raise _inconsistent(f"tensor '{tensors[wrong[0]].text(3)}' is a constant and is written to")


def _held(buffer: _Table) -> int:
    """Bytes of a buffer."""
    return buffer.vector(0, 1)[1] or buffer.scalar(2, "<Q")


def _needs_no_maker(tensor: _Table) -> bool:
    """Variables keep what they held, tensors without elements hold nothing; resources are handles."""
    return bool(tensor.scalar(5, "<B")) or prod(tensor.numbers(0)) == 0 or tensor.scalar(1, "<b") in (5, 13, 14)


def _check_size(tensor: _Table, shape: Sequence[int], buffer: _Table) -> None:
    """A dense constant has as many bytes as its shape says; those of strings and sparse ones the runtime judges."""
    kind, held = tensor.scalar(1, "<b"), _held(buffer)
    bits = PACKED.get(kind) or (8 * np.dtype(TYPES[kind]).itemsize if kind in TYPES else 0)
    if not held or not bits or tensor.table(6) is not None:
        return
    if held != -(-prod(shape) * bits // 8):
        dtype = TYPES.get(kind, f"of {bits} bits")
        raise _inconsistent(f"tensor '{tensor.text(3)}' is {dtype} {list(shape)} and has {held} bytes of data")


def _interface(model: _Table, main: _Table, tensors: Sequence[_Table]) -> tuple[dict[str, int], dict[str, int]]:
    """Tensor numbers by input and by output name: as the main graph's signature has them, or the tensors themselves."""
    for signature in model.tables(7):
        if signature.scalar(4, "<I") == 0:
            takes, gives = ({each.text(0): each.scalar(1, "<I") for each in signature.tables(slot)} for slot in (0, 1))
            order = main.numbers(1)
            if sorted(takes.values()) != sorted(order) or not set(gives.values()) <= set(range(len(tensors))):
                raise _inconsistent("its signature names other inputs than its graph")
            return dict(sorted(takes.items(), key=lambda item: order.index(item[1]))), gives
    sides = []
    for slot, side in ((1, "input"), (2, "output")):
        names = [tensors[each].text(3) or f"{side}_{number}" for number, each in enumerate(main.numbers(slot))]
        if len(set(names)) < len(names):
            names = [f"{side}_{number}" for number in range(len(names))]
        sides.append(dict(zip(names, main.numbers(slot), strict=True)))
    return sides[0], sides[1]


def _name(tensors: Sequence[_Table], numbers: Sequence[int]) -> str:
    return tensors[numbers[0]].text(3) if numbers else ""


def _tensor(name: str, tensor: _Table) -> Tensor:
    number = tensor.scalar(1, "<b")
    if number not in TYPES:
        raise Unsupported("an input or output has a type that numpy lacks", where=[name], why=f"TensorType {number}")
    scales, zeros = _scales(tensor)
    if not scales.size or TYPES[number].startswith("float"):
        return Tensor(name, TYPES[number], tensor.numbers(0))
    return Tensor(name, TYPES[number], tensor.numbers(0), scales[0], int(zeros[0]) if zeros.size else 0)


def _scales(tensor: _Table) -> tuple[np.ndarray, np.ndarray]:
    quantisation = tensor.table(4)
    if quantisation is None:
        return np.zeros(0), np.zeros(0)
    (start, scales), (other, zeros) = quantisation.vector(2, 4), quantisation.vector(3, 8)
    data = quantisation.data
    return np.frombuffer(data[start : start + 4 * scales], "<f4"), np.frombuffer(data[other : other + 8 * zeros], "<i8")


def _cut_short() -> ModelError:
    return ModelError("the TFLite file is cut short or damaged", why="an offset in it leads outside of the file")


def _inconsistent(why: str) -> ModelError:
    return ModelError("the TFLite file contradicts itself", why=why)


def _number(data: mmap.mmap, form: str, at: int) -> Any:
    if not 0 <= at <= len(data) - struct.calcsize(form):
        raise _cut_short()
    return struct.unpack_from(form, data, at)[0]


class _Table:
    """A table of the flatbuffer format: a list of fields, each found through a list of offsets, or absent."""

    def __init__(self, data: mmap.mmap, at: int) -> None:
        self.data, self._at = data, at
        self._fields = at - _number(data, "<i", at)
        self._count = (_number(data, "<H", self._fields) - 4) // 2
        _number(data, "<B", self._fields + 4 + 2 * max(self._count, 0) - 1)

    def _place(self, slot: int) -> int | None:
        offset = _number(self.data, "<H", self._fields + 4 + 2 * slot) if slot < self._count else 0
        return self._at + offset if offset else None

    def scalar(self, slot: int, form: str) -> int:
        """A number; fields that are absent are 0 in all that is read here."""
        place = self._place(slot)
        return 0 if place is None else int(_number(self.data, form, place))

    def _target(self, slot: int) -> int | None:
        place = self._place(slot)
        return None if place is None else place + int(_number(self.data, "<I", place))

    def table(self, slot: int) -> _Table | None:
        """A table in this one."""
        target = self._target(slot)
        return None if target is None else _Table(self.data, target)

    def vector(self, slot: int, width: int) -> tuple[int, int]:
        """Where a list's elements of `width` bytes begin, and how many there are."""
        target = self._target(slot)
        if target is None:
            return 0, 0
        count = int(_number(self.data, "<I", target))
        if target + 4 + count * width > len(self.data):
            raise _cut_short()
        return target + 4, count

    def numbers(self, slot: int) -> tuple[int, ...]:
        """A list of 32-bit integers."""
        start, count = self.vector(slot, 4)
        return struct.unpack_from(f"<{count}i", self.data, start)

    def text(self, slot: int) -> str:
        """A string; bytes that are no UTF-8 are shown as such."""
        start, count = self.vector(slot, 1)
        return self.data[start : start + count].decode("utf-8", "backslashreplace")

    def tables(self, slot: int) -> Iterator[_Table]:
        """A list of tables."""
        start, count = self.vector(slot, 4)
        for at in range(start, start + 4 * count, 4):
            yield _Table(self.data, at + int(_number(self.data, "<I", at)))
