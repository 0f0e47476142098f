"""Graphs on which passes that make one layer of several must, or must not, do their work."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np

from edgesmith.ir.ops.activation import Relu
from edgesmith.ir.ops.elementwise import Add, Div, Mul, Sub
from edgesmith.ir.ops.pool import AveragePool, Mean
from edgesmith.ir.ops.shape import Concat, Gather, Reshape
from edgesmith.ir.passes.exact.fold_linear_chain import FoldLinearChain
from edgesmith.ir.passes.exact.merge_branches import MergeBranches
from edgesmith.ir.passes.exact.merge_heads import MergeHeads
from edgesmith.ir.passes.exact.pool_algebra import PoolAlgebra

CASES = runpy.run_path(str(Path(__file__).with_name("pass_cases.py")))["Cases"]()
applies, refuses = CASES.applies, CASES.refuses
PAD = {"pads": (1, 1, 1, 1)}


# ---- branches ----


@applies(MergeBranches())
def repvgg_block(net, bias):
    x = net.input(1, 4, 6, 6)
    total = net.add(Add(), net.conv(x, 4, 3, bias, "c3", **PAD), net.conv(x, 4, 1, bias, "c1"), name="sum")
    return net.output(net.add(Add(), total, net.batchnorm(x), name="sum2"))


@applies(MergeBranches())
def strided_grouped_branches(net, bias):
    x, options = net.input(1, 4, 8, 8), {"strides": (2, 2), "groups": 2}
    a = net.conv(x, 6, 5, bias, "c5", pads=(2, 2, 2, 2), **options)
    return net.output(net.add(Add(), a, net.conv(x, 6, 3, bias, "c3", **PAD, **options), name="sum"))


@applies(MergeBranches())
def depthwise_branches_and_identity(net, bias):
    x = net.input(1, 4, 6, 6)
    return net.output(net.add(Add(), x, net.conv(x, 4, 3, bias, "dw", groups=4, **PAD), name="sum"))


@applies(MergeBranches())
def pointwise_branches_of_different_groups(net, bias):
    x = net.input(1, 8, 3, 3)
    a, b = net.conv(x, 8, 1, bias, "g4", groups=4), net.conv(x, 8, 1, bias, "g2", groups=2)
    return net.output(net.add(Add(), a, b, name="sum"))


@applies(MergeBranches())
def linear_branches_in_a_larger_sum(net, bias):
    x = net.input(2, 5)
    total = net.add(Add(), net.linear(x, 4, bias, "a"), net.input(2, 4, name="skip"), name="sum")
    return net.output(net.add(Add(), total, net.linear(x, 4, True, "b"), name="sum2"))


@applies(MergeBranches())
def mixer_that_takes_a_norm_away(net, bias):
    x = net.input(1, 4, 6, 6)
    mixed = net.conv(x, 4, 3, bias, "dw", groups=4, **PAD)
    return net.output(net.add(Add(), x, net.add(Sub(), mixed, net.batchnorm(x), name="less"), name="sum"))


@applies(MergeBranches())
def layer_taken_away_from_what_does_not_merge(net, bias):
    x, skip = net.input(1, 4, 6, 6), net.add(Relu(), net.input(1, 4, 6, 6, name="y"), name="skip")
    layers = net.add(Add(), net.conv(x, 4, 3, bias, "c3", **PAD), net.conv(x, 4, 1, bias, "c1"), name="layers")
    return net.output(net.add(Sub(), net.add(Sub(), skip, layers, name="less"), net.batchnorm(x), name="sum"))


@applies(MergeBranches())
def subsampling_beside_a_strided_conv(net, bias):
    x = net.input(1, 4, 7, 7)
    local = net.conv(x, 4, 3, bias, "dw", groups=4, strides=(2, 2), **PAD)
    return net.output(net.add(Add(), local, net.add(AveragePool((1, 1), (2, 2)), x, name="pool"), name="sum"))


@applies(MergeBranches())
def average_that_counts_its_border(net, bias):
    x = net.input(1, 4, 6, 6)
    pooled = net.add(AveragePool((3, 3), pads=(1, 1, 1, 1), count_include_pad=True), x, name="pool")
    return net.output(net.add(Sub(), net.conv(x, 4, 3, bias, "dw", groups=4, **PAD), pooled, name="sum"))


@refuses(MergeBranches(), "the windows of 'pool' count fewer pixels at the border")
def average_that_leaves_its_border_out(net):
    x = net.input(1, 4, 6, 6)
    pooled = net.add(AveragePool((3, 3), pads=(1, 1, 1, 1)), x, name="pool")
    return net.output(net.add(Add(), net.conv(x, 4, 3, name="dw", groups=4, **PAD), pooled, name="sum"))


@refuses(MergeBranches(), "no branch has weights")
def mixer_of_averages(net):
    x = net.input(1, 4, 6, 6)
    pooled = net.add(AveragePool((3, 3), pads=(1, 1, 1, 1), count_include_pad=True), x, name="pool")
    return net.output(net.add(Sub(), pooled, x, name="less"))


@refuses(MergeBranches(), "the weight 'w' is shared with 'other'")
def branch_with_a_shared_weight(net):
    x, w = net.input(2, 5), net.normal(4, 5, name="w")
    total = net.add(Sub(), net.linear(x, 4, weight=w, name="a"), net.linear(x, 4, name="b"), name="sum")
    return net.output(total, net.add(Relu(), net.linear(x, 4, weight=w, name="other"), name="relu"))


@refuses(MergeBranches(), "'a' is no linear branch that only the sum reads")
def branch_that_is_an_output(net):
    x = net.input(2, 5)
    a = net.linear(x, 4, name="a")
    return net.output(a, net.add(Sub(), a, net.linear(x, 4, name="b"), name="sum"))


@refuses(MergeBranches(), "the common kernel has 576 weights, the branches 64 and 72")
def dense_pointwise_and_depthwise(net):
    x = net.input(1, 8, 6, 6)
    return net.output(
        net.add(Add(), net.conv(x, 8, 1, name="pw"), net.conv(x, 8, 3, name="dw", groups=8, **PAD), name="sum")
    )


@refuses(MergeBranches(), "'a' is no linear branch that only the sum reads")
def branch_with_another_reader(net):
    x = net.input(2, 5)
    a = net.linear(x, 4, name="a")
    total = net.add(Add(), a, net.linear(x, 4, name="b"), name="sum")
    return net.output(total, net.add(Relu(), a, name="relu"))


@refuses(MergeBranches(), "'relu' is no linear branch")
def branch_with_an_activation(net):
    x = net.input(2, 5)
    a = net.add(Relu(), net.linear(x, 4, name="a"), name="relu")
    return net.output(net.add(Add(), a, net.linear(x, 4, name="b"), name="sum"))


@refuses(MergeBranches(), "the branches have dilations (1, 1) and (2, 2)")
def branches_of_different_dilation(net):
    x = net.input(1, 2, 7, 7)
    a = net.conv(x, 2, 3, name="d2", dilations=(2, 2), pads=(2, 2, 2, 2))
    return net.output(net.add(Add(), net.conv(x, 2, 3, name="d1", **PAD), a, name="sum"))


# ---- chains and heads ----


@applies(FoldLinearChain())
def chain_of_three_factors_keeps_the_narrow_one(net, bias):
    x = net.linear(net.linear(net.input(2, 12), 3, bias, "f1"), 3, bias, "f2")
    return net.output(net.linear(x, 10, bias, "f3"))


@applies(FoldLinearChain())
def chain_of_wide_factors_becomes_dense(net, bias):
    return net.output(net.linear(net.linear(net.input(2, 4), 9, bias, "f1"), 5, bias, "f2"))


@applies(FoldLinearChain())
def wide_factor_of_several(net, bias):
    y = net.linear(net.input(2, 4), 5, bias, "f1")
    return net.output(*(net.add(Relu(), net.linear(y, 3, bias, name), name=f"{name}.act") for name in "qkv"))


@refuses(FoldLinearChain(), "a factor of 3 for 18 outputs of 4 inputs is cheaper than without")
def narrow_factor_of_several(net):
    y = net.linear(net.input(2, 4), 3, name="f1")
    return net.output(*(net.add(Relu(), net.linear(y, 6, name=name), name=f"{name}.act") for name in "qkv"))


@refuses(FoldLinearChain(), "keeping widths [12, 3, 12] is cheaper than multiplying them out")
def chain_of_narrow_factors(net):
    return net.output(net.linear(net.linear(net.input(2, 12), 3, name="f1"), 12, name="f2"))


@refuses(FoldLinearChain(), "'f1' is also read by another node")
def chain_read_in_the_middle(net):
    y = net.linear(net.input(2, 4), 8, name="f1")
    return net.output(net.linear(y, 4, name="f2"), net.add(Relu(), y, name="relu"))


@refuses(FoldLinearChain(), "the weight 'w' is shared with 'other'")
def chain_with_a_shared_factor(net):
    x, w = net.input(2, 4), net.normal(8, 4, name="w")
    chain = net.linear(net.linear(x, 8, weight=w, name="f1"), 4, name="f2")
    return net.output(chain, net.add(Relu(), net.linear(x, 8, weight=w, name="other")))


@applies(MergeHeads())
def averaged_heads(net, bias):
    x = net.input(2, 6)
    total = net.add(Add(), net.linear(x, 4, bias, "head"), net.linear(x, 4, True, "dist"), name="sum")
    return net.output(net.add(Div(), total, net.constant(2.0), name="mean"))


@applies(PoolAlgebra())
def stacked_heads(net, bias):
    x = net.input(2, 6)
    parts = [net.add(Reshape((1, 2, 4)), net.linear(x, 4, bias, name), name=f"{name}.row") for name in "ab"]
    return net.output(net.add(Mean((0,)), net.add(Concat(0), *parts, name="stack"), name="mean"))


@refuses(MergeHeads(), "a head is taken away")
def difference_of_heads(net):
    x = net.input(2, 6)
    total = net.add(Sub(), net.linear(x, 4, name="head"), net.linear(x, 4, name="dist"), name="less")
    total = net.add(Add(), total, net.linear(x, 4, name="third"), name="sum")
    return net.output(net.add(Div(), total, net.constant(2.0), name="mean"))


@refuses(MergeHeads(), "the heads read different values 'pool0' and 'pool1'")
def heads_on_different_tokens(net):
    x = net.input(2, 5, 6)
    tokens = [net.add(Gather(1), x, net.graph.constant(np.int64(i)), name=f"pool{i}") for i in (0, 1)]
    heads = [net.linear(token, 4, name=f"head{i}") for i, token in enumerate(tokens)]
    return net.output(net.add(Mul(), net.add(Add(), *heads, name="sum"), net.constant(0.5), name="mean"))
