"""`check` foretells what compile does: the same operators and arena, the same things missing; in words and in codes."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, save

import edgesmith
from edgesmith import lowering, targets
from edgesmith.cli import commands
from edgesmith.driver.survey import check
from edgesmith.ir.cost import peak
from edgesmith.ir.errors import EdgesmithError, Unsupported
from edgesmith.ir.graph import Graph, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.memory import plan
from edgesmith.ir.op import Op
from edgesmith.ir.ops.activation import Erf, Relu, Softmax
from edgesmith.ir.ops.norm import BatchNorm
from edgesmith.ir.ops.shape import Gather, Reshape
from edgesmith.ir.passes.pipelines import EXACT, FLOAT_C, run_pipeline
from edgesmith.ir.passes.quantise import QuantOptions, convert
from edgesmith.ir.passes.quantise.observe import observe
from edgesmith.ir.passes.quantise.qdq import measured, quantise_operands
from edgesmith.ir.passes.recognise import RECOGNISE
from edgesmith.lowering.c.constants import Constants
from edgesmith.lowering.c.lower import code_reserve, emitted
from edgesmith.lowering.coreml.sketch import MOVES

NETS = dict(runpy.run_path(str(Path(__file__).with_name("small_networks.py")))["NETS"])
FILES = [name for name in lowering.names() if name != "tvm"]
"""Back ends whose files take no compiler; those of TVM are looked at with fewer networks."""



def target_of(backend):
    return next(name for name in targets.names() if targets.get(name).backend == backend)


def ready(backend):
    if missing := lowering.load(backend).why_not():
        pytest.skip(missing)


def recognised(graph):
    graph = graph.copy()
    for each in RECOGNISE:
        each.apply(graph)
    graph.prune()
    return graph


def written(graph, backend, folder):
    """What the back end itself writes of a graph: its operators, and the bytes on the disk."""
    ready(backend)
    found, device = lowering.load(backend), targets.get(target_of(backend))
    graph = recognised(graph)
    run_pipeline(graph, found.passes(found.dtypes[0]))
    options = {name: option.default for name, option in found.options.items()}
    path = folder / found.file
    made = found.write(lowering.Job(graph, device, found.dtypes[0], options), path)
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return made.operators, sum(each.stat().st_size for each in files)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("backend", FILES)
def test_operators_are_those_of_the_file(backend, name, build, tmp_path):
    graph = NETS[name](build)
    operators, size = written(graph, backend, tmp_path)
    way, *_ = check(graph, [target_of(backend)])["ways"]
    assert [each["takes"] for each in way["targets"]] == [True] and not way["lacks"]
    foretold = Counter(way["operators"])
    moves = {kind for kind in {*operators, *foretold} if backend == "coreml" and kind in MOVES}
    assert {kind: count for kind, count in foretold.items() if kind not in moves} == {
        kind: count for kind, count in operators.items() if kind not in moves
    }
    assert all(operators.get(kind, 0) <= foretold[kind] for kind in moves)
    assert way["size"]["is"] == "about"
    if backend != "coreml":
        assert abs(way["size"]["bytes"] - size) <= 64 + 0.02 * size


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("backend", ["onnx", "tflite"])
def test_operators_in_integers_are_those_of_the_file(backend, name, build, tmp_path):
    """Whatever the data are: ranges decide scales, and nothing about where integers are."""
    ready(backend)
    graph, found, device = recognised(NETS[name](build)), lowering.load(backend), targets.get(target_of(backend))
    _, way = check(graph, [device.name])["ways"]
    run_pipeline(graph, found.passes("int8"))
    draw = np.random.default_rng(3)
    data = [{value.name: draw.standard_normal(value.shape).astype(np.float32) for value in graph.inputs}]
    seen = observe(graph, data, only=measured(graph))
    options = {option: each.default for option, each in lowering.offer(backend).options.items()}
    quantise_operands(graph, seen, found.integers(graph, seen, options))
    made = found.write(lowering.Job(graph, device, "int8", options), tmp_path / found.file)
    assert way["dtype"] == "int8" and way["operators"] == dict(made.operators)
    size = (tmp_path / found.file).stat().st_size
    assert way["size"]["is"] == "at least" and abs(way["size"]["bytes"] - size) <= 256 + 0.02 * size


def test_flash_is_judged_by_region(fashion, tmp_path):
    """What is left inside holds code and constants; the rest has to fit outside."""
    text = Path(targets.FOLDER / "stm32f746.toml").read_text(encoding="utf-8")
    model = fashion / "model.onnx"
    way = next(each for each in check(model, ["stm32f746"])["ways"] if each["dtype"] == "int8")
    size = way["size"]["bytes"]
    device = targets.get("stm32f746")
    room = device.flash_budget - code_reserve(device)
    assert way["targets"][0]["takes"] and size < room
    inside = next(each for each in device.of_kind("flash"))
    outside = next(each for each in device.of_kind("external_flash"))
    small = size // 2
    for allowed, takes in ((size - size // 2 + 64, True), (size // 4, False)):
        own = tmp_path / f"own{int(takes)}.toml"
        narrow = inside.size - room + small
        changed = re.sub(rf"\b{inside.size:_}\b", str(narrow), text)
        own.write_text(re.sub(rf"\b{outside.size:_}\b", str(allowed), changed), encoding="utf-8")
        found = next(each for each in check(model, [str(own)])["ways"] if each["dtype"] == "int8")
        (place,) = found["targets"]
        assert place["takes"] == takes
        assert [row["what"] for row in place["over"]] == ([] if takes else ["external flash"])


@pytest.mark.tvm
@pytest.mark.parametrize("name", ["odd_vit", "convolutions"])
def test_kernels_are_those_of_the_library(name, build, tmp_path):
    graph = NETS[name](build)
    operators, size = written(graph, "tvm", tmp_path)
    (way,) = check(graph, [target_of("tvm")])["ways"]
    assert way["operators"] == dict(operators) and way["size"]["is"] == "at least" and way["size"]["bytes"] <= size


def library(graph):
    """Arena, kinds of steps and bytes of constants of a graph that is lowered with its real numbers."""
    found, constants = plan(graph), Constants("x")
    calls, refused = emitted(found, constants)
    assert not refused
    return found.arena_bytes, Counter(call.kind for call in calls), constants.nbytes


@pytest.mark.parametrize("name", NETS)
def test_the_library_is_foretold(name, build):
    graph = NETS[name](build)
    *integers, real = check(graph, ["host"])["ways"]
    floats = recognised(graph)
    run_pipeline(floats, FLOAT_C)
    assert told(real) == library(floats)[:2] and real["dtype"] == "float32"
    assert real["size"]["bytes"] >= library(floats)[2]
    exact = recognised(graph)
    run_pipeline(exact, EXACT)
    draw = np.random.default_rng(3)
    data = {value.name: draw.standard_normal((2, *value.shape[1:])).astype(np.float32) for value in graph.inputs}
    try:
        made = {stream: convert(exact, data, QuantOptions(stream=stream)) for stream in ("int8", "int16")}
    except Unsupported as error:
        (way,) = integers
        assert {name for lack in way["lacks"] for name in lack["where"]} == set(error.where)
        return
    assert len(integers) == 1 or [way["stream"] for way in integers] == ["int8", "int16"]
    for stream, quantised in made.items():
        way = next(each for each in integers if each["stream"] in (None, stream))
        arena, kinds, flash = library(quantised.graph)
        assert told(way) == (arena, kinds) and flash <= way["size"]["bytes"] <= 1.1 * flash + 1024


def told(way):
    return way["memory"]["bytes"], Counter(way["operators"])


@pytest.mark.compiler
def test_the_arena_is_the_one_that_compile_plans(build, tmp_path):
    graph = NETS["odd_vit"](build)
    ways = check(graph, ["host"])["ways"]
    for way in ways:
        options = {"stream": way["stream"]} if way["stream"] else {}
        made = edgesmith.compile(graph, "host", out=tmp_path / "out", dtype=way["dtype"], check=False, **options)
        assert made.manifest["memory"]["arena_bytes"] == way["memory"]["bytes"]


# ---- what is missing ----


class Riddle(Op):
    """An op that no back end knows; it drops an axis, as reductions do."""

    def infer(self, x: Type) -> Type:
        return x.with_(shape=x.shape[:-1])

    def reference(self, x):
        return x[..., 0]


class Enigma(Op):
    """Another one."""

    def infer(self, x: Type) -> Type:
        return x

    def reference(self, x):
        return x


def riddles():
    """Two unknown ops, one of them twice, and with them a norm whose statistics are computed."""
    graph = Graph("riddles")
    x = graph.input("x", Type("float32", (1, 4, 3)))
    y = graph.add(Riddle(), x, name="first", sources=("/a/first",))
    y = graph.add(Enigma(), graph.add(Relu(), y), name="second", sources=("/a/second",))
    y = graph.add(Enigma(), graph.add(Reshape((4,)), y), name="third", sources=("/a/third",))
    late = graph.add(BatchNorm(1, 1e-5), x, y, y, y, y, name="late", sources=("/a/late",))
    graph.output(late)
    return graph


@pytest.mark.parametrize("backend", ["c", *lowering.names()])
def test_all_that_is_missing_is_foretold_as_compile_says_it(backend, tmp_path):
    if backend != "c":
        ready(backend)
    found = check(riddles(), [target_of(backend)])
    lacks = [lack for way in found["ways"] for lack in way["lacks"]]
    named = {name for lack in lacks for name in lack["where"]}
    assert named >= {"/a/first", "/a/second", "/a/third"} and all(lack["do"] for lack in lacks)
    assert {lack["op"] for lack in lacks if not lack["why"]} == ({"Enigma", "Riddle"} if backend != "c" else set())
    with pytest.raises(EdgesmithError) as caught:
        edgesmith.compile(riddles(), target_of(backend), out=tmp_path / "out")
    assert caught.value.exit_code == found["stopped"]["exit_code"] == 3
    (way, *_) = found["ways"]
    assert set(caught.value.where) == {name for lack in way["lacks"] for name in lack["where"]}


@pytest.mark.parametrize("backend", ["coreml", "tflite", "tvm"])
def test_a_form_behind_an_unknown_op_is_found_as_well(backend):
    ready(backend)
    way, *_ = check(riddles(), [target_of(backend)])["ways"]
    assert ["/a/late"] in [lack["where"] for lack in way["lacks"] if lack["why"]]


def test_each_back_end_says_what_it_lacks_of_its_own():
    ready("tflite")
    graph = Graph("erf")
    x = graph.input("x", Type("float32", (1, 8)))
    graph.output(graph.add(Erf(), x, name="y", sources=("/erf",)))
    ways = {way["backend"]: way for way in check(graph, ["onnx", "android", "iphone15"])["ways"]}
    assert not ways["onnx"]["lacks"] and not ways["coreml"]["lacks"]
    (lack,) = ways["tflite"]["lacks"]
    assert (lack["op"], lack["where"]) == ("Erf", ["/erf"]) and "error function" in lack["why"]


def test_without_the_package_it_says_what_to_install(build, monkeypatch):
    found = lowering.load("tflite")
    monkeypatch.setattr(type(found), "why_not", lambda self: "pip install edgesmith[this]")
    told = check(NETS["clamped_sums"](build), ["android"])
    way, *_ = told["ways"]
    assert way["why_not"] == "pip install edgesmith[this]" and way["operators"] == {} and way["size"] is None
    assert told["stopped"]["exit_code"] == 5 and "edgesmith[this]" in told["stopped"]["do"]


def test_what_integers_lack_is_sent_to_floats():
    graph = Graph("long")
    x = graph.input("x", Type("float32", (1, 2, 2**17)))
    graph.output(graph.add(Softmax(-1), x, name="y", sources=("/odds",)))
    integers, floats = check(graph, ["host"])["ways"]
    (lack,) = integers["lacks"]
    assert (lack["op"], lack["where"]) == ("Softmax", ["/odds"]) and "--dtype float32" in lack["do"]
    assert floats["dtype"] == "float32" and floats["targets"] == [{"name": "host", "takes": True, "over": []}]


def test_more_than_one_sample_is_for_other_back_ends_than_c(build):
    net = build.Net("float32")
    graph = net.output(net.linear(net.input(2, 4), 3))
    ways = check(graph, ["host", "onnx"])["ways"]
    assert {way["backend"]: bool(way["lacks"]) for way in ways} == {"c": True, "onnx": False}


def test_peak_is_what_is_alive_at_once(build):
    graph = Graph("g")
    x = graph.input("x", Type("float32", (10,)))
    a = graph.add(Relu(), x)
    b = graph.add(Relu(), a)
    graph.output(graph.add(Gather(0), b, graph.constant(np.arange(5)), name="y"))
    assert peak(graph) == 80 and run(graph, {"x": np.ones(10, np.float32)})["y"].shape == (5,)
    assert peak(graph) < peak(NETS["odd_vit"](build))


def test_vendors_packages_are_left_alone(fashion):
    """They take seconds to load, and may be missing."""
    code = (
        "import sys, edgesmith\n"
        f"found = edgesmith.check({str(fashion / 'model.onnx')!r})\n"
        "print(len(found['ways']), *sorted({'coremltools', 'torch', 'tvm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ways, *heavy = done.stdout.split()
    assert int(ways) > len(lowering.names()) and not heavy


# ---- the verb ----


def verb(*arguments):
    done = CliRunner().invoke(commands, ["check", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_the_verb_speaks_of_every_target_by_default(fashion):
    code, out, err = verb(fashion / "model.onnx")
    assert code == 0 and "read the model" in err
    assert all(name in out for name in targets.names())
    assert "3 Attention" in out and "7 LayerNorm" in out and "MACs" in out


def test_the_verb_gives_programs_the_same(fashion):
    code, out, _ = verb(fashion / "model.onnx", "--target", "stm32f746", "--target", "onnx", "--json")
    found = json.loads(out)
    assert code == 0 and found["imports"] and found["stopped"] is None
    assert {way["backend"] for way in found["ways"]} == {"c", "onnx"}
    assert found["blocks"]["attention"] == {"Attention": 3}
    assert found == check(fashion / "model.onnx", ["stm32f746", "onnx"])


def test_a_budget_that_is_too_small_is_the_code_of_budgets(fashion, tmp_path):
    own = tmp_path / "small.toml"
    text = Path(targets.FOLDER / "stm32f427.toml").read_text(encoding="utf-8")
    own.write_text(text.replace("ram = 32_768", "ram = 195_584"), encoding="utf-8")
    code, out, err = verb(fashion / "model.onnx", "--target", own)
    assert code == 4 and "RAM 1.0 KiB" in out and "fits none" in err
    with pytest.raises(EdgesmithError) as caught:
        edgesmith.compile(fashion / "model.onnx", str(own), out=tmp_path / "out")
    assert caught.value.exit_code == 4


def test_a_model_that_does_not_import_is_told_with_its_nodes(tmp_path):
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    nodes = [
        helper.make_node("Riddle", ["x"], ["a"], "node_a", domain="com.example"),
        helper.make_node("Enigma", ["a"], ["y"], "node_b", domain="com.example"),
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    path = tmp_path / "m.onnx"
    save(helper.make_model(helper.make_graph(nodes, "g", value[:1], value[1:]), opset_imports=opsets), path)
    code, out, err = verb(path)
    assert code == 3 and "does not import" in out and "Riddle" in err and "Enigma" in err
    assert "node_a" in out + err and "node_b" in out + err


def test_an_unknown_target_is_the_commands_fault(fashion):
    code, _, err = verb(fashion / "model.onnx", "--target", "teletype")
    assert code == 2 and "teletype" in err
