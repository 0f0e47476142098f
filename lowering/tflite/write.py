"""From a float graph to a TFLite file: units, layouts, operators, bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...ir.graph import Graph
from ...ir.passes.quantise.channels_last import IMAGE, Layout, plain
from ..outline import Lack, Outline, idle, refuse, unknown
from ..outline import form as lack
from .expand import expand
from .flatbuffer import File, Tensor
from .integers import Decision, decide, settle, surroundings
from .layout import Plan, assign
from .site import FormError, Site
from .spellings import SPELLINGS
from .store import Store
from .units import Unit, units

__all__ = ["Model", "outline", "write"]

Ports = Sequence[tuple[str, Tensor]]

OPTIONS = {"input_layout": "nchw", "activations": "auto", "projections": "apart"}
"""Defaults: the order of the axes of image inputs ("nhwc"), which layers of "int8" compute in integers (see
`integers.decide`), and whether the projections of an attention are computed apart (see `expand`)."""


@dataclass(frozen=True)
class Model:
    """A written model: its bytes, how often each operator stands in it, and what the layouts cost."""

    data: bytes
    operators: Mapping[str, int]
    details: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def write(graph: Graph, dtype: str = "float32", options: Mapping[str, str] | None = None) -> Model:
    """The graph as a TFLite model; the same graph gives the same bytes.

    Args:
        graph: Float ops; Attention and PatchEmbed are taken apart in it.
        dtype: "float32", "float16" (weights), "dynamic" (int8 weights of products), or "int8": then the graph has pairs
            of Quantize and Dequantize.
        options: Those of the back end that differ from `OPTIONS`.

    Raises:
        Unsupported: Ops, or forms of them, without a spelling: all are named.
        ModelError: The weights are larger than a file may be.
    """
    made = draft(graph, dtype, options)
    refuse("tflite", made.lacks)
    data = made.file.pack(*made.ports)
    return Model(data, made.operators, made.details, surroundings(graph) if dtype == "int8" else ())


def outline(graph: Graph, dtype: str = "float32", options: Mapping[str, str] | None = None) -> Outline:
    """What `write` would write; the size is that of the file but for some bytes of alignment."""
    made = draft(graph, dtype, options)
    return Outline(made.operators, 0 if made.lacks else made.file.nbytes(*made.ports), lacks=made.lacks)


@dataclass(frozen=True)
class Draft:
    """A file about to be packed: its inputs and outputs, what its layouts cost, and what has no spelling."""

    file: File
    ports: tuple[Ports, Ports]
    details: Mapping[str, Any]
    lacks: tuple[Lack, ...]

    @property
    def operators(self) -> dict[str, int]:
        """How often each operator stands in it."""
        return dict(sorted(self.file.counts.items()))


def draft(graph: Graph, dtype: str, options: Mapping[str, str] | None = None) -> Draft:
    """Every unit in its layouts and its spelling; arguments as for `write`."""
    chosen = {**OPTIONS, **(options or {})}
    expand(graph, chosen["projections"] == "joined")
    decision = Decision()
    if dtype == "int8":
        settle(graph)
        decision = decide(graph, chosen["activations"])
    found = units(graph, {nodes[0]: nodes[1:] for nodes in decision.static.values()})
    ports = {value: IMAGE for value in graph.inputs if chosen["input_layout"] == "nhwc" and value.type.rank == 4}
    plan = assign(graph, found, ports)
    file = File(graph.name)
    store = Store(file, dtype)
    inputs = []
    for value in graph.inputs:
        layout = ports.get(value, plain(value.type.rank))
        store.settle(value, layout, store.input(value, layout))
        inputs.append((value.name, store.get(value, layout)))
    lacks = [*unknown([unit.node for unit in found], SPELLINGS), *_spell(found, plan, file, store)]
    constant = [value for value in graph.outputs if value.data is not None]
    outputs = [] if constant else _outputs(graph, store, {tensor for _, tensor in inputs})
    details: dict[str, Any] = {
        "transposes": file.counts["TRANSPOSE"],
        "transposed_bytes": store.bytes_moved,
        "layout_optimal": plan.optimal,
    }
    if dtype == "int8":
        details |= {"static": list(decision.static), "dynamic": decision.dynamic, "real": decision.real}
    return Draft(file, (inputs, outputs), details, (*lacks, *idle(constant)))


def _spell(found: list[Unit], plan: Plan, file: File, store: Store) -> list[Lack]:
    """Write every unit that has a spelling; the forms that have none."""
    lacks: list[Lack] = []
    for unit in found:
        form = plan.forms[unit]
        given = tuple(
            None if value is None or layout is None else store.get(value, layout)
            for value, layout in zip(unit.inputs, form.inputs, strict=True)
        )
        site = Site(unit, form, file, store, given, [None] * len(unit.outputs))
        try:
            if type(unit.op) in SPELLINGS:
                SPELLINGS[type(unit.op)](site, unit.op)
        except FormError as error:
            lacks.append(lack(unit.node, error))
        for value, layout, tensor in zip(unit.outputs, form.outputs, site.results, strict=True):
            store.settle(value, layout, tensor or store.result(value, layout))
    return lacks


def _outputs(graph: Graph, store: Store, taken: set[Tensor]) -> list[tuple[str, Tensor]]:
    """The graph's outputs in their own order of axes, each a tensor of its own."""
    found = []
    for value in graph.outputs:
        layout: Layout = plain(value.type.rank)
        tensor = store.get(value, layout)
        if tensor in taken:
            tensor = store.copied(tensor, value.name)
        taken.add(tensor)
        found.append((value.name, tensor))
    return found
