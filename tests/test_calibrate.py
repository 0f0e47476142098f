"""Calibration: what is collected, which interval observers choose, and data that cannot be used."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgesmith.ir.errors import ModelError, UsageError
from edgesmith.ir.graph import Graph, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Relu
from edgesmith.ir.ops.elementwise import Affine, Mul
from edgesmith.ir.passes.quantise.calibrate import SYNTHETIC_SAMPLES, Statistics, calibrate, synthetic
from edgesmith.ir.passes.quantise.observers import OBSERVERS, asymmetric, interval, per_channel, symmetric


def small(inputs=1):
    """Relu of x, plus further unused-looking inputs that are multiplied in."""
    graph = Graph("small")
    values = [graph.input(name, Type("float32", (1, 3, 4, 5))) for name in "xyz"[:inputs]]
    total = graph.add(Relu(), values[0], name="r")
    for value in values[1:]:
        total = graph.add(Mul(), total, value)
    graph.output(total)
    return graph


def statistics(*arrays, axis=None):
    stats = Statistics()
    for array in arrays:
        stats.observe(np.asarray(array, np.float32), axis)
    return stats


def test_statistics_are_those_of_all_samples():
    data = np.random.default_rng(0).standard_normal((5, 3, 4, 5)).astype(np.float32)
    seen = []
    calibration = calibrate(small(), data, lambda done, of: seen.append((done, of)))
    assert seen == [(i, 5) for i in range(1, 6)]
    assert calibration["x"].low == data.min() and calibration["x"].high == data.max()
    assert calibration["r"].low == 0 and calibration["r"].high == data.max()
    assert calibration["x"].counts.sum() == data.size
    assert calibration.warnings == ()


@settings(max_examples=60, deadline=None)
@example([[1.0], [3.0]])
@given(st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30), min_size=1, max_size=5))
def test_histogram_equals_one_pass_whatever_the_order(parts):
    """Growing the reach merges bins exactly, so chunks in any order give the counts of the whole."""
    whole, pieces = statistics(np.concatenate(parts)), statistics(*parts)
    assert pieces.counts.sum() == sum(map(len, parts))
    backwards = statistics(*reversed(parts))
    assert pieces.reach == backwards.reach == whole.reach
    # An end of the reach falls into the outermost bin and stays below that edge when the reach grows.
    ends = [statistics(part).reach for part in parts]
    inside = ~np.isin(np.abs(np.concatenate(parts)), ends) & (np.abs(np.concatenate(parts)) < whole.reach)
    if inside.all():
        assert np.array_equal(pieces.counts, whole.counts) and np.array_equal(backwards.counts, whole.counts)
    assert (pieces.low, pieces.high) == (backwards.low, backwards.high) == (whole.low, whole.high)


def test_extremes_per_channel():
    stats = statistics([[1, -2, 0.5]], [[-3, 1, 0.25]], axis=1)
    assert stats.lows.tolist() == [-3, -2, 0] and stats.highs.tolist() == [1, 1, 0.5]
    assert stats.channels.tolist() == [5, 3, 0.75], "the greatest and two deviations of 1, 0.5 and 0.125"
    assert statistics([[1.0, -8.0]], axis=1).channels.tolist() == [1.25, 10], "one sample: a quarter more"
    assert stats.power.tolist() == [10, 5, 0.3125] and stats.rows == 2


@pytest.mark.parametrize("observer", OBSERVERS)
def test_observers_contain_zero_and_stay_inside_what_was_seen(observer):
    stats = statistics(np.random.default_rng(1).uniform(2, 3, 1000))
    low, high = interval(stats, observer)
    assert low == 0 and 0 < high <= stats.high


def test_observers_on_outliers():
    draw = np.random.default_rng(2)
    bulk = draw.normal(0, 1, 1_000_000)
    stats = statistics(np.append(bulk, [100.0]))
    covered = {observer: interval(stats, observer)[1] for observer in OBSERVERS}
    assert covered["minmax"] == 100
    assert covered["percentile"] < 6
    assert covered["mse"] < 60

    def error(observer):
        quant = asymmetric(*interval(stats, observer))
        return float(np.mean((quant.dequantise(quant.quantise(bulk, "int8")) - bulk) ** 2))

    assert error("mse") < error("minmax") / 2


def test_mse_keeps_everything_when_nothing_stands_out():
    stats = statistics(np.random.default_rng(3).uniform(-1, 1, 10_000))
    assert interval(stats, "mse") == interval(stats, "minmax")


def test_symmetric_intervals_are_symmetric():
    stats = statistics(np.random.default_rng(4).exponential(1, 5000) - 0.2)
    for observer in OBSERVERS:
        low, high = interval(stats, observer, 8, True)
        assert low == -high < 0


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e5, 0), st.floats(0, 1e5))
def test_asymmetric_round_trip(low, high):
    quant = asymmetric(low, high)
    assert quant.dequantise(np.array(quant.zero_point)) == 0
    numbers = np.linspace(low, high, 99)
    back = quant.dequantise(quant.quantise(numbers, "int8"))
    assert np.abs(back - numbers).max() <= quant.scale * 1.01


def test_symmetric_and_per_channel_round_trips():
    numbers = np.random.default_rng(5).uniform(-1, 1, (50, 3)) * [0.01, 1, 100]
    whole = symmetric(float(np.abs(numbers).max()), 127)
    each = per_channel(np.abs(numbers).max(axis=0), 127)
    for quant in (whole, each):
        back = quant.dequantise(quant.quantise(numbers, "int8"))
        assert np.all(np.abs(back - numbers) <= np.broadcast_to(quant.scale, 3) * 0.51)
    assert each.scale[0] < whole.scale / 1000


def test_unknown_observer():
    with pytest.raises(UsageError, match="percentile"):
        interval(statistics([1.0]), "median")


def test_synthetic_inputs_are_smooth_standardised_and_the_same_every_time():
    images = synthetic((1, 3, 32, 32), 4)
    assert images.shape == (4, 3, 32, 32) and images.dtype == np.float32
    assert np.array_equal(images, synthetic((1, 3, 32, 32), 4))
    assert abs(float(images.mean())) < 1e-5 and abs(float(images.std()) - 1) < 1e-3
    step = np.abs(np.diff(images, axis=3)).mean()
    assert step < 0.5 * np.abs(images - images[..., ::-1]).mean(), "neighbours must be closer than strangers"


def test_without_data_there_is_a_warning():
    calibration = calibrate(small())
    assert len(calibration.samples) == SYNTHETIC_SAMPLES
    assert "synthetic" in calibration.warnings[0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.zeros((2, 3, 4, 6), np.float32), "shape"),
        (np.zeros((3, 4, 5), np.float32), "shape"),
        (np.zeros((0, 3, 4, 5), np.float32), "shape"),
        (np.zeros((2, 3, 4, 5), np.uint8), "uint8"),
        (np.full((2, 3, 4, 5), np.nan, np.float32), "NaN"),
        (np.full((2, 3, 4, 5), np.inf, np.float32), "NaN or infinity"),
        ({"other": np.zeros((2, 3, 4, 5), np.float32)}, "lacks"),
    ],
)
def test_unusable_data(data, words):
    with pytest.raises(ModelError, match=words) as caught:
        calibrate(small(), data)
    assert caught.value.do


def test_several_inputs_need_names_and_equal_counts():
    one = np.ones((2, 3, 4, 5), np.float32)
    with pytest.raises(ModelError, match="several inputs"):
        calibrate(small(2), one)
    with pytest.raises(ModelError, match="different numbers"):
        calibrate(small(2), {"x": one, "y": one[:1]})
    assert len(calibrate(small(2), {"x": one, "y": one}).samples) == 2


def test_a_network_that_computes_nan_is_named():
    graph = Graph("broken")
    x = graph.input("x", Type("float32", (1, 3)))
    a, c = (graph.constant(np.array(v, np.float32)) for v in ([1, np.inf, 1], [0, 0, 0]))
    graph.output(graph.add(Affine(), x, a, c, name="y", sources=("/block/scale",)))
    data = np.zeros((1, 3), np.float32)
    with np.errstate(all="ignore"), pytest.raises(ModelError) as caught:
        calibrate(graph, data)
    assert caught.value.where == ("/block/scale",)


def test_the_graph_is_left_alone(build):
    graph = build.vit("float32", norm="rep")
    feeds = build.feeds(graph)
    before, names = run(graph, feeds), [value.name for node in graph.nodes for value in node.outputs]
    calibrate(graph)
    assert names == [value.name for node in graph.nodes for value in node.outputs]
    assert all(np.array_equal(array, run(graph, feeds)[name]) for name, array in before.items())
