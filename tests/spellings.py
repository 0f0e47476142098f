"""Writes one meaning into an ONNX file in all its spellings, side by side, each on an input of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edgesmith.frontend import load
from edgesmith.ir.graph import Graph
from edgesmith.ir.interpret import run

Spelling = Callable[["Speller", str], str]


class Choices:
    """Answers to the questions of a spelling: those given, then the first way, or a drawn one."""

    def __init__(self, given: Sequence[int] = (), draw: np.random.Generator | None = None) -> None:
        self.given, self.draw = given, draw
        self.made: list[tuple[int, int]] = []

    def pick(self, ways: int) -> int:
        """Which of so many ways."""
        place = len(self.made)
        first = 0 if self.draw is None else int(self.draw.integers(ways))
        self.made.append((self.given[place] if place < len(self.given) else first, ways))
        return self.made[-1][0]

    def following(self) -> list[int] | None:
        """The answers of the next combination; None after the last."""
        made = list(self.made)
        while made and made[-1][0] == made[-1][1] - 1:
            made.pop()
        return [answer for answer, _ in made[:-1]] + [made[-1][0] + 1] if made else None


class Speller:
    """Adds ONNX nodes; every free choice of spelling is asked of `choose`."""

    def __init__(self, opset: int = 17) -> None:
        self.opset, self.nodes, self.weights = opset, [], []
        self.inputs, self.outputs = [], []
        self.choices = Choices()
        self.rng = np.random.default_rng(opset)

    def choose(self, *ways: object) -> object:
        """One of the ways."""
        return ways[self.choices.pick(len(ways))]

    def op(self, kind: str, *operands: str, **attributes: object) -> str:
        """The result of one node; several results by `outputs`."""
        count = int(attributes.pop("outputs", 1))
        names = [f"v{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(kind, list(operands), names, f"{kind}_{len(self.nodes)}", **attributes))
        return names if count > 1 else names[0]

    def constant(self, array: object, dtype: type = np.float32) -> str:
        """A weight."""
        self.weights.append(numpy_helper.from_array(np.asarray(array, dtype), f"w{len(self.weights)}"))
        return self.weights[-1].name

    def input(self, *shape: int) -> str:
        """An input."""
        name = f"x{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def spell(self, spelling: Spelling, *shape: int) -> None:
        """Add one spelling as an output."""
        self.outputs.append(spelling(self, self.input(*shape)))

    # ---- arithmetic in all its forms ----

    def number(self, value: float) -> str:
        return self.constant(np.full((1,) * self.choose(0, 1), value))

    def commuted(self, kind: str, a: str, b: str) -> str:
        return self.op(kind, *self.choose((a, b), (b, a)))

    def plus(self, a: str, value: float) -> str:
        if value < 0 and self.choose(True, False):
            return self.op("Sub", a, self.constant(-value))
        return self.commuted("Add", a, self.constant(value))

    def times(self, a: str, value: float) -> str:
        form = self.choose("Mul", "Div")
        return self.op(form, a, self.constant(value if form == "Mul" else 1 / value))

    def negative(self, a: str) -> str:
        form = self.choose("Neg", "Mul", "Sub")
        if form == "Sub":
            return self.op("Sub", self.constant(0.0), a)
        return self.op("Neg", a) if form == "Neg" else self.op("Mul", a, self.constant(-1.0))

    def square(self, a: str) -> str:
        return self.op("Pow", a, self.constant(2.0)) if self.choose(True, False) else self.op("Mul", a, a)

    def product(self, a: str, b: str, value: float) -> str:
        """value * a * b in one of three associations."""
        place = self.choose("both", "left", "right")
        if place == "both":
            return self.times(self.commuted("Mul", a, b), value)
        left, right = (self.times(a, value), b) if place == "left" else (a, self.times(b, value))
        return self.commuted("Mul", left, right)

    def mean(self, a: str, axes: list[int], kind: str = "ReduceMean", keep: int = 1) -> str:
        if self.opset >= 18:
            return self.op(kind, a, self.constant(axes, np.int64), keepdims=keep)
        return self.op(kind, a, axes=axes, keepdims=keep)

    def model(self) -> onnx.ModelProto:
        """The file."""
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.outputs]
        graph = helper.make_graph(self.nodes, "spellings", self.inputs, outputs, self.weights)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def combinations(spelling: Spelling, shape: tuple[int, ...], most: int) -> list[Choices]:
    """All combinations, or that many different ones drawn when there are more."""
    found: dict[tuple[tuple[int, int], ...], None] = {}
    following: list[int] | None = []
    while following is not None and len(found) <= most:
        made = _choices(spelling, shape, Choices(following))
        found[tuple(made.made)] = None
        following = made.following()
    if following is not None:
        found.clear()
        for seed in range(20 * most):
            found[tuple(_choices(spelling, shape, Choices((), np.random.default_rng(seed))).made)] = None
            if len(found) == most:
                break
    return [Choices([answer for answer, _ in made]) for made in found]


def _choices(spelling: Spelling, shape: tuple[int, ...], choices: Choices) -> Choices:
    trial = Speller()
    trial.choices = choices
    trial.spell(spelling, *shape)
    return choices


def spelt(spelling: Spelling, shape: tuple[int, ...], most: int = 80, opset: int = 17) -> Speller:
    """A sheet with all spellings, or with that many drawn ones."""
    sheet = Speller(opset)
    for choices in combinations(spelling, shape, most):
        sheet.choices = choices
        sheet.spell(spelling, *shape)
    return sheet


def recognised(sheet: Speller, folder: Path, low: float = -4.0, high: float = 4.0, tolerance: float = 2e-5) -> Graph:
    """The imported graph, whose outputs are those that ONNX Runtime computes from the file."""
    path = folder / "spellings.onnx"
    onnx.save(sheet.model(), path)
    graph = load(path)
    rng = np.random.default_rng(1)
    feeds = {
        each.name: rng.uniform(low, high, [d.dim_value for d in each.type.tensor_type.shape.dim]).astype(np.float32)
        for each in sheet.inputs
    }
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    for expected, actual in zip(session.run(None, feeds), run(graph, feeds).values(), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=tolerance * 10, atol=tolerance * np.abs(expected).max())
    return graph
