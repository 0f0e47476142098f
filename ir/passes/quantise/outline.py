"""The integer graph of a network by its shapes alone: every type in it is right, and no number means anything.

What memory it takes depends on nothing else. Ranges differ from value to value, so that no two share a scale by chance;
weights are one integer that lies nowhere. Where a runtime makes integers out of pairs, these are placed alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ...graph import Array, Graph, Node, Quant, Value
from ...hollow import hollow
from ...integer_codes import WITNESS
from . import observers
from .calibrate import Calibration, Statistics
from .choose_scales import WIDE, Form, Read, ScaleChooser
from .convert import QuantOptions, lower_all
from .fit_weights import Fitted
from .integer_lowering import Lowering
from .observe import Observed
from .qdq import QdqOptions, measured, quantise_operands

__all__ = ["outline", "paired"]

SCALE = 1e-4
"""Of every weight; multipliers to scales of ranges near one exist."""

STEP = 2.0**-20
"""By which the range of one value is larger than that of another."""


def outline(prepared: Graph, stream: str) -> Graph:
    """The integer graph that `convert` makes of a prepared float graph and any calibration data, in its types.

    Constants that are equal only after rounding are not joined here.

    Args:
        prepared: As `legalise_integer.prepare` leaves it, with nothing in it that has no integer form.
        stream: "int8" or "int16", for the residual stream.
    """
    source, options = hollow(prepared), QuantOptions(stream=stream)
    lowering = _Lowering(source, _Chooser(source, stream, options), options.weights)
    lower_all(lowering)
    return lowering.graph


def paired(graph: Graph, form: Callable[[Observed], QdqOptions]) -> Graph:
    """A copy with the pairs that `qdq.quantise_operands` places where every layer may be in integers.

    Args:
        graph: A float graph; it is only read.
        form: What the back end wants, told of ranges that nobody measured.
    """
    made = graph.copy()
    seen = {name: _range(place) for place, name in enumerate(sorted(measured(graph)))}
    quantise_operands(made, seen, replace(form(seen), observer="minmax", weights="minmax", pairs=False))
    return made


def _range(place: int) -> Statistics:
    """Around zero, and another one for each place."""
    return Statistics(-0.75 - place * STEP, 1 + place * STEP)


class _Chooser(ScaleChooser):
    """Forms as calibration would give them, by ranges that nobody measured."""

    def __init__(self, graph: Graph, stream: str, options: QuantOptions) -> None:
        super().__init__(graph, Calibration(graph, {}, []), stream, options.output, "minmax")
        self._seen: dict[int, Statistics] = {}

    def statistics(self, value: Value) -> Statistics:
        """A range around zero that no other value has."""
        if id(value) not in self._seen:
            self._seen[id(value)] = _range(len(self._seen))
        return self._seen[id(value)]

    def _balanced(self, value: Value, whole: Form, reads: list[Read]) -> Form:
        return whole

    def _wide(self, value: Value, reads: list[Read]) -> Form:
        return Form("int16", observers.symmetric(self.statistics(value).largest, WIDE))


class _Lowering(Lowering):
    """The same graph without fitting any weight."""

    def fitted(self, node: Node, scaled: Callable[[], Array], form: Form) -> Fitted:
        """One integer in the place of all, which tells how to store them; biases are 0 where all must be."""
        outputs = len(node.input(1).array)
        witness = np.int8(WITNESS[self.code(node)])
        weights = np.broadcast_to(witness, (outputs, node.input(1).type.size // outputs))
        bias = node.optional(2)
        shifted = form.quant.zero_point != 0 or (bias is not None and bias.array.any())
        return Fitted(weights, np.full(outputs, int(shifted), np.int32), np.full(outputs, SCALE), 1)

    def constant(self, array: Array, name: str, quant: Quant | None = None) -> Value:
        """A constant of its own: whether others will equal it, its numbers do not say here."""
        return self.graph.constant(array, name, quant)
