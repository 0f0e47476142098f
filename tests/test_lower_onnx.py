"""ONNX as a back end: every float op in its spelling gives its reference, and what was written reads back the same."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest
from onnx import save

from edgesmith import frontend
from edgesmith.ir.errors import InternalError, Unsupported, UsageError
from edgesmith.ir.graph import Graph, Quant, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops import registry
from edgesmith.ir.ops.activation import Relu
from edgesmith.ir.ops.integer import QRequantise
from edgesmith.ir.ops.linear import Linear, MatMul
from edgesmith.ir.ops.norm import BatchNorm, GroupNorm, RepNorm
from edgesmith.ir.ops.quant import Quantize
from edgesmith.ir.ops.shape import Gather
from edgesmith.ir.passes.pipelines import FLOAT_ONNX, run_pipeline
from edgesmith.lowering.onnx.spellings import SPELLINGS, WIDE_INTEGERS_SINCE
from edgesmith.lowering.onnx.write import OPSETS, check, write
from edgesmith.runtimes import ort

FAMILIES = "activation attention conv elementwise linear logic norm number pool quant shape".split()
FLOAT = {name: cls for name, cls in registry().items() if cls.__module__.rsplit(".", 1)[1] in FAMILIES}
CASES = [(f"{name}-{i}", op, arrays) for name, cls in FLOAT.items() for i, (op, arrays) in enumerate(cls.examples())]
each = pytest.mark.parametrize("op, arrays", [case[1:] for case in CASES], ids=[case[0] for case in CASES])


def folds(op, arrays):
    """Whether it is only written with constant statistics."""
    return isinstance(op, BatchNorm) and (isinstance(op, RepNorm) or op.axis % arrays[0].ndim != 1)


def one_op(op, arrays, constant):
    """A graph of one op and the arrays it is fed; all operands but the first are constants if `constant`."""
    graph, feeds, operands = Graph("one"), {}, []
    for index, array in enumerate(arrays):
        if array is None:
            operands.append(None)
        elif index and (constant or array.dtype.kind == "i"):
            operands.append(graph.constant(array.copy(), f"c{index}"))
        else:
            feeds[f"i{index}"] = array
            operands.append(graph.input(f"i{index}", Type(array.dtype.name, array.shape)))
    made = graph.add(op, *operands, name="node", sources=("first", "second"))
    for index, value in enumerate(made if isinstance(made, tuple) else (made,)):
        graph.output(value, f"y{index}")
    return graph, feeds


def in_onnx_runtime(model, feeds, folder):
    path = folder / "written.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    return next(ort.reference(path, [feeds]))


def agree(actual, expected, share=1e-5):
    assert list(actual) == list(expected)
    for name, wanted in expected.items():
        assert actual[name].shape == wanted.shape and actual[name].dtype == wanted.dtype
        if wanted.dtype == bool:
            assert np.array_equal(actual[name], wanted)
            continue
        assert np.abs(actual[name] - wanted).max() <= share * max(np.abs(wanted).max(), 1e-3)


def meaning(graph):
    """What a graph computes, whatever its nodes are called and stored in: a hash for each output."""
    known = {id(value): repr(("input", value.name, str(value.type))) for value in graph.inputs}

    def of(value):
        if value is None:
            return "-"
        if value.data is not None:
            return repr((value.shape, hashlib.sha256(np.ascontiguousarray(value.data).tobytes()).hexdigest()))
        return known[id(value)]

    for node in graph.nodes:
        text = repr((type(node.op).__name__, node.op.attributes(), *map(of, node.inputs)))
        for index, value in enumerate(node.outputs):
            known[id(value)] = hashlib.sha256(f"{index} {text}".encode()).hexdigest()
    return {value.name: of(value) for value in graph.outputs}


def kinds(model):
    return sorted(node.op_type for node in model.graph.node)


# ---- the ops ----


def test_every_float_op_has_a_spelling():
    assert set(SPELLINGS) == set(FLOAT.values())


@each
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("constant", [True, False], ids=["weights", "operands"])
def test_onnx_runtime_gives_the_reference(op, arrays, constant, opset, tmp_path):
    if not constant and folds(op, arrays):
        pytest.skip("refused, see test_what_cannot_be_written_is_named_at_once")
    if "int16" in op.attributes().values() and opset < WIDE_INTEGERS_SINCE:
        pytest.skip("refused, see test_sixteen_bits_need_a_newer_opset")
    graph, feeds = one_op(op, arrays, constant)
    model = write(graph, opset)
    agree(in_onnx_runtime(model, feeds, tmp_path), run(graph, feeds))
    assert {node.doc_string for node in model.graph.node} == {"first\nsecond"}
    assert {tensor.name for tensor in model.graph.initializer} <= {name for n in model.graph.node for name in n.input}


def test_newer_opsets_have_whole_operators():
    by_name = {name: one_op(*next(cls.examples()), True)[0] for name, cls in FLOAT.items()}
    assert kinds(write(by_name["Attention"], 23)) == ["Attention"]
    assert kinds(write(by_name["RMSNorm"], 23)) == ["RMSNormalization"]
    assert kinds(write(by_name["PatchEmbed"])) == ["Conv", "Reshape", "Transpose"]


@pytest.mark.parametrize("opset", OPSETS)
def test_groups_are_normalised_as_instances(opset):
    """GroupNormalization is a function of ten operators to ONNX Runtime, shape inference at run time among them."""
    graph = one_op(*next(GroupNorm.examples()), True)[0]
    assert kinds(write(graph, opset)) == ["Add", "InstanceNormalization", "Mul", "Reshape", "Reshape"]


def test_opsets_of_other_ages_are_refused():
    with pytest.raises(UsageError, match="19"):
        write(one_op(Relu(), [np.zeros(3, np.float32)], True)[0], 19)


def test_what_cannot_be_written_is_named_at_once():
    graph = Graph("integers")
    x = graph.input("x", Type("float32", (2, 3)))
    for name in ("first", "second"):
        q = graph.add(Quantize(Quant(0.1)), x)
        graph.output(graph.add(QRequantise(quant=Quant(0.1)), q, sources=(name,)), name)
    with pytest.raises(Unsupported, match="QRequantise") as caught:
        write(graph)
    assert caught.value.where == ("first", "second")
    graph, _ = one_op(*next(RepNorm.examples()), False)
    with pytest.raises(Unsupported, match="known at compile time") as caught:
        write(graph)
    assert caught.value.where == ("first", "second")


def test_a_model_that_breaks_the_rules_is_ours_to_find():
    model = write(one_op(Relu(), [np.zeros(3, np.float32)], True)[0])
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 4
    with pytest.raises(InternalError, match="differ"):
        check(model)
    model.graph.node[0].op_type = "Nonsense"
    with pytest.raises(InternalError, match="no sound ONNX"):
        check(model)


# ---- constants ----


def test_a_shared_weight_is_stored_once():
    graph = Graph("shared")
    x = graph.input("x", Type("float32", (2, 4)))
    w = graph.constant(np.eye(4, dtype=np.float32) * 2, "w")
    graph.output(graph.add(Linear(), graph.add(Linear(), x, w, name="a"), w, name="b"), "y")
    model = write(graph)
    assert [tensor.name for tensor in model.graph.initializer] == ["w.T"]
    assert kinds(model) == ["MatMul", "MatMul"]


def test_a_weight_that_is_a_table_as_well_is_stored_once(tmp_path):
    table = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    for shape in ((2, 4), (1, 2, 4)):
        graph = Graph("tied")
        x, w = graph.input("x", Type("float32", shape)), graph.constant(table.copy(), "w")
        graph.output(graph.add(Linear(), x, w, graph.constant(table[:, 0].copy(), "b")), "scores")
        graph.output(graph.add(Gather(0), w, graph.constant(np.array([1, 4]), "i")), "rows")
        model = write(graph)
        assert sorted(tensor.name for tensor in model.graph.initializer) == ["b", "i", "w"]
        feeds = {"x": np.ones(shape, np.float32)}
        agree(in_onnx_runtime(model, feeds, tmp_path), run(graph, feeds))


def test_names_do_not_clash():
    graph = Graph("names")
    x = graph.input("y.matmul", Type("float32", (2, 4)))
    graph.output(graph.add(MatMul(), x, graph.constant(np.ones((4, 2), np.float32), "ints"), name="y"))
    model = write(graph)
    assert [node.name for node in model.graph.node] == ["y"] and model.graph.node[0].output == ["y"]


# ---- whole models ----


@pytest.fixture
def models(tiny_pixels, fashion):
    """Models that a bare computer has."""
    return [tiny_pixels, fashion / "model.onnx"]


@pytest.mark.parametrize("opset", OPSETS)
def test_what_was_written_reads_back_the_same(models, opset, tmp_path):
    for path in models:
        graph = frontend.load(path)
        written = tmp_path / path.name
        save(write(graph, opset), written)
        again = frontend.load(written)
        assert meaning(again) == meaning(graph)
        assert again.metadata == graph.metadata
        save(write(again, opset), tmp_path / "twice.onnx")
        assert meaning(frontend.load(tmp_path / "twice.onnx")) == meaning(graph)


@pytest.mark.parametrize("opset", OPSETS)
def test_a_simplified_model_gives_the_source_s_numbers(models, opset, tmp_path):
    for path in models:
        graph = frontend.load(path)
        source = onnx.load(path)
        run_pipeline(graph, FLOAT_ONNX)
        model = write(graph, opset)
        assert len(model.graph.node) < len(source.graph.node) or path.stem == "pixels"
        draw = np.random.default_rng(1)
        feeds = {value.name: draw.standard_normal(value.shape).astype(np.float32) for value in graph.inputs}
        agree(in_onnx_runtime(model, feeds, tmp_path), next(ort.reference(path, [feeds])))


def test_same_graph_same_bytes(models):
    for path in models:
        one, other = (write(frontend.load(path)).SerializeToString(deterministic=True) for _ in range(2))
        assert one == other
