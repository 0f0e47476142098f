"""Scales per channel between layers: as fine as the weights that take them in can bear."""

import numpy as np
import pytest

from edgesmith.ir.graph import Quant
from edgesmith.ir.passes.quantise.balance_channels import EXPONENTS, balanced, noise_of
from edgesmith.ir.passes.quantise.calibrate import Statistics
from edgesmith.ir.passes.quantise.observers import asymmetric

CHANNELS = 16


def seen(sizes, axis, rank):
    """Statistics of three samples whose channels along `axis` have these sizes."""
    stats = Statistics()
    shape = [1, 6, 6, 6][:rank]
    shape[axis] = CHANNELS
    broadcast = [-1 if i == axis else 1 for i in range(rank)]
    for seed in range(3):
        noise = np.random.default_rng(seed).uniform(-1, 1, shape)
        stats.observe((noise * np.reshape(sizes, broadcast)).astype(np.float32), axis)
    return stats


def reader(build, kind):
    net = build.Net("float32")
    if kind == "linear":
        return net.linear(net.input(1, 6, CHANNELS), 24).producer
    groups = CHANNELS if kind == "depthwise" else 1
    return net.conv(net.input(1, CHANNELS, 6, 6), CHANNELS, 3, groups=groups).producer


@pytest.mark.parametrize("kind", ["linear", "dense", "depthwise"])
def test_equal_channels_share_one_scale(build, kind):
    stats = seen(np.ones(CHANNELS), 2 if kind == "linear" else 1, 3 if kind == "linear" else 4)
    whole = asymmetric(stats.low, stats.high)
    assert balanced(stats, whole, [reader(build, kind)]) == whole


def test_depthwise_weights_bear_everything(build):
    sizes = np.exp2(np.linspace(-3, 0, CHANNELS))
    stats = seen(sizes, 1, 4)
    whole = asymmetric(stats.low, stats.high)
    quant = balanced(stats, whole, [reader(build, "depthwise")])
    assert quant.axis == -1 and quant.zero_point == whole.zero_point
    assert np.allclose(np.array(quant.scale) / quant.scale[-1], sizes / sizes[-1], rtol=0.25)


def test_the_choice_is_the_quietest_and_the_prediction_is_right(build):
    """Predicted noise against the noise of a product whose operands are really rounded."""
    sizes = np.exp2(np.linspace(-3, 0, CHANNELS))
    stats, node = seen(sizes, 2, 3), reader(build, "linear")
    whole = Quant(stats.largest / 100)
    chosen = balanced(stats, whole, [node])
    w = node.input(1).array.astype(np.float64)
    x = np.random.default_rng(9).uniform(-1, 1, (4000, CHANNELS)) * sizes
    full = np.clip(stats.channels / 127 / whole.scale, 1 / 16, 1)
    for exponent in EXPONENTS:
        scales = whole.scale * full**exponent
        step = np.abs(w * scales).max(axis=1, keepdims=True) / 127
        got = np.rint(x / scales) @ (np.rint(w * scales / step) * step).T
        measured = np.square(got - x @ w.T).sum() / np.square(x @ w.T).sum()
        assert noise_of(node, scales, stats) == pytest.approx(measured, rel=0.3)
        assert noise_of(node, np.broadcast_to(chosen.scale, CHANNELS), stats) <= noise_of(node, scales, stats) * 1.001
