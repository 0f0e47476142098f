"""Passes that change weights: the rewrite as text, equal numbers, a second run that finds nothing, and why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgesmith.ir.graph import Graph
from edgesmith.ir.ops.activation import Relu
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.elementwise import Add, Div, Mul, Sub
from edgesmith.ir.ops.linear import MatMul
from edgesmith.ir.ops.norm import GroupNorm
from edgesmith.ir.ops.pool import AveragePool, Mean
from edgesmith.ir.ops.shape import Concat, Gather, Reshape, Split, Transpose
from edgesmith.ir.passes.base import Pass
from edgesmith.ir.passes.exact.fold_affine_norm import FoldAffineNorm
from edgesmith.ir.passes.exact.fold_batchnorm import FoldBatchnorm
from edgesmith.ir.passes.exact.fold_layer_scale import FoldLayerScale
from edgesmith.ir.passes.exact.fold_linear_chain import FoldLinearChain
from edgesmith.ir.passes.exact.fold_scalars import FoldScalars
from edgesmith.ir.passes.exact.merge_heads import MergeHeads
from edgesmith.ir.passes.pipelines import EXACT
from edgesmith.ir.text import show

Make = Callable[..., Graph]
APPLIES: dict[str, tuple[Pass, Make]] = {}
REFUSES: dict[str, tuple[Pass, str, Make]] = {}
PAD = {"pads": (1, 1, 1, 1)}


def applies(p: Pass) -> Callable[[Make], Make]:
    """Register a graph that a pass changes; it is built on a Net, with or without optional biases."""
    return lambda make: APPLIES.setdefault(make.__name__, (p, make))[1]


def refuses(p: Pass, reason: str) -> Callable[[Make], Make]:
    """Register a graph that a pass leaves alone, with a part of the reason it gives."""
    return lambda make: REFUSES.setdefault(make.__name__, (p, reason, make))[2]


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


# ---- chains and heads ----


@applies(FoldLinearChain())
def chain_of_three_factors_keeps_the_narrow_one(net, bias):
    x = net.linear(net.linear(net.input(2, 12), 3, bias, "f1"), 3, bias, "f2")
    return net.output(net.linear(x, 10, bias, "f3"))


@applies(FoldLinearChain())
def chain_of_wide_factors_becomes_dense(net, bias):
    return net.output(net.linear(net.linear(net.input(2, 4), 9, bias, "f1"), 5, bias, "f2"))


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


@applies(MergeHeads())
def stacked_heads(net, bias):
    x = net.input(2, 6)
    parts = [net.add(Reshape((1, 2, 4)), net.linear(x, 4, bias, name), name=f"{name}.row") for name in "ab"]
    return net.output(net.add(Mean((0,)), net.add(Concat(0), *parts, name="stack"), name="mean"))


@refuses(MergeHeads(), "the heads read different values 'pool0' and 'pool1'")
def heads_on_different_tokens(net):
    x = net.input(2, 5, 6)
    tokens = [net.add(Gather(1), x, net.graph.constant(np.int64(i)), name=f"pool{i}") for i in (0, 1)]
    heads = [net.linear(token, 4, name=f"head{i}") for i, token in enumerate(tokens)]
    return net.output(net.add(Mul(), net.add(Add(), *heads, name="sum"), net.constant(0.5), name="mean"))


# ---- what holds for all of them ----


@pytest.mark.parametrize("name", APPLIES)
def test_rewrite_is_the_golden_one(name: str, build: ModuleType, golden) -> None:
    golden(f"passes/{name}.txt", build.before_and_after(*APPLIES[name]))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize("name", APPLIES)
def test_numbers_stay(name: str, bias: bool, dtype: str, tolerance: float, build: ModuleType) -> None:
    assert build.error_of_pass(*APPLIES[name], dtype, bias) < tolerance


@pytest.mark.parametrize("name", APPLIES)
def test_second_run_finds_nothing(name: str, build: ModuleType) -> None:
    p, make = APPLIES[name]
    graph = make(build.Net(), True)
    p.apply(graph)
    once = show(graph)
    assert p.apply(graph) == 0
    assert show(graph) == once


@pytest.mark.parametrize("name", REFUSES)
def test_refusal_says_why(name: str, build: ModuleType) -> None:
    p, reason, make = REFUSES[name]
    assert reason in build.reasons_of_refusal(p, make)


def test_every_pass_of_the_pipeline_has_a_case() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (Path(__file__).parent / "golden" / "passes").glob("*.txt")]
    shown = {line.removeprefix("# ") for text in texts for line in text.splitlines() if line.startswith("# ")}
    assert {p.name for p in EXACT} <= shown
