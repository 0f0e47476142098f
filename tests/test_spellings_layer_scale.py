"""Layer scale in every spelling disappears into the layer before it; factors that are none stay."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path

import numpy as np
from onnx import TensorProto, numpy_helper

from edgesmith.ir.graph import Graph
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.conv import Conv
from edgesmith.ir.ops.elementwise import Add, Div, Mul
from edgesmith.ir.ops.linear import Linear
from edgesmith.ir.passes.pipelines import run_pipeline

SPELLINGS = runpy.run_path(str(Path(__file__).with_name("spellings.py")))
Speller, spelt, recognised = (SPELLINGS[name] for name in ("Speller", "spelt", "recognised"))
TOKENS, IMAGE, WIDTH = (2, 5, 6), (2, 6, 4, 5), 6


def weight(s, *shape):
    return s.constant(s.rng.normal(0, 0.5, shape))


def gamma(s, *shapes):
    """A factor per channel: a weight of some shape, the value of a Constant, or made by an op out of one."""
    shape = s.choose(*shapes)
    array = s.rng.uniform(0.2, 2, shape).astype(np.float32)
    form = s.choose("weight", "constant", "expanded", "reshaped", "cast")
    if form == "constant":
        return s.op("Constant", value=numpy_helper.from_array(array))
    if form == "expanded":
        return s.op("Expand", s.constant(array), s.constant([*shapes[-1][:-1], shapes[-1][-1]], np.int64))
    if form == "reshaped":
        return s.op("Reshape", s.constant(array.reshape(-1)), s.constant(shape, np.int64))
    return s.op("Cast", s.constant(array, np.float64), to=TensorProto.FLOAT) if form == "cast" else s.constant(array)


def scaled(s, y, *shapes):
    """Times gamma, in either order, as a quotient, or twice."""
    form = s.choose("once", "quotient", "twice", "between")
    if form == "quotient":
        return s.op("Div", y, gamma(s, *shapes))
    y = s.commuted("Mul", y, gamma(s, *shapes))
    if form == "between":
        y = s.op(s.choose("Identity", "Dropout"), y)
    return s.commuted("Mul", y, gamma(s, *shapes)) if form in ("twice", "between") else y


def after_linear(s, x):
    """A branch over tokens: a product without bias, with one before or after the factor, or a Gemm of all rows."""
    form, shapes = s.choose("product", "bias", "late bias", "matrix"), [(6,), (1, 6), (1, 1, 6)]
    if form == "matrix":
        rows = s.op("Reshape", x, s.constant([10, 6], np.int64))
        y = s.op("Gemm", rows, weight(s, 6, 6), weight(s, 6), transB=1)
        if s.choose(True, False):
            y = s.op("Reshape", scaled(s, y, (6,), (1, 6)), s.constant(TOKENS, np.int64))
        else:
            y = scaled(s, s.op("Reshape", y, s.constant(TOKENS, np.int64)), *shapes)
        return s.commuted("Add", x, y)
    y = s.op("MatMul", x, weight(s, 6, 6))
    y = s.commuted("Add", y, weight(s, 6)) if form == "bias" else y
    y = scaled(s, y, *shapes)
    y = s.commuted("Add", y, weight(s, 6)) if form == "late bias" else y
    return s.commuted("Add", x, y)


def after_conv(s, x):
    """A branch over images: channels first, or last on the way."""
    kernel, groups = s.choose((1, 1), (3, 1), (3, 6))
    operands = [weight(s, 6, 6 // groups, kernel, kernel), *([weight(s, 6)] if s.choose(True, False) else [])]
    y = s.op("Conv", x, *operands, pads=[kernel // 2] * 4, group=groups)
    form = s.choose("first", "last", "tokens")
    if form == "first":
        y = scaled(s, y, (6, 1, 1), (1, 6, 1, 1))
    elif form == "last":
        y = scaled(s, s.op("Transpose", y, perm=[0, 2, 3, 1]), (6,), (1, 1, 1, 6))
        y = s.op("Transpose", y, perm=[0, 3, 1, 2])
    else:
        rows = s.op("Reshape", y, s.constant([2, 6, 20], np.int64))
        y = scaled(s, s.op("Transpose", rows, perm=[0, 2, 1]), (6,), (1, 1, 6))
        y = s.op("Reshape", s.op("Transpose", y, perm=[0, 2, 1]), s.constant(IMAGE, np.int64))
    return s.commuted("Add", x, y)


def simplified(sheet, folder: Path) -> Graph:
    """The graph after the exact passes, which compute what was imported."""
    graph = recognised(sheet, folder, -1, 1)
    feeds = {value.name: np.random.default_rng(2).normal(0, 1, value.shape) for value in graph.inputs}
    before = run(graph, feeds, "float64")
    run_pipeline(graph)
    for name, after in run(graph, feeds, "float64").items():
        np.testing.assert_allclose(after, before[name], rtol=1e-5, atol=1e-5)
    return graph


def factors(graph: Graph) -> int:
    return sum(isinstance(node.op, Mul | Div) for node in graph.nodes)


def test_every_spelling_is_a_layer_and_a_sum(tmp_path: Path) -> None:
    sheet = spelt(after_linear, TOKENS, most=60)
    graph = simplified(sheet, tmp_path)
    assert Counter(type(node.op) for node in graph.nodes) == {Linear: 60, Add: 60}


def test_every_spelling_over_images_is_one_convolution(tmp_path: Path) -> None:
    """The residual is a tap of it."""
    sheet = spelt(after_conv, IMAGE, most=60)
    graph = simplified(sheet, tmp_path)
    assert Counter(type(node.op) for node in graph.nodes) == {Conv: 60}


def negatives(s):
    """Factors that no layer can take."""
    x, image, other = s.input(*TOKENS), s.input(*IMAGE), s.input(*TOKENS)

    def layer():
        return s.op("MatMul", x, weight(s, 6, 6))

    def conv():
        return s.op("Conv", image, weight(s, 6, 6, 1, 1))

    def residual(y, gain, kind="Mul"):
        return s.op("Add", x, s.op(kind, y, gain))

    y = layer()
    yield from (residual(y, weight(s, 6)), y)  # the branch is an output too
    y = layer()
    yield from (residual(y, weight(s, 6)), residual(y, other))  # the branch is read twice
    yield residual(layer(), weight(s, 5, 1))  # a factor per token
    yield residual(layer(), weight(s, 1, 5, 6))  # per token and channel
    yield residual(layer(), weight(s, 2, 1, 1))  # per image
    yield residual(layer(), other)  # that depends on the data
    yield residual(weight(s, 6), layer(), "Div")  # divided by the branch
    yield residual(s.op("Sin", layer()), weight(s, 6))  # a curve stands between
    yield s.op("Add", image, s.op("Mul", conv(), weight(s, 4, 1)))  # a factor per row of pixels
    yield s.op("Add", image, s.op("Mul", conv(), weight(s, 5)))
    pooled = s.op("ReduceMax", conv(), axes=[2, 3], keepdims=1)
    yield s.op("Add", image, s.op("Mul", pooled, weight(s, 6, 1, 1)))  # of a maximum


def test_factors_that_are_no_layer_scale_stay(tmp_path: Path) -> None:
    """All twelve, one an output; they compute what they did."""
    sheet = Speller()
    sheet.outputs = list(negatives(sheet))
    assert factors(simplified(sheet, tmp_path)) == len(sheet.outputs) - 1 == 12


def test_a_weight_that_two_layers_share_is_not_scaled_for_one(tmp_path: Path) -> None:
    """The factor stays, or the layers would differ from each other."""
    sheet = Speller()
    x, w = sheet.input(*TOKENS), weight(sheet, 6, 6)
    y = sheet.op("Mul", sheet.op("MatMul", x, w), weight(sheet, 6))
    sheet.outputs = [sheet.op("Add", y, sheet.op("MatMul", sheet.op("Relu", y), w))]
    graph = simplified(sheet, tmp_path)
    assert factors(graph) == 1 and len({node.input(1) for node in graph.nodes if len(node.inputs) > 2}) <= 1
