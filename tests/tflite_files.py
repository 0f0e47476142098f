"""Small `.tflite` files written by hand with the schema's own object interface."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

TYPES = {"float32": 0, "int32": 2, "int64": 4, "int8": 9}
OPTIONS = {"FULLY_CONNECTED": "FullyConnected", "SOFTMAX": "Softmax", "ADD": "Add", "GATHER": "Gather"}


class Writer:
    """One graph: tensors get numbers in order of their making, and `finish` gives the bytes."""

    def __init__(self) -> None:
        """Start with the empty buffer that every file has first."""
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.buffers, self.model.operatorCodes = 3, [schema.BufferT()], []
        self.model.subgraphs, self.graph.name = [self.graph], "main"
        self.graph.tensors, self.graph.operators = [], []

    def tensor(self, name: str, shape: tuple[int, ...], dtype: str = "float32", quant: Any = None) -> int:
        """A tensor that is computed; `quant` is (scale, zero point)."""
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, list(shape), TYPES[dtype], 0
        if quant is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [quant[0]], [quant[1]]
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def constant(self, name: str, array: np.ndarray, quant: Any = None) -> int:
        """A tensor that is stored."""
        number = self.tensor(name, array.shape, array.dtype.name, quant)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        self.graph.tensors[number].buffer = len(self.model.buffers)
        self.model.buffers.append(buffer)
        return number

    def operator(self, kind: str, inputs: list[int], outputs: list[int], **options: Any) -> None:
        """A built-in operator; a kind that is not among `OPTIONS` is a custom one."""
        code, made = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind if kind in OPTIONS else "CUSTOM")
        code.customCode = None if kind in OPTIONS else kind
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        made.opcodeIndex, made.inputs, made.outputs = len(self.model.operatorCodes), inputs, outputs
        if kind in OPTIONS:
            made.builtinOptions = getattr(schema, f"{OPTIONS[kind]}OptionsT")()
            made.builtinOptionsType = getattr(schema.BuiltinOptions, f"{OPTIONS[kind]}Options")
            for name, value in options.items():
                setattr(made.builtinOptions, name, value)
        self.model.operatorCodes.append(code)
        self.graph.operators.append(made)

    def finish(self, inputs: list[int], outputs: list[int], signature: dict[str, int] | None = None) -> bytes:
        """The file; `signature` names inputs and outputs otherwise than their tensors."""
        self.graph.inputs, self.graph.outputs = inputs, outputs
        if signature is not None:
            found = schema.SignatureDefT()
            found.signatureKey, found.subgraphIndex = "serving_default", 0
            entries = [schema.TensorMapT() for _ in signature]
            for entry, (name, number) in zip(entries, signature.items(), strict=True):
                entry.name, entry.tensorIndex = name, number
            found.inputs = [entry for entry in entries if entry.tensorIndex in inputs]
            found.outputs = [entry for entry in entries if entry.tensorIndex in outputs]
            self.model.signatureDefs = [found]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


def weights() -> tuple[np.ndarray, np.ndarray]:
    """A matrix [8, 16] and a bias [8]."""
    draw = np.random.default_rng(5)
    return draw.standard_normal((8, 16)).astype(np.float32), draw.standard_normal(8).astype(np.float32)


def dense(signature: bool = True) -> bytes:
    """x [3, 16] through a linear layer and a softmax to y [3, 8]; without a signature the names are the tensors'."""
    writer = Writer()
    x, h, y = writer.tensor("in:0", (3, 16)), writer.tensor("h", (3, 8)), writer.tensor("out:0", (3, 8))
    matrix, bias = weights()
    writer.operator("FULLY_CONNECTED", [x, writer.constant("w", matrix), writer.constant("b", bias)], [h])
    writer.operator("SOFTMAX", [h], [y], beta=1.0)
    return writer.finish([x], [y], {"x": x, "y": y} if signature else None)


def difference() -> bytes:
    """left [4] + right [1, 4] -> sum, where the signature lists them in the other order than the graph."""
    writer = Writer()
    left, right, total = writer.tensor("l", (4,)), writer.tensor("r", (1, 4)), writer.tensor("t", (1, 4))
    writer.operator("ADD", [left, right], [total])
    return writer.finish([left, right], [total], {"right": right, "left": left, "sum": total})


def integers() -> bytes:
    """q int8 [1, 4] of scale 0.5 and zero point 3 -> q + q of scale 1 and zero point -1."""
    writer = Writer()
    q, s = writer.tensor("q", (1, 4), "int8", (0.5, 3)), writer.tensor("s", (1, 4), "int8", (1.0, -1))
    writer.operator("ADD", [q, q], [s])
    return writer.finish([q], [s])


def gathered() -> bytes:
    """Rows 2 and 0 of x [3, 16]: an operator that XNNPACK leaves to LiteRT's own kernels, then one that it takes."""
    writer = Writer()
    x, g, y = writer.tensor("x", (3, 16)), writer.tensor("rows", (2, 16)), writer.tensor("y", (2, 16))
    writer.operator("GATHER", [x, writer.constant("i", np.array([2, 0], np.int32))], [g])
    writer.operator("SOFTMAX", [g], [y], beta=1.0)
    return writer.finish([x], [y])


def parted() -> bytes:
    """x [3, 16] through a softmax, a choice of rows and another softmax: two parts for XNNPACK."""
    writer = Writer()
    x, s, g, y = (writer.tensor(name, (3, 16)) for name in ("x", "s", "g", "y"))
    writer.operator("SOFTMAX", [x], [s], beta=1.0)
    writer.operator("GATHER", [s, writer.constant("i", np.array([2, 0, 1], np.int32))], [g])
    writer.operator("SOFTMAX", [g], [y], beta=1.0)
    return writer.finish([x], [y])


def custom(*kinds: str) -> bytes:
    """x [4] through operators of these names."""
    writer = Writer()
    numbers = [writer.tensor(f"t{number}", (4,)) for number in range(len(kinds) + 1)]
    for number, kind in enumerate(kinds):
        writer.operator(kind, [numbers[number]], [numbers[number + 1]])
    return writer.finish(numbers[:1], numbers[-1:])


def misfit() -> bytes:
    """A linear layer whose matrix has another width than its input: sound as a file, nonsense as a model."""
    writer = Writer()
    x, y = writer.tensor("x", (3, 10)), writer.tensor("y", (3, 8))
    writer.operator("FULLY_CONNECTED", [x, writer.constant("w", weights()[0])], [y])
    return writer.finish([x], [y])


def mutated(data: bytes, change: Any) -> bytes:
    """A file after `change` has had its way with the model in it, as the schema's own classes have it."""
    model = schema.ModelT.InitFromPackedBuf(bytearray(data))
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
