"""A layout for every value, chosen for the whole graph at once so that as little as possible is moved.

The choice is a sum of costs over pairs of variables: which form each unit takes, and in which layouts each value is
kept. Eliminating the variables one by one, each into a table over its neighbours, gives the least sum exactly; networks
are nearly chains, so the tables stay small. Source: Dechter, Bucket elimination, Artificial Intelligence 113, 1999.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.graph import Array, Graph, Value
from ...ir.passes.quantise.channels_last import Layout, plain
from .eliminate import Problem
from .forms import Form, conversion, forms
from .units import Unit

__all__ = ["Plan", "assign"]

MOST_LAYOUTS = 6
"""Layouts considered per value; more than three never occurred in a real network."""

MOST_KEPT = 3
"""Layouts in which one value is kept at once."""

Kept = tuple[Layout, ...]


@dataclass(frozen=True)
class Plan:
    """What was decided.

    Attributes:
        forms: By unit.
        cost: The sum that was minimised, see `forms.TRANSPOSE`.
        optimal: Whether no other choice among the layouts considered costs less.
    """

    forms: Mapping[Unit, Form]
    cost: float
    optimal: bool


def assign(graph: Graph, units: Sequence[Unit], ports: Mapping[Value, Layout]) -> Plan:
    """Choose all layouts.

    Args:
        graph: Its inputs and outputs have the layouts `ports`, by default the graph's own.
        units: All its units, in order.
        ports: Layouts of inputs that the caller gives otherwise.
    """
    known = _known(graph, units, ports)
    choices = {unit: _within(forms(unit, known), unit, known) for unit in units}
    problem = Problem()
    for index, unit in enumerate(units):
        problem.variable(("unit", index), np.array([form.cost for form in choices[unit]]))
    makers = {value: (index, at) for index, unit in enumerate(units) for at, value in enumerate(unit.outputs)}
    readers: dict[Value, list[tuple[int, int]]] = {}
    for index, unit in enumerate(units):
        for at, operand in enumerate(unit.inputs):
            if operand is not None and operand.data is None:
                readers.setdefault(operand, []).append((index, at))
    for value in known:
        if value not in readers and value not in graph.outputs:
            continue
        kept = _kept(known[value], ports.get(value) if value not in makers else None)
        if value in graph.outputs:
            kept = [each for each in kept if plain(value.type.rank) in each]
        variable = ("value", value.name)
        problem.variable(variable, _standing(value, kept, ports, value in makers))
        if value in makers:
            index, at = makers[value]
            made = [form.outputs[at] for form in choices[units[index]]]
            problem.pair(("unit", index), variable, _conversions(value, made, kept))
        for index, at in readers.get(value, ()):
            taken = [form.inputs[at] for form in choices[units[index]]]
            table = [[0.0 if layout in each else np.inf for layout in taken] for each in kept]
            problem.pair(variable, ("unit", index), np.array(table))
    chosen, cost, optimal = problem.solve()
    return Plan({unit: choices[unit][chosen["unit", index]] for index, unit in enumerate(units)}, cost, optimal)


def _known(graph: Graph, units: Sequence[Unit], ports: Mapping[Value, Layout]) -> dict[Value, list[Layout]]:
    """Layouts worth considering: the graph's own, what operators require, and what these become on their way."""
    values = [*graph.inputs, *(value for unit in units for value in unit.outputs)]
    known = {value: [plain(value.type.rank)] for value in values}
    for value, layout in ports.items():
        known[value] = list(dict.fromkeys((layout, *known[value])))
    for _ in range(2 * len(units) + 2):
        before = sum(map(len, known.values()))
        for unit in (*units, *reversed(units)):
            for value, found in itertools.chain(*(form.ports(unit) for form in forms(unit, known))):
                if found not in known[value] and len(known[value]) < MOST_LAYOUTS:
                    known[value].append(found)
        if sum(map(len, known.values())) == before:
            break
    return known


def _within(found: Sequence[Form], unit: Unit, known: Mapping[Value, Sequence[Layout]]) -> list[Form]:
    """The forms all of whose layouts are considered."""
    return [form for form in found if all(layout in known[value] for value, layout in form.ports(unit))]


def _kept(layouts: Sequence[Layout], given: Layout | None) -> list[Kept]:
    """Sets of layouts in which a value may be kept; of an input the given one always is."""
    sizes = range(1, min(MOST_KEPT, len(layouts)) + 1)
    found = [each for size in sizes for each in itertools.combinations(layouts, size)]
    return [each for each in found if given is None or given in each]


def _standing(value: Value, kept: Sequence[Kept], ports: Mapping[Value, Layout], made: bool) -> Array:
    """Costs of an input's layouts, which no unit makes."""
    if made:
        return np.zeros(len(kept))
    given = ports.get(value, plain(value.type.rank))
    costs: Array = _conversions(value, [given], kept)[0]
    return costs


def _conversions(value: Value, made: Sequence[Layout], kept: Sequence[Kept]) -> Array:
    """What it costs to keep a value in these layouts when it is made in one of them."""
    return np.array([
        [sum(conversion(value, one, layout) for layout in each) if one in each else np.inf for each in kept]
        for one in made
    ])  # fmt: skip
