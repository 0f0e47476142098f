"""The graph: typed values, the nodes that make them, and the five ways to change it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .errors import InternalError, ModelError, ShapeError
from .op import Op
from .tensor import Array, Quant, Type


class ComputedError(InternalError):
    """A value was read as a constant, but it is computed at run time."""


class Value:
    """One tensor of the graph: an input, a constant (it has `data`), or a result (it has a `producer`).

    Identity is equality: a constant read by two nodes *is* shared, and its bytes are counted once.
    """

    __slots__ = ("_uses", "data", "name", "producer", "type")

    def __init__(self, name: str, type: Type, producer: Node | None = None, data: Array | None = None) -> None:
        """Made by `Graph` only."""
        self.name, self.type, self.producer, self.data = name, type, producer, data
        self._uses: list[tuple[Node, int]] = []

    @property
    def shape(self) -> tuple[int, ...]:
        """Static shape."""
        return self.type.shape

    @property
    def dtype(self) -> str:
        """Element type, as numpy names it."""
        return self.type.dtype

    @property
    def is_constant(self) -> bool:
        """True when the value is known at compile time."""
        return self.data is not None

    @property
    def array(self) -> Array:
        """The data of a constant."""
        if self.data is None:
            raise ComputedError(f"value '{self.name}' was read as a constant, but it is computed at run time")
        return self.data

    @property
    def uses(self) -> list[tuple[Node, int]]:
        """(node, input index) of every read, a snapshot."""
        return list(self._uses)

    @property
    def readers(self) -> list[Node]:
        """The nodes that read it, each once, in order of first use."""
        return list(dict.fromkeys(node for node, _ in self._uses))

    def __repr__(self) -> str:
        """For debuggers."""
        return f"%{self.name}"


class Node:
    """One application of an op. `sources` are the names of the ONNX nodes it stands for."""

    __slots__ = ("inputs", "name", "op", "outputs", "serial", "sources")

    def __init__(self, op: Op, inputs: tuple[Value | None, ...], name: str, sources: tuple[str, ...], serial: int):
        """Made by `Graph.add` only."""
        self.op, self.inputs, self.name, self.sources, self.serial = op, inputs, name, sources, serial
        self.outputs: tuple[Value, ...] = ()

    @property
    def output(self) -> Value:
        """The only output."""
        (only,) = self.outputs
        return only

    def input(self, index: int) -> Value:
        """Input `index`, which must be there (optional inputs may be None in `inputs`)."""
        value = self.inputs[index]
        if value is None:
            raise InternalError(f"{type(self.op).__name__} '{self.name}' has no input {index}")
        return value

    def optional(self, index: int) -> Value | None:
        """Input `index`, or None when it is absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def __repr__(self) -> str:
        """For debuggers."""
        return f"{type(self.op).__name__}({self.name})"


class Graph:
    """A static single-assignment graph. Order is computed from the data flow, so it cannot be wrong.

    Changes go through five mutators: `add`, `replace`, `set_input`, `erase`, `rename`.
    """

    def __init__(self, name: str = "graph") -> None:
        """An empty graph."""
        self.name = name
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self.metadata: dict[str, str] = {}
        self._nodes: dict[Node, None] = {}
        self._constants: dict[Value, None] = {}
        self._names: dict[str, Value] = {}
        self._least: dict[str, int] = {}
        self._serial = itertools.count()
        self._order: list[Node] | None = None

    # ---- reading ----

    @property
    def nodes(self) -> list[Node]:
        """All nodes, each after its operands (ties: oldest first). A snapshot: safe while changing the graph."""
        if self._order is None:
            self._order = self._sort()
        return list(self._order)

    @property
    def constants(self) -> list[Value]:
        """Constants that something reads or that are outputs, in order of creation."""
        outputs = set(map(id, self.outputs))
        return [c for c in self._constants if c._uses or id(c) in outputs]

    def value(self, name: str) -> Value:
        """Look a value up by name.

        Raises:
            KeyError: No such value.
        """
        return self._names[name]

    def __contains__(self, node: object) -> bool:
        """Whether a node is (still) part of the graph."""
        return node in self._nodes

    def _sort(self) -> list[Node]:
        makers = {node: {id(v.producer) for v in node.inputs if v is not None and v.producer} for node in self._nodes}
        missing = {node: len(found) for node, found in makers.items()}
        ready = [(node.serial, node) for node, count in missing.items() if count == 0]
        heapq.heapify(ready)
        order: list[Node] = []
        while ready:
            _, node = heapq.heappop(ready)
            order.append(node)
            readers = dict.fromkeys(reader for value in node.outputs for reader, _ in value._uses)
            for reader in readers:
                missing[reader] -= 1
                if missing[reader] == 0:
                    heapq.heappush(ready, (reader.serial, reader))
        if len(order) != len(self._nodes):
            stuck = [node.name for node in self._nodes if missing[node] > 0]
            do = "export the model again; ONNX graphs must be acyclic"
            raise ModelError("the graph has a cycle", where=stuck, do=do)
        return order

    # ---- building ----

    def input(self, name: str, type: Type) -> Value:
        """Add a graph input."""
        value = Value(self._fresh(name), type)
        self._names[value.name] = value
        self.inputs.append(value)
        return value

    def constant(self, array: Array, name: str = "", quant: Quant | None = None) -> Value:
        """Add a constant; the array is kept by reference and made read-only."""
        array = np.asarray(array)
        array.flags.writeable = False
        value = Value(self._fresh(name or "c"), Type(array.dtype.name, array.shape, quant), data=array)
        self._names[value.name] = value
        self._constants[value] = None
        return value

    def output(self, value: Value, name: str = "") -> Value:
        """Declare a value as graph output, optionally under a name of its own."""
        self.outputs.append(value)
        if name and name != value.name:
            self.rename(value, name)
        return value

    # ---- the five mutators ----

    def add(self, op: Op, *inputs: Value | None, name: str = "", sources: Sequence[str] = ()) -> Any:
        """Apply `op`; its output types are inferred here and now.

        Returns:
            The output value, or a tuple of them for an op with several.

        Raises:
            ShapeError: The operands do not fit, with the node's source names.
        """
        node = Node(op, inputs, name or type(op).__name__.lower(), tuple(sources), next(self._serial))
        types = infer(node)
        names = [name] if len(types) == 1 else [f"{name or node.name}_{i}" for i in range(len(types))]
        node.outputs = tuple(Value(self._fresh(n or node.name), t, node) for n, t in zip(names, types, strict=True))
        for value in node.outputs:
            self._names[value.name] = value
        for index, operand in enumerate(inputs):
            if operand is not None:
                operand._uses.append((node, index))
        self._nodes[node] = None
        self._order = None
        return node.outputs[0] if len(node.outputs) == 1 else node.outputs

    def replace(self, old: Value, new: Value) -> None:
        """Let every reader of `old`, and the graph's outputs, read `new` instead.

        A graph output keeps its public name.
        """
        if old is new:
            return
        for node, index in old.uses:
            self.set_input(node, index, new)
        if any(out is old for out in self.outputs):
            name = old.name
            self.outputs = [new if out is old else out for out in self.outputs]
            if new.producer is not None and not any(new is value for value in self.inputs):
                self.rename(old, f"{name}_before")
                self.rename(new, name)

    def set_input(self, node: Node, index: int, value: Value | None) -> None:
        """Let `node` read `value` as its input `index`."""
        old = node.inputs[index]
        if old is not None:
            old._uses.remove((node, index))
        if value is not None:
            value._uses.append((node, index))
        node.inputs = (*node.inputs[:index], value, *node.inputs[index + 1 :])
        self._order = None

    def erase(self, node: Node) -> None:
        """Remove a node whose outputs nobody reads."""
        for value in node.outputs:
            if value._uses or any(value is out for out in self.outputs):
                raise InternalError(f"cannot erase '{node.name}': its output '{value.name}' is still read")
        for index, operand in enumerate(node.inputs):
            if operand is not None:
                operand._uses.remove((node, index))
        for value in node.outputs:
            self._release(value.name)
        del self._nodes[node]
        self._order = None

    def rename(self, value: Value, name: str) -> None:
        """Give a value another name; a clash gets a number."""
        self._release(value.name)
        value.name = self._fresh(name)
        self._names[value.name] = value

    # ---- whole-graph helpers built on them ----

    def prune(self) -> int:
        """Erase every node that no output depends on; returns how many."""
        live = set(map(id, self.outputs))
        dead = 0
        for node in reversed(self.nodes):
            if not any(value._uses or id(value) in live for value in node.outputs):
                self.erase(node)
                dead += 1
        for constant in [c for c in self._constants if not c._uses and id(c) not in live]:
            del self._constants[constant]
            self._release(constant.name)
        return dead

    def copy(self) -> Graph:
        """An independent graph; arrays are shared, since constants are never written."""
        other = Graph(self.name)
        other.metadata = dict(self.metadata)
        twin: dict[int, Value] = {}
        for value in self.inputs:
            twin[id(value)] = other.input(value.name, value.type)
        for value in self.constants:
            twin[id(value)] = other.constant(value.array, value.name, value.type.quant)
        for node in self.nodes:
            operands = [None if v is None else twin[id(v)] for v in node.inputs]
            made = other.add(node.op, *operands, name=node.name, sources=node.sources)
            for old, new in zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=True):
                if new.name != old.name and old.name not in other._names:
                    other.rename(new, old.name)
                twin[id(old)] = new
        other.outputs = [twin[id(value)] for value in self.outputs]
        return other

    def _fresh(self, name: str) -> str:
        """A free name: the one asked for, or with the least number; below `_least` none is free."""
        if name not in self._names:
            return name
        first = self._least.get(name, 1)
        number = next(i for i in itertools.count(first) if f"{name}.{i}" not in self._names)
        self._least[name] = number
        return f"{name}.{number}"

    def _release(self, name: str) -> None:
        del self._names[name]
        stem, _, number = name.rpartition(".")
        if stem in self._least and number.isdecimal() and len(number) < 10:
            self._least[stem] = min(self._least[stem], int(number))


def infer(node: Node) -> tuple[Type, ...]:
    """The output types of a node, with its name put on any complaint."""
    types = [None if value is None else value.type for value in node.inputs]
    try:
        result = node.op.infer(*types)
    except ShapeError as error:
        if error.where:
            raise
        where = node.sources or (node.name,)
        raise ShapeError(f"{type(node.op).__name__}: {error.what}", where=where, why=error.why, do=error.do) from None
    except TypeError as error:
        message = f"{type(node.op).__name__} '{node.name}' was given {len(types)} operands: {error}"
        raise InternalError(message) from error
    return result if isinstance(result, tuple) else (result,)


def sources_of(*nodes: Node | None, extra: Iterable[str] = ()) -> tuple[str, ...]:
    """The source names of several nodes together, each once: what a rewritten node stands for."""
    names = itertools.chain(*(node.sources for node in nodes if node is not None), extra)
    return tuple(dict.fromkeys(names))


__all__ = ["Array", "Graph", "Node", "Quant", "Type", "Value", "infer", "sources_of"]
