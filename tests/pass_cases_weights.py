"""Graphs on which passes that change weights must, or must not, do their work."""

from __future__ import annotations

import runpy
from pathlib import Path

from edgesmith.ir.ops.activation import Relu
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.elementwise import Add, Div, Mul, Sub
from edgesmith.ir.ops.linear import Linear, MatMul
from edgesmith.ir.ops.norm import GroupNorm
from edgesmith.ir.ops.pool import AveragePool, Mean
from edgesmith.ir.ops.shape import Reshape, Split, Transpose
from edgesmith.ir.passes.exact.fold_affine_norm import FoldAffineNorm
from edgesmith.ir.passes.exact.fold_batchnorm import FoldBatchnorm
from edgesmith.ir.passes.exact.fold_layer_scale import FoldLayerScale
from edgesmith.ir.passes.exact.fold_scalars import FoldScalars

CASES = runpy.run_path(str(Path(__file__).with_name("pass_cases.py")))["Cases"]()
applies, refuses = CASES.applies, CASES.refuses
PAD = {"pads": (1, 1, 1, 1)}


# ---- batch norms ----


@applies(FoldBatchnorm())
def batchnorm_after_padded_conv(net, bias):
    return net.output(net.batchnorm(net.conv(net.input(2, 3, 6, 6), 4, 3, bias, strides=(2, 2), **PAD)))


@applies(FoldBatchnorm())
def batchnorm_after_grouped_conv(net, bias):
    return net.output(net.batchnorm(net.conv(net.input(1, 4, 6, 6), 6, 3, bias, groups=2, **PAD)))


@applies(FoldBatchnorm())
def batchnorm_after_depthwise_conv(net, bias):
    return net.output(net.batchnorm(net.conv(net.input(1, 4, 6, 6), 4, 3, bias, groups=4, **PAD)))


@applies(FoldBatchnorm())
def batchnorm_after_linear_seen_through_reshape(net, bias):
    y = net.linear(net.input(2, 6, 5), 8, bias)
    return net.output(net.batchnorm(net.add(Transpose((0, 2, 1)), y), 1))


@applies(FoldBatchnorm())
def affine_after_patch_embedding(net, bias):
    return net.output(net.affine(net.patch_embed(net.input(1, 3, 8, 8), 5, 4, bias)))


@applies(FoldBatchnorm())
def batchnorm_before_conv_1x1_and_linear(net, bias):
    x = net.batchnorm(net.input(1, 4, 1, 1))
    flat = net.add(Mean((2, 3)), x, name="pool")
    return net.output(net.conv(x, 3, 1, bias), net.linear(flat, 5, bias))


@applies(FoldBatchnorm())
def batchnorm_before_unpadded_grouped_conv(net, bias):
    return net.output(net.conv(net.batchnorm(net.input(2, 6, 5, 5)), 4, 3, bias, groups=2))


@applies(FoldBatchnorm())
def pure_scale_before_padded_conv(net, bias):
    return net.output(net.conv(net.affine(net.input(1, 3, 5, 5), 1, shift=False), 4, 3, bias, **PAD))


@applies(FoldBatchnorm())
def batchnorm_before_two_layers_that_share_a_weight(net, bias):
    x = net.affine(net.input(2, 4))
    w = net.normal(3, 4, name="w")
    return net.output(net.linear(x, 3, bias, "a", w), net.linear(x, 3, bias, "b", w))


@refuses(FoldBatchnorm(), "'conv' pads with zeros: the border would differ")
def batchnorm_before_padded_conv(net):
    return net.output(net.conv(net.batchnorm(net.input(1, 3, 5, 5)), 4, 3, **PAD))


@refuses(FoldBatchnorm(), "'conv' is also read by 'relu'")
def batchnorm_after_conv_with_two_readers(net):
    y = net.conv(net.input(1, 3, 5, 5), 4)
    return net.output(net.add(Relu(), y, name="relu"), net.batchnorm(y))


@refuses(FoldBatchnorm(), "'relu' (Relu) stands between it and the weights")
def batchnorm_with_one_reader_that_is_no_layer(net):
    x = net.batchnorm(net.input(1, 3, 5, 5))
    return net.output(net.conv(x, 4), net.add(Relu(), x, name="relu"))


@refuses(FoldBatchnorm(), "the weight 'w' is shared with 'other'")
def batchnorm_after_linear_with_a_shared_weight(net):
    x, w = net.input(2, 4), net.normal(4, 4, name="w")
    return net.output(net.affine(net.linear(x, 4, weight=w, name="fc")), net.linear(x, 4, weight=w, name="other"))


@refuses(FoldBatchnorm(), "'bn' is a graph output")
def batchnorm_that_is_an_output(net):
    return net.output(net.batchnorm(net.input(1, 3, 2, 2)))


@refuses(FoldBatchnorm(), "'part_0' is only a part of 'fc'")
def affine_after_some_tokens_of_a_split(net):
    first, rest = net.graph.add(Split(1, (2, 3)), net.linear(net.input(1, 5, 4), 3), name="part")
    return net.output(net.affine(first), rest)


# ---- scales ----


@applies(FoldLayerScale())
def layer_scale_after_linear(net, bias):
    x = net.input(2, 5, 6)
    y = net.add(Mul(), net.linear(x, 6, bias), net.normal(6, name="gamma"), name="scale")
    return net.output(net.add(Add(), x, y, name="sum"))


@applies(FoldLayerScale())
def layer_scale_after_conv(net, bias):
    y = net.conv(net.input(1, 3, 6, 6), 4, 3, bias, **PAD)
    return net.output(net.add(Mul(), net.normal(4, 1, 1, name="gamma"), y, name="scale"))


@applies(FoldLayerScale())
def channel_shift_before_linear(net, bias):
    return net.output(net.linear(net.add(Sub(), net.normal(4, name="mean"), net.input(2, 4)), 3, bias))


@refuses(FoldLayerScale(), "'sum' (Add) stands between it and the weights")
def layer_scale_of_the_pooling_mixer(net):
    x = net.input(1, 3, 6, 6)
    pooled = net.add(AveragePool((3, 3), pads=(1, 1, 1, 1)), x, name="pool")
    y = net.add(Mul(), net.add(Sub(), pooled, x, name="less"), net.normal(3, 1, 1, name="gamma"), name="scale")
    return net.output(net.add(Add(), x, y, name="sum"))


@refuses(FoldLayerScale(), "'pos' varies along axes [1, 2], not along one")
def position_table(net):
    return net.output(net.add(Add(), net.linear(net.input(1, 3, 4), 4), net.normal(1, 3, 4, name="pos")))


@applies(FoldScalars())
def scalar_divisor_after_linear(net, bias):
    return net.output(net.add(Div(), net.linear(net.input(2, 4), 3, bias), net.constant(8.0), name="scaled"))


@applies(FoldScalars())
def scalar_divisor_after_a_sum_of_layers(net, bias):
    terms = [net.linear(net.input(2, 4, name=name), 3, bias, f"fc_{name}") for name in "xy"]
    return net.output(net.add(Div(), net.add(Add(), *terms, name="sum"), net.constant(2.0), name="mean"))


@applies(FoldBatchnorm())
def affine_after_a_sum_of_layers(net, bias):
    terms = [net.linear(net.input(2, 4, name=name), 3, bias, f"fc_{name}") for name in "xy"]
    return net.output(net.affine(net.add(Add(), *terms, name="sum")))


@applies(FoldScalars())
def scalar_factor_of_a_product_of_split_heads(net, bias):
    q = net.add(Reshape((1, 2, 3, 5)), net.conv(net.input(1, 4, 1, 5), 6, 1, bias, "q"), name="heads")
    scores = net.add(MatMul(), net.add(Transpose((0, 1, 3, 2)), q, name="rows"), net.input(1, 2, 3, 7, name="k"))
    return net.output(net.add(Mul(), scores, net.constant(0.3), name="scaled"))


@applies(FoldScalars())
def scalar_factor_before_conv(net, bias):
    return net.output(net.conv(net.add(Mul(), net.input(1, 3, 5, 5), net.constant(1 / 255)), 4, 3, bias, **PAD))


@applies(FoldScalars())
def attention_scale_into_query(net, bias):
    x = net.input(1, 5, 6)
    q, k, v = (net.linear(x, 6, bias, name=name) for name in "qkv")
    return net.output(net.add(Attention(2, 3**-0.5), q, k, v, name="attention"))


@applies(FoldScalars())
def attention_scale_into_rows_of_a_joint_projection(net, bias):
    qkv = net.graph.add(Split(2, (6, 6, 6)), net.linear(net.input(1, 5, 6), 18, bias), name="qkv")
    return net.output(net.add(Attention(2, 3**-0.5), *qkv, name="attention"))


@refuses(FoldScalars(), "'q' is also read by 'relu'")
def attention_scale_of_a_shared_query(net):
    q = net.linear(net.input(1, 5, 6), 6, name="q")
    return net.output(net.add(Relu(), q, name="relu"), net.add(Attention(2, 0.5), q, q, q, name="attention"))


@applies(FoldAffineNorm())
def layernorm_before_linears(net, bias):
    x = net.layernorm(net.input(2, 5, 6))
    return net.output(net.linear(x, 4, bias, "a"), net.linear(x, 3, bias, "b"))


@applies(FoldAffineNorm())
def groupnorm_before_conv_1x1(net, bias):
    x = net.input(1, 4, 3, 3)
    y = net.add(GroupNorm(1), x, net.positive(4, name="g"), net.normal(4, name="b") if bias else None, name="norm")
    return net.output(net.conv(y, 5, 1, bias))


@applies(FoldAffineNorm())
def layernorm_before_mean_and_head(net, bias):
    x = net.layernorm(net.input(2, 5, 6), shift=bias)
    return net.output(net.linear(net.add(Mean((1,)), x, name="pool"), 4, bias))


@refuses(FoldAffineNorm(), "'sum' (Add) stands between it and the weights")
def layernorm_also_read_by_a_sum(net):
    x = net.layernorm(net.input(2, 5, 6))
    return net.output(net.add(Add(), x, net.linear(x, 6), name="sum"))


@refuses(FoldAffineNorm(), "the weight 'w' is shared with 'b'")
def layernorms_before_a_shared_weight(net):
    w = net.normal(3, 6, name="w")
    first, second = net.layernorm(net.input(2, 6), name="n1"), net.layernorm(net.input(2, 6, name="y"), name="n2")
    return net.output(net.linear(first, 3, name="a", weight=w), net.linear(second, 3, name="b", weight=w))


@refuses(FoldScalars(), "'b.bias' is not a constant")
def half_of_a_sum_of_which_one_layer_has_a_computed_bias(net):
    """Neither layer is changed, or the other would be halved again and again."""
    x = net.input(2, 5)
    computed = net.add(Relu(), net.input(4, name="late"), name="b.bias")
    late = net.add(Linear(), x, net.normal(4, 5, name="b.weight"), computed, name="b")
    total = net.add(Add(), net.linear(x, 4, name="a"), late, name="sum")
    return net.output(net.add(Mul(), total, net.constant(0.5), name="half"))
