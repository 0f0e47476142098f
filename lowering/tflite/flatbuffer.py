"""The file: tensors, buffers and operators of one subgraph, packed by the schema's own classes.

Buffers are stored once however many tensors have the same bytes, aligned to 16 as the runtime maps them, and everything
is numbered in order of first use: the same calls give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ...ir.errors import ModelError
from ...ir.graph import Array, Quant
from .versions import version

__all__ = ["File", "Tensor"]

ALIGNMENT = 16
"""Of a buffer's bytes in the file: `force_align` of the schema, which the Python classes leave out."""

MOST_BYTES = 2**31 - 2**20
"""Offsets in a flatbuffer are signed 32-bit numbers; the last mebibyte is for what is not weights."""

DTYPES = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int8": schema.TensorType.INT8,
    "int16": schema.TensorType.INT16,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
    "bool": schema.TensorType.BOOL,
    "uint8": schema.TensorType.UINT8,
}


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the file: `index` is its place there; constants have `data`."""

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    quant: Quant | None = None
    data: Array | None = None


class _Buffer(schema.BufferT):  # type: ignore[misc]
    """A buffer whose bytes start at a multiple of `ALIGNMENT`."""

    def Pack(self, builder: Any) -> Any:  # noqa: N802  (the schema's name)
        if self.data is not None:
            builder.Prep(ALIGNMENT, self.data.size)
        return super().Pack(builder)


@dataclass
class File:
    """A model of one subgraph while it is written."""

    name: str
    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    _codes: dict[tuple[int, int], int] = field(default_factory=dict)
    _buffers: list[Array | None] = field(default_factory=lambda: [None])
    _stored: dict[object, int] = field(default_factory=dict)
    _constants: dict[object, Tensor] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)

    def tensor(self, name: str, dtype: str, shape: Sequence[int], quant: Quant | None = None) -> Tensor:
        """A tensor that an operator, or the caller, fills."""
        return self._tensor(name, dtype, tuple(shape), quant, None)

    def constant(self, array: Array, name: str, quant: Quant | None = None) -> Tensor:
        """A constant; equal ones are one tensor, equal bytes one buffer."""
        array = np.ascontiguousarray(array)
        key = (array.dtype.name, array.shape, quant, hashlib.sha256(array.tobytes()).digest())
        if key not in self._constants:
            self._constants[key] = self._tensor(name, array.dtype.name, array.shape, quant, array)
        return self._constants[key]

    def _tensor(self, name: str, dtype: str, shape: tuple[int, ...], quant: Quant | None, data: Array | None) -> Tensor:
        made = Tensor(len(self.tensors), self._fresh(name), dtype, shape, quant, data)
        self.tensors.append(made)
        return made

    def _fresh(self, name: str) -> str:
        fresh, count = name, 0
        while fresh in self._names:
            count += 1
            fresh = f"{name}.{count}"
        self._names.add(fresh)
        return fresh

    def rename(self, tensor: Tensor, name: str) -> Tensor:
        """The same tensor under another name; tensors go by their index, so nothing else changes."""
        made = replace(tensor, name=self._fresh(name))
        self.tensors[tensor.index] = made
        return made

    def add(self, kind: str, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor], options: Any = None) -> None:
        """Append an operator; absent inputs at the end are left out."""
        given = list(inputs)
        while given and given[-1] is None:
            given.pop()
        code = getattr(schema.BuiltinOperator, kind)
        key = (code, version(kind, given, outputs, options))
        made = schema.OperatorT()
        made.opcodeIndex = self._codes.setdefault(key, len(self._codes))
        made.inputs = np.array([-1 if tensor is None else tensor.index for tensor in given], np.int32)
        made.outputs = np.array([tensor.index for tensor in outputs], np.int32)
        if options is not None:
            made.builtinOptions = options
            made.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.operators.append(made)
        self.counts[kind] += 1

    def pack(self, inputs: Sequence[tuple[str, Tensor]], outputs: Sequence[tuple[str, Tensor]]) -> bytes:
        """The bytes of the file; its signature takes and gives the tensors under these names.

        Raises:
            ModelError: The weights are larger than a flatbuffer can be.
        """
        model = self._model(inputs, outputs)
        model.buffers = [_buffer(data) for data in self._buffers]
        weights = self._weights()
        if weights > MOST_BYTES:
            raise ModelError("the weights are larger than 2 GiB", where=[self.name], do="choose a smaller model")
        return _packed(model, weights + 2**16)

    def nbytes(self, inputs: Sequence[tuple[str, Tensor]], outputs: Sequence[tuple[str, Tensor]]) -> int:
        """The size of the file, some bytes of alignment apart; its weights are not packed for that."""
        model = self._model(inputs, outputs)
        model.buffers = [_buffer(None) for _ in self._buffers]
        return len(_packed(model, 2**16)) + self._weights()

    def _weights(self) -> int:
        """Bytes of all buffers, each aligned."""
        return sum(data.size + ALIGNMENT for data in self._buffers if data is not None)

    def _model(self, inputs: Sequence[tuple[str, Tensor]], outputs: Sequence[tuple[str, Tensor]]) -> Any:
        """All but the buffers, which it numbers."""
        graph = schema.SubGraphT()
        graph.name = "main"
        graph.tensors = [self._described(tensor) for tensor in self.tensors]
        graph.operators = self.operators
        graph.inputs = np.array([tensor.index for _, tensor in inputs], np.int32)
        graph.outputs = np.array([tensor.index for _, tensor in outputs], np.int32)
        model = schema.ModelT()
        model.version = 3
        model.description = self.name
        model.subgraphs = [graph]
        model.operatorCodes = [_code(*key) for key in self._codes]
        model.signatureDefs = [_signature(inputs, outputs)]
        return model

    def _described(self, tensor: Tensor) -> Any:
        made = schema.TensorT()
        made.name, made.type = tensor.name, DTYPES[tensor.dtype]
        made.shape = np.array(tensor.shape, np.int32)
        made.hasRank = True
        made.buffer = 0 if tensor.data is None else self._store(tensor.data)
        if tensor.quant is not None:
            scales = np.atleast_1d(np.asarray(tensor.quant.scale, np.float32))
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale = scales
            made.quantization.zeroPoint = np.full(scales.size, tensor.quant.zero_point, np.int64)
            made.quantization.quantizedDimension = (tensor.quant.axis or 0) % max(len(tensor.shape), 1)
        return made

    def _store(self, data: Array) -> int:
        """The buffer of these bytes; one of no bytes at all is told from the buffer that means "not constant"."""
        raw = data.reshape(-1).view(np.uint8) if data.size else np.zeros(0, np.uint8)
        key = hashlib.sha256(raw.tobytes()).digest()
        if key not in self._stored:
            self._stored[key] = len(self._buffers)
            self._buffers.append(raw)
        return self._stored[key]


def _packed(model: Any, room: int) -> bytes:
    """The bytes of a model that has about so many."""
    builder = flatbuffers.Builder(room)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _code(code: int, since: int) -> Any:
    made = schema.OperatorCodeT()
    made.builtinCode, made.version = code, since
    made.deprecatedBuiltinCode = min(code, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
    return made


def _buffer(data: Array | None) -> Any:
    made = _Buffer()
    made.data = data
    return made


def _signature(inputs: Sequence[tuple[str, Tensor]], outputs: Sequence[tuple[str, Tensor]]) -> Any:
    made = schema.SignatureDefT()
    made.signatureKey = "serving_default"
    made.inputs, made.outputs = [_named(*each) for each in inputs], [_named(*each) for each in outputs]
    return made


def _named(name: str, tensor: Tensor) -> Any:
    made = schema.TensorMapT()
    made.name, made.tensorIndex = name, tensor.index
    return made
