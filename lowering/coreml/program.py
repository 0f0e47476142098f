"""From a float graph to a MIL program: every node in its spelling and its precision, ports under their own names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...ir.graph import Graph, Node, Value
from ...ir.ops.shape import Reshape, Transpose
from ..outline import Lack, idle, refuse, unknown
from ..outline import form as lack
from .attention import absorbed, scaled
from .channels_first import CHANNELS_FIRST, plain
from .places import TAKES_INTEGERS
from .site import FIRST, PLAIN, FormError, Site, Store, Var
from .sketch import Operation, Sketch, live
from .spellings import SPELLINGS
from .vendor import coremltools, mil, quiet

__all__ = ["HIGHEST_RANK", "Draft", "Form", "Program", "build", "draft"]

HIGHEST_RANK = 5
"""Of any tensor in a ML Program."""

PORTS = {"float32": "fp32", "int32": "int32", "int64": "int32"}
"""Element types of inputs and outputs that are taken, and what they are in the package."""


@dataclass(frozen=True)
class Form:
    """How a program is to be written.

    Attributes:
        release: The oldest iOS that must take it: 16, 17 or 18.
        dtype: Precision of every node that is not kept.
        channels_first: Whether tokens lie as [B, C, 1, N], the Neural Engine's own layout.
        kept: Names of the first outputs of the nodes that stay in float32.
    """

    release: int = 18
    dtype: str = "float32"
    channels_first: bool = False
    kept: frozenset[str] = frozenset()

    def of(self, node: Node) -> str:
        """The precision of a node."""
        return "float32" if node.outputs[0].name in self.kept else self.dtype


@dataclass(frozen=True)
class Program:
    """A MIL program with what is needed to find our values in it.

    Attributes:
        mil: The program, as coremltools has it.
        names: Name in the program, by name of our value; values that are computed on the way are missing.
        origins: Sources of our node, by name of the MIL op.
    """

    mil: Any
    names: Mapping[str, str]
    origins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def build(graph: Graph, form: Form) -> Program:
    """Write every node; inputs and outputs keep their layouts, and their names where MIL takes them; see `PORTS`.

    The graph's scales of attention may change.

    Raises:
        Unsupported: Ops, or forms of them, without a spelling: all are named.
        MachineError: coremltools is missing.
    """
    if fundamental := _fundamental(graph):
        refuse("coreml", [*fundamental, *draft(graph.copy(), form).lacks])
    scaled(graph, 0 if form.channels_first else form.release)
    target, library = getattr(coremltools().target, f"iOS{form.release}"), mil()
    with quiet():
        store = _store(graph, form, library.Builder)
        placed = [(value, getattr(library.types, PORTS[value.dtype])) for value in graph.inputs]
        given = {store.reserve(value): library.Builder.placeholder(value.shape, kind) for value, kind in placed}
        program = library.Program()
        with library.Function(given, opset_version=target) as function:
            for value in graph.inputs:
                store.bind(value, "float32", function.inputs[store.reserve(value)])
            origins, lacks = _write(graph, form, store)
            refuse("coreml", lacks)
            function.set_outputs([_output(value, store) for value in graph.outputs])
        program.add_function("main", function)
    return Program(program, store.names, origins)


@dataclass(frozen=True)
class Draft:
    """What `build` would make, by kinds and shapes alone: the ops that are needed, and what has no spelling."""

    ops: tuple[Operation, ...]
    lacks: tuple[Lack, ...]


def draft(graph: Graph, form: Form) -> Draft:
    """Write every node without coremltools, which moves and joins what is written here; the graph may change."""
    lacks = _fundamental(graph)
    scaled(graph, 0 if form.channels_first else form.release)
    store = _store(graph, form, Sketch())
    for value in graph.inputs:
        store.bind(value, "float32", store.builder.placeholder(value.shape, store.reserve(value)).outputs[0])
    lacks += _write(graph, form, store)[1]
    ops = () if lacks else live(_output(value, store) for value in graph.outputs)
    return Draft(tuple(ops), tuple(lacks))


def _store(graph: Graph, form: Form, builder: Any) -> Store:
    """An empty store in which inputs and outputs have their names."""
    store = Store(builder, form.release, projections=absorbed(graph, form.kept))
    for value in (*graph.inputs, *graph.outputs):
        store.reserve(value)
    return store


def _fundamental(graph: Graph) -> list[Lack]:
    """What no spelling can help."""
    lacks = unknown(graph.nodes, SPELLINGS)
    for side, values in (("input", graph.inputs), ("output", graph.outputs)):
        for value in values:
            if value.dtype not in PORTS or not 1 <= value.type.rank <= HIGHEST_RANK:
                kinds = ", ".join(PORTS)
                why = f"it is {value.dtype} of shape {value.shape}, not {kinds} of rank 1 to {HIGHEST_RANK}"
                lacks.append(Lack(side, (value.name,), why, "cut the model where it is so"))
    return lacks + idle(value for value in graph.outputs if value.producer is None)


def _write(graph: Graph, form: Form, store: Store) -> tuple[dict[str, tuple[str, ...]], list[Lack]]:
    """All nodes in order; the sources of every op made, and the forms that have no spelling."""
    lacks: list[Lack] = []
    origins: dict[str, tuple[str, ...]] = {}
    together = {linear for found in store.projections.values() for each in found for linear in each.linears}
    for node in graph.nodes:
        if node in together:
            continue
        site = Site(node, store, form.of(node))
        if type(node.op) not in SPELLINGS:
            _stand_in(node, site)
            continue
        try:
            results, layout = _spell(site, form)
        except (FormError, ValueError) as error:
            lacks.append(lack(node, error))
            _stand_in(node, site)
            continue
        for value, result in zip(node.outputs, results, strict=True):
            _settle(site, value, result)
            store.bind(value, site.dtype, result, layout)
        origins.update((var.op.name, node.sources or (node.name,)) for var in site.made)
    return origins, lacks


def _spell(site: Site, form: Form) -> tuple[tuple[Var, ...], str]:
    """Results of a node, and the layout they are in."""
    found: Callable[[Site, Any], Any] | None = None
    kind = type(site.op)
    operands = [value for value in site.node.inputs if value is not None]
    if kind not in TAKES_INTEGERS and any(value.type.numpy.kind != "f" for value in operands):
        raise FormError("operands that are not real numbers")
    rank = max(value.type.rank for value in (*operands, *site.node.outputs))
    if rank > HIGHEST_RANK and kind not in (Reshape, Transpose):  # coremltools takes moves apart, and nothing else
        raise FormError(f"of rank {rank}: {HIGHEST_RANK} is the most")
    if form.channels_first and (found := CHANNELS_FIRST.get(kind)):
        results = found(site, site.op)
        if results is not NotImplemented:
            return results if isinstance(results, tuple) else (results,), site.form
    if form.channels_first:
        for value in dict.fromkeys(operands):
            plain(site, value)
    results = SPELLINGS[kind](site, site.op)
    return results if isinstance(results, tuple) else (results,), PLAIN


def _stand_in(node: Node, site: Site) -> None:
    """Let what follows a refused node be looked at as well."""
    for value in node.outputs:
        name = site.store.fresh(value.name)
        site.store.bind(value, site.dtype, site.store.builder.placeholder(shape=value.shape, name=name).outputs[0])


def _settle(site: Site, value: Value, result: Var) -> None:
    """Give a result the name of our value, unless it is a variable that has one already."""
    if any(result is var for var in site.made) and value.name not in site.store.names:
        name = site.store.reserve(value)
        result.name = name
        if len(result.op.outputs) == 1:
            result.op.name = name


def _output(value: Value, store: Store) -> Var:
    """The variable of an output: float32, laid out as our graph has it, under the output's own name."""
    assert value.producer is not None
    there = (*store.forms(value, PLAIN), *store.forms(value, FIRST))
    plain(Site(value.producer, store, there[0]), value)
    found = Site(value.producer, store, "float32").read(value)
    if found.op is None or found.name in store.outputs:
        found = store.builder.identity(x=found, name=store.fresh(value.name))
    name = store.reserve(value)
    store.outputs.add(name)
    found.name = name
    if len(found.op.outputs) == 1:
        found.op.name = name
    return found
