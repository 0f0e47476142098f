"""Activations in every spelling: all become the one op, and what only looks like one stays."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import pytest

from edgesmith.ir.ops.activation import Gelu, HardSigmoid, HardSwish, Sigmoid, Silu

SPELLINGS = runpy.run_path(str(Path(__file__).with_name("spellings.py")))
Speller, spelt, recognised = (SPELLINGS[name] for name in ("Speller", "spelt", "recognised"))
SLOPE = math.sqrt(2 / math.pi)


def half_of(s, x, curve, half=0.5):
    """half * x * (1 + curve): multiplied out or not, the half in each of its places."""
    form = s.choose("sum", "scaled curve", "multiplied out")
    if form == "sum":
        return s.product(x, s.plus(curve, 1.0), half)
    if form == "scaled curve":
        return s.commuted("Mul", x, s.plus(s.times(curve, half), half))
    left = s.times(x, half)
    return s.commuted("Add", left, s.op("Mul", left, curve))


def logistic(s, x):
    """1 / (1 + exp(-x)) as an op, by exp or by tanh."""
    form = s.choose("op", "exp", "tanh")
    if form == "op":
        return s.op("Sigmoid", x)
    if form == "tanh":
        return s.plus(s.times(s.op("Tanh", s.times(x, 0.5)), 0.5), 0.5)
    below = s.plus(s.op("Exp", s.negative(x)), 1.0)
    form = s.choose("Reciprocal", "Div", "Pow")
    operands = {"Reciprocal": [below], "Div": [s.constant(1.0), below], "Pow": [below, s.constant(-1.0)]}[form]
    return s.op(form, *operands)


def gelu_erf(s, x, factor=1.0):
    return half_of(s, x, s.op("Erf", s.times(x, math.sqrt(0.5))), 0.5 * factor)


def cubic(s, x, slope):
    """slope * (x + 0.044715 x^3)."""
    form = s.choose("pow", "products", "left", "factored")
    if form == "factored":
        return s.product(x, s.plus(s.times(s.square(x), 0.044715), 1.0), slope)
    if form == "pow":
        cube = s.times(s.op("Pow", x, s.constant(3.0)), 0.044715)
    elif form == "products":
        cube = s.times(s.commuted("Mul", x, s.square(x)), 0.044715)
    else:
        cube = s.op("Mul", s.op("Mul", s.times(x, 0.044715), x), x)
    return s.times(s.commuted("Add", x, cube), slope)


def gelu_tanh(s, x, factor=1.0):
    if factor != 1 or s.choose(True, False):
        return half_of(s, x, s.op("Tanh", cubic(s, x, SLOPE)), 0.5 * factor)
    return s.commuted("Mul", x, s.op("Sigmoid", cubic(s, x, 2 * SLOPE)))


def gelu_sigmoid(s, x):
    return s.commuted("Mul", x, logistic(s, s.times(x, 1.702)))


def silu(s, x):
    if s.choose(True, False):
        return s.commuted("Mul", x, logistic(s, x))
    below = s.plus(s.op("Exp", s.negative(x)), 1.0)
    return s.op("Div", x, below)


def clipped(s, x, low, high):
    """min(max(x, low), high)."""
    form = s.choose("Clip", "MinMax", "MaxMin", "Relu")
    if form == "Clip" or (form == "Relu" and low != 0):
        return s.op("Clip", x, s.constant(low), s.constant(high))
    if form == "Relu":
        return s.op("Min", s.op("Relu", x), s.constant(high))
    if form == "MinMax":
        return s.commuted("Min", s.commuted("Max", x, s.constant(low)), s.constant(high))
    return s.commuted("Max", s.commuted("Min", x, s.constant(high)), s.constant(low))


def hard_swish(s, x, factor=1.0):
    form = s.choose("six", "centred") if factor != 1 else s.choose("six", "centred", "op", "unit")
    if form == "op":
        return s.commuted("Mul", x, s.op("HardSigmoid", x, alpha=1 / 6, beta=0.5))
    if form == "six":
        return s.product(x, clipped(s, s.plus(x, 3.0), 0.0, 6.0), factor / 6)
    if form == "unit":
        return s.commuted("Mul", x, clipped(s, s.plus(s.times(x, 1 / 6), 0.5), 0.0, 1.0))
    return s.product(x, s.plus(clipped(s, x, -3.0, 3.0), 3.0), factor / 6)


def hard_sigmoid(s, x):
    if s.choose(True, False):
        return s.times(clipped(s, s.plus(x, 3.0), 0.0, 6.0), 1 / 6)
    return clipped(s, s.plus(s.times(x, 1 / 6), 0.5), 0.0, 1.0)


FAMILIES = {
    gelu_erf: Gelu("none"),
    gelu_tanh: Gelu("tanh"),
    gelu_sigmoid: Gelu("sigmoid"),
    silu: Silu(),
    hard_swish: HardSwish(),
    hard_sigmoid: HardSigmoid(1 / 6, 0.5),
}


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_every_spelling_is_the_one_op(family, opset: int, tmp_path: Path) -> None:
    """At least fifty of each: one node is left of every one, on the input itself."""
    sheet = spelt(family, (2, 5, 6), opset=opset)
    assert len(sheet.outputs) >= 50
    graph = recognised(sheet, tmp_path)
    assert [node.op for node in graph.nodes] == [FAMILIES[family]] * len(sheet.outputs)
    assert [out.producer.input(0) for out in graph.outputs] == graph.inputs


def test_the_logistic_function_itself(tmp_path: Path) -> None:
    """By exp or by tanh it is Sigmoid."""
    graph = recognised(spelt(logistic, (2, 5, 6)), tmp_path)
    assert {type(node.op) for node in graph.nodes} == {Sigmoid} and len(graph.nodes) == len(graph.outputs)


@pytest.mark.parametrize("family", [gelu_erf, gelu_tanh, hard_swish], ids=lambda f: f.__name__)
@pytest.mark.parametrize("factor", [2.0, -0.3])
def test_a_factor_that_is_not_one_stands_after_the_op(family, factor: float, tmp_path: Path) -> None:
    """Simplifiers multiply GELU's half into the next layer; what they leave is GELU times a number."""
    sheet = spelt(lambda s, x: family(s, x, factor), (2, 3, 4), most=40)
    graph = recognised(sheet, tmp_path)
    assert [type(out.producer.op).__name__ for out in graph.outputs] == ["Mul"] * len(graph.outputs)
    assert [out.producer.input(0).producer.op for out in graph.outputs] == [FAMILIES[family]] * len(graph.outputs)


def negatives(s):
    """What looks like an activation."""
    x, y = s.input(2, 6), s.input(2, 6)
    erf, wide = s.op("Erf", s.times(x, math.sqrt(0.5))), s.op("Erf", s.times(x, 0.6))
    yield "erf of something else", s.product(x, s.plus(wide, 1.0), 0.5)
    yield "the other tail", s.product(x, s.plus(s.negative(erf), 1.0), 0.5)
    yield "a shifted curve", s.product(x, s.plus(s.op("Erf", s.times(x, math.sqrt(0.5))), 1.01), 0.5)
    yield "a shifted value", s.product(s.plus(x, 1.0), s.plus(s.op("Erf", s.times(x, math.sqrt(0.5))), 1.0), 0.5)
    yield "the curve of another value", s.product(y, s.plus(s.op("Erf", s.times(x, math.sqrt(0.5))), 1.0), 0.5)
    power = s.times(s.op("Pow", x, s.constant(3.0)), 0.05)
    yield "another cubic", half_of(s, x, s.op("Tanh", s.times(s.op("Add", x, power), SLOPE)))
    power = s.times(s.square(x), 0.044715)
    yield "a square for the cube", half_of(s, x, s.op("Tanh", s.times(s.op("Add", x, power), SLOPE)))
    yield "another slope", half_of(s, x, s.op("Tanh", cubic(s, x, 0.8)))
    yield "a steeper gate", s.op("Mul", x, s.op("Sigmoid", s.times(x, 1.5)))
    yield "the gate of another value", s.op("Mul", y, s.op("Sigmoid", s.times(x, 1.0001)))
    yield "a square under the gate", s.op("Mul", s.square(x), s.op("Sigmoid", x))
    yield "a sum with the gate", s.op("Add", x, s.op("Sigmoid", x))
    yield "a lower ceiling", s.product(x, clipped(s, s.plus(x, 3.0), 0.0, 5.0), 1 / 6)
    yield "another knee", s.product(x, clipped(s, s.plus(x, 2.5), 0.0, 6.0), 1 / 6)
    yield "no floor", s.product(x, s.op("Min", s.plus(x, 3.0), s.constant(6.0)), 1 / 6)


def test_look_alikes_stay(tmp_path: Path) -> None:
    """Each breaks one property; no activation appears, and the numbers stay."""
    sheet = Speller()
    sheet.outputs = [value for _, value in negatives(sheet)]
    graph = recognised(sheet, tmp_path)
    kinds = {type(op) for op in FAMILIES.values()}
    assert not [node for node in graph.nodes if type(node.op) in kinds]


def test_an_inner_value_that_is_read_elsewhere_stays(tmp_path: Path) -> None:
    """The curve is an output too: fusing would compute it twice."""
    sheet = Speller()
    x = sheet.input(2, 6)
    erf = sheet.op("Erf", sheet.times(x, math.sqrt(0.5)))
    sheet.outputs = [half_of(sheet, x, erf), erf]
    graph = recognised(sheet, tmp_path)
    assert not any(isinstance(node.op, Gelu) for node in graph.nodes)
