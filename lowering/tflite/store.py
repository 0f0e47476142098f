"""Tensors of the file by what they stand for: values in the layouts that are asked for, and constants by dtype."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...ir.graph import Array, Value
from ...ir.passes.quantise.channels_last import Layout, arranged, plain
from ...ir.passes.quantise.int8_weights import rounded
from .flatbuffer import File, Tensor
from .forms import moves

__all__ = ["Store"]

SMALL = 1024
"""Weights of fewer elements stay in single precision: their bytes do not count, their errors do."""


@dataclass
class Store:
    """What has been written so far."""

    file: File
    dtype: str
    moved: dict[str, int] = field(default_factory=lambda: {"TRANSPOSE": 0, "RESHAPE": 0})
    bytes_moved: int = 0
    _results: dict[Value, tuple[Layout, Tensor]] = field(default_factory=dict)
    _copies: dict[tuple[Value, Layout], Tensor] = field(default_factory=dict)
    _wide: dict[Tensor, Tensor] = field(default_factory=dict)

    # ---- values ----

    def result(self, value: Value, layout: Layout) -> Tensor:
        """A new tensor for a value in the layout it is made in; its own order keeps its name."""
        own = layout == plain(len(layout))
        name = value.name if own else f"{value.name}.{''.join(map(str, layout))}"
        return self.file.tensor(name, value.dtype, arranged(value.shape, layout), value.type.quant)

    def input(self, value: Value, layout: Layout) -> Tensor:
        """The tensor in which the caller gives a value."""
        return self.file.tensor(value.name, value.dtype, arranged(value.shape, layout), value.type.quant)

    def renamed(self, tensor: Tensor, value: Value, layout: Layout) -> Tensor:
        """A tensor that the last operator made is the value after all."""
        return self.file.rename(tensor, value.name) if layout == plain(len(layout)) else tensor

    def copied(self, tensor: Tensor, name: str) -> Tensor:
        """The same numbers in a tensor of their own, for values that are an input or an output twice."""
        made = self.file.tensor(name, tensor.dtype, tensor.shape, tensor.quant)
        self.file.add("RESHAPE", [tensor, self.file.constant(np.array(tensor.shape, np.int32), "ints")], [made])
        return made

    def settle(self, value: Value, layout: Layout, tensor: Tensor) -> None:
        """From now on the value is this tensor, which holds it in that layout."""
        self._results[value] = (layout, tensor)
        self._copies[value, layout] = tensor

    def get(self, value: Value, layout: Layout) -> Tensor:
        """The tensor of a value in a layout; what has to be moved is moved once."""
        if (value, layout) not in self._copies:
            made_in, tensor = self._results[value]
            self._copies[value, layout] = self._moved(value, made_in, tensor, layout)
        return self._copies[value, layout]

    def _moved(self, value: Value, made_in: Layout, tensor: Tensor, layout: Layout) -> Tensor:
        kind = moves(value.shape, made_in, layout)
        if not kind:
            return tensor
        out = self.result(value, layout)
        if kind == "RESHAPE":
            wanted: Array = np.array(out.shape, np.int32)
        else:
            wanted = np.array([made_in.index(axis) for axis in layout], np.int32)
        self.file.add(kind, [tensor, self.file.constant(wanted, "ints")], [out])
        self.moved[kind] += 1
        if kind == "TRANSPOSE":
            self.bytes_moved += value.type.nbytes
        return out

    # ---- constants ----

    def plain(self, array: Array, hint: str) -> Tensor:
        """A constant as it is."""
        return self.file.constant(array, hint)

    def weight(self, array: Array, hint: str, rounds: bool = True) -> Tensor:
        """A weight in the arithmetic asked for.

        Args:
            array: With outputs first where they get a scale each.
            hint: Its name.
            rounds: Whether int8 weights pay where it is read.
        """
        small = array.size < SMALL
        if self.dtype == "float16" and not small and np.abs(array).max() <= np.finfo(np.float16).max:
            return self._widened(self.file.constant(array.astype(np.float16), f"{hint}.half"), hint)
        if self.dtype == "dynamic" and not small and rounds:
            made = rounded(array)
            return self.file.constant(made.integers, f"{hint}.int8", made.quant)
        return self.plain(array, hint)

    def _widened(self, half: Tensor, hint: str) -> Tensor:
        if half not in self._wide:
            self._wide[half] = self.file.tensor(hint, "float32", half.shape)
            self.file.add("DEQUANTIZE", [half], [self._wide[half]])
        return self._wide[half]
