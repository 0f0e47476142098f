"""Channels balanced before rounding, and layers that go back to real numbers: what changes, what may not, and why."""

from __future__ import annotations

import numpy as np
import pytest

import edgesmith
from edgesmith.ir.graph import Graph, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Gelu, Relu
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.elementwise import Add
from edgesmith.ir.ops.linear import Linear
from edgesmith.ir.ops.norm import LayerNorm
from edgesmith.ir.ops.quant import Dequantize
from edgesmith.ir.ops.shape import Slice
from edgesmith.ir.passes.quantise.balance_layers import balance_layers, channel_axes
from edgesmith.ir.passes.quantise.mixed_precision import quantise_within, rank
from edgesmith.ir.passes.quantise.observe import observe
from edgesmith.ir.passes.quantise.qdq import QdqOptions, measured, quantise_operands
from edgesmith.ir.verify import verify


@pytest.fixture
def n(build):
    """A net under construction."""
    return build.Net("float32")


def feeds(graph, count=3):
    draw = np.random.default_rng(4)
    return [{v.name: draw.standard_normal(v.shape).astype(np.float32) for v in graph.inputs} for _ in range(count)]


def loud(n, size, by=300.0):
    """A vector of ones in which one channel is loud."""
    return n.graph.constant(np.where(np.arange(size) == 2, by, 1).astype(np.float32))


def error(graph, made, data):
    pairs = [(run(graph, one), run(made, one)) for one in data]
    return max(np.abs(a[k] - b[k]).max() / np.abs(a[k]).max() for a, b in pairs for k in a)


def balanced(graph, data):
    made = graph.copy()
    done = balance_layers(made, observe(made, data, channel_axes(made)), "minmax")
    verify(made)
    return made, done


# ---- balancing ----


def after_a_norm(n):
    x = n.input(1, 32, 16)
    y = n.add(LayerNorm(1e-5), x, loud(n, 16), n.graph.constant(np.zeros(16, np.float32)), name="balance_me")
    w = n.rng.normal(0, 1, (12, 16)).astype(np.float32)
    w[:, 2] /= 300
    part = n.add(Slice((0,), (9,), (1,), (1,)), y)
    return n.output(n.add(Linear(), y, n.constant(w), None, name="y"), n.linear(part, 5, name="z"))


def after_attention(n):
    x = n.input(1, 24, 16)
    v = n.rng.normal(0, 1, (16, 16)).astype(np.float32)
    v[2] *= 300
    values = n.add(Linear(), x, n.constant(v), n.normal(16), name="v")
    mixed = n.add(Attention(2, 0.3), n.linear(x, 16), n.linear(x, 16), values, name="balance_me")
    w = n.rng.normal(0, 1, (12, 16)).astype(np.float32)
    w[:, 2] /= 300
    return n.output(n.add(Linear(), mixed, n.constant(w), None, name="y"))


def after_a_relu_of_groups(n):
    x = n.conv(n.input(1, 3, 9, 9), 8, 3, name="stem")
    stem = x.producer
    w = stem.input(1).array.copy()
    w[2] *= 300
    n.graph.set_input(stem, 1, n.constant(w))
    y = n.conv(n.add(Relu(), x, name="balance_me"), 6, 3, groups=2, name="y")
    return n.output(y)


@pytest.mark.parametrize("make", [after_a_norm, after_attention, after_a_relu_of_groups])
def test_balancing_is_exact_and_rounding_then_loses_less(make, n):
    graph = make(n)
    data = feeds(graph)
    made, done = balanced(graph, data)
    assert "balance_me" in done
    assert error(graph, made, data) < 1e-5
    assert len(made.nodes) == len(graph.nodes)
    losses = {}
    for name, each in (("plain", graph.copy()), ("balanced", made)):
        quantise_operands(each, observe(each, data, only=measured(each)), QdqOptions(observer="minmax", results=()))
        losses[name] = np.mean([np.square(run(graph, one)["y"] - run(each, one)["y"]).mean() for one in data])
    assert losses["balanced"] < losses["plain"]


def test_what_someone_else_reads_is_left_alone(n):
    x = n.input(1, 8, 16)
    seen = n.add(LayerNorm(1e-5), x, loud(n, 16), None, name="seen")
    shown = n.add(LayerNorm(1e-5), x, loud(n, 16), None, name="shown")
    bare = n.add(LayerNorm(1e-5), x, None, None, name="bare")
    curved = n.add(Gelu(), n.linear(x, 16), name="curved")
    graph = n.output(n.add(Add(), n.linear(seen, 16), seen), n.linear(shown, 4), shown, n.linear(bare, 4))
    n.output(n.linear(curved, 4))
    assert not channel_axes(graph)
    assert not balanced(graph, feeds(graph))[1]


def test_channels_that_are_alike_stay(n):
    x = n.input(1, 512, 16)
    graph = n.output(n.linear(n.add(LayerNorm(1e-5), x, n.constant(np.ones(16, np.float32)), None, name="even"), 8))
    assert list(channel_axes(graph)) == ["even"] and not balanced(graph, feeds(graph))[1]


# ---- mixed precision ----


@pytest.fixture
def fragile(n):
    """Three layers; the second reads one loud channel that its weights silence: rounding leaves nothing of the rest."""
    x = n.input(1, 16, 8)
    first = n.linear(x, 8, name="first")
    big = np.zeros(8, np.float32)
    big[3] = 1e4
    shifted = n.add(Add(), first, n.constant(big), name="shifted")
    w = n.rng.normal(0, 1, (8, 8)).astype(np.float32)
    w[:, 3] = 0
    y = n.add(Gelu(), n.add(Linear(), shifted, n.constant(w), None, name="second"))
    return n.output(n.linear(y, 4, name="third"))


def test_only_what_loses_too_much_stays_real_and_is_named(fragile):
    data = feeds(fragile)
    options = QdqOptions(observer="minmax")
    seen = observe(fragile, data, only=measured(fragile))
    poor = fragile.copy()
    quantise_operands(poor, seen, options)
    assert error(fragile, poor, data) > 0.5
    found = quantise_within(fragile, seen, options, data)
    assert (
        list(found.notes.kept) == list(found.spared) == ["second"]
        and "rounded alone it errs by" in found.notes.kept["second"]
    )
    assert found.notes.quantised == ["first", "third"]
    assert found.cosine >= 0.99 and error(fragile, found.graph, data) < 0.1
    assert rank(fragile, seen, options, data)[0][0] == "second"
    verify(found.graph)


def test_a_compile_says_which_layers_stay_real(n, tmp_path):
    w = n.rng.normal(0, 1, (8, 8)).astype(np.float32)
    w[:, 3] = 0
    y = n.add(Gelu(), n.add(Linear(), n.input(1, 16, 8), n.constant(w), None, name="blind"))
    graph = n.output(n.linear(y, 4, name="sound"))
    data = np.random.default_rng(4).standard_normal((3, 16, 8)).astype(np.float32)
    data[:, :, 3] = 1e4
    made = edgesmith.compile(graph, "onnx", out=tmp_path / "out", dtype="int8", calibration=data, observer="minmax")
    assert "1 of 2 layers stay in float for accuracy; details.kept names them" in made.manifest["notes"]
    assert list(made.manifest["details"]["kept"]) == ["blind"]
    assert made.verification[-1]["cosine"] > 0.99


def test_where_all_are_integers_nothing_is_ranked(n, monkeypatch):
    graph = n.output(n.linear(n.input(4, 8), 3, name="y"))
    data = feeds(graph)
    monkeypatch.setattr("edgesmith.ir.passes.quantise.mixed_precision.rank", None)
    found = quantise_within(graph, observe(graph, data), QdqOptions(), data)
    assert found.notes.quantised == ["y"] and not found.notes.kept and not found.spared and found.cosine > 0.999


def test_a_bound_that_only_real_numbers_meet(fragile):
    data = feeds(fragile)
    found = quantise_within(fragile, observe(fragile, data), QdqOptions(), data, least=1 - 1e-12)
    assert set(found.notes.kept) == {"first", "second", "third"} and not found.notes.quantised
    assert error(fragile, found.graph, data) == 0


def test_weights_alone_leave_activations_real(fragile):
    data = feeds(fragile)
    made = fragile.copy()
    options = QdqOptions(weights_only=frozenset({"second"}))
    notes = quantise_operands(made, observe(fragile, data), options)
    assert notes.weights_only == ["second"] and notes.quantised == ["first", "third"]
    second = next(node for node in made.nodes if node.output.name == "second")
    assert isinstance(second.input(1).producer.op, Dequantize)
    assert not isinstance(second.input(0).producer.op, Dequantize)
    assert error(fragile, made, data) < 0.1


def test_an_error_is_a_share_of_the_stream_that_it_joins(n):
    x = n.input(1, 64, 8)
    stream = n.add(Add(), x, n.constant(np.full(8, 1e3, np.float32)), name="stream")
    small = n.linear(n.add(Relu(), x), 8, name="small")
    alone = n.linear(n.add(Relu(), x), 8, weight=small.producer.input(1), name="alone")
    graph = n.output(n.add(Add(), stream, small, name="sum"), alone)
    data = feeds(graph)
    shares = dict(rank(graph, observe(graph, data), QdqOptions(results=()), data))
    assert 100 * shares["small"] < shares["alone"] < 0.1


def test_observing_only_some_values(n):
    graph = Graph("empty")
    graph.output(graph.add(Relu(), graph.input("x", Type("float32", (2,)))))
    assert observe(graph, feeds(graph), only=measured(graph)) == {}
