"""Blocks in every spelling fold to one and the same graph, whatever they are; what only looks like one stays."""

from __future__ import annotations

import hashlib
import runpy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edgesmith.ir.interpret import run
from edgesmith.ir.passes.pipelines import run_pipeline
from edgesmith.ir.rewrite import COMMUTATIVE

SPELLINGS = runpy.run_path(str(Path(__file__).with_name("spellings.py")))
STRUCTURES = {
    name: value
    for file in ("structure_spellings.py", "mixer_spellings.py")
    for name, value in runpy.run_path(str(Path(__file__).with_name(file))).items()
}
Speller, spelt, recognised = (SPELLINGS[name] for name in ("Speller", "spelt", "recognised"))
SIDE, WIDTH, TOKENS = (STRUCTURES[name] for name in ("SIDE", "WIDTH", "TOKENS"))
IMAGE, CHANNELS, ROWS = (1, SIDE, SIDE, WIDTH), (1, WIDTH, SIDE, SIDE), (1, TOKENS, WIDTH)
PIXELS = (1, SIDE * SIDE, WIDTH)

FOUND = {
    "window_attention": (IMAGE, {"Attention": 1, "Linear": 4, "Reshape": 4, "Transpose": 2}),
    "shifted_window_attention": (
        IMAGE,
        {"Attention": 1, "Linear": 4, "Reshape": 4, "Transpose": 2, "Split": 4, "Concat": 4},
    ),
    "mask_unit_attention": (
        (1, 64, WIDTH),
        {"Attention": 1, "Linear": 4, "Reshape": 5, "Transpose": 2, "ReduceMax": 1},
    ),
    "cross_covariance_attention": (
        ROWS,
        {"Attention": 1, "Linear": 4, "RMSNorm": 2, "Mul": 1, "Reshape": 6, "Transpose": 4},
    ),
    "talking_heads": (
        ROWS,
        {"Linear": 4, "MatMul": 2, "Softmax": 1, "Conv": 2, "Add": 1, "Reshape": 4, "Transpose": 4},
    ),
    "linear_attention": (
        ROWS,
        {"Linear": 4, "MatMul": 3, "Relu": 2, "Sum": 1, "Add": 1, "Div": 1, "Reshape": 4, "Transpose": 4},
    ),
    "rotary_attention": (
        (1, TOKENS, 8),
        {"Attention": 1, "Linear": 3, "Reshape": 4, "Split": 2, "Concat": 2, "Mul": 4, "Add": 2},
    ),
    "response_norm": (
        CHANNELS,
        {"Mul": 3, "Sum": 1, "Sqrt": 1, "Mean": 1, "Add": 3, "Div": 1},
    ),
    "squeeze_excite": (CHANNELS, {"Mean": 1, "Conv": 2, "Relu": 1, "Sigmoid": 1, "Mul": 1}),
    "gated_linear": (ROWS, {"Linear": 3, "Silu": 1, "Mul": 1}),
    "separable_attention": (CHANNELS, {"Conv": 1, "Split": 1, "Softmax": 1, "Mul": 2, "Sum": 1, "Relu": 1}),
    "inner_transformer": (ROWS, {"Attention": 1, "Linear": 5, "LayerNorm": 2, "Add": 1, "Reshape": 2}),
    "pooling_mixer": (CHANNELS, {"GroupNorm": 1, "AveragePool": 1, "Sub": 1, "Mul": 1, "Add": 1}),
    "spatial_gate": (ROWS, {"Linear": 4, "LayerNorm": 1, "Mul": 1, "Transpose": 2}),
    "shared_keys_attention": (CHANNELS, {"Attention": 1, "Conv": 5, "Reshape": 4, "Transpose": 4}),
    "linear_attention_by_head": (
        ROWS,
        {"Linear": 5, "MatMul": 3, "Relu": 2, "Sum": 1, "Conv": 1, "Add": 3, "Div": 1, "Reshape": 7, "Transpose": 6},
    ),
    "fewer_keys_attention": (
        PIXELS,
        {"Attention": 1, "Linear": 4, "LayerNorm": 1, "PatchEmbed": 1, "Reshape": 1, "Transpose": 1},
    ),
    "relative_attention": (ROWS, {"Attention": 1, "Linear": 4}),
    "unrolled_embedding": (
        (1, 3, SIDE, SIDE),
        {"PatchEmbed": 1, "Reshape": 2, "Transpose": 1, "Add": 1, "Attention": 1, "Linear": 4, "Mean": 1},
    ),
}
SIMPLIFIED = {
    "class_head": (ROWS, {"Gather": 1, "LayerNorm": 1, "Linear": 1}),
    "distilled_head": (ROWS, {"Slice": 1, "LayerNorm": 1, "Gather": 2, "Linear": 2, "Add": 1}),
    "gated_convolution": (IMAGE, {"Linear": 3, "Silu": 1, "Mul": 1, "Conv": 1, "Transpose": 2}),
    "fewer_queries_attention": (PIXELS, {"Attention": 1, "Linear": 4, "Slice": 1, "Reshape": 2}),
    "ternary_linear": (ROWS, {"Linear": 1}),
    "binarised_linear": (ROWS, {"Linear": 1}),
}
"""Those whose spellings meet after the exact passes only, which decide what weights take in and which tokens stay."""


def described(op):
    """An op and its attributes, numbers to five digits: files hold float32."""
    numbers = {name: f"{v:.5g}" if isinstance(v, float) else v for name, v in op.attributes().items()}
    return f"{type(op).__name__}{numbers}"


def formed(value, arrays, known):
    """A digest of what a value is, and the constants in the order in which they are read."""
    if value in known:
        return known[value]
    if value.data is not None:  # axes of one in front say nothing where operands are broadcast
        shape = value.shape[next((i for i, n in enumerate(value.shape) if n != 1), value.type.rank) :]
        arrays.append(value.data.reshape(shape))
        return f"constant {shape}"
    node = value.producer
    if node is None:
        return "input"
    parts = []
    for operand in node.inputs:
        own = []
        parts.append((formed(operand, own, known) if operand is not None else "none", own))
    if isinstance(node.op, COMMUTATIVE):
        parts.sort(key=lambda part: (part[0], [round(float(np.sum(array)), 3) for array in part[1]]))
    for _, own in parts:
        arrays.extend(own)
    text = f"{described(node.op)}.{node.outputs.index(value)}({', '.join(part for part, _ in parts)})"
    known[value] = hashlib.sha1(text.encode()).hexdigest()
    return known[value]


def counted(output):
    """The ops that an output is made of."""
    seen, waiting = {}, [output]
    while waiting:
        node = waiting.pop().producer
        if node is not None and node not in seen:
            seen[node] = None
            waiting += [operand for operand in node.inputs if operand is not None]
    return Counter(type(node.op).__name__ for node in seen)


def require_one_form(graph, ops):
    """Every output is made of these ops, in the same way, out of the same constants."""
    counts = [counted(output) for output in graph.outputs]
    assert len(counts) > 7
    assert counts == [ops] * len(counts)
    forms = []
    for output in graph.outputs:
        arrays = []
        forms.append((formed(output, arrays, {}), arrays))
    assert {form for form, _ in forms} == {forms[0][0]}
    for _, arrays in forms[1:]:
        for ours, first in zip(arrays, forms[0][1], strict=True):
            np.testing.assert_allclose(ours, first, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FOUND)
def test_every_spelling_is_one_graph(name: str, tmp_path: Path) -> None:
    shape, ops = FOUND[name]
    require_one_form(recognised(spelt(STRUCTURES[name], shape, 24), tmp_path, -1, 1, 1e-5), ops)


@pytest.mark.parametrize("name", SIMPLIFIED)
def test_every_spelling_is_simplified_to_one_graph(name: str, tmp_path: Path) -> None:
    shape, ops = SIMPLIFIED[name]
    graph = recognised(spelt(STRUCTURES[name], shape, 24), tmp_path, -1, 1, 1e-5)
    feeds = {value.name: np.random.default_rng(2).uniform(-1, 1, value.shape) for value in graph.inputs}
    expected = run(graph, feeds, "float64")
    run_pipeline(graph)
    for key, value in run(graph, feeds, "float64").items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-5, atol=1e-5)
    require_one_form(graph, ops)


LOOK_ALIKES = runpy.run_path(str(Path(__file__).with_name("structure_look_alikes.py")))["LOOK_ALIKES"]


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_what_only_looks_like_it_stays(name: str, tmp_path: Path) -> None:
    """ONNX Runtime's numbers are kept, and what would have been recognised is not there, or what is written is."""
    write, shapes, kept, absent = LOOK_ALIKES[name]
    sheet = Speller(17)
    outputs = write(sheet, *(sheet.input(*shape) for shape in shapes))
    sheet.outputs += outputs if isinstance(outputs, tuple) else (outputs,)
    graph = recognised(sheet, tmp_path, -1, 1, 1e-5)
    found = Counter(type(node.op).__name__ for node in graph.nodes)
    assert kept <= set(found), f"{kept - set(found)} went"
    assert not absent & set(found), f"{absent & set(found)} was recognised"


def test_ternary_weights_are_three_numbers_of_one_layer(tmp_path: Path) -> None:
    """However signs are made and wherever their factor stands, the weight of the Linear is sign times factor."""
    shape = (1, TOKENS, WIDTH)
    graph = recognised(spelt(STRUCTURES["ternary_linear"], shape, 24), tmp_path, -1, 1, 1e-5)
    run_pipeline(graph)
    for output in graph.outputs:
        assert counted(output) == {"Linear": 1}
        weight = output.producer.input(1).array
        np.testing.assert_allclose(weight, STRUCTURES["TERNARY"] * STRUCTURES["STEP"], rtol=1e-5)
        assert len(np.unique(weight)) == 3


def test_weights_that_layers_share_are_stored_once(tmp_path: Path) -> None:
    sheet = Speller(17)
    weight = sheet.constant(STRUCTURES["PROJECTION"])
    x = sheet.input(1, TOKENS, WIDTH)
    for _ in range(3):
        x = sheet.op("Relu", sheet.op("MatMul", x, weight))
    sheet.outputs.append(x)
    graph = recognised(sheet, tmp_path, -1, 1, 1e-5)
    run_pipeline(graph)
    layers = [node for node in graph.nodes if type(node.op).__name__ == "Linear"]
    assert len(layers) == 3
    assert len({id(node.input(1)) for node in layers}) == 1


def test_folding_into_a_shared_weight_leaves_the_others_theirs(tmp_path: Path) -> None:
    """A factor before one of two layers goes into a copy, or stays where it is."""
    sheet = Speller(17)
    weight = sheet.constant(STRUCTURES["PROJECTION"])
    x = sheet.input(1, TOKENS, WIDTH)
    first = sheet.op("MatMul", sheet.op("Mul", sheet.op("Relu", x), sheet.constant(STRUCTURES["SCALE"])), weight)
    sheet.outputs.append(sheet.op("MatMul", sheet.op("Sigmoid", first), weight))
    graph = recognised(sheet, tmp_path, -1, 1, 1e-5)
    feeds = {"x0": np.random.default_rng(2).uniform(-1, 1, (1, TOKENS, WIDTH)).astype(np.float32)}
    (expected,) = run(graph, feeds).values()
    run_pipeline(graph)
    (actual,) = run(graph, feeds).values()
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
    weights = [node.input(1) for node in graph.nodes if type(node.op).__name__ == "Linear"]
    kept = [value for value in weights if np.allclose(value.array, STRUCTURES["PROJECTION"].T, atol=1e-6)]
    assert len(kept) >= 1


def test_pieces_that_overlap_are_not_computed_twice(tmp_path: Path) -> None:
    """A product that is cut into more than it has stays one."""
    sheet = Speller(17)
    y = STRUCTURES["linear"](sheet, sheet.input(*ROWS), STRUCTURES["QKV"])
    bounds = ((0, 12), (6, 18))
    cuts = [sheet.op("Slice", y, *(STRUCTURES["integers"](sheet, i) for i in (*each, 2))) for each in bounds]
    sheet.outputs.append(sheet.op("Mul", sheet.op("Relu", cuts[0]), cuts[1]))
    graph = recognised(sheet, tmp_path, -1, 1, 1e-5)
    assert counted(graph.outputs[0]) == {"Linear": 1, "Slice": 2, "Relu": 1, "Mul": 1}
