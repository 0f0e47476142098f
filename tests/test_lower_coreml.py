"""Core ML as a back end: the saved package, evaluated by other code than wrote it, gives each op's reference."""

from __future__ import annotations

import numpy as np
import pytest

from edgesmith import targets
from edgesmith.ir.errors import Unsupported
from edgesmith.ir.graph import Graph, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops import registry
from edgesmith.ir.ops.conv import Conv
from edgesmith.ir.ops.logic import Cast
from edgesmith.ir.ops.norm import BatchNorm, LayerNorm
from edgesmith.ir.ops.shape import Pad, Reshape, Transpose
from edgesmith.lowering import Job, load
from edgesmith.lowering.coreml.spellings import SPELLINGS
from edgesmith.runtimes.mlprogram import MODES, evaluate, read

pytest.importorskip("coremltools")
pytestmark = pytest.mark.coreml

BACKEND = load("coreml")
FAMILIES = "activation attention conv elementwise linear logic norm number pool search shape".split()
FLOAT = {name: cls for name, cls in registry().items() if cls.__module__.rsplit(".", 1)[1] in FAMILIES}
CASES = [(f"{name}-{i}", op, arrays) for name, cls in FLOAT.items() for i, (op, arrays) in enumerate(cls.examples())]
each = pytest.mark.parametrize("op, arrays", [case[1:] for case in CASES], ids=[case[0] for case in CASES])


def one_op(op, arrays, constant=True):
    """A graph of one op and the arrays it is fed; all operands but the first are constants if `constant`."""
    graph, feeds, operands = Graph("one"), {}, []
    for index, array in enumerate(arrays):
        if array is None:
            operands.append(None)
        elif array.dtype == bool:
            feeds[f"i{index}"] = array.astype(np.float32)
            operands.append(graph.add(Cast("bool"), graph.input(f"i{index}", Type("float32", array.shape))))
        elif index and (constant or array.dtype.kind == "i"):
            operands.append(graph.constant(array.copy(), f"c{index}"))
        else:
            feeds[f"i{index}"] = array
            operands.append(graph.input(f"i{index}", Type(array.dtype.name, array.shape)))
    made = graph.add(op, *operands, name="node", sources=("first", "second"))
    for index, value in enumerate(made if isinstance(made, tuple) else (made,)):
        graph.output(graph.add(Cast("float32"), value) if value.dtype == "bool" else value, f"y{index}")
    return graph, feeds


def written(graph, path, dtype="float32", ranges=None, **options):
    """What the back end says of the package it wrote."""
    target = targets.get("host")
    given = {name: option.default for name, option in BACKEND.options.items()}
    return BACKEND.write(Job(graph.copy(), target, dtype, {**given, **options}, ranges or {}), path)


def computed(graph, feeds, folder, dtype="float32", **options):
    """Outputs of the package, under our names, and what was said of it."""
    path = folder / BACKEND.file
    said = written(graph, path, dtype, **options)
    names = said.details["names"]
    outputs = evaluate(read(path), {names.get(key, key): array for key, array in feeds.items()}, MODES["declared"])
    return {value.name: outputs[names.get(value.name, value.name)] for value in graph.outputs}, said


def agree(actual, expected, share=1e-5):
    for name, wanted in expected.items():
        assert actual[name].shape == wanted.shape
        assert actual[name].dtype == (np.float32 if wanted.dtype.kind == "f" else np.int32)
        assert np.abs(actual[name] - wanted).max() <= share * max(np.abs(wanted).max(), 1e-3)


def drawn(graph, seed=0):
    draw = np.random.default_rng(seed)
    return {value.name: draw.standard_normal(value.shape).astype(np.float32) for value in graph.inputs}


# ---- the ops ----


def test_every_op_of_float_graphs_has_a_spelling():
    assert set(SPELLINGS) == set(FLOAT.values())


@each
@pytest.mark.parametrize("form", [("iOS16", "plain"), ("iOS18", "plain"), ("iOS17", "ane")], ids=lambda form: form[1])
def test_the_package_gives_the_reference(op, arrays, form, tmp_path):
    graph, feeds = one_op(op, arrays)
    outputs, said = computed(graph, feeds, tmp_path, layout=form[1], deployment=form[0])
    agree(outputs, run(graph, feeds))
    assert said.operators and "const" not in said.operators


@each
def test_halves_stay_close(op, arrays, tmp_path):
    graph, feeds = one_op(op, arrays)
    outputs, _ = computed(graph, feeds, tmp_path, "float16")
    for name, wanted in run(graph, feeds).items():
        if not wanted.any():  # truth values that are all false have no direction
            assert not outputs[name].any()
            continue
        cosine = np.vdot(outputs[name], wanted) / np.linalg.norm(outputs[name]) / np.linalg.norm(wanted)
        assert cosine > 0.999


@each
def test_operands_that_are_computed_are_taken_or_refused_by_name(op, arrays, tmp_path):
    graph, feeds = one_op(op, arrays, constant=False)
    try:
        outputs, _ = computed(graph, feeds, tmp_path)
    except Unsupported as error:
        scalars = [name for name, array in feeds.items() if array.ndim == 0]
        dilated = isinstance(op, Conv) and op.dilations != (1, 1)
        assert scalars or dilated or isinstance(op, (BatchNorm, LayerNorm))
        assert error.where == (tuple(scalars) or ("first", "second"))
        return
    agree(outputs, run(graph, feeds))


def test_ranks_that_a_program_cannot_have_are_refused_by_name(tmp_path):
    graph = Graph("high")
    x = graph.input("x", Type("float32", (1, 3, 5, 5)))
    spread = graph.add(Reshape((1, 3, 5, 1, 5, 1)), x, name="spread", sources=("spread",))
    zeros = graph.add(Pad((*[0] * 9, 1, 0, 1), 0.0), spread, name="zeros", sources=("zeros",))
    graph.output(graph.add(Reshape((1, 3, 10, 10)), zeros, name="image", sources=("image",)))
    with pytest.raises(Unsupported, match="rank 6") as caught:
        written(graph, tmp_path / BACKEND.file)
    assert caught.value.where == ("zeros",)


def test_moves_of_high_rank_are_taken_apart(tmp_path):
    graph = Graph("moves")
    x = graph.input("x", Type("float32", (4, 6, 9)))
    y = graph.add(Transpose((0, 2, 4, 1, 3, 5)), graph.add(Reshape((2, 2, 2, 3, 3, 3)), x))
    taken = graph.copy()
    taken.output(taken.add(Reshape((8, 27)), taken.value(y.name), name="y"))
    feeds = {"x": np.arange(216, dtype=np.float32).reshape(4, 6, 9)}
    outputs, _ = computed(taken, feeds, tmp_path)
    agree(outputs, run(taken, feeds))


def test_moves_that_are_not_taken_apart_are_refused(tmp_path):
    graph = Graph("moves")
    x = graph.input("x", Type("float32", (4, 6, 9)))
    y = graph.add(Transpose((0, 2, 4, 1, 3, 5)), graph.add(Reshape((2, 2, 2, 3, 3, 3)), x))
    for shape in ((8, 27), (27, 8)):
        graph.output(graph.add(Reshape(shape), y, name=f"to{shape[0]}"))
    with pytest.raises(Unsupported, match="rank 6"):
        written(graph, tmp_path / BACKEND.file)
