"""Graphs on which passes that choose tokens and put rows in another shape must, or must not, do their work."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np

from edgesmith.ir.ops.activation import Gelu, Relu
from edgesmith.ir.ops.elementwise import Add
from edgesmith.ir.ops.pool import Mean
from edgesmith.ir.ops.shape import Concat, Gather, Reshape, Slice, Split
from edgesmith.ir.passes.exact.merge_slices import MergeSlices
from edgesmith.ir.passes.exact.pool_algebra import PoolAlgebra
from edgesmith.ir.passes.recognise.joined_rows import RecogniseJoinedRows

CASES = runpy.run_path(str(Path(__file__).with_name("pass_cases.py")))["Cases"]()
applies, refuses = CASES.applies, CASES.refuses


def token(net, x, start=0, end=1):
    return net.add(Slice((start,), (end,), (1,), (1,)), x, name="token")


# ---- rows ----


@applies(RecogniseJoinedRows())
def a_class_token_through_a_head(net, bias):
    y = net.linear(net.layernorm(token(net, net.input(1, 5, 4))), 3, bias)
    return net.output(net.add(Reshape((1, 3)), y, name="logits"))


@applies(RecogniseJoinedRows())
def pixels_of_patches_as_rows(net, bias):
    rows = net.add(Reshape((4, 6)), net.input(4, 3, 2), name="rows")
    return net.output(net.add(Reshape((1, 4, 5)), net.add(Gelu(), net.linear(rows, 5, bias)), name="tokens"))


@refuses(RecogniseJoinedRows(), "'logits' cuts rows, or makes more axes of them")
def rows_of_two_tokens_as_one(net):
    y = net.linear(token(net, net.input(1, 5, 4), 0, 2), 3)
    return net.output(net.add(Reshape((1, 6)), y, name="logits"))


@refuses(RecogniseJoinedRows(), "'logits' does not drop the axis that 'token' cuts")
def a_token_that_gets_another_axis(net):
    y = net.linear(token(net, net.input(1, 5, 4)), 3)
    return net.output(net.add(Reshape((1, 1, 3)), net.add(Relu(), y), name="logits"))


@refuses(RecogniseJoinedRows(), "'token' is also read by relu")
def a_token_that_is_read_elsewhere(net):
    one = token(net, net.input(1, 5, 4))
    y = net.add(Reshape((1, 4)), net.layernorm(one), name="logits")
    return net.output(net.add(Add(), y, net.add(Reshape((1, 4)), net.add(Relu(), one, name="relu"))))


# ---- single entries ----


@applies(MergeSlices())
def a_token_without_its_axis(net, bias):
    return net.output(net.add(Reshape((1, 4)), token(net, net.input(1, 5, 4), -2, -1), name="row"))


@applies(MergeSlices())
def a_gathered_token_without_its_axis(net, bias):
    one = net.add(Gather(1), net.input(1, 5, 4), net.graph.constant(np.array([3])), name="token")
    return net.output(net.add(Reshape((1, 4)), one, name="row"))


@applies(MergeSlices())
def two_tokens_of_two(net, bias):
    parts = net.graph.add(Split(1, (1, 1)), net.input(1, 2, 4), name="parts")
    rows = [net.add(Reshape((1, 4)), part, name=f"row{i}") for i, part in enumerate(parts)]
    return net.output(net.add(Add(), *rows, name="sum"))


@refuses(MergeSlices(), "it is not one entry of one axis, or the axis stays")
def two_tokens_as_one_row(net):
    return net.output(net.add(Reshape((1, 8)), token(net, net.input(1, 5, 4), 0, 2), name="row"))


# ---- averages of parts ----


@refuses(PoolAlgebra(), "the average does not run over the joined axis alone, or not over parts of one entry")
def average_of_parts_of_two_entries(net):
    stack = net.add(Concat(1), net.input(1, 2, 4), net.input(1, 1, 4), name="stack")
    return net.output(net.add(Mean((1,)), stack, name="mean"))
