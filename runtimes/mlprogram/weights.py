"""Core ML's weight file: records of 64 bytes (magic, element type, length, place), each before its numbers."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.errors import ModelError

__all__ = ["Weights", "unpack"]

Array = np.ndarray[Any, np.dtype[Any]]

RECORD = struct.Struct("<IIQQQ")
RECORD_BYTES = 64
MAGIC = 0xDEADBEEF
STORED = {
    "fp16": 1, "fp32": 2, "uint8": 3, "int8": 4, "int16": 6, "uint16": 7, "int4": 8, "uint1": 9, "uint2": 10,
    "uint4": 11, "uint3": 12, "uint6": 13, "int32": 14, "uint32": 15, "bool": 4,
}  # fmt: skip
"""How the file numbers element types, by MIL's names."""


class Weights:
    """One weight file, mapped into memory; every record is checked before its numbers are handed out."""

    def __init__(self, path: Path) -> None:
        """Map the file.

        Raises:
            ModelError: It cannot be opened.
        """
        self.path = path
        try:
            self.data: Array = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
        except OSError as error:
            raise ModelError("the weight file cannot be read", where=[str(path)], why=str(error)) from error

    def read(self, offset: int, kind: str, dtype: str, bits: int, count: int) -> Array:
        """Numbers of the record at `offset`.

        Args:
            offset: Where the record begins, in bytes.
            kind: Element type as MIL names it.
            dtype: The numpy type it is handed out as.
            bits: Size of an element in the file.
            count: How many there must be.

        Raises:
            ModelError: There is no such record.
        """
        if not 0 <= offset <= len(self.data) - RECORD_BYTES:
            raise self._broken(f"a record at byte {offset} of {len(self.data)}")
        magic, stored, length, begin, padding = RECORD.unpack(self.data[offset : offset + RECORD.size].tobytes())
        if magic != MAGIC:
            raise self._broken(f"no record at byte {offset}")
        if stored != STORED.get(kind):
            raise self._broken(f"elements of type {stored} at byte {offset} where the program has {kind}")
        if begin + length > len(self.data) or length * 8 - (padding if bits < 8 else 0) != count * bits:
            raise self._broken(f"{length} bytes at byte {begin} of {len(self.data)} for {count} elements of {kind}")
        return unpack(self.data[begin : begin + length], dtype, bits, count)

    def _broken(self, why: str) -> ModelError:
        what = "the weight file does not hold what the program reads"
        return ModelError(what, where=[str(self.path)], why=why, do="copy or convert the package again")


def unpack(data: Array, dtype: str, bits: int, count: int) -> Array:
    """Bytes as numbers; those of less than eight bits lie close together, lowest bits first.

    Args:
        data: The bytes, uint8.
        dtype: The numpy type of the result, [count].
        bits: Size of an element.
        count: How many to take.
    """
    if bits >= 8:
        return np.frombuffer(data, np.dtype(dtype).newbyteorder("<"), count).astype(dtype, copy=False)
    planes = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[: count * bits].reshape(count, bits)
    values: Array = planes @ (1 << np.arange(bits)).astype(np.int64)
    if dtype.startswith("int"):
        values = np.where(values >= 1 << (bits - 1), values - (1 << bits), values)
    return values.astype(dtype)
