"""Programs with one fault each: the comparison must name the operation that has it, and no other."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from edgesmith.ir.graph import Graph, Type
from edgesmith.ir.ops.activation import Clip, Gelu, Relu
from edgesmith.ir.ops.elementwise import Add, Mul
from edgesmith.ir.ops.linear import Linear
from edgesmith.ir.ops.norm import LayerNorm
from edgesmith.ir.ops.shape import Transpose
from edgesmith.runtimes.mlprogram import MODES, Mode, compare
from edgesmith.runtimes.mlprogram.match import aligned, distance, sanitised


def neighbour(name):
    """A module beside this file."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Package = neighbour("mil_packages").Package
DRAW = np.random.default_rng(3)
FIRST, SECOND = (DRAW.standard_normal((8, 8)).astype(np.float32) for _ in range(2))
X = DRAW.standard_normal((1, 5, 8)).astype(np.float32)
SHAPE = (1, 5, 8)


def network():
    """Two linear layers around GELU, LayerNorm and a square, with names as PyTorch's exporters give them."""
    graph = Graph("net")
    x = graph.input("x", Type("float32", SHAPE))
    first, second = graph.constant(FIRST, "w1"), graph.constant(SECOND, "w2")
    value = graph.add(Linear(), x, first, name="/fc1/MatMul", sources=("fc1.matmul",))
    value = graph.add(Gelu(), value, name="/act/Mul_1", sources=("act.erf", "act.mul"))
    value = graph.add(LayerNorm(eps=1e-5), value, None, None, name="/norm", sources=("norm",))
    value = graph.add(Mul(), value, value, name="/square", sources=("square",))
    graph.output(graph.add(Linear(), value, second, name="y", sources=("head",)))
    return graph


def program(dtype="fp32", gelu="EXACT", second=SECOND):
    """The same network as a package in the making."""
    made = Package()
    store = {"fp16": np.float16, "fp32": np.float32}[dtype]
    first, last = made.weight("w1", FIRST.astype(store)), made.weight("w2", second.astype(store))
    made.input("x", SHAPE)
    made.add("cast", "x_cast", SHAPE, dtype, x="x", dtype=(dtype,))
    made.add("linear", "_fc1_MatMul", SHAPE, dtype, x="x_cast", weight=first)
    made.add("gelu", "_act_Mul_1", SHAPE, dtype, x="_fc1_MatMul", mode=(gelu,))
    made.add("layer_norm", "_norm", SHAPE, dtype, x="_act_Mul_1", axes=(-1,), epsilon=1e-5)
    made.add("mul", "_square", SHAPE, dtype, x="_norm", y="_norm")
    made.add("linear", "y_half", SHAPE, dtype, x="_square", weight=last)
    made.add("cast", "y", SHAPE, x="y_half", dtype=("fp32",))
    return made


def found(tmp_path, made, graph=None, feed=X, mode="declared", **how):
    """The comparison of a package in the making."""
    path = made.save(tmp_path / "net.mlpackage", *(made.outputs or ["y"]))
    return compare(path, graph or network(), {"x": feed}, mode, **how)


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("mode", ["declared", "float32", "float16", "declared-accumulate16"])
def test_a_sound_program_has_no_culprit(tmp_path, dtype, mode):
    """Rounding alone accuses nobody; every named value is compared."""
    table = found(tmp_path, program(dtype), mode=mode)
    assert table.culprit is None and table.culprits == ()
    assert [row.op for row in table.rows] == ["Linear", "Gelu", "LayerNorm", "Mul", "Linear"]
    assert [row.value for row in table.rows] == ["/fc1/MatMul", "/act/Mul_1", "/norm", "/square", "y"]
    assert table.unmatched == ("x_cast", "y_half")
    rounds = mode.startswith("float16") or (dtype == "fp16" and mode != "float32")
    assert all((row.own > 0) == rounds for row in table.rows[:2])
    assert all(row.error < 0.05 * row.peak for row in table.rows)


def test_another_function_is_a_wrong_meaning(tmp_path):
    """GELU by tanh instead of exactly: too little to see in the scores, and yet named, with its ONNX nodes."""
    table = found(tmp_path, program(gelu="TANH_APPROXIMATION"))
    assert [row.name for row in table.culprits] == ["_act_Mul_1"] and table.culprit
    assert table.culprit.verdict == "meaning" and table.culprit.sources == ("act.erf", "act.mul")
    assert str(table.culprit) == "gelu '_act_Mul_1' (from act.erf, act.mul)"


def test_other_weights_are_a_wrong_meaning(tmp_path):
    """One weight of many."""
    other = SECOND.copy()
    other[3, 4] += 0.01
    assert found(tmp_path, program(second=other)).culprit.name == "y"
    assert found(tmp_path, program("fp16", second=SECOND.T)).culprit.name == "y"


def test_an_overflow_is_the_fault_of_the_square(tmp_path):
    """All that follows is infinite too; only where it began is accused."""
    graph = Graph("net")
    x = graph.input("x", Type("float32", SHAPE))
    value = graph.add(Relu(), x, name="a", sources=("relu",))
    value = graph.add(Mul(), value, value, name="b", sources=("square",))
    value = graph.add(Add(), value, value, name="c", sources=("sum",))
    graph.output(graph.add(Clip(minimum=0.0, maximum=50.0), value, name="y"))
    made = Package()
    made.input("x", SHAPE)
    made.add("cast", "x_half", SHAPE, "fp16", x="x", dtype=("fp16",))
    made.add("relu", "a", SHAPE, "fp16", x="x_half")
    made.add("mul", "b", SHAPE, "fp16", x="a", y="a")
    made.add("add", "c", SHAPE, "fp16", x="b", y="b")
    made.add("clip", "y_half", SHAPE, "fp16", x="c", alpha=0.0, beta=50.0)
    made.add("cast", "y", SHAPE, x="y_half", dtype=("fp32",))
    table = found(tmp_path, made, graph, 200 * X)
    assert table.culprit and table.culprit.name == "b" and table.culprit.sources == ("square",)
    assert table.culprit.verdict == "precision" and table.culprit.own == np.inf
    assert table.rows[-1].error < 0.1
    plain = json.loads(json.dumps(table.json(), allow_nan=False))
    assert plain["culprit"] == "b" and plain["rows"][1]["own"] == "inf" and plain["rows"][1]["sources"] == ["square"]
    assert found(tmp_path, made, graph, 200 * X, mode=MODES["float32"]).culprit is None


def test_a_norm_in_pieces_loses_its_digits(tmp_path):
    """Squares of large numbers, summed in half precision, inside of what the graph has as one op."""
    graph = Graph("net")
    x = graph.input("x", Type("float32", SHAPE))
    value = graph.add(Relu(), x, name="a")
    graph.output(graph.add(LayerNorm(eps=1e-5), value, None, None, name="y", sources=("norm",)))
    made, one = Package(), (1, 5, 1)
    made.input("x", SHAPE)
    made.add("cast", "x_half", SHAPE, "fp16", x="x", dtype=("fp16",))
    made.add("relu", "a", SHAPE, "fp16", x="x_half")
    made.add("reduce_mean", "mean", one, "fp16", x="a", axes=(-1,), keep_dims=True)
    made.add("mul", "squares", SHAPE, "fp16", x="a", y="a")
    made.add("reduce_mean", "power", one, "fp16", x="squares", axes=(-1,), keep_dims=True)
    made.add("mul", "mean_square", one, "fp16", x="mean", y="mean")
    made.add("sub", "variance", one, "fp16", x="power", y="mean_square")
    made.add("rsqrt", "scale", one, "fp16", x="variance", epsilon=1e-5)
    made.add("sub", "centred", SHAPE, "fp16", x="a", y="mean")
    made.add("mul", "y_half", SHAPE, "fp16", x="centred", y="scale")
    made.add("cast", "y", SHAPE, x="y_half", dtype=("fp32",))
    assert found(tmp_path, made, graph, 1 + X).culprit is None
    table = found(tmp_path, made, graph, 100 + X)
    assert table.culprit and (table.culprit.name, table.culprit.verdict) == ("y", "precision")


def test_sums_in_half_precision_can_be_the_fault(tmp_path):
    """A long sum of equal signs loses its small terms."""
    graph, size = Graph("net"), 4096
    x = graph.input("x", Type("float32", (1, size)))
    ones = np.ones((2, size), np.float32)
    graph.output(graph.add(Linear(), x, graph.constant(ones, "w"), name="y"))
    made = Package()
    made.input("x", (1, size), "fp16")
    made.add("linear", "y", (1, 2), "fp16", x="x", weight=made.weight("w", ones.astype(np.float16)))
    feed = np.ones((1, size), np.float32)
    assert found(tmp_path, made, graph, feed).culprit is None
    table = found(tmp_path, made, graph, feed, mode=Mode("declared", "float16"))
    assert table.culprit and table.culprit.verdict == "precision" and table.culprit.own == 2048


def test_compressed_weights_accuse_nobody(tmp_path):
    """They are other weights by intent; the row says so."""
    made = Package("CoreML6")
    scale = np.abs(SECOND).max() / 127
    stored = made.weight("stored", np.round(SECOND / scale).astype(np.int8))
    graph = Graph("net")
    x = graph.input("x", Type("float32", SHAPE))
    graph.output(graph.add(Linear(), x, graph.constant(SECOND, "w"), name="y"))
    made.input("x", SHAPE)
    made.add(
        "constexpr_affine_dequantize", "w", (8, 8), quantized_data=stored, zero_point=np.int8(0), scale=scale, axis=0
    )
    made.add("linear", "y", SHAPE, x="x", weight="w")
    table = found(tmp_path, made, graph)
    assert table.rows[0].verdict == "weights" and table.rows[0].meaning > 0 and table.culprit is None


def test_tokens_may_lie_channels_first(tmp_path):
    """[1, N, C] here, [1, C, 1, N] there; also where a square leaves the order of axes open."""
    for tokens in (5, 8):
        shape, weight = (1, tokens, 8), FIRST.reshape(8, 8, 1, 1)
        graph = Graph("net")
        x = graph.input("x", Type("float32", shape))
        value = graph.add(Linear(), x, graph.constant(FIRST, "w1"), name="fc")
        value = graph.add(Gelu(), value, name="act")
        graph.output(graph.add(Transpose(perm=(0, 2, 1)), value, name="y"))
        made, first = Package(), (1, 8, 1, tokens)
        made.input("x", shape)
        made.add("transpose", "turned", (1, 8, tokens), x="x", perm=(0, 2, 1))
        made.add("expand_dims", "wide", first, x="turned", axes=(2,))
        made.add("conv", "fc", first, x="wide", weight=made.weight("w1", weight))
        made.add("gelu", "act", first, x="fc", mode=("EXACT",))
        made.add("squeeze", "y", (1, 8, tokens), x="act", axes=(2,))
        feed = DRAW.standard_normal(shape).astype(np.float32)
        table = found(tmp_path, made, graph, feed)
        assert [row.value for row in table.rows] == ["fc", "act", "y"] and table.culprit is None
        assert all(row.error < 1e-5 * row.peak for row in table.rows)


def test_names_come_from_the_artifact(tmp_path):
    """A back end that had to rename values tells so in the manifest beside the package."""
    made = program()
    for operation in made.operations:
        for output in operation["outputs"]:
            output["name"] = {"_square": "q1"}.get(output["name"], output["name"])
        for argument in operation.get("inputs", {}).values():
            for each in argument["arguments"]:
                each.update({"name": "q1"} if each.get("name") == "_square" else {})
    assert "/square" not in [row.value for row in found(tmp_path, made).rows]
    (tmp_path / "manifest.json").write_text(json.dumps({"details": {"names": {"/square": "q1"}}}))
    assert [row.name for row in found(tmp_path, made).rows if row.value == "/square"] == ["q1"]
    (tmp_path / "manifest.json").unlink()
    table = found(tmp_path, made, names={"/square": "q1"})
    assert "/square" in [row.value for row in table.rows]


def test_distances_and_layouts():
    """Infinities that agree are no distance; shapes that no order of axes makes equal do not match."""
    huge, odd = np.array([np.inf, 1, np.nan]), np.array([np.inf, 2, np.nan])
    assert distance(huge, odd) == 1 and distance(np.array([np.nan]), np.array([1.0])) == np.inf
    assert distance(np.array([3, 1]), np.array([1, 1])) == 2
    array = np.arange(24.0).reshape(1, 4, 6)
    assert aligned(array, np.zeros((6, 4))).shape == (6, 4)
    assert aligned(array, np.zeros((6, 5))) is None and aligned(array, np.zeros((3, 8))) is None
    np.testing.assert_array_equal(aligned(array, array.reshape(3, 8)), array.reshape(3, 8))
    assert sanitised("/blocks.0/act out") == "_blocks_0_act_out" and sanitised("12") == "var_12"
