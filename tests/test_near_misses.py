"""Blocks with one thing changed keep their own numbers: they are never taken for the blocks they were.

Every family of spellings is written in a few drawn ways; one node, operand, number or reader of it is changed, and the
graph must compute the same before and after recognition, and after the exact passes.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgesmith.frontend import imported, recognised
from edgesmith.ir.errors import EdgesmithError, ShapeError
from edgesmith.ir.graph import Graph, Node, Type, Value
from edgesmith.ir.interpret import run
from edgesmith.ir.ops import activation, conv, elementwise, pool
from edgesmith.ir.passes.pipelines import FLOAT, run_pipeline

HERE = Path(__file__).parent
SPELLINGS, STRUCTURES, MIXERS, ATTENTION, NORMS, ACTIVATIONS = (
    SimpleNamespace(**runpy.run_path(str(HERE / f"{name}.py")))
    for name in ("spellings", "structure_spellings", "mixer_spellings", "attention_spellings", "test_spellings_norms",
                 "test_spellings_activations")
)  # fmt: skip
ROWS = (1, STRUCTURES.TOKENS, STRUCTURES.WIDTH)
IMAGE, CHANNELS = (1, STRUCTURES.SIDE, STRUCTURES.SIDE, ROWS[2]), (1, ROWS[2], STRUCTURES.SIDE, STRUCTURES.SIDE)
FAMILIES = {
    **{
        name: (getattr(MIXERS, name), shape)
        for shape, names in {
            ROWS: ("linear_attention_by_head", "relative_attention", "class_head", "distilled_head", "spatial_gate",
                   "binarised_linear", "inner_transformer"),
            (1, 64, ROWS[2]): ("fewer_keys_attention", "fewer_queries_attention"),
            (1, 3, STRUCTURES.SIDE, STRUCTURES.SIDE): ("unrolled_embedding",),
            IMAGE: ("gated_convolution",),
            CHANNELS: ("pooling_mixer", "shared_keys_attention"),
        }.items()
        for name in names
    },
    **{
        name: (getattr(STRUCTURES, name), shape)
        for shape, names in {
            IMAGE: ("window_attention", "shifted_window_attention"),
            (1, 64, ROWS[2]): ("mask_unit_attention",),
            ROWS: ("cross_covariance_attention", "talking_heads", "linear_attention", "gated_linear"),
            (1, ROWS[1], 8): ("rotary_attention",),
            CHANNELS: ("response_norm", "squeeze_excite", "separable_attention"),
        }.items()
        for name in names
    },
    "self_attention": (ATTENTION.self_attention, (ATTENTION.BATCH, ATTENTION.TOKENS, ATTENTION.WIDTH)),
    **{family.__name__: (family, (2, 5, 6)) for family in (*NORMS.FAMILIES, *ACTIVATIONS.FAMILIES)},
}
WAYS = 3
SIBLINGS = {
    elementwise.Add: elementwise.Sub, elementwise.Sub: elementwise.Add, elementwise.Mul: elementwise.Add,
    elementwise.Div: elementwise.Mul, elementwise.Maximum: elementwise.Add, elementwise.Minimum: elementwise.Maximum,
    activation.Relu: activation.Abs, activation.Sigmoid: activation.Tanh, activation.Tanh: activation.Sigmoid,
    activation.Erf: activation.Tanh, activation.Exp: activation.Abs, activation.Sqrt: activation.Abs,
    pool.Mean: pool.Sum, pool.Sum: pool.Mean, pool.ReduceMax: pool.Mean,
}  # fmt: skip


@cache
def written(name: str, way: int, folder: Path) -> Graph:
    """One spelling of a family, op for op."""
    spelling, shape = FAMILIES[name]
    sheet = SPELLINGS.Speller(17)
    sheet.choices = SPELLINGS.Choices(draw=np.random.default_rng(way))
    sheet.spell(spelling, *shape)
    path = folder / f"{name}-{way}.onnx"
    onnx.save(sheet.model(), path)
    return imported(path)


# ---- changes; each gives the value that takes the place of the node's result ----


def sibling(graph: Graph, node: Node, draw: Random) -> Value:
    """Another op of the same form."""
    assume(type(node.op) in SIBLINGS)
    return graph.add(SIBLINGS[type(node.op)](**node.op.attributes()), *node.inputs)


def attribute(graph: Graph, node: Node, draw: Random) -> Value:
    """Another axis, another order, another bound."""
    names = [each.name for each in fields(node.op) if not isinstance(getattr(node.op, each.name), str)]
    assume(names)
    name = draw.choice(names)
    old = getattr(node.op, name)
    if isinstance(old, tuple):
        assume(old)
        if draw.random() < 0.5:
            new = tuple(draw.sample(old, len(old)))
        else:
            place = draw.randrange(len(old))
            new = (*old[:place], old[place] + draw.choice([-1, 1]), *old[place + 1 :])
    else:
        new = not old if isinstance(old, bool) else old + draw.choice([-1, 1])
    return graph.add(replace(node.op, **{name: new}), *node.inputs)


def order(graph: Graph, node: Node, draw: Random) -> Value:
    """Operands in another order; a divisor that is data may be next to nothing, where rounding is all there is."""
    assume(not isinstance(node.op, elementwise.Div))
    given = [value for value in node.inputs if value is not None]
    drawn = iter(draw.sample(given, len(given)))
    return graph.add(node.op, *(None if value is None else next(drawn) for value in node.inputs))


def operand(graph: Graph, node: Node, draw: Random) -> Value:
    """Another value of the same type."""
    index = draw.randrange(len(node.inputs))
    earlier = [value for before in graph.nodes[: graph.nodes.index(node)] for value in before.outputs]
    alike = [v for v in (*graph.inputs, *earlier, *graph.constants) if v.type == node.input(index).type]
    return graph.add(node.op, *(draw.choice(alike) if i == index else v for i, v in enumerate(node.inputs)))


def number(graph: Graph, node: Node, draw: Random) -> Value:
    """A constant with one other element, or all of them."""
    index, array = constant(node, draw)
    if draw.random() < 0.5:
        array = array * 1.25
    else:
        array.reshape(-1)[draw.randrange(array.size)] += 0.5
    made = graph.constant(array.astype(np.float32))
    return graph.add(node.op, *(made if i == index else v for i, v in enumerate(node.inputs)))


def data(graph: Graph, node: Node, draw: Random) -> Value:
    """A constant that depends on what is fed."""
    index, array = constant(node, draw)
    x = graph.inputs[0]
    mean = graph.add(pool.Mean(tuple(range(x.type.rank))), x)
    made = graph.add(elementwise.Add(), graph.constant(array), mean)
    return graph.add(node.op, *(made if i == index else v for i, v in enumerate(node.inputs)))


def constant(node: Node, draw: Random) -> tuple[int, np.ndarray]:
    """Number and data of a real constant that a node reads."""
    found = [(i, v.data.copy()) for i, v in enumerate(node.inputs) if v is not None and v.is_constant]
    found = [(i, array) for i, array in found if array.dtype == np.float32 and array.size]
    assume(found)
    return draw.choice(found)


def reader(graph: Graph, node: Node, draw: Random) -> Value:
    """A second reader: the value is also a result."""
    assume(node.output not in graph.outputs)
    graph.output(node.output)
    return node.output


CHANGES: tuple[Callable[[Graph, Node, Random], Value], ...] = (
    sibling, attribute, order, operand, number, data, reader
)  # fmt: skip


def changed(graph: Graph, change: Callable[[Graph, Node, Random], Value], draw: Random) -> Graph:
    """A copy with one change that leaves every type as it is."""
    made = graph.copy()
    node = draw.choice([each for each in made.nodes if len(each.outputs) == 1])
    try:
        value = change(made, node, draw)
    except (EdgesmithError, ArithmeticError, LookupError, ValueError):
        assume(False)  # operands do not fit the changed op
    if value is not node.output:
        assume(value.type == node.output.type)
        made.replace(node.output, value)
    made.prune()
    return made


def same(expected: dict[str, np.ndarray], actual: dict[str, np.ndarray]) -> bool:
    """Equal up to weights that were rounded to single precision once more."""
    return all(np.abs(actual[n] - a).max() <= 2e-5 * max(1.0, float(np.abs(a).max())) for n, a in expected.items())


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=25, deadline=None)
@given(way=st.integers(0, WAYS - 1), change=st.sampled_from(CHANGES), draw=st.randoms(use_true_random=False))
def test_a_changed_block_keeps_its_numbers(name: str, way: int, change, draw: Random, tmp_path_factory) -> None:
    graph = changed(written(name, way, tmp_path_factory.getbasetemp()), change, draw)
    rng = np.random.default_rng(2)
    feeds = {value.name: rng.uniform(-1, 1, value.shape).astype(np.float32) for value in graph.inputs}
    with np.errstate(all="ignore"):
        expected = run(graph, feeds, "float64")
        assume(all(np.abs(array).max() < 1e4 for array in expected.values()))  # neither infinite nor nearly
        assert same(expected, run(recognised(graph), feeds, "float64"))
        run_pipeline(graph, FLOAT)
        assert same(expected, run(graph, feeds, "float64"))


def test_no_rule_takes_for_a_constant_what_is_fed(tmp_path: Path) -> None:
    """Every constant of mixed heads in turn depends on the input."""
    whole, tried = written("talking_heads", 1, tmp_path), 0
    feeds = {value.name: np.full(value.shape, 0.3, np.float32) for value in whole.inputs}
    for place, node in enumerate(whole.nodes):
        for index, operand in enumerate(node.inputs):
            if operand is None or not operand.is_constant or operand.dtype != "float32" or len(node.outputs) > 1:
                continue
            graph = whole.copy()
            twin, x = graph.nodes[place], graph.inputs[0]
            mean = graph.add(pool.Mean(tuple(range(x.type.rank))), x)
            graph.set_input(twin, index, graph.add(elementwise.Add(), twin.input(index), mean))
            expected = run(graph, feeds, "float64")
            assert same(expected, run(recognised(graph), feeds, "float64"))
            tried += 1
    assert tried > 5


@pytest.mark.parametrize("change", [{"strides": (0, 1)}, {"dilations": (1, 0)}, {"pads": (0, -1, 0, 0)}], ids=str)
def test_a_convolution_that_cannot_be_computed_is_no_block(change: dict[str, tuple[int, ...]]) -> None:
    op, arrays = next(conv.Conv.examples())
    with pytest.raises(ShapeError, match="no window"):
        replace(op, **change).infer(*(Type(array.dtype.name, array.shape) for array in arrays))
