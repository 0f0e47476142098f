"""Graphs on which passes over attention, its products and pieces of tokens must, or must not, do their work."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np

from edgesmith.ir.ops.activation import Relu
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.elementwise import Add
from edgesmith.ir.ops.linear import MatMul
from edgesmith.ir.ops.shape import Gather, Reshape, Slice, Split, Transpose
from edgesmith.ir.passes.exact.fold_attention_bias import FoldAttentionBias
from edgesmith.ir.passes.exact.fold_permutation import FoldPermutation
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


def in_turn(net, x, name="turned"):
    """Channels of three groups of two, the first of each group first."""
    lead = x.shape[:-1]
    apart = net.add(Reshape((*lead, 3, 2)), x, name=f"{name}.apart")
    perm = (*range(len(lead)), len(lead) + 1, len(lead))
    return net.add(Reshape((*lead, 6)), net.add(Transpose(perm), apart, name=f"{name}.perm"), name=name)


@applies(FoldPermutation())
def heads_in_turn_before_a_linear(net, bias):
    return net.output(net.linear(in_turn(net, net.input(2, 5, 6)), 4, bias))


@applies(FoldPermutation())
def shuffled_channels_of_joined_rows(net, bias):
    rows = net.add(Reshape((10, 6)), in_turn(net, net.input(2, 5, 6)), name="rows")
    return net.output(net.linear(rows, 4, bias))


@applies(FoldPermutation())
def shuffled_channels_before_a_padded_convolution(net, bias):
    apart = net.add(Reshape((2, 3, 2, 4, 5)), net.input(2, 6, 4, 5), name="apart")
    y = net.add(Reshape((2, 6, 4, 5)), net.add(Transpose((0, 2, 1, 3, 4)), apart, name="perm"), name="shuffled")
    return net.output(net.conv(y, 4, 3, bias, pads=(1, 1, 1, 1)))


@applies(FoldPermutation())
def chosen_channels_in_another_order(net, bias):
    order = net.graph.constant(np.array([3, 0, 5, 1, 4, 2]), "order")
    return net.output(net.linear(net.add(Gather(2), net.input(2, 5, 6), order, name="chosen"), 4, bias))


@refuses(FoldPermutation(), "'moved' is no permutation of channels")
def tokens_that_become_channels(net):
    return net.output(net.linear(net.add(Transpose((0, 2, 1)), net.input(2, 5, 6), name="moved"), 4))


@refuses(FoldPermutation(), "'rows' is no permutation of channels")
def tokens_in_another_order(net):
    order = net.graph.constant(np.array([3, 0, 4, 1, 2]), "order")
    return net.output(net.linear(net.add(Gather(1), net.input(2, 5, 6), order, name="rows"), 4))


@refuses(FoldPermutation(), "'chosen' is only a part of 'x'")
def few_channels(net):
    order = net.graph.constant(np.array([3, 0]), "order")
    return net.output(net.linear(net.add(Gather(2), net.input(2, 5, 6), order, name="chosen"), 4))


@refuses(FoldPermutation(), "'turned' is also read by others")
def shuffled_channels_that_others_read(net):
    y = in_turn(net, net.input(2, 5, 6))
    return net.output(net.linear(y, 4), net.add(Relu(), y, name="relu"))


@refuses(FoldPermutation(), "the weight 'w' is shared with")
def shuffled_channels_before_a_shared_weight(net):
    w = net.normal(4, 6, name="w")
    other = net.linear(net.input(2, 6, name="y"), 4, name="b", weight=w)
    return net.output(net.linear(in_turn(net, net.input(2, 5, 6)), 4, name="a", weight=w), other)


@refuses(FoldPermutation(), "a grouped convolution reads its channels in their order")
def shuffled_channels_before_groups(net):
    y = net.add(Transpose((0, 2, 1, 3)), net.input(2, 6, 6, 5), name="perm")
    return net.output(net.conv(y, 6, 3, groups=3))
