"""Known answers: the numbered checks that exact passes must meet, and the pipeline that holds them to it."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgesmith import frontend
from edgesmith.ir.cost import cost
from edgesmith.ir.errors import InternalError
from edgesmith.ir.graph import Graph
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Relu
from edgesmith.ir.ops.conv import Conv
from edgesmith.ir.ops.elementwise import Add
from edgesmith.ir.ops.pool import Mean
from edgesmith.ir.ops.shape import Concat, Slice
from edgesmith.ir.passes.base import Pass
from edgesmith.ir.passes.exact.fold_affine_norm import FoldAffineNorm
from edgesmith.ir.passes.exact.fold_batchnorm import FoldBatchnorm
from edgesmith.ir.passes.exact.fold_layer_scale import FoldLayerScale
from edgesmith.ir.passes.exact.fold_linear_chain import FoldLinearChain, cheapest_cuts
from edgesmith.ir.passes.exact.fold_repnorm import FoldRepnorm
from edgesmith.ir.passes.exact.norm_to_rmsnorm import NormToRmsnorm
from edgesmith.ir.passes.pipelines import EXACT, run_pipeline
from edgesmith.ir.rewrite import Trace, tracing
from edgesmith.ir.text import show
from edgesmith.ir.verify import verify

ROUNDING = 1e-12


def reasons(p: Pass, graph: Graph) -> str:
    """Apply a pass that must find nothing, and return why not, at every place."""
    trace = Trace()
    token = tracing.set(trace)
    try:
        assert p.apply(graph) == 0
    finally:
        tracing.reset(token)
    return "\n".join(reason for _, _, reason, _ in trace.misses)


# ---- 5: parallel branches ----


@pytest.mark.parametrize("dtype, tolerance", [("float64", ROUNDING), ("float32", 1e-5)])
def test_check_5_mobileone_keeps_one_conv_per_block(build: ModuleType, dtype: str, tolerance: float) -> None:
    graph = build.mobileone(dtype)
    before = graph.copy()
    assert build.kinds(before)["BatchNorm"] == 32
    run_pipeline(graph)
    assert build.kinds(graph) == {"Conv": 6, "Relu": 6, "Mean": 1, "Linear": 1}
    assert build.difference(before, graph) < tolerance


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_check_5_branches_of_every_kernel_group_and_stride(build: ModuleType, k: int, groups: int, stride: int) -> None:
    net = build.Net()
    x, total = net.input(2, 4, 7, 9), None
    for i, size in enumerate({k, 3, 1}):
        pads = (size // 2,) * 4
        y = net.conv(x, 4, size, i != 1, f"conv{i}", groups=groups, strides=(stride, stride), pads=pads)
        y = net.batchnorm(y, name=f"bn{i}")
        total = y if total is None else net.add(Add(), total, y, name=f"sum{i}")
    if stride == 1:
        total = net.add(Add(), net.batchnorm(x, name="skip"), total, name="sum")
    graph = net.output(net.add(Relu(), total, name="relu"))
    before = graph.copy()
    run_pipeline(graph)
    assert build.kinds(graph) == {"Conv": 1, "Relu": 1}
    assert build.difference(before, graph) < ROUNDING


@pytest.mark.parametrize("shapes", [((1, 3), (3, 1)), ((3, 3), (2, 4)), ((1, 1), (4, 3))])
def test_check_5_uneven_kernels_lie_by_their_taps_or_stay(build: ModuleType, shapes) -> None:
    net = build.Net()
    x = net.input(1, 2, 6, 7)
    branches = []
    for i, (height, width) in enumerate(shapes):
        top, left = (height - 1) // 2, (width - 1) // 2
        op = Conv(pads=(top, left, height - 1 - top, width - 1 - left))
        branches.append(net.add(op, x, net.normal(3, 2, height, width, name=f"w{i}"), name=f"conv{i}"))
    graph = net.output(net.add(Add(), *branches, name="sum"))
    before = graph.copy()
    merged = run_pipeline(graph)["merge_branches"]
    sizes = [height * width for height, width in shapes]
    window = max(h for h, _ in shapes) * max(w for _, w in shapes)
    assert merged == (window <= sum(sizes))
    assert build.difference(before, graph) < ROUNDING


# ---- 6: the re-parameterised norm in its four positions ----


def repnorm_before_linears(net) -> Graph:
    x = net.repnorm(net.input(2, 5, 6))
    return net.output(net.linear(x, 4, name="a"), net.linear(x, 3, False, "b"))


def repnorm_after_linear(net) -> Graph:
    return net.output(net.repnorm(net.patch_embed(net.input(1, 3, 8, 8), 6, 4)))


def repnorm_before_mean_and_head(net) -> Graph:
    return net.output(net.linear(net.add(Mean((1,)), net.repnorm(net.input(2, 5, 6)), name="pool"), 4))


def repnorm_before_patch_merging(net) -> Graph:
    x = net.repnorm(net.input(1, 4, 4, 3))
    cuts = [(i, j) for j in (0, 1) for i in (0, 1)]
    parts = [net.add(Slice((i, j), (4, 4), (1, 2), (2, 2)), x, name=f"part{i}{j}") for i, j in cuts]
    return net.output(net.linear(net.add(Concat(-1), *parts, name="merged"), 6, bias=False))


POSITIONS = [repnorm_before_linears, repnorm_after_linear, repnorm_before_mean_and_head, repnorm_before_patch_merging]


@pytest.mark.parametrize("make", POSITIONS)
def test_check_6_repnorm_folds_in_four_positions(build: ModuleType, make) -> None:
    graph = make(build.Net())
    before = graph.copy()
    assert FoldRepnorm().apply(graph) == 1
    assert "RepNorm" not in build.kinds(graph)
    assert build.difference(before, graph) < ROUNDING


def test_check_6_patch_merging_gets_the_bias_it_lacked(build: ModuleType) -> None:
    graph = repnorm_before_patch_merging(build.Net())
    FoldRepnorm().apply(graph)
    assert build.node(graph, "fc").optional(2) is not None


def test_check_6_repnorm_before_a_padded_conv_is_refused(build: ModuleType) -> None:
    net = build.Net()
    graph = net.output(net.conv(net.repnorm(net.input(1, 3, 5, 5), 1), 4, 3, pads=(1, 1, 1, 1)))
    assert "'conv' pads with zeros: the border would differ" in reasons(FoldRepnorm(), graph)


# ---- 7: RMSNorm for LayerNorm ----


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("head", ["token", "mean"])
def test_check_7_pre_norm_vit_becomes_rmsnorm(build: ModuleType, head: str, bias: bool) -> None:
    graph = build.vit(head=head, bias=bias)
    before = graph.copy()
    for p in (FoldLayerScale(), FoldAffineNorm(), NormToRmsnorm()):
        assert p.apply(graph) > 0
        verify(graph, p.name)
    assert build.kinds(graph)["RMSNorm"] == 5
    assert "LayerNorm" not in build.kinds(graph)
    assert build.difference(before, graph) < ROUNDING


def test_check_7_layer_scale_must_be_folded_first(build: ModuleType) -> None:
    graph = build.vit()
    FoldAffineNorm().apply(graph)
    assert "'block1.ls2' (Mul) writes to it and is not linear" in reasons(NormToRmsnorm(), graph)


def test_check_7_post_norm_is_refused(build: ModuleType) -> None:
    net = build.Net()
    x = net.layernorm(net.input(2, 5, 6), shift=False, name="norm0")
    x = net.layernorm(net.add(Add(), x, net.linear(x, 6), name="sum"), shift=False, name="norm1")
    graph = net.output(net.linear(x, 3, name="head"))
    assert "'norm0' (LayerNorm) writes to it and is not linear at its last op" in reasons(NormToRmsnorm(), graph)


def test_check_7_unnormalised_reader_is_refused(build: ModuleType) -> None:
    graph = build.vit(depth=1, layer_scale=False)
    FoldAffineNorm().apply(graph)
    hook = graph.add(Relu(), graph.value("block0.add1"), name="hook")
    graph.output(hook)
    assert "'block0.add1' is read un-normalised by 'hook' (Relu)" in reasons(NormToRmsnorm(), graph)


# ---- 8: linear chains ----


@pytest.mark.parametrize("m, n, rho", [(192, 576, 0.75), (192, 768, 0.80), (192, 192, 0.50)])
def test_check_8_chain_is_dense_above_the_break_even(m: int, n: int, rho: float) -> None:
    below, above = int(np.ceil(rho * 192)) - 1, int(rho * 192) + 1
    assert cheapest_cuts([m, below, below, n]) in ((0, 1, 3), (0, 2, 3))
    assert cheapest_cuts([m, above, above, n]) == (0, 3)
    assert below < m * n / (m + n) < above


@pytest.mark.parametrize("rank, kept", [(5, 2), (13, 1)])
def test_check_8_three_factors_fold_without_error(build: ModuleType, rank: int, kept: int) -> None:
    net = build.Net()
    x = net.linear(net.linear(net.input(2, 7, 16), rank, False, "f1"), rank, False, "f2")
    graph = net.output(net.linear(x, 24, True, "f3"))
    before = graph.copy()
    FoldLinearChain().apply(graph)
    assert build.kinds(graph) == {"Linear": kept}
    assert cost(graph).macs < cost(before).macs
    assert cost(graph).parameters < cost(before).parameters
    assert build.difference(before, graph) < ROUNDING


# ---- 14: shared weights ----


def test_check_14_shared_weights_are_stored_once_after_the_pipeline(build: ModuleType) -> None:
    net = build.Net()
    x, w = net.patch_embed(net.input(1, 3, 8, 8), 6, 4), net.normal(6, 6, name="w")
    for i in range(3):
        h = net.linear(net.layernorm(x, name=f"norm{i}"), 6, name=f"fc{i}", weight=w)
        x = net.add(Add(), x, net.add(Relu(), h, name=f"relu{i}"), name=f"sum{i}")
    graph = net.output(x)
    before = graph.copy()
    run_pipeline(graph)
    assert len(graph.value("w").readers) == 3
    assert cost(graph).parameters == cost(before).parameters
    assert build.difference(before, graph) < ROUNDING


def test_check_14_a_table_added_twice_stays_one(build: ModuleType) -> None:
    net = build.Net()
    table = net.normal(1, 5, 6, name="pos")
    x = net.add(Add(), net.linear(net.input(1, 5, 4), 6), table, name="first")
    x = net.add(Add(), x, table, name="second")
    graph = net.output(net.linear(net.layernorm(x, shift=False), 3, name="head"))
    before = graph.copy()
    assert NormToRmsnorm().apply(graph) == 1
    assert cost(graph).parameters == cost(before).parameters
    assert len(build.node(graph, "second").input(1).readers) == 2
    assert build.difference(before, graph) < ROUNDING


def test_check_14_fold_into_all_readers_of_a_weight_keeps_it_shared(build: ModuleType) -> None:
    net = build.Net()
    x, w = net.affine(net.input(2, 4)), net.normal(3, 4, name="w")
    graph = net.output(net.linear(x, 3, name="a", weight=w), net.linear(x, 3, name="b", weight=w))
    before = graph.copy()
    assert FoldBatchnorm().apply(graph) == 1
    assert build.node(graph, "a").input(1) is build.node(graph, "b").input(1)
    assert build.difference(before, graph) < ROUNDING


# ---- 20: idempotence, and the distance to ONNX Runtime ----


def onnx_block(path) -> None:
    """A convolution with batch norm, tokens, a pre-norm residual layer with layer scale, a mean and a head, as ONNX."""
    draw = np.random.default_rng(11)
    sizes = {"k": (8, 3, 4, 4), "kb": (8,), "s": (8,), "b": (8,), "m": (8,), "pos": (1, 16, 8), "g": (8,), "h": (8,)}
    sizes |= {"w1": (8, 8), "b1": (8,), "ls": (8,), "w2": (8, 5), "b2": (5,)}
    weights = {name: draw.normal(0, 0.5, size) for name, size in sizes.items()} | {"v": draw.uniform(0.3, 2, 8)}
    arrays = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    arrays.append(numpy_helper.from_array(np.array([1, 8, 16]), "shape"))
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "k", "kb"], ["c"], "conv", strides=[4, 4]),
        node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], "bn"),
        node("Reshape", ["n", "shape"], ["r"], "reshape"),
        node("Transpose", ["r"], ["t"], "tokens", perm=[0, 2, 1]),
        node("Add", ["t", "pos"], ["x0"], "embed"),
        node("LayerNormalization", ["x0", "g", "h"], ["l"], "norm"),
        node("MatMul", ["l", "w1"], ["p"], "fc"),
        node("Add", ["p", "b1"], ["q"], "fc_bias"),
        node("Mul", ["q", "ls"], ["z"], "scale"),
        node("Add", ["x0", "z"], ["x1"], "sum"),
        node("LayerNormalization", ["x1", "h", "g"], ["l1"], "norm1"),
        node("ReduceMean", ["l1"], ["u"], "pool", axes=[1], keepdims=0),
        node("Gemm", ["u", "w2", "b2"], ["y"], "head"),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 3, 16, 16]), ("y", [1, 5]))]
    graph = helper.make_graph(nodes, "block", ports[:1], ports[1:], arrays)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_check_20_distance_to_onnx_runtime_stays(build: ModuleType, tmp_path) -> None:
    import onnxruntime

    onnx_block(tmp_path / "block.onnx")
    image = np.random.default_rng(3).normal(0, 1, (1, 3, 16, 16)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "block.onnx"), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": image})[0]
    graph = frontend.load(tmp_path / "block.onnx")
    seen = [float(np.abs(run(graph, {"x": image})["y"] - expected).max())]
    run_pipeline(graph, on_step=lambda p, n, g: seen.append(float(np.abs(run(g, {"x": image})["y"] - expected).max())))
    assert len(seen) > 4
    assert max(seen) < 1e-5 * float(np.abs(expected).max())
    assert build.kinds(graph) == {"PatchEmbed": 1, "Add": 2, "RMSNorm": 2, "Linear": 2, "Mean": 1}


@pytest.mark.parametrize("norm", ["layer", "rep"])
@pytest.mark.parametrize("head", ["token", "mean"])
def test_check_20_pipeline_is_idempotent(build: ModuleType, norm: str, head: str) -> None:
    graph = build.vit("float32", norm=norm, head=head)
    before = graph.copy()
    run_pipeline(graph, check=build.feeds(graph))
    once = show(graph)
    assert build.difference(before, graph) < 1e-5
    assert not any(run_pipeline(graph).values())
    assert show(graph) == once


# ---- the pipeline itself ----


@dataclass(frozen=True)
class DropBias(Pass):
    """A pass that claims to be exact and is not."""

    def apply(self, graph: Graph) -> int:
        node = next((n for n in graph.nodes if n.optional(2) is not None and type(n.op).__name__ == "Linear"), None)
        if node is None:
            return 0
        graph.set_input(node, 2, None)
        return 1


def test_pipeline_names_the_pass_that_moved_the_numbers(build: ModuleType) -> None:
    graph = build.vit(depth=1)
    with pytest.raises(InternalError, match="pass drop_bias moved output 'head' by"):
        run_pipeline(graph, (*EXACT, DropBias()), check=build.feeds(graph))


@dataclass(frozen=True)
class Restless(Pass):
    """A pass that always says it changed something."""

    def apply(self, graph: Graph) -> int:
        return 1


def test_pipeline_gives_up_on_passes_without_end(build: ModuleType) -> None:
    with pytest.raises(InternalError, match="still find something after 8 rounds"):
        run_pipeline(build.vit(depth=1), (Restless(),))


def test_vit_loses_layer_scales_and_narrows_its_last_block(build: ModuleType) -> None:
    graph = build.vit()
    macs = cost(graph).macs
    run_pipeline(graph)
    assert cost(graph).macs < 0.8 * macs
    assert build.node(graph, "block1.fc1").output.shape == (1, 1, 24)
    assert build.node(graph, "block0.fc1").output.shape == (1, 17, 24)
