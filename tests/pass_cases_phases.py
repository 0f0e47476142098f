"""Graphs with zeros between the pixels of an image, as transposed convolutions are read."""

from __future__ import annotations

import runpy
from pathlib import Path

from edgesmith.ir.ops.activation import Relu
from edgesmith.ir.ops.conv import Conv
from edgesmith.ir.ops.shape import Pad, Reshape, Transpose
from edgesmith.ir.passes.exact.split_phases import SplitPhases

CASES = runpy.run_path(str(Path(__file__).with_name("pass_cases.py")))["Cases"]()
applies, refuses = CASES.applies, CASES.refuses


def widened(net, x, strides):
    """[N, C, H, W], or [N, C, H, 1, W, 1], with zeros after every pixel."""
    batch, channels, *sizes = (size for size in x.shape if x.type.rank == 4 or size > 1)
    (height, width), (down, across) = sizes, strides
    x = x if x.type.rank == 6 else net.add(Reshape((batch, channels, height, 1, width, 1)), x, name="apart")
    x = net.add(Pad((*(0,) * 9, down - 1, 0, across - 1)), x, name="zeros")
    return net.add(Reshape((batch, channels, height * down, width * across)), x, name="wide")


def convolved(net, x, outputs, kernel, pads, bias, groups=1):
    w = net.normal(outputs, x.shape[1] // groups, *kernel, name="w")
    return net.add(Conv(pads=pads, groups=groups), x, w, net.normal(outputs, name="b") if bias else None, name="conv")


@applies(SplitPhases())
def transposed_of_four_by_four(net, bias):
    x = widened(net, net.input(2, 3, 4, 5), (2, 2))
    return net.output(net.add(Relu(), convolved(net, x, 4, (4, 4), (2, 2, 1, 1), bias), name="act"))


@applies(SplitPhases())
def transposed_of_odd_kernels(net, bias):
    x = widened(net, net.input(1, 4, 4, 5), (2, 3))
    return net.output(convolved(net, x, 6, (3, 5), (1, 2, 1, 2), bias, groups=2))


@applies(SplitPhases())
def transposed_of_tokens(net, bias):
    rows = net.add(Reshape((2, 3, 1, 4, 5, 1)), net.input(2, 12, 5), name="rows")
    x = widened(net, net.add(Transpose((0, 4, 1, 2, 3, 5)), rows, name="image"), (2, 2))
    return net.output(convolved(net, x, 3, (2, 2), (1, 1, 0, 0), bias))


@refuses(SplitPhases(), "")
def a_kernel_that_misses_pixels(net):
    x = widened(net, net.input(1, 3, 4, 4), (2, 2))
    return net.output(convolved(net, x, 4, (1, 1), (0, 0, 0, 0), True))


@refuses(SplitPhases(), "")
def a_result_that_is_cropped(net):
    x = widened(net, net.input(1, 3, 4, 4), (2, 2))
    return net.output(convolved(net, x, 4, (3, 3), (0, 0, 0, 0), True))


@refuses(SplitPhases(), "")
def zeros_that_someone_sees(net):
    x = widened(net, net.input(1, 3, 4, 4), (2, 2))
    return net.output(convolved(net, x, 4, (4, 4), (2, 2, 1, 1), True), x)


@refuses(SplitPhases(), "")
def a_border_that_is_no_zero_between(net):
    x = net.add(Pad((0, 0, 1, 1, 0, 0, 1, 1)), net.input(1, 3, 4, 4), name="border")
    return net.output(convolved(net, x, 4, (3, 3), (0, 0, 0, 0), True))
