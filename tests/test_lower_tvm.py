"""Holds the TVM back end to the numpy reference, op by op in one library, and to its word when TVM fails."""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import random
import runpy
from functools import partial
from operator import methodcaller
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgesmith import lowering, targets
from edgesmith.ir.errors import InternalError, MachineError, Unsupported, UsageError
from edgesmith.ir.graph import Graph, Quant, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops import registry
from edgesmith.ir.ops.activation import Gelu, Relu
from edgesmith.ir.ops.conv import Conv
from edgesmith.ir.ops.elementwise import Add, Mul
from edgesmith.ir.ops.integer_elementwise import QTable8
from edgesmith.ir.ops.linear import Linear, MatMul
from edgesmith.ir.ops.shape import Slice
from edgesmith.lowering.tvm import child
from edgesmith.lowering.tvm.kernels.product import fitting, pack_columns, pack_rows
from edgesmith.lowering.tvm.lower import layers, lower
from edgesmith.lowering.tvm.machine import Machine
from edgesmith.lowering.tvm.spellings import SPELLINGS
from edgesmith.lowering.tvm.views import Access, View, merged

SHARED = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tvm_libraries.py"))))
HERE, needs_tvm, outputs, agree = SHARED.HERE, SHARED.needs_tvm, SHARED.outputs, SHARED.agree
ARM = Machine.of(targets.get("tvm-cpu-aarch64").format)
WEIGHTS = ("Linear", "Conv", "PatchEmbed", "LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm", "RepNorm", "Affine")


def sample(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def read(view, flat):
    """What a view says of a buffer, element by element."""
    return np.array([flat[view.access(*index)] for index in np.ndindex(*view.shape)]).reshape(view.shape)


def test_views_are_what_numpy_makes_of_the_array():
    draw = random.Random(3)
    for _ in range(200):
        shape = tuple(draw.randint(1, 4) for _ in range(draw.randint(1, 4)))
        flat = np.arange(np.prod(shape))
        array, view = flat.reshape(shape), View.whole("x", shape)
        for _ in range(4):
            kind = draw.choice(("transpose", "slice", "stretch", "reshape"))
            if kind == "transpose":
                order = draw.sample(range(array.ndim), array.ndim)
                array, view = array.transpose(order), view.through(lambda a, order=order: a.transpose(order))
            elif kind == "slice":
                cut = tuple(slice(draw.randint(0, n - 1), None, draw.choice((1, 2))) for n in array.shape)
                array, view = array[cut], view.through(lambda a, cut=cut: a[cut])
            elif kind == "stretch":
                array = np.broadcast_to(array, (2, *array.shape))
                view = view.broadcast((2, *view.shape))
            elif (found := view.reshaped((array.size,))) is not None:
                array, view = array.reshape(-1), found
        assert np.array_equal(read(view, flat), array)
        sizes, (access, out) = merged(view.shape, view.access, View.whole("", view.shape).access)
        places = [(access(*index), out(*index)) for index in np.ndindex(*sizes)]
        assert [flat[place] for place, _ in places] == array.reshape(-1).tolist()
        assert [place for _, place in places] == list(range(array.size))


def test_axes_merge_as_far_as_strides_allow():
    whole = View.whole("x", (2, 3, 4)).access
    assert merged((2, 3, 4), whole)[0] == (24,)
    assert merged((2, 3, 4), whole, Access(0, (0, 4, 1)))[0] == (2, 12)
    assert merged((1, 1), Access(5, (0, 0))) == ((1,), (Access(5, (0,)),))


def test_packed_weights_hold_every_output_and_end_with_the_last():
    w = sample(10, 3)
    panels = pack_columns(w, 8).reshape(2, 3, 8)
    assert np.array_equal(panels[0].T, w[:8]) and np.array_equal(panels[1].T, w[2:])
    assert np.array_equal(pack_columns(w[:5], 8).reshape(3, 8).T, [*w[:5], *np.zeros((3, 3))])
    assert np.array_equal(pack_rows(w, 4).reshape(3, 3, 4)[2].T, w[6:])


@pytest.mark.parametrize("machine", [HERE, ARM])
@pytest.mark.parametrize(("rows", "columns"), [(197, 576), (1, 1000), (5, 7), (49, 448), (3, 12)])
def test_tiles_fit_the_registers_and_the_result(machine, rows, columns):
    for tile in fitting(machine, rows, columns):
        assert tile.rows <= rows and tile.vectors <= max(1, columns // machine.lanes)
        assert tile.rows * tile.vectors + (tile.vectors if tile.rows > 1 else 0) < machine.registers


def test_processors():
    assert (HERE.lanes, HERE.registers, ARM.lanes, ARM.registers) == (8, 16, 4, 32)
    assert Machine.of({"mtriple": "x86_64-linux-gnu", "features": ["+avx512f"]}).lanes == 16
    assert Machine.of({"mtriple": "riscv64-linux-gnu"}).lanes == 1
    assert Machine.of({"mtriple": "a-b", "threads": 3}).threads == HERE.shared("3").threads == 3
    for wrong in ("0", "-1", "many", "100", "1.5", ""):
        with pytest.raises(UsageError, match="threads"):
            HERE.shared(wrong)
    for wrong in ({}, {"mtriple": "x86"}, {"mtriple": 3}, {"mtriple": "a-b", "features": ["avx2"]}, {"cpu": "x"}):
        with pytest.raises(UsageError):
            Machine.of(wrong)


def fused(graph):
    return [[type(node.op).__name__ for node in layer] for layer in layers(graph)]


def test_elementwise_ops_join_the_layer_before_them():
    graph = Graph("block")
    x = graph.input("x", Type("float32", (1, 4, 6, 6)))
    y = graph.add(Gelu(), graph.add(Conv(), x, graph.constant(sample(4, 4, 1, 1))))
    graph.output(graph.add(Add(), graph.add(Conv(), y, graph.constant(sample(4, 4, 1, 1))), x))
    assert fused(graph) == [["Conv", "Gelu"], ["Conv", "Add"]]


def test_what_somebody_else_reads_is_not_joined():
    graph = Graph("shared")
    x = graph.input("x", Type("float32", (2, 4)))
    y = graph.add(Linear(), x, graph.constant(sample(4, 4)))
    graph.output(y, "y")
    z = graph.add(Linear(), y, graph.constant(sample(4, 4)))
    graph.output(graph.add(Mul(), z, graph.add(Relu(), z)))
    assert fused(graph) == [["Linear"], ["Linear"], ["Relu", "Mul"]]


def test_products_come_before_others_and_shapes_must_agree():
    graph = Graph("broadcast")
    x = graph.input("x", Type("float32", (1, 4)))
    small = graph.add(Linear(), x, graph.constant(sample(4, 4)))
    wide = graph.add(Relu(), graph.input("y", Type("float32", (3, 4))))
    graph.output(graph.add(Add(), small, wide))
    assert fused(graph) == [["Linear"], ["Relu", "Add"]]


def test_all_that_is_unknown_is_named():
    graph = Graph("strange")
    q = graph.input("q", Type("int8", (4,)))
    graph.output(graph.add(QTable8(quant=Quant(0.1)), q, graph.constant(np.zeros(256, np.int8))))
    x, i = graph.input("x", Type("float64", (3, 4))), graph.input("i", Type("float32", (3, 4)))
    graph.output(graph.add(Add(), x, x, name="wide", sources=("/wide",)))
    graph.output(graph.add(Relu(), i))
    with pytest.raises(Unsupported) as caught:
        lower(graph, HERE)
    assert "QTable8" in caught.value.text() and "Add" in caught.value.text() and "/wide" in caught.value.where


def test_forms_that_are_unknown_are_named_together():
    graph = Graph("computed")
    x, w = graph.input("x", Type("float32", (2, 4))), graph.input("w", Type("float32", (3, 4)))
    graph.output(graph.add(Linear(), x, w, sources=("/first",)))
    image, kernel = graph.input("image", Type("float32", (1, 3, 4, 4))), graph.input("k", Type("float32", (2, 3, 1, 1)))
    graph.output(graph.add(Conv(), image, kernel, sources=("/second",)))
    with pytest.raises(Unsupported, match="known at compile time") as caught:
        lower(graph, HERE)
    assert set(caught.value.where) == {"/first", "/second"}


def examples():
    """A graph of every op's examples, with its feeds and the outputs it must have."""
    graph, feeds, wanted = Graph("examples"), {}, {}
    for cls in SPELLINGS:
        if cls.__module__.rsplit(".", 1)[1] in ("logic", "quant", "shift"):
            continue  # test_lower_tvm_shift.py has those, which mix numbers of several types
        for number, (op, arrays) in enumerate(cls.examples()):
            operands = []
            for at, array in enumerate(arrays):
                if array is None:
                    operands.append(None)
                elif at and cls.__name__ in WEIGHTS:
                    operands.append(graph.constant(array))
                else:
                    name = f"{cls.__name__}_{number}_{at}"
                    feeds[name] = array
                    operands.append(graph.input(name, Type(array.dtype.name, array.shape)))
            results, references = graph.add(op, *operands), op.reference(*arrays)
            pairs = zip(results, references, strict=True) if isinstance(results, tuple) else [(results, references)]
            for at, (value, reference) in enumerate(pairs):
                wanted[f"{op}/{number}/{at}"] = reference
                graph.output(value, f"{op}/{number}/{at}")
    return graph, feeds, wanted


def test_every_float_op_is_known_or_refused_by_name():
    for name, cls in registry().items():
        if cls in SPELLINGS or cls.__name__.startswith("Q"):
            continue
        graph = Graph("one")
        op, arrays = next(iter(cls.examples()))
        given = [graph.input(f"x{i}", Type(a.dtype.name, a.shape)) if a is not None else None
                 for i, a in enumerate(arrays)]  # fmt: skip
        result = graph.add(op, *given)
        graph.output(result[0] if isinstance(result, tuple) else result)
        with pytest.raises(Unsupported, match=name):
            lower(graph, HERE)


@pytest.mark.tvm
def test_every_example_of_every_op_agrees(tmp_path):
    needs_tvm()
    graph, feeds, wanted = examples()
    agree(outputs(graph, feeds, tmp_path), wanted)


@pytest.mark.tvm
def test_narrow_vectors_compute_the_same(tmp_path):
    needs_tvm()
    graph, feeds, wanted = examples()
    machine = Machine.of({"mtriple": "x86_64-linux-gnu", "zig": HERE.zig})
    assert machine.lanes == 4
    agree(outputs(graph, feeds, tmp_path, machine), wanted)


@pytest.mark.tvm
def test_sizes_that_fit_no_tile(tmp_path):
    """Edges of products, images smaller than a vector, blocks of panels, batches, groups, views as operands."""
    needs_tvm()
    graph, draw = Graph("sizes"), np.random.default_rng(0)

    def weight(*shape):
        return graph.constant(draw.standard_normal(shape).astype(np.float32))

    for number, (rows, depth, columns) in enumerate([(1, 3, 1), (7, 5, 9), (13, 33, 17), (50, 1, 31), (2, 70, 100)]):
        x = graph.input(f"rows{number}", Type("float32", (rows, depth)))
        graph.output(graph.add(Gelu(), graph.add(Linear(), x, weight(columns, depth), weight(columns))))
        y = graph.input(f"columns{number}", Type("float32", (3, depth, columns)))
        graph.output(graph.add(MatMul(), x, y))
    sizes = [
        (1, 3, 19, 17, 7, 3, 2, 1, 1),
        (2, 8, 5, 5, 12, 3, 1, 2, 1),
        (1, 6, 3, 2, 5, 1, 1, 1, 0),
        (1, 40, 30, 33, 9, 5, 1, 1, 2),
        (1, 4, 1, 1, 8, 1, 1, 1, 0),
        (1, 5, 9, 40, 6, 1, 2, 1, 0),
        (2, 6, 12, 11, 12, 3, 2, 6, 1),
        (1, 64, 20, 24, 8, 3, 1, 1, 1),
    ]
    for number, (b, c, h, w, o, k, s, g, p) in enumerate(sizes):
        x = graph.input(f"image{number}", Type("float32", (b, c, h, w)))
        y = graph.add(Conv((s, s), (p, p, p, p), (1, 1), g), x, weight(o, c // g, k, k), weight(o))
        graph.output(graph.add(Add(), graph.add(Relu(), y), weight(o, 1, 1)))
    x = graph.input("all", Type("float32", (2, 9, 12)))
    part = graph.add(Slice((1, 2), (8, 10), (1, 2), (2, 1)), x)
    graph.output(graph.add(Linear(), part, weight(5, 8)))
    feeds = {v.name: draw.standard_normal(v.shape).astype(np.float32) for v in graph.inputs}
    agree(outputs(graph, feeds, tmp_path), run(graph, feeds))


@pytest.mark.tvm
@pytest.mark.parametrize(("target", "machine"), [("tvm-cpu", "EM_X86_64"), ("tvm-cpu-aarch64", "EM_AARCH64"),
                                                 ("tvm-cpu-android", "EM_AARCH64")])  # fmt: skip
def test_every_target_links_alike_twice(target, machine, tmp_path):
    needs_tvm()
    from elftools.elf.elffile import ELFFile

    graph = Graph("block")
    x = graph.input("x", Type("float32", (1, 8, 20, 20)))
    graph.output(graph.add(Gelu(), graph.add(Conv(), x, graph.constant(sample(16, 8, 1, 1)))))
    program = lower(graph, Machine.of(targets.get(target).format))[0]
    for name in ("one.so", "two.so"):
        child.build(program, tmp_path / name)
    assert (tmp_path / "one.so").read_bytes() == (tmp_path / "two.so").read_bytes()
    with (tmp_path / "one.so").open("rb") as stream:
        elf = ELFFile(stream)
        assert elf["e_machine"] == machine and elf["e_type"] == "ET_DYN"
        names = {symbol.name for symbol in elf.get_section_by_name(".dynsym").iter_symbols()}
    assert "__tvm_ffi__library_bin" in names


@pytest.mark.tvm
def test_a_crash_is_an_error_that_leaves_nothing(tmp_path):
    needs_tvm()
    with pytest.raises(MachineError, match="SIGSEGV") as caught:
        # A function of one argument that any process finds: max asks the key of its operands, and the key crashes.
        child.run(SimpleNamespace(do=partial(max, 0, key=faulthandler._sigsegv)), tmp_path, 60)
    assert caught.value.exit_code == 5
    with pytest.raises(InternalError, match="no_such_method"):
        child.run(SimpleNamespace(do=methodcaller("no_such_method")), tmp_path, 60)


@pytest.mark.tvm
def test_a_limit_that_passes_is_an_error_and_the_next_job_runs(tmp_path):
    needs_tvm()
    graph = Graph("small")
    graph.output(graph.add(Relu(), graph.input("x", Type("float32", (4,)))))
    program = lower(graph, HERE)[0]
    job = child.Build(program, (*child.zig.command(), *program.machine.link))
    with pytest.raises(MachineError, match="longer than"):
        child.run(job, tmp_path, 0.0)
    child.build(program, tmp_path / "model.so")
    assert (tmp_path / "model.so").stat().st_size > 1000


@pytest.mark.tvm
def test_a_processor_that_llvm_does_not_know_is_refused(tmp_path):
    needs_tvm()
    graph = Graph("small")
    graph.output(graph.add(Relu(), graph.input("x", Type("float32", (4,)))))
    program = lower(graph, dataclasses.replace(HERE, triple="nonsense-none-none"))[0]
    with pytest.raises((InternalError, MachineError)):
        child.build(program, tmp_path / "model.so")
    assert not (tmp_path / "model.so").exists()


def test_without_tvm(monkeypatch, tmp_path):
    graph = Graph("small")
    graph.output(graph.add(Relu(), graph.input("x", Type("float32", (4,)))))
    monkeypatch.setattr(child.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"edgesmith\[tvm\]"):
        child.build(lower(graph, HERE)[0], tmp_path / "model.so")
    assert lowering.load("tvm").why_not() == "pip install edgesmith[tvm]"


def test_tile_files(tmp_path):
    from edgesmith.lowering.tvm.tiles import minutes, read

    good = {"details": {"processor": HERE.tvm(), "tiles": {"linear 1x2x3": [1, 2]}}}
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(good))
    assert read(str(path), HERE) == {"linear 1x2x3": (1, 2)} and read("", HERE) == {}
    with pytest.raises(UsageError, match="another processor"):
        read(str(path), ARM)
    for text in ("{", "[]", '{"tiles": {"a": [0, 1]}}', '{"tiles": {"a": 3}}'):
        path.write_text(text)
        with pytest.raises(UsageError):
            read(str(path), HERE)
    with pytest.raises(UsageError):
        read(str(tmp_path / "missing.json"), HERE)
    for text in ("-1", "soon", "inf", "nan"):
        with pytest.raises(UsageError, match="minutes"):
            minutes(text)
    assert minutes("0.5") == 0.5

