"""Graphs whose products need no multiplier, and graphs that only look like it."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np

from edgesmith.ir.graph import Quant
from edgesmith.ir.ops.linear import Linear, MatMul
from edgesmith.ir.ops.logic import Cast, Less, Where
from edgesmith.ir.ops.quant import Dequantize, Quantize
from edgesmith.ir.ops.shape import Transpose
from edgesmith.ir.passes.exact.shift_and_add import ShiftAndAdd

CASES = runpy.run_path(str(Path(__file__).with_name("pass_cases.py")))["Cases"]()
applies, refuses = CASES.applies, CASES.refuses


def powers(net, outputs, depth, span=7):
    """Signed powers of two, zeros among them, times a scale per output."""
    size = np.exp2(net.rng.integers(0, span, (outputs, depth))) * net.rng.choice([-1, 0, 1, 1], (outputs, depth))
    return size * net.rng.uniform(0.01, 1, (outputs, 1)).astype(np.float32)


@applies(ShiftAndAdd())
def linear_of_powers_of_two(net, bias):
    w = net.constant(powers(net, 5, 7), "fc.weight")
    return net.output(net.linear(net.input(2, 3, 7), 5, bias, weight=w))


@applies(ShiftAndAdd())
def ternary_linear(net, bias):
    w = net.constant(np.float32(0.37) * net.rng.choice([-1.0, 0.0, 1.0], (4, 6)), "fc.weight")
    return net.output(net.linear(net.input(3, 6), 4, bias, weight=w))


@applies(ShiftAndAdd())
def pixels_of_powers_of_two(net, bias):
    x = net.input(2, 3, 4, 5)
    y = net.conv(x, 6, 1, bias)
    y.producer.input(1).data = powers(net, 6, 3).reshape(6, 3, 1, 1)
    return net.output(y)


@applies(ShiftAndAdd())
def integers_by_powers_of_two(net, bias):
    q = net.add(Quantize(Quant(0.03125, 5)), net.input(2, 9), name="q")
    w = net.constant(powers(net, 5, 9), "fc.weight")
    return net.output(net.linear(net.add(Dequantize(Quant(0.03125, 5)), q, name="real"), 5, bias, weight=w))


@applies(ShiftAndAdd())
def binary_keys_and_queries(net, bias):
    """Attention of ShiftAddViT without its normalisation: b(q) (b(k)^T v)."""
    q, k, v = (net.input(2, 6, 4, name=name) for name in "qkv")
    zero = net.constant(0.1)
    bits = [net.add(Cast(net.dtype), net.add(Less(), zero, each, name=f"{each.name}.on"), name=f"{each.name}.bits")
            for each in (q, k)]  # fmt: skip
    inner = net.add(MatMul(), net.add(Transpose((0, 2, 1)), bits[1], name="turned"), v, name="inner")
    return net.output(net.add(MatMul(), bits[0], inner, name="outer"))


@applies(ShiftAndAdd())
def signs_on_the_right(net, bias):
    x, y = net.input(3, 4), net.input(4, 5, name="y")
    on = net.add(Less(), y, net.constant(0.2), name="on")
    signs = net.add(Where(), on, net.constant(-1.0), net.constant(1.0), name="signs")
    return net.output(net.add(MatMul(), x, signs, name="product"))


@refuses(ShiftAndAdd(), "powers of two of 0 to 6")
def linear_of_any_numbers(net):
    return net.output(net.linear(net.input(2, 7), 5))


@refuses(ShiftAndAdd(), "powers of two of 0 to 6")
def powers_too_far_apart(net):
    w = net.constant(np.exp2(np.arange(16.0).reshape(2, 8)), "fc.weight")
    return net.output(net.add(Linear(), net.input(2, 8), w, name="fc"))


@refuses(ShiftAndAdd(), "-1, 0 and 1 only")
def selection_of_other_numbers(net):
    x, y = net.input(3, 4), net.input(4, 5, name="y")
    on = net.add(Less(), y, net.constant(0.2), name="on")
    two = net.add(Where(), on, net.constant(-1.0), net.constant(2.0), name="choice")
    return net.output(net.add(MatMul(), x, two, name="product"))


@refuses(ShiftAndAdd(), "no convolution of single pixels")
def larger_windows(net):
    y = net.conv(net.input(1, 3, 5, 5), 2, 3)
    y.producer.input(1).data = np.ones((2, 3, 3, 3))
    return net.output(y)
