"""Graphs on which passes that move, remove or reorder nodes must, or must not, do their work."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np

from edgesmith.ir.ops.activation import Gelu, Relu
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.elementwise import Add, Mul
from edgesmith.ir.ops.pool import Mean
from edgesmith.ir.ops.shape import Expand, Gather, Reshape, Slice, Split, Transpose
from edgesmith.ir.passes.exact.canonicalise_norms import CanonicaliseNorms
from edgesmith.ir.passes.exact.eliminate_dead import EliminateDead
from edgesmith.ir.passes.exact.fold_constants import FoldConstants
from edgesmith.ir.passes.exact.fold_repnorm import FoldRepnorm
from edgesmith.ir.passes.exact.narrow_tokens import NarrowTokens
from edgesmith.ir.passes.exact.norm_to_rmsnorm import NormToRmsnorm
from edgesmith.ir.passes.exact.pool_algebra import PoolAlgebra
from edgesmith.ir.passes.recognise.patch_embed import RecognisePatchEmbed
from edgesmith.ir.passes.recognise.simplify_shapes import SimplifyShapes

CASES = runpy.run_path(str(Path(__file__).with_name("pass_cases.py")))["Cases"]()
applies, refuses = CASES.applies, CASES.refuses
PAD = {"pads": (1, 1, 1, 1)}


# ---- constants and dead code ----


@applies(FoldConstants())
def transposed_constant(net, bias):
    w = net.add(Transpose((1, 0)), net.normal(4, 3, name="w"), name="wt")
    return net.output(net.linear(net.input(2, 4), 3, bias, weight=w))


@refuses(FoldConstants(growth=100), "")
def expanded_constant(net):
    return net.output(net.add(Add(), net.input(8, 8), net.add(Expand((8, 8)), net.constant(0.5), name="table")))


@applies(EliminateDead())
def nodes_without_effect(net, bias):
    x = net.input(2, 3, 4)
    net.add(Relu(), x, name="dead")
    y = net.add(Mul(), net.add(Add(), x, net.constant(0.0)), net.constant(1.0), name="one")
    y = net.add(Reshape((2, 12)), net.add(Reshape((6, 4)), y), name="flat")
    y = net.linear(net.add(Slice((0,), (2**60,), (1,), (1,)), y), 3, bias)
    return net.output(net.add(Reshape((2,)), net.add(Mean((1,), True), y, name="pool"), name="squeeze"))


@applies(RecognisePatchEmbed())
def patches_after_their_norm_was_folded(net, bias):
    y = net.add(Reshape((1, 5, 4)), net.conv(net.input(1, 3, 8, 8), 5, 4, bias, strides=(4, 4)), name="flat")
    return net.output(net.layernorm(net.add(Transpose((0, 2, 1)), y, name="tokens")))


@applies(SimplifyShapes())
def movement_after_what_stood_between_was_folded(net, bias):
    y = net.add(Transpose((0, 2, 3, 1)), net.conv(net.input(1, 3, 4, 5), 6, 1, bias), name="last")
    y = net.add(Reshape((1, 20, 6)), y, name="tokens")
    y = net.add(Reshape((1, 6, 4, 5)), net.add(Transpose((0, 2, 1)), y, name="first"), name="image")
    return net.output(net.conv(y, 2, 3, name="head", **PAD))


@refuses(EliminateDead(), "'x' and 'same' are both names of the graph's interface")
def input_that_is_an_output(net):
    return net.output(net.add(Reshape((2, 3)), net.input(2, 3), name="same"))


@refuses(EliminateDead(), "'relu' and 'same' are both names of the graph's interface")
def value_that_is_two_outputs(net):
    x = net.add(Relu(), net.input(2, 3), name="relu")
    return net.output(x, net.add(Reshape((2, 3)), x, name="same"))


@refuses(EliminateDead(), "it turns an axis round")
def reversed_axis(net):
    return net.output(net.add(Slice((-1,), (-(2**62),), (1,), (-1,)), net.input(2, 3)))


@applies(CanonicaliseNorms())
def norms_that_stay(net, bias):
    return net.output(net.repnorm(net.add(Relu(), net.batchnorm(net.input(1, 3, 2, 4)))))


# ---- tokens ----


def token(net, x, i, name="token"):
    """Token i, its axis removed."""
    return net.add(Gather(1), x, net.graph.constant(np.int64(i)), name=name)


@applies(NarrowTokens())
def class_token_of_the_last_block(net, bias):
    x = net.input(1, 5, 6)
    q, k, v = (net.linear(x, 6, bias, name=name) for name in "qkv")
    table = net.normal(2, 5, 5, name="table")
    h = net.add(Attention(2, 0.5), q, k, v, table, name="attention")
    x = net.add(Add(), x, net.linear(h, 6, bias, "proj"), name="sum")
    return net.output(net.linear(token(net, net.layernorm(x), 0), 3, bias, "head"))


@applies(NarrowTokens())
def class_and_distillation_token(net, bias):
    x = net.layernorm(net.input(1, 5, 6))
    return net.output(*(net.linear(token(net, x, i, f"token{i}"), 3, bias, f"head{i}") for i in (0, 1)))


@applies(NarrowTokens())
def last_tokens_with_positions(net, bias):
    x = net.add(Add(), net.linear(net.input(1, 5, 6), 4, bias), net.normal(5, 4, name="pos"), name="sum")
    return net.output(net.add(Slice((-2,), (9,), (1,), (1,)), net.add(Gelu(), x, name="gelu"), name="tail"))


@refuses(NarrowTokens(), "'norm' is also read as a whole by 'fc'")
def token_of_a_value_read_as_a_whole(net):
    x = net.layernorm(net.input(1, 5, 6))
    return net.output(token(net, x, 0), net.linear(x, 3, name="fc"))


@applies(NarrowTokens())
def a_norm_read_whole_is_repeated_for_one_token_of_many(net, bias):
    normed = net.layernorm(net.input(1, 17, 8), bias, "norm")
    net.output(net.linear(normed, 4, bias, "fc"))
    return net.output(net.linear(net.add(Slice((0,), (1,), (1,), (1,)), normed, name="token"), 3, bias, "query"))


@refuses(NarrowTokens(), "the readers of 'sum' select nearly all of it")
def patches_without_the_class_token(net):
    x = net.add(Add(), net.linear(net.input(1, 17, 6), 4), net.normal(17, 4, name="pos"), name="sum")
    return net.output(net.add(Slice((1,), (17,), (1,), (1,)), x, name="patches"))


@refuses(NarrowTokens(), "'pool' (Mean) needs all of them")
def channels_of_a_mean(net):
    return net.output(token(net, net.add(Mean((1,)), net.input(1, 5, 6), name="pool"), 0))


@applies(NarrowTokens())
def token_that_is_two_outputs(net, bias):
    x = net.layernorm(net.input(1, 5, 6), bias, bias)
    return net.output(*(net.add(Slice((4,), (5,), (1,), (1,)), x, name=name) for name in ("first", "second")))


@refuses(NarrowTokens(), "'part' (Split) makes several values")
def token_of_one_piece(net):
    left, right = net.graph.add(Split(2, (2, 4)), net.linear(net.input(1, 5, 4), 6), name="part")
    return net.output(token(net, left, 0), right)


@applies(PoolAlgebra())
def final_batchnorm_and_mean(net, bias):
    x = net.batchnorm(net.input(1, 4, 3, 3))
    return net.output(net.linear(net.add(Mean((2, 3)), x, name="pool"), 3, bias))


@applies(PoolAlgebra())
def linear_and_mean_over_tokens(net, bias):
    return net.output(net.add(Mean((1,), True), net.linear(net.input(2, 5, 4), 3, bias), name="pool"))


@applies(PoolAlgebra())
def pointwise_conv_and_global_pool(net, bias):
    return net.output(net.add(Mean((2, 3)), net.conv(net.input(2, 4, 3, 3), 5, 1, bias), name="pool"))


@refuses(PoolAlgebra(), "the average runs over the channels")
def mean_over_channels(net):
    return net.output(net.add(Mean((2,)), net.linear(net.input(2, 5, 4), 3), name="pool"))


@refuses(PoolAlgebra(), "'conv' looks at neighbours")
def spatial_conv_and_global_pool(net):
    return net.output(net.add(Mean((2, 3)), net.conv(net.input(1, 2, 5, 5), 3, 3, **PAD), name="pool"))


# ---- the residual stream ----


def residual(net, bias=True, writer="linear", reader="norm", post=False):
    """One block on a stream that starts at a patch embedding."""
    x = net.patch_embed(net.input(1, 3, 8, 8), 6, 4, bias)
    x = net.add(Add(), x, net.normal(1, 4, 6, name="pos"), name="stream0")
    h = net.linear(net.layernorm(x, bias, False, name="norm1"), 12, bias, "fc1")
    h = net.linear(net.add(Gelu(), h, name="gelu"), 6, bias, "fc2")
    h = net.add(Relu(), h, name="relu") if writer == "relu" else h
    x = net.add(Add(), x, h, name="stream1")
    y = net.layernorm(x, False, False, name="norm2")
    y = net.linear(net.add(Add(), y, net.linear(y, 6), name="post") if post else y, 3, bias, "head")
    return net.output(y, *([net.add(Relu(), x, name="hook")] if reader == "hook" else []))


@applies(NormToRmsnorm())
def pre_norm_stream(net, bias):
    return residual(net, bias)


@refuses(NormToRmsnorm(), "'relu' (Relu) writes to it and is not linear at its last op")
def stream_with_a_nonlinear_writer(net):
    return residual(net, writer="relu")


@refuses(NormToRmsnorm(), "'stream1' is read un-normalised by 'hook' (Relu)")
def stream_with_an_unnormalised_reader(net):
    return residual(net, reader="hook")


@refuses(NormToRmsnorm(), "the shift of 'norm' could not be folded into its readers")
def stream_with_a_norm_that_keeps_its_shift(net):
    return net.output(net.layernorm(net.linear(net.input(2, 4), 6)))


@refuses(NormToRmsnorm(), "'x' is written by the graph input")
def stream_from_the_input(net):
    return net.output(net.layernorm(net.input(2, 6), shift=False))


@applies(FoldRepnorm())
def repnorm_before_linears(net, bias):
    x = net.repnorm(net.input(2, 5, 6))
    return net.output(net.linear(x, 4, bias, "a"), net.linear(x, 3, bias, "b"))
