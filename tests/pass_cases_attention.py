"""Graphs on which passes over attention, its products and pieces of tokens must, or must not, do their work."""

from __future__ import annotations

import runpy
from pathlib import Path

from edgesmith.ir.ops.activation import Relu
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.elementwise import Add
from edgesmith.ir.ops.linear import MatMul
from edgesmith.ir.ops.shape import Reshape, Slice, Split, Transpose
from edgesmith.ir.passes.exact.fold_attention_bias import FoldAttentionBias
from edgesmith.ir.passes.exact.merge_slices import MergeSlices
from edgesmith.ir.passes.exact.turn_products import TurnProducts

CASES = runpy.run_path(str(Path(__file__).with_name("pass_cases.py")))["Cases"]()
applies, refuses = CASES.applies, CASES.refuses


def attend(net, q, k, v, table=None):
    return net.add(Attention(2, 0.4), q, k, v, table, name="attention")


@applies(FoldAttentionBias())
def biases_of_keys_and_values(net, bias):
    x = net.input(2, 5, 6)
    q, k, v = net.linear(x, 4, bias, "q"), net.linear(x, 4, name="k"), net.linear(x, 10, name="v")
    y = attend(net, q, k, v, net.normal(2, 5, 5, name="table"))
    return net.output(net.linear(y, 3, bias, "proj"), net.linear(y, 4, bias, "other"))


@applies(FoldAttentionBias())
def biases_of_parts_of_a_joint_projection(net, bias):
    q, k, v = net.graph.add(Split(2, (4, 4, 6)), net.linear(net.input(1, 5, 6), 14, name="qkv"), name="cut")
    return net.output(net.linear(attend(net, q, k, v), 3, bias, "proj"))


@applies(FoldAttentionBias())
def biases_of_keys_of_convolutions(net, bias):
    image = net.input(1, 3, 2, 4)
    q, k, v = (net.conv(image, n, 1, bias or name == "k", name) for name, n in (("q", 4), ("k", 4), ("v", 6)))
    rows = [net.add(Reshape((1, each.shape[1], 8)), each, name=f"{each.name}.flat") for each in (q, k, v)]
    q, k, v = (net.add(Transpose((0, 2, 1)), each, name=f"{each.name}.rows") for each in rows)
    return net.output(net.add(Relu(), attend(net, q, k, v), name="relu"))


@applies(FoldAttentionBias())
def bias_of_values_whose_weight_keys_share(net, bias):
    x, w = net.input(1, 5, 6), net.normal(6, 6, name="w")
    k, v = net.linear(x, 6, False, "k", w), net.linear(x, 6, True, "v", w)
    return net.output(net.linear(attend(net, net.linear(x, 6, bias, "q"), k, v), 3, bias, "proj"))


@refuses(FoldAttentionBias(), "'v' is also read by 'relu'")
def values_that_others_read(net):
    x = net.input(1, 5, 6)
    v = net.linear(x, 6, name="v")
    positive = net.add(Relu(), v, name="relu")
    y = attend(net, net.linear(x, 6, name="q"), net.linear(x, 6, False, "k"), v)
    return net.output(net.linear(net.add(Add(), y, positive, name="sum"), 3, name="proj"))


@refuses(FoldAttentionBias(), "'attention' is a graph output")
def values_whose_mean_is_an_output(net):
    x = net.input(1, 5, 6)
    return net.output(attend(net, net.linear(x, 6, name="q"), net.linear(x, 6, False, "k"), net.linear(x, 6, name="v")))


@refuses(FoldAttentionBias(), "which has no weights")
def keys_behind_a_curve(net):
    x = net.input(1, 5, 6)
    k, v = (net.add(Relu(), net.linear(x, 6, name=name), name=f"{name}.relu") for name in "kv")
    return net.output(attend(net, net.linear(x, 6, name="q"), k, v))


@refuses(FoldAttentionBias(), "'mixed' is made by Reshape")
def keys_whose_channels_are_tokens_of_the_layer(net):
    x = net.input(1, 6, 4)
    k = net.add(Reshape((1, 4, 6)), net.linear(x, 4, name="k"), name="mixed")
    return net.output(attend(net, net.input(1, 3, 6, name="q"), k, net.input(1, 4, 6, name="v")))


@applies(TurnProducts())
def products_that_are_turned(net, bias):
    a, b = net.input(2, 3, 4, 5, name="a"), net.input(3, 6, 5, name="b")
    one = net.add(MatMul(), a, net.add(Transpose((0, 2, 1)), b, name="bt"), name="one")
    return net.output(net.add(Transpose((0, 1, 3, 2)), one, name="turned"))


@applies(TurnProducts())
def products_of_turned_factors_that_are_turned(net, bias):
    a, b = net.input(5, 4, name="a"), net.input(6, 5, name="b")
    factors = (net.add(Transpose((1, 0)), each, name=f"{each.name}t") for each in (a, b))
    return net.output(net.add(Transpose((1, 0)), net.add(MatMul(), *factors, name="product"), name="turned"))


@refuses(TurnProducts(), "both factors would have to be turned")
def product_of_plain_factors(net):
    product = net.add(MatMul(), net.input(2, 4, 5, name="a"), net.input(2, 5, 6, name="b"), name="product")
    return net.output(net.add(Transpose((0, 2, 1)), product, name="turned"))


@refuses(TurnProducts(), "both factors would have to be turned")
def product_of_a_turned_factor_that_others_read(net):
    bt = net.add(Transpose((0, 2, 1)), net.input(2, 6, 5, name="b"), name="bt")
    product = net.add(MatMul(), net.input(2, 4, 5, name="a"), bt, name="product")
    return net.output(net.add(Transpose((0, 2, 1)), product, name="turned"), net.add(Relu(), bt, name="relu"))


@refuses(TurnProducts(), "")
def product_whose_heads_are_moved(net):
    bt = net.add(Transpose((0, 2, 1)), net.input(2, 6, 5, name="b"), name="bt")
    product = net.add(MatMul(), net.input(2, 4, 5, name="a"), bt, name="product")
    return net.output(net.add(Transpose((1, 0, 2)), product, name="heads"))


def cut(net, x, name, start, end, axis, step=1):
    return net.add(Slice((start,), (end,), (axis,), (step,)), x, name=name)


@applies(MergeSlices())
def a_step_per_axis(net, bias):
    return net.output(cut(net, cut(net, net.input(1, 7, 8, 3), "rows", 0, 2**62, 1, 2), "columns", 1, 2**62, 2, 3))


@applies(MergeSlices())
def pieces_of_pieces_of_one_axis(net, bias):
    y = cut(net, cut(net, net.input(2, 20), "back", -2, -(2**62), 1, -3), "middle", 1, 5, 1)
    return net.output(cut(net, y, "forth", 3, -(2**62), 1, -2))


@refuses(MergeSlices(), "'rows' is also read by relu")
def a_piece_that_others_read(net):
    rows = cut(net, net.input(1, 7, 8), "rows", 0, 2**62, 1, 2)
    return net.output(cut(net, rows, "columns", 0, 4, 2), net.add(Relu(), rows, name="relu"))
