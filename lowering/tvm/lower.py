"""From a float graph to a program of kernels: layout ops become views, element-wise ops join the layer before them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...ir.graph import Graph, Node, Value
from ...ir.ops import logic, quant, shape, shift
from ..outline import Lack, form, idle, refuse, sources, unknown
from .elements import ELEMENTS
from .kernels.spec import Tile
from .machine import Machine
from .program import Port, Program
from .site import FormError, Site, Tiles
from .spellings import FUSING, SPELLINGS
from .views import View

__all__ = ["Draft", "draft", "layers", "lower"]

Layer = tuple[Node, ...]

SMALL = ("bool", "int8", "uint8", "int16")
WIDE = ("int32", "int64")
EXACT = 2**24
"""Integers up to here are float32 numbers; what is larger stays larger when it is rounded."""
MOVES = (shape.Reshape, shape.Transpose, shape.Slice, shape.Split, shape.Expand)
MIXED = (
    logic.Equal, logic.Less, logic.Where, logic.Cast, quant.Quantize, quant.Dequantize, shift.MatAdd, shift.MatShift,
    shift.ShiftLinear, *MOVES,
)  # fmt: skip
"""Ops that also take or make numbers of the types `SMALL`."""


@dataclass(frozen=True)
class Draft:
    """A program about to be built: the tiles that each product could have, and what has no spelling."""

    program: Program
    tiles: dict[str, list[Tile]]
    lacks: tuple[Lack, ...]


def lower(graph: Graph, machine: Machine, tiles: Tiles | None = None) -> tuple[Program, dict[str, list[Tile]]]:
    """The graph as calls of kernels, and the tiles that each of its products could have, the chosen one first.

    Args:
        graph: Float ops; it is not changed.
        machine: What it is built for; decides how weights are packed.
        tiles: Choices by measurement, for products that they name.

    Raises:
        Unsupported: Ops, forms of them or types of numbers that are not known here: all are named.
    """
    made = draft(graph, machine, tiles)
    refuse("tvm", made.lacks)
    return made.program, made.tiles


def draft(graph: Graph, machine: Machine, tiles: Tiles | None = None) -> Draft:
    """The same with all that is lacking; what is, gives results that nothing computes."""
    program, views, derived = Program(graph.name, machine), dict[Value, View](), dict[object, str]()
    for value in graph.inputs:
        slot = program.add(value.type.size, value.dtype)
        views[value] = View.whole(slot, value.shape)
        program.inputs.append(Port(value.name, value.shape, value.dtype, slot))
    asked: dict[str, list[Tile]] = {}
    foreign = [node for node in graph.nodes if type(node.op) in SPELLINGS and not _known(graph, node)]
    lacks = [*unknown(graph.nodes, SPELLINGS), *_foreign(foreign)]
    for layer in layers(graph):
        site = Site(layer[0], layer[1:], program, views, derived, tiles or {}, asked)
        spell = None if layer[0] in foreign else SPELLINGS.get(type(site.op))
        try:
            result = _unknown(program, layer) if spell is None else spell(site, site.op)
        except FormError as error:
            lacks.append(form(layer[0], error))
            result = _unknown(program, layer)
        views.update(zip(layer[-1].outputs, (result,) if isinstance(result, View) else result, strict=True))
    missing = [value for value in graph.outputs if value not in views]
    lacks += idle(missing)
    if not missing:
        _give(graph, program, views)
    return Draft(program, asked, tuple(lacks))


def _unknown(program: Program, layer: Layer) -> tuple[View, ...]:
    """In place of results that no kernel makes."""
    values = layer[-1].outputs
    return tuple(View.whole(program.add(value.type.size, value.dtype), value.shape) for value in values)


def layers(graph: Graph) -> Iterator[Layer]:
    """The nodes in groups that run as one, each at the place of its last node."""
    nodes = graph.nodes
    home: dict[Node, list[Node]] = {}
    for node in nodes:
        joined = _before(graph, node, home)
        home[node] = [node] if joined is None else joined
        if joined is not None:
            joined.append(node)
    for node in nodes:
        if home[node][-1] is node:
            yield tuple(home[node])


def _before(graph: Graph, node: Node, home: dict[Node, list[Node]]) -> list[Node] | None:
    """The layer whose result an element-wise node takes over, as its only reader and element by element."""
    if type(node.op) not in ELEMENTS:
        return None
    found: list[list[Node]] = []
    for value in node.inputs:
        if value is None or value.producer is None or value in graph.outputs or len(value.uses) != 1:
            continue
        layer = home[value.producer]
        if layer[-1] is value.producer and type(layer[0].op) in FUSING and value.shape == node.output.shape:
            found.append(layer)
    return min(found, key=lambda layer: FUSING.index(type(layer[0].op)), default=None)


def _give(graph: Graph, program: Program, views: dict[Value, View]) -> None:
    """Name what holds the outputs; what is no kernel's result in order is copied."""
    results = {call.result for call in program.calls}
    for value in graph.outputs:
        view = views[value]
        whole = view.slot in results and view.row_major and program.buffers[view.slot].size == value.type.size
        if not whole:
            assert value.producer is not None or value in graph.inputs
            site = Site(_last(graph, value), (), program, views, {}, {}, {})
            view = site.copied(view)
        program.outputs.append(Port(value.name, value.shape, value.dtype, view.slot))


def _last(graph: Graph, value: Value) -> Node:
    """A node to name a copy after."""
    return value.producer or graph.nodes[-1]


def _foreign(nodes: list[Node]) -> list[Lack]:
    """Ops on other numbers than float32, by kind."""
    found: dict[str, list[Node]] = {}
    for node in nodes:
        found.setdefault(type(node.op).__name__, []).append(node)
    do = "export the model in float32"
    return [Lack(kind, sources(found[kind]), "numbers other than float32", do) for kind in sorted(found)]


def _known(graph: Graph, node: Node) -> bool:
    """Whether all that a node reads and writes is float32 or, for some ops, integers that float32 holds."""
    given = node.inputs[:1] if isinstance(node.op, shape.Gather) else node.inputs
    kinds = {value.dtype for value in (*given, *node.outputs) if value is not None}
    told = any(value.dtype == "bool" and value in graph.outputs for value in node.outputs)
    return not told and kinds <= {"float32", *(SMALL if isinstance(node.op, MIXED) else ()), *_wide(node)}


def _wide(node: Node) -> tuple[str, ...]:
    """Types of wide integers that are only moved, go to float32 at once, or are compared with known small ones."""
    op = node.op
    if isinstance(op, shift.MatShift):
        return ("int32",)
    known = [value.data for value in node.inputs if value is not None and value.data is not None]
    compared = isinstance(op, logic.Equal | logic.Less) and any((np.abs(data) < EXACT).all() for data in known)
    return WIDE if compared or isinstance(op, (logic.Cast, *MOVES)) else ()
