"""Pairs of Quantize and Dequantize: where they are placed, which scales they carry, and what stays real and why."""

from __future__ import annotations

import numpy as np
import pytest

from edgesmith.ir.errors import ModelError, UsageError
from edgesmith.ir.graph import Graph, Quant, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Gelu, Relu
from edgesmith.ir.ops.conv import Conv
from edgesmith.ir.ops.elementwise import Add
from edgesmith.ir.ops.linear import Linear
from edgesmith.ir.ops.quant import Dequantize, Quantize
from edgesmith.ir.ops.shape import Gather, Reshape
from edgesmith.ir.passes.quantise.observe import observe, ranges
from edgesmith.ir.passes.quantise.qdq import LAYERS, QdqOptions, candidates, quantise_operands
from edgesmith.ir.text import arrays_of, parse, show
from edgesmith.ir.verify import verify


@pytest.fixture
def n(build):
    """A net under construction."""
    return build.Net("float32")


def feeds(graph, count=4, seed=0, scale=1.0):
    draw = np.random.default_rng(seed)
    return [
        {v.name: (scale * draw.standard_normal(v.shape)).astype(np.float32) for v in graph.inputs} for _ in range(count)
    ]


def quantised(graph, data=None, **options):
    """A copy with its pairs placed, and the notes."""
    made = graph.copy()
    data = data or feeds(graph)
    notes = quantise_operands(made, observe(graph, data), QdqOptions(**options))
    verify(made)
    return made, notes


def kinds(graph, *ops):
    return [type(node.op).__name__ for node in graph.nodes if isinstance(node.op, ops)]


def worst(graph, made, data):
    """Largest error as a share of the largest output."""
    pairs = [(run(graph, one), run(made, one)) for one in data]
    return max(
        np.abs(a[n] - b[m]).max() / max(np.abs(a[n]).max(), 1e-30) for a, b in pairs for n, m in zip(a, b, strict=True)
    )


@pytest.fixture
def mlp(n):
    x = n.input(1, 5, 8)
    return n.output(n.linear(n.add(Gelu(), n.linear(x, 16, name="up")), 8, name="down"))


# ---- where pairs are ----


def test_operands_and_results_are_integers(mlp):
    made, notes = quantised(mlp)
    assert notes.quantised == ["up", "down"] and not notes.kept
    for node in made.nodes:
        if isinstance(node.op, Linear):
            assert [isinstance(v.producer.op, Dequantize) for v in node.inputs[:2]] == [True, True]
            assert [type(reader.op) for reader in node.output.readers] == [Quantize]
    assert [v.name for v in made.outputs] == ["down"] and worst(mlp, made, feeds(mlp)) < 0.03


def test_results_stay_real_where_no_integers_are_asked_for(n, mlp):
    made, _ = quantised(mlp, results=())
    assert all(type(r.op) is not Quantize for n in made.nodes if isinstance(n.op, Linear) for r in n.output.readers)
    assert len(kinds(made, Quantize)) == 2


def test_a_value_read_twice_has_one_pair(n):
    x = n.input(2, 8)
    graph = n.output(n.linear(x, 4, name="a"), n.linear(x, 4, name="b"), n.add(Relu(), x))
    made, _ = quantised(graph, results=())
    assert len(kinds(made, Quantize)) == 1
    assert {type(reader.op) for reader in made.inputs[0].readers} == {Quantize, Relu}


def test_a_relu_belongs_to_its_layer(n):
    x = n.input(1, 3, 6, 6)
    graph = n.output(n.conv(n.add(Relu(), n.conv(x, 4, 3, name="a")), 5, name="b"))
    made, _ = quantised(graph)
    text = [type(node.op).__name__ for node in made.nodes if not isinstance(node.op, Dequantize)]
    assert text == ["Quantize", "Conv", "Relu", "Quantize", "Conv", "Quantize"]


def test_integers_that_are_only_moved_keep_their_scale(n):
    x = n.input(1, 3, 4, 4)
    graph = n.output(n.linear(n.add(Reshape((1, 4, 16)), n.conv(x, 4, name="a")), 5, name="b"))
    made, _ = quantised(graph)
    first, second = (node.input(0).producer.op.quant for node in made.nodes if isinstance(node.op, Conv | Linear))
    result = next(r.op.quant for n in made.nodes if isinstance(n.op, Conv) for r in n.output.readers)
    assert second == result != first


def test_an_output_that_a_layer_reads_keeps_its_name(n):
    x = n.input(2, 8)
    first = n.linear(x, 8, name="first")
    graph = n.output(first, n.linear(first, 3, name="second"))
    for results in (LAYERS, ()):
        made, _ = quantised(graph, results=results)
        assert [v.name for v in made.outputs] == ["first", "second"]
        assert worst(graph, made, feeds(graph)) < 0.03


# ---- scales ----


def test_shared_weights_are_stored_once_where_they_need_the_same_scales(n):
    x = n.input(2, 8)
    w = n.normal(8, 8, name="w")
    graph = n.output(n.linear(n.linear(x, 8, bias=False, weight=w, name="a"), 8, bias=False, weight=w, name="b"))
    made, _ = quantised(graph)
    assert [c.name for c in made.constants if c.dtype == "int8"] == ["w.q"]
    assert len(kinds(made, Dequantize)) == 1 + 3


def test_a_table_that_is_a_weight_as_well_is_still_a_table(n):
    x, w = n.input(2, 8), n.normal(6, 8, name="w")
    rows = n.graph.constant(np.array([1, 3]), "rows")
    graph = n.output(n.linear(x, 6, bias=False, weight=w, name="scores"), n.add(Gather(0), w, rows, name="table"))
    made, _ = quantised(graph)
    assert np.array_equal(run(made, feeds(graph)[0])["table"], w.array[[1, 3]])


@pytest.mark.parametrize("observer", ["minmax", "percentile", "mse"])
@pytest.mark.parametrize("weights", ["minmax", "mse"])
def test_odd_channels_keep_their_size(n, observer, weights):
    """A channel of zeros, one of tiny weights under a large bias, one of huge weights."""
    x = n.input(64, 8)
    w = n.rng.normal(0, 1, (5, 8)).astype(np.float32)
    w[1], w[2], w[3] = 0, 1e-30, 1e6 * w[3]
    b = np.array([0.1, 7.0, -3.0, 1.0, 0.0], np.float32)
    graph = n.output(n.add(Linear(), x, n.constant(w), n.constant(b), name="y"))
    made, notes = quantised(graph, observer=observer, weights=weights, results=())
    assert notes.quantised == ["y"]
    data = feeds(graph, 1, 3)[0]
    expected, actual = run(graph, data)["y"], run(made, data)["y"]
    assert np.allclose(actual[:, 1:3], expected[:, 1:3], rtol=1e-6)
    for channel in (0, 3, 4):
        noise = np.abs(actual[:, channel] - expected[:, channel]).max()
        assert noise < 0.05 * np.abs(expected[:, channel]).max()


@pytest.mark.parametrize("number", [0.0, 3.0, -1e-3, 1e20, 1e-42])
def test_inputs_of_one_number(n, number):
    x = n.input(2, 8)
    graph = n.output(n.linear(x, 4, name="y"))
    data = [{"x": np.full((2, 8), number, np.float32)}]
    made, _ = quantised(graph, data)
    assert np.isfinite(run(made, data[0])["y"]).all() and worst(graph, made, data) < 0.02


def test_a_huge_outlier_does_not_take_the_rest_away(n):
    x = n.input(1, 80_000, 8)
    graph = n.output(n.linear(x, 4, name="y"))
    data = feeds(graph, 2)
    data[0]["x"][0, 7, 3] = 500.0
    errors = {}
    for observer in ("minmax", "mse"):
        made, _ = quantised(graph, data, observer=observer)
        errors[observer] = np.median(np.abs(run(made, data[1])["y"] - run(graph, data[1])["y"]))
    assert errors["mse"] < errors["minmax"] / 2


def test_a_bias_is_a_whole_number_of_steps(mlp):
    made, _ = quantised(mlp)
    for node in made.nodes:
        if isinstance(node.op, Linear):
            x, w = (node.input(i).producer.op.quant for i in (0, 1))
            steps = np.float32(x.scale) * np.asarray(w.scale, np.float32)
            whole = node.input(2).array / steps.astype(np.float64)
            assert np.abs(whole - np.rint(whole)).max() < 1e-6 * np.abs(whole).max()


# ---- what stays real ----


def test_what_is_kept_is_explained(n):
    x, w = n.input(2, 8), n.input(3, 8, name="w")
    computed = n.add(Linear(), x, w, name="computed")
    long = n.add(Linear(), n.add(Reshape((1, 16)), x), n.constant(np.ones((1, 16), np.float32)), name="fine")
    on_constant = n.linear(n.constant(np.ones((2, 8), np.float32)), 3, name="on_constant")
    graph = n.output(computed, long, on_constant, n.linear(x, 3, name="kept"))
    made, notes = quantised(graph, keep={"kept": "kept for accuracy"})
    assert notes.quantised == ["fine"]
    assert notes.kept == {
        "computed": "its weights are computed", "on_constant": "its input is a constant", "kept": "kept for accuracy",
    }  # fmt: skip
    assert [node.output.name for node in candidates(graph)] == ["fine", "kept"]
    assert len(made.nodes) > len(graph.nodes)


def test_a_sum_that_could_overflow_stays_real(n):
    x = n.input(1, 70_000)
    graph = n.output(n.linear(x, 1, name="y"))
    _, notes = quantised(graph, feeds(graph, 1))
    assert notes.kept == {"y": "a sum of 70000 products can leave 32 bits"}


def test_a_graph_without_layers_is_left_alone(n):
    graph = n.output(n.add(Add(), n.input(3), n.input(3, name="z")))
    made, notes = quantised(graph)
    assert show(made) == show(graph) and not notes.quantised and not notes.kept


def test_unknown_options_are_refused():
    with pytest.raises(UsageError, match="observer"):
        QdqOptions(observer="entropy")
    with pytest.raises(UsageError, match="weights"):
        QdqOptions(weights="entropy")


# ---- observation ----


def test_ranges_are_extremes_over_all_samples(mlp):
    data = feeds(mlp)
    found = ranges(mlp, data)
    assert found["x"] == (min(d["x"].min() for d in data), max(d["x"].max() for d in data))
    assert set(found) == {"x", "up", "gelu", "down"}
    stats = observe(mlp, data)
    assert all(
        stats[name].low <= min(low, 0) and stats[name].high >= max(high, 0) for name, (low, high) in found.items()
    )


def test_samples_that_say_nothing_are_refused(mlp):
    for look in (ranges, observe):
        with pytest.raises(ModelError, match="no samples"):
            look(mlp, [])
        with pytest.raises(ModelError, match="NaN"):
            look(mlp, [{"x": np.full((1, 5, 8), np.nan, np.float32)}])


# ---- form ----


def test_pairs_survive_the_text_form(mlp):
    made, _ = quantised(mlp)
    again = parse(show(made), arrays_of(made))
    verify(again)
    data = feeds(made)[0]
    assert all(np.array_equal(a, b) for a, b in zip(run(made, data).values(), run(again, data).values(), strict=True))


def test_same_data_same_graph(mlp):
    assert show(quantised(mlp)[0]) == show(quantised(mlp)[0])


def test_rounding_is_to_even_in_the_precision_given():
    graph = Graph("ties")
    x = graph.input("x", Type("float32", (6,)))
    graph.output(graph.add(Quantize(Quant(2.0, 1)), x, name="q"))
    ties = np.array([1, 3, 5, -1, -3, 600], np.float32)
    assert run(graph, {"x": ties})["q"].tolist() == [1, 3, 3, 1, -1, 127]
