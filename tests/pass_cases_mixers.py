"""Graphs on which the pass that shortens pooling mixers must, or must not, do its work."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np

from edgesmith.ir.ops.activation import Gelu, Relu
from edgesmith.ir.ops.elementwise import Add, Mul, Sub
from edgesmith.ir.ops.norm import GroupNorm
from edgesmith.ir.ops.pool import AveragePool, Mean
from edgesmith.ir.passes.exact.mix_in_place import MixInPlace

CASES = runpy.run_path(str(Path(__file__).with_name("pass_cases.py")))["Cases"]()
applies, refuses = CASES.applies, CASES.refuses
PAD = {"pads": (1, 1, 1, 1)}


def mixer(net, x, name, g=None):
    """x + g * (pool(x) - x); g is drawn between 0.1 and 0.7 unless given."""
    pooled = net.add(AveragePool((3, 3), **PAD), x, name=f"{name}.pool")
    less = net.add(Sub(), pooled, x, name=f"{name}.less")
    g = net.rng.uniform(0.1, 0.7, (x.shape[1], 1, 1)) if g is None else g
    return net.add(Add(), x, net.add(Mul(), less, net.constant(g, f"{name}.g"), name=f"{name}.scale"), name=name)


def feedforward(net, x, bias, name):
    """x + conv(gelu(conv(x)))."""
    h = net.add(Gelu(), net.conv(x, 8, 1, bias, f"{name}.fc1"), name=f"{name}.gelu")
    return net.add(Add(), x, net.conv(h, x.shape[1], 1, bias, f"{name}.fc2"), name=name)


@applies(MixInPlace())
def stage_of_mixers(net, bias):
    x = net.conv(net.input(1, 3, 6, 6), 4, 3, bias, "stem", **PAD)
    for i in range(2):
        x = feedforward(net, mixer(net, x, f"mix{i}"), bias, f"ffn{i}")
    return net.output(net.conv(x, 6, 3, bias, "down", strides=(2, 2), **PAD))


@applies(MixInPlace())
def mixers_before_a_norm_leave_one_factor(net, bias):
    x = net.input(1, 4, 6, 6)
    x = feedforward(net, mixer(net, x, "mix0"), bias, "ffn")
    x = mixer(net, x, "mix1")
    return net.output(net.add(GroupNorm(1), x, net.positive(4), None, name="norm"))


@applies(MixInPlace())
def grouped_and_depthwise_readers(net, bias):
    x = mixer(net, net.input(1, 4, 6, 6), "mix")
    a, b = net.conv(x, 6, 1, bias, "grouped", groups=2), net.conv(x, 4, 3, bias, "depthwise", groups=4, **PAD)
    return net.output(a, b)


@applies(MixInPlace())
def stream_whose_branch_no_layer_writes(net, bias):
    x = mixer(net, net.input(1, 4, 6, 6), "mix")
    x = net.add(Add(), x, net.add(Relu(), net.conv(x, 4, 1, bias, "fc"), name="relu"), name="sum")
    return net.output(net.conv(x, 6, 1, bias, "head"))


@applies(MixInPlace())
def mixer_that_is_an_output(net, bias):
    return net.output(mixer(net, net.conv(net.input(1, 3, 6, 6), 4, 1, bias), "mix", 0.3))


@applies(MixInPlace())
def mixer_read_by_a_shared_weight(net, bias):
    x, w = mixer(net, net.input(1, 4, 1, 1), "mix"), net.normal(3, 4, name="w")
    flat = net.add(Mean((2, 3)), x, name="flat")
    return net.output(net.linear(flat, 3, bias, "a", w), net.linear(net.input(2, 4, name="y"), 3, bias, "b", w))


@applies(MixInPlace())
def mixer_of_normed_pixels(net, bias):
    x = net.input(1, 4, 6, 6)
    n = net.add(GroupNorm(1), x, net.positive(4, name="g"), net.normal(4, name="b") if bias else None, name="norm")
    less = net.add(Sub(), net.add(AveragePool((3, 3), **PAD), n, name="pool"), n, name="less")
    return net.output(
        net.add(Add(), x, net.add(Mul(), net.normal(4, 1, 1, name="gamma"), less, name="scale"), name="sum")
    )


@refuses(MixInPlace(), "'norm' is also read by others")
def mixer_of_a_norm_that_others_read(net):
    n = net.add(GroupNorm(1), net.input(1, 4, 6, 6), None, None, name="norm")
    less = net.add(Sub(), net.add(AveragePool((3, 3), **PAD), n, name="pool"), n, name="less")
    scaled = net.add(Mul(), less, net.normal(4, 1, 1, name="gamma"), name="scale")
    return net.output(scaled, net.add(Relu(), n, name="relu"))


@refuses(MixInPlace(), "1 - 'mix.g' comes close to zero")
def mixer_that_forgets_a_channel(net):
    return net.output(net.conv(mixer(net, net.input(1, 3, 6, 6), "mix", np.reshape([0.5, 1.0, 0.2], (3, 1, 1))), 4))


@refuses(MixInPlace(), "'mix.less' is also read by")
def mixer_with_a_difference_read_elsewhere(net):
    x = mixer(net, net.input(1, 3, 6, 6), "mix")
    (less,) = (node for node in net.graph.nodes if node.name == "mix.less")
    return net.output(x, net.add(Relu(), less.output, name="relu"))


@refuses(MixInPlace(), "'mix.g' is no vector of channels")
def mixer_with_a_factor_per_pixel(net):
    return net.output(mixer(net, net.input(1, 3, 6, 6), "mix", np.full((6, 6), 0.5)))
