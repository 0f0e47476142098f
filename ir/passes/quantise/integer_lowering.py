"""The half-built integer graph: where each float value already is, in which layout, and how to read it as needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...graph import Array, Graph, Node, Quant, Type, Value
from ...integer import multiplier
from ...op import Op
from ...ops import activation, shape
from ...ops.integer import LEAST, MOST, QRequantise
from . import observers
from .channels_last import IMAGE, Layout, arranged, plain, same_order
from .choose_scales import Form, ScaleChooser
from .codes import code_of, noted_codes
from .fit_weights import Fitted, fit


@dataclass(frozen=True)
class Placed:
    """An integer value that stands for a float value: its axes' order and its form."""

    value: Value
    layout: Layout
    form: Form


@dataclass(frozen=True)
class Target:
    """What a node has to store: the float value it makes, as which integers, clamped to [low, high]."""

    value: Value
    form: Form
    low: int = LEAST
    high: int = MOST


class Lowering:
    """Builds the integer graph of one prepared float graph, node by node."""

    def __init__(self, source: Graph, chooser: ScaleChooser, weights: str, code: str = "int8") -> None:
        """`weights` is the observer of weights, `code` what they are stored in where the graph notes nothing else."""
        self.source, self.chooser, self.weights, self._code = source, chooser, weights, code
        self._codes = noted_codes(source)
        self.graph = Graph(source.name)
        self.placed: dict[int, Placed] = {}
        self.twins: dict[str, tuple[Value, Layout]] = {}
        self._copies: dict[tuple[int, Form], Placed] = {}
        self._constants: dict[tuple[object, ...], Value] = {}
        for value in source.inputs:
            self._input(value)

    def _input(self, value: Value) -> None:
        if value.type.numpy.kind != "f":
            return
        form = self.chooser.form(value)
        layout = IMAGE if id(value) in self.chooser.images else plain(len(value.shape))
        made = self.graph.input(value.name, Type(form.dtype, arranged(value.shape, layout), form.quant))
        self.put(value, made, layout, form)

    # ---- reading ----

    def read(self, value: Value, layout: Layout | None = None, form: Form | None = None) -> Placed:
        """A computed value, requantised to `form` and brought into `layout` where these are given."""
        placed = self._at(value)
        if form is not None and (form.dtype, form.quant) != (placed.form.dtype, placed.form.quant):
            key = (id(value), form)
            if key not in self._copies:
                self._copies[key] = self._requantise(placed, form)
            placed = self._copies[key]
        return placed if layout is None else self._arrange(value.shape, placed, layout)

    def read_narrow(self, value: Value, layout: Layout | None = None, symmetric: bool = False) -> Placed:
        """The value as int8, with zero point 0 if `symmetric`."""
        form = self._at(value).form
        if form.dtype == "int8" and not (symmetric and form.quant.zero_point):
            return self.read(value, layout)
        return self.read(value, layout, self.chooser.narrow(value, symmetric))

    def layout(self, value: Value) -> Layout:
        """The order in which a value lies now."""
        return self._at(value).layout

    def _at(self, value: Value) -> Placed:
        """Where a value is; a constant read as an activation (a learned query) becomes int16 here."""
        if id(value) not in self.placed and value.is_constant:
            quant = observers.symmetric(float(np.abs(value.array).max(initial=0.0)), MOST)
            made = self.constant(quant.quantise(value.array, "int16"), value.name, quant)
            self.placed[id(value)] = Placed(made, plain(len(value.shape)), Form("int16", quant))
        return self.placed[id(value)]

    def reshaped(self, placed: Placed, float_shape: tuple[int, ...], layout: Layout) -> Placed:
        """A value in its float order, read under another float shape and then brought into `layout`."""
        made = self.graph.add(shape.Reshape(float_shape), placed.value, name=f"{placed.value.name}_stretched")
        return self._arrange(float_shape, Placed(made, plain(len(float_shape)), placed.form), layout)

    def _arrange(self, float_shape: tuple[int, ...], placed: Placed, layout: Layout) -> Placed:
        if layout == placed.layout:
            return placed
        if same_order(float_shape, layout, placed.layout):
            op: Op = shape.Reshape(arranged(float_shape, layout))
            made = placed.value if placed.value.shape == arranged(float_shape, layout) else None
        else:
            op, made = shape.Transpose(tuple(placed.layout.index(axis) for axis in layout)), None
        if made is None:
            producer = placed.value.producer
            sources = producer.sources if producer else ()
            made = self.graph.add(op, placed.value, name=f"{placed.value.name}_arranged", sources=sources)
        return Placed(made, layout, placed.form)

    def _requantise(self, placed: Placed, form: Form) -> Placed:
        zero = placed.form.quant.zero_point
        reach = 128 + abs(zero) if placed.form.dtype == "int8" else 32768
        mult, pre = multiplier(placed.form.scale / form.scale, reach)
        op = QRequantise(form.quant, form.dtype, int(mult), pre, zero, *limits(form))
        sources = placed.value.producer.sources if placed.value.producer else ()
        made = self.graph.add(op, placed.value, name=f"{placed.value.name}_{form.dtype}", sources=sources)
        return Placed(made, placed.layout, form)

    # ---- writing ----

    def target(self, node: Node) -> Target:
        """What the node stores, a clamp that follows it included."""
        after = self.chooser.fused.get(id(node.output))
        value = node.output if after is None else after.output
        form = self.chooser.form(value)
        low, high = limits(form)
        if after is not None:
            op = after.op
            least = op.minimum if isinstance(op, activation.Clip) else 0.0
            most = op.maximum if isinstance(op, activation.Clip) else np.inf
            narrow = form.dtype == "int8"
            if np.isfinite(least) and bound(form, least) > (-128 if narrow else LEAST):
                low = max(low, bound(form, least))
            if np.isfinite(most) and bound(form, most) < (127 if narrow else MOST):
                high = min(high, bound(form, most))
        return Target(value, form, low, high)

    def emit(self, node: Node, op: Op, *operands: Value | None, name: str = "") -> Value:
        """Add a node that stands for `node`, and for the activation fused into it."""
        after = self.chooser.fused.get(id(node.output)) if len(node.outputs) == 1 else None
        sources = node.sources + (after.sources if after else ())
        named = name or (after.output.name if after else node.outputs[0].name)
        made: Value = self.graph.add(op, *operands, name=named, sources=sources)
        return made

    def put(self, value: Value, made: Value, layout: Layout, form: Form) -> None:
        """Record that `made` stands for the float `value`."""
        self.placed[id(value)] = Placed(made, layout, form)
        self.twins[value.name] = (made, layout)

    def code(self, node: Node) -> str:
        """What the weights of a product are stored in."""
        return code_of(node, self._codes, self._code)

    def fitted(self, node: Node, scaled: Callable[[], Array], form: Form) -> Fitted:
        """The weights of a product as integers; `scaled` gives them, [N, ...] times the scale of an x of `form`."""
        bias, real, zero = node.optional(2), scaled(), form.quant.zero_point
        offset = None if bias is None else bias.array
        return fit(real.reshape(len(real), -1), offset, zero, reach(form), self.weights, self.code(node))

    def constant(self, array: Array, name: str, quant: Quant | None = None) -> Value:
        """A parameter of the integer graph; equal arrays are one constant, so shared weights stay shared."""
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        key = (array.dtype.name, array.shape, quant, hashlib.blake2b(array.tobytes()).digest())
        if key not in self._constants:
            self._constants[key] = self.graph.constant(array, name, quant)
        return self._constants[key]

    def finish(self) -> None:
        """Declare the outputs: images with channels last, everything else as in the float graph."""
        for value in self.source.outputs:
            image = id(value) in self.chooser.images
            placed = self.read(value, IMAGE if image else plain(len(value.shape)))
            own = self._own(placed.value, value.name)
            self.twins[value.name] = (own, placed.layout)
            self.graph.output(own, value.name)

    def _own(self, value: Value, name: str) -> Value:
        """The same integers as a value that is no input, no constant and no other output: each output has its name."""
        if value.producer is not None and not any(value is other for other in self.graph.outputs):
            return value
        made: Value = self.graph.add(shape.COPY if value.is_constant else shape.Reshape(value.shape), value, name=name)
        return made


def limits(form: Form) -> tuple[int, int]:
    """The clamp that keeps int16 within the form's own bound."""
    return (LEAST, MOST) if form.dtype == "int8" or form.most >= MOST else (-form.most, form.most)


def bound(form: Form, real: float) -> int:
    """The integer that stands for a clamp's bound; zero is the same one in every channel."""
    return form.quant.zero_point if real == 0 else int(form.quant.quantise(np.array(real), form.dtype))


def reach(form: Form) -> int:
    """The greatest magnitude that an integer of this form can have."""
    if form.dtype == "int8":
        return 128
    return 32768 if form.most >= MOST else form.most
