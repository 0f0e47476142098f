"""What a spelling sees of a layer (a node and what is fused behind it): operands as views, and ways to add calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...ir.graph import Array, Node, Value
from ...ir.op import Op
from .kernels.elementwise import Assembly, Piece
from .kernels.product import fitting
from .kernels.spec import Epilogue, Formula, Kernel, Step, Tile
from .program import Call, Program
from .views import Access, View, merged

__all__ = ["FormError", "Fusion", "Site", "Tiles"]

Tiles = Mapping[str, Sequence[int]]
"""Tiles chosen by measurement: rows and vectors, by what `Site.tile` was asked for."""

STORED = {"bool": "int8"}
"""Types of numbers that are stored as another one."""


class FormError(Exception):
    """A form of an op that has no spelling, in words; all are raised together as one `Unsupported`."""


@dataclass
class Fusion:
    """A formula under construction, over elements of one shape."""

    shape: tuple[int, ...]
    operands: list[View] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def operand(self, view: View) -> int:
        """Number of an operand; the same view is one."""
        stretched = view.broadcast(self.shape)
        for at, known in enumerate(self.operands):
            if known.slot == stretched.slot and known.access == stretched.access:
                return at
        self.operands.append(stretched)
        return len(self.operands) - 1

    def step(self, function: str, *operands: int, parameters: Sequence[float] = ()) -> int:
        """Number of the step's result."""
        self.steps.append(Step(function, operands, tuple(parameters)))
        return -len(self.steps)

    @property
    def formula(self) -> Formula:
        """All steps so far."""
        return Formula(tuple(self.steps))


@dataclass
class Site:
    """One layer about to become calls: `tail` are the element-wise nodes that run on its results at once."""

    node: Node
    tail: tuple[Node, ...]
    program: Program
    views: dict[Value, View]
    derived: dict[object, str]
    tiles: Tiles
    asked: dict[str, list[Tile]]
    _product: str = ""

    @property
    def op(self) -> Op:
        """What the first node does."""
        return self.node.op

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result."""
        return self.node.outputs[0].shape

    def has(self, index: int) -> bool:
        """Whether operand `index` is there."""
        return self.node.optional(index) is not None

    def __getitem__(self, index: int) -> View:
        """Operand `index`."""
        return self.of(self.node.input(index))

    def of(self, value: Value) -> View:
        """Where a value lies; a constant is stored at its first use."""
        if value not in self.views:
            assert value.data is not None
            self.views[value] = View.whole(self.program.constant(value.data), value.shape)
        return self.views[value]

    def array(self, index: int) -> Array:
        """A constant operand's content; raises `FormError` for one that is computed."""
        data = self.node.input(index).data
        if data is None:
            raise FormError(f"operand {index} must be known at compile time")
        return data

    def weight(self, index: int, how: object, layout: Callable[[Array], Array]) -> str:
        """A constant operand laid out anew, once for each `how`."""
        array, key = self.array(index), (self.node.input(index), how)
        if key not in self.derived:
            self.derived[key] = self.program.constant(layout(array))
        return self.derived[key]

    def literal(self, array: Array) -> str:
        """A constant that a spelling brings along; equal ones are one."""
        key = (array.dtype.name, array.tobytes())
        if key not in self.derived:
            self.derived[key] = self.program.constant(array)
        return self.derived[key]

    def along(self, index: int, axis: int) -> View:
        """The vector that is operand `index`, as it broadcasts along `axis` of the first operand."""
        rank = self.node.input(0).type.rank
        shape = tuple(-1 if at == axis % rank else 1 for at in range(rank))
        return self[index].through(lambda array: array.reshape(shape))

    def call(self, kernel: Kernel, operands: Sequence[str], size: int, kind: str = "", dtype: str = "") -> str:
        """Add a call; its result's buffer."""
        last = (self.tail[-1] if self.tail else self.node).outputs[0]
        result = self.program.add(size, dtype or STORED.get(last.dtype, last.dtype))
        layer = (self.tail[-1] if self.tail else self.node).name
        kind = kind or "+".join(type(node.op).__name__ for node in (self.node, *self.tail))
        self.program.calls.append(Call(kernel, tuple(operands), result, layer, kind, self._product))
        self._product = ""
        return result

    def made(self, kernel: Kernel, operands: Sequence[str]) -> View:
        """Add a call whose result has the layer's shape; that result."""
        size = int(np.prod(self.shape, dtype=np.int64))
        return View.whole(self.call(kernel, operands, size), self.shape)

    def copied(self, view: View) -> View:
        """The elements of a view in order, in a buffer of their own."""
        size = int(view.array.size)
        shape, (source, out) = merged(view.shape, view.access, View.whole("", view.shape).access)
        kernel = Assembly((Piece(shape, source, out),))
        dtype = self.program.buffers[view.slot].dtype
        return View.whole(self.call(kernel, [view.slot], size, "Copy", dtype), view.shape)

    def reshaped(self, view: View, shape: tuple[int, ...]) -> View:
        """The same elements under another shape, copied if strides cannot say it."""
        found = view.reshaped(shape)
        if found is None:
            found = self.copied(view).reshaped(shape)
            assert found is not None
        return found

    def ordered(self, index: int) -> tuple[str, int]:
        """Operand `index` as elements in order: its buffer, and where in it they begin."""
        view = self[index]
        if not view.array.flags.c_contiguous:
            view = self.copied(view)
        return view.slot, view.access.offset

    def tile(self, what: str, rows: int, columns: int) -> Tile:
        """The register tile of the next call's product: the measured one, else that which should be soonest."""
        self._product = what
        found = fitting(self.program.machine, rows, columns)
        self.asked.setdefault(what, found)
        chosen = Tile(*self.tiles[what]) if what in self.tiles else found[0]
        return chosen if chosen in found else found[0]

    def epilogue(self, shape: tuple[int, ...], *before: tuple[str, View]) -> tuple[Epilogue, list[str]]:
        """What runs on the result, which the kernel indexes by `shape`: first binary functions, then the tail."""
        from .elements import extend

        fusion = Fusion(self.shape, [View.whole("", self.shape)])
        current = 0
        for function, view in before:
            current = fusion.step(function, current, fusion.operand(view))
        known = {self.node.outputs[0]: current}
        for node in self.tail:
            extend(self, fusion, node, known)
        views = [self.reshaped(view, shape) for view in fusion.operands[1:]]
        accesses: tuple[Access, ...] = tuple(view.access for view in views)
        return Epilogue(fusion.formula, accesses), [view.slot for view in views]
