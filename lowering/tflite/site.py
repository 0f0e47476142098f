"""What a spelling sees of one unit: operands and results as tensors in the layouts of its form, and ways to write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ...ir.graph import Array, Quant, Value
from ...ir.op import Op
from ...ir.passes.quantise.channels_last import Layout, arranged, plain
from .flatbuffer import File, Tensor
from .forms import Form, lower_rank
from .integers import hybrid_pays
from .store import Store
from .units import Unit

__all__ = ["FormError", "Site", "activation_code", "options"]


class FormError(Exception):
    """A form of an op that TFLite does not have, in words; all are raised together as one `Unsupported`."""


@dataclass
class Site:
    """One unit about to become operators."""

    unit: Unit
    form: Form
    file: File
    store: Store
    given: tuple[Tensor | None, ...]
    results: list[Tensor | None]

    @property
    def op(self) -> Op:
        """What it computes."""
        return self.unit.op

    @property
    def x(self) -> Tensor:
        """The first operand."""
        return self[0]

    @property
    def layout(self) -> Layout:
        """Layout of the first result."""
        return self.form.outputs[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in memory of the first result."""
        return arranged(self.unit.outputs[0].shape, self.layout)

    def value(self, index: int) -> Value:
        """Operand `index` as the graph has it."""
        value = self.unit.inputs[index]
        assert value is not None
        return value

    def has(self, index: int) -> bool:
        """Whether operand `index` is there."""
        return index < len(self.unit.inputs) and self.unit.inputs[index] is not None

    def known(self, index: int) -> Array:
        """The numbers of operand `index`, which must be known when compiling."""
        data = self.value(index).data
        if data is None:
            raise FormError(f"operand {index} must be known at compile time")
        return data

    def __getitem__(self, index: int) -> Tensor:
        """Operand `index`; a constant lies in memory as the first result does, its axes at the end of the result's."""
        tensor, value = self.given[index], self.value(index)
        if tensor is not None:
            return tensor
        array, rank = self.known(index), len(self.layout)
        if 0 < array.ndim <= rank:
            array = array.reshape((1,) * (rank - array.ndim) + array.shape).transpose(self.layout)
        while array.ndim > value.type.rank and array.shape[0] == 1:
            array = array[0]
        return self.constant(array, value.name)

    def vector(self, index: int) -> Tensor:
        """Operand `index` in the graph's own order, such as a bias."""
        return self.given[index] or self.constant(self.known(index), self.value(index).name)

    def broadcast(self, index: int) -> Tensor:
        """Operand `index` of an op whose operands broadcast: of a lower rank it is widened where its axes need it."""
        tensor, value = self[index], self.value(index)
        rank, low = len(self.layout), value.type.rank
        if value.data is not None or low == rank:
            return tensor
        full = (1,) * (rank - low) + value.shape
        shape = arranged(full, self.layout)
        if shape[rank - low :] == tensor.shape == arranged(value.shape, lower_rank(self.layout, low)):
            return tensor
        return self.reshape(tensor, shape)

    def along(self, array: Array, axis: int, hint: str) -> Tensor:
        """A constant vector, shaped so that it broadcasts along an axis of the first result."""
        if self.layout[-1] == axis % len(self.layout):
            return self.constant(array, hint)
        return self.constant(self._spread(array, axis), hint)

    def _spread(self, array: Array, axis: int) -> Array:
        return array.reshape([-1 if each == axis % len(self.layout) else 1 for each in self.layout])

    def axis(self, axis: int, operand: int | None = None) -> int:
        """Where an axis lies in memory, of the first result or of an operand."""
        layout = self.layout if operand is None else self.form.inputs[operand]
        layout = plain(self.value(operand or 0).type.rank) if layout is None else layout
        return layout.index(axis % len(layout))

    # ---- constants ----

    def constant(self, array: Array, hint: str) -> Tensor:
        """A constant as it is."""
        return self.store.plain(array, hint)

    def number(self, value: float) -> Tensor:
        """A constant scalar."""
        return self.constant(np.array(value, np.float32), "number")

    def ints(self, values: Iterable[int]) -> Tensor:
        """A constant list of integers."""
        return self.constant(np.array(tuple(values), np.int32), "ints")

    def weight(self, index: int, order: Layout) -> Tensor:
        """A constant weight, output first, its axes in that order: in integers where it is, else as the dtype asks."""
        value = self.value(index)
        array = self.known(index).transpose(order)
        if value.type.quant is not None:
            axis = order.index(value.type.quant.axis or 0)
            return self.store.file.constant(array, value.name, replace(value.type.quant, axis=axis))
        return self.store.weight(array, value.name, hybrid_pays(self.unit.node))

    def bias(self, absent: Array | None = None) -> Tensor:
        """Operand 2, or those numbers where it is absent: as 32-bit integers where the products are integers."""
        if self.has(2) and self.given[2] is not None:
            return self.vector(2)
        array, name = (self.known(2), self.value(2).name) if self.has(2) else (absent, "zeros")
        assert array is not None
        x, w = self.value(0).type.quant, self.value(1).type.quant
        if x is None or w is None:
            return self.constant(array, name)
        steps = np.asarray(x.scale, np.float32) * np.asarray(w.scale, np.float32)
        rounded = np.clip(np.rint(array / steps.astype(np.float64)), -(2**31), 2**31 - 1).astype(np.int32)
        return self.store.file.constant(rounded, name, Quant(tuple(float(step) for step in steps), 0, 0))

    # ---- operators ----

    def step(
        self, kind: str, inputs: Sequence[Tensor | None], shape: Sequence[int], options: Any = None, dtype: str = ""
    ) -> Tensor:
        """An operator on the way to the result; its dtype is that of its first operand unless told."""
        first = next(tensor for tensor in inputs if tensor is not None)
        name = f"{self.unit.outputs[0].name}.{kind.lower()}"
        made = self.file.tensor(name, dtype or first.dtype, shape, None if dtype else first.quant)
        self.file.add(kind, inputs, [made], options)
        return made

    def emit(self, kind: str, inputs: Sequence[Tensor | None], options: Any = None) -> None:
        """The operator that gives all results."""
        outputs = [self.store.result(value, layout) for value, layout in self._made()]
        self.file.add(kind, inputs, outputs, options)
        self.results[:] = outputs

    def pieces(self, kind: str, inputs: Sequence[Tensor], dtypes: Sequence[str], options: Any = None) -> list[Tensor]:
        """An operator with several results on the way, each of the shape that the unit's result there has."""
        made = [
            self.file.tensor(value.name, dtype, arranged(value.shape, layout))
            for (value, layout), dtype in zip(self._made(), dtypes, strict=True)
        ]
        self.file.add(kind, inputs, made, options)
        return made

    def emit_one(self, index: int, kind: str, inputs: Sequence[Tensor | None], options: Any = None) -> None:
        """The operator that gives one of several results."""
        value, layout = self._made()[index]
        made = self.store.result(value, layout)
        self.file.add(kind, inputs, [made], options)
        self.results[index] = made

    def finish(self, tensor: Tensor) -> None:
        """The last operator that was added gives the result, under its name; without one the result is an operand."""
        own = tensor not in self.given and tensor.data is None
        self.results[0] = self.store.renamed(tensor, *self._made()[0]) if own else tensor

    def alias(self, tensor: Tensor) -> None:
        """The result is this tensor: nothing is computed or moved."""
        self.results[0] = tensor

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """x under another shape."""
        return x if x.shape == tuple(shape) else self.step("RESHAPE", [x, self.ints(shape)], shape)

    @property
    def activation(self) -> int:
        """The activation that the last operator of the unit applies."""
        return activation_code(self.unit.activation)

    def _made(self) -> list[tuple[Value, Layout]]:
        return list(zip(self.unit.outputs, self.form.outputs, strict=True))


def activation_code(name: str) -> int:
    """The number of an activation that operators apply by themselves."""
    found: int = getattr(schema.ActivationFunctionType, name)
    return found


def options(kind: str, **fields: Any) -> Any:
    """Builtin options of that table."""
    made = getattr(schema, f"{kind}OptionsT")()
    for name, value in fields.items():
        if not hasattr(made, name):
            raise AttributeError(f"{kind}Options has no field {name}")
        setattr(made, name, value)
    return made
