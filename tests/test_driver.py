"""From a model to an artifact and back: what is promised of every compile, and what must never come out of one."""

import dataclasses
import hashlib
import re

import numpy as np
import pytest
from onnx import helper, save

import edgesmith
from edgesmith import targets
from edgesmith.driver import execution, front, library
from edgesmith.ir import interpret
from edgesmith.ir.errors import BudgetError, InternalError, MachineError, ModelError, UsageError

pytestmark = [pytest.mark.compiler, pytest.mark.emulator]
TARGET = "stm32f746"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("driver")


@pytest.fixture(scope="module")
def compiled(place, networks):
    """The tiny network for the device, with its model and data beside it."""
    save(networks.tiny_network(), place / "tiny.onnx")
    np.save(place / "typical.npy", np.random.default_rng(5).standard_normal((12, 3, 8, 8)).astype(np.float32))
    return edgesmith.compile(place / "tiny.onnx", TARGET, out=place / "out", calibration=place / "typical.npy")


def hashes(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# ---- fit, truth, cost ----


def test_the_plan_is_what_was_measured(compiled):
    memory = compiled.memory
    assert memory["arena_measured"] == memory["arena_bytes"] >= memory["lower_bound"] > 0
    assert memory["total"] == memory["arena_bytes"] + memory["stack_bytes"] + memory["static_bytes"]
    assert memory["stack_bytes"] >= max(memory["stack_bound"], memory["stack_measured"]) > 0
    assert memory["total"] <= memory["budget"] == 256 * 1024


def test_columns_add_up_to_memory_and_flash(compiled):
    columns, flash = compiled.manifest["columns"], compiled.flash
    assert columns["activation_ram"] + columns["runtime_ram"] == compiled.memory["total"]
    assert columns["weights_flash"] + columns["code_flash"] == flash["internal"] + flash["external"]
    assert flash["weights"] > 32 * 4 + 8 * 48  # at least the weights themselves


def test_the_ladder_begins_with_onnx_runtime_and_ends_on_the_device(compiled):
    rungs = compiled.verification
    assert [rungs[0]["rung"], rungs[1]["rung"]] == ["ONNX Runtime", "imported graph"]
    assert [rung["equal"] for rung in rungs[-2:]] == [True, True]
    assert rungs[-1]["rung"] == f"C on the emulated {TARGET}"
    assert rungs[1]["max_error"] < 1e-5
    assert all(rung["cosine"] > 0.999 for rung in rungs[1:])


def test_cost_is_counted(compiled):
    cost = compiled.manifest["cost"]
    assert cost["instructions"] == sum(cost["functions"].values()) > cost["macs"] / 2
    assert sum(layer["macs"] for layer in cost["layers"]) == cost["macs"] == 2 * 2 * 8 * 48 + 32 * 4
    steps = sum(layer["cost"] for layer in cost["layers"])
    assert cost["unit"] == "instructions" and abs(steps - cost["instructions"]) < 0.1 * steps
    low, high = cost["latency_ms"]
    assert 0 < low < high and cost["latency_kind"] == "estimated"


def test_the_page_stands_alone(compiled):
    page = compiled.report.read_text(encoding="utf-8")
    assert "<svg" in page and 'name="viewport"' in page
    assert f"{compiled.manifest['cost']['instructions']:,}" in page
    assert not any(word in page for word in ("<script", "src=", "href=", "@import", "url("))


def test_same_model_and_data_same_bytes(compiled, place):
    again = edgesmith.compile(place / "tiny.onnx", TARGET, out=place / "again", calibration=place / "typical.npy")
    assert hashes(again.folder) == hashes(compiled.folder)


def test_user_s_files_stay_as_they_were(compiled, place):
    assert compiled.manifest["model"]["sha256"] == hashlib.sha256((place / "tiny.onnx").read_bytes()).hexdigest()
    assert {path.name for path in place.iterdir()} <= {"tiny.onnx", "typical.npy", "out", "again"}


# ---- ways in ----


def test_a_graph_is_as_good_as_a_file(compiled, place, tmp_path):
    graph = edgesmith.load(place / "tiny.onnx")
    nodes = len(graph.nodes)
    found = edgesmith.compile(graph, TARGET, out=tmp_path / "out", calibration=np.load(place / "typical.npy"))
    assert len(graph.nodes) == nodes
    assert found.verification[0]["rung"] == "graph as given"
    assert found.memory["arena_bytes"] == compiled.memory["arena_bytes"]


def test_sizes_may_be_bound_by_the_caller(networks, typical, tmp_path):
    save(networks.tiny_network(batch="n"), tmp_path / "open.onnx")
    shapes = {"x": (1, 3, 8, 8)}
    found = edgesmith.compile(tmp_path / "open.onnx", "host", out=tmp_path / "out", calibration=typical, shapes=shapes)
    assert found.manifest["inputs"][0]["shape"] == [1, 8, 8, 3]
    assert found.memory["budget"] is None and found.manifest["cost"]["instructions"] is None
    with pytest.raises(UsageError):
        edgesmith.compile(tmp_path / "open.onnx", "host", out=tmp_path / "no", shapes={"z": (1, 3, 8, 8)})


def test_noise_is_called_noise(tiny, tmp_path):
    found = edgesmith.compile(tiny, "host", out=tmp_path / "out")
    assert found.manifest["calibration"] == {"source": "noise", "samples": front.NOISE_SAMPLES}
    assert "accuracy is unknown" in found.report.read_text(encoding="utf-8")


@pytest.mark.parametrize("stream", ["int8", "int16"])
def test_the_stream_is_what_was_asked_for(tiny, typical, tmp_path, stream):
    said = []
    found = edgesmith.compile(
        tiny, "host", out=tmp_path / "out", calibration=typical, stream=stream, progress=said.append
    )
    assert found.manifest["stream"] == stream
    assert said[0] == "read the model" and "generate C" in said


def test_a_program_in_single_precision(tiny, tmp_path):
    found = edgesmith.compile(tiny, TARGET, out=tmp_path / "out", dtype="float32")
    assert (found.manifest["dtype"], found.manifest["stream"]) == ("float32", "float32")
    assert found.manifest["inputs"][0]["dtype"] == "float32" and found.manifest["inputs"][0]["scale"] is None
    rungs = {rung["rung"]: rung for rung in found.verification}
    assert rungs[f"C on the emulated {TARGET}"]["max_error"] < 1e-5 > rungs["C on this computer"]["max_error"]
    assert edgesmith.run(found, on="host", check=True).equal == 1
    with pytest.raises(UsageError, match="float16"):
        edgesmith.compile(tiny, TARGET, out=tmp_path / "no", dtype="float16")


def test_a_target_of_one_s_own_travels_with_the_artifact(tiny, typical, tmp_path):
    text = (targets.FOLDER / "stm32f427.toml").read_text(encoding="utf-8")
    for reserve, name in (("ram = 32_768", "first"), ("ram = 65_536", "second")):
        changed = re.sub(r"^ram = .*$", reserve, text, count=1, flags=re.MULTILINE)
        assert changed != text or name == "first"
        (tmp_path / "mine.toml").write_text(changed, encoding="utf-8")
        found = edgesmith.compile(tiny, str(tmp_path / "mine.toml"), out=tmp_path / name, calibration=typical)
        assert found.memory["budget"] == targets.get(str(tmp_path / "mine.toml")).ram_budget
        assert found.target == "mine" and (found.folder / "mine.toml").read_text(encoding="utf-8") == changed
    (tmp_path / "mine.toml").unlink()
    assert edgesmith.run(tmp_path / "first", on="emulator", check=True).equal == 1


def test_a_target_object_must_be_one_that_can_be_found_again(tiny, tmp_path):
    found = edgesmith.compile(tiny, targets.get("host"), out=tmp_path / "out")
    assert found.target == "host"
    with pytest.raises(UsageError, match=r"\.toml"):
        edgesmith.compile(tiny, dataclasses.replace(targets.get(TARGET), clock_hz=1), out=tmp_path / "no")


# ---- what must not come out ----


def test_code_that_differs_from_the_reference_is_no_artifact(tiny, typical, tmp_path, monkeypatch):
    real = interpret.run

    def wrong(graph, feeds, dtype=None):
        return {name: array + (array.dtype.kind == "i") for name, array in real(graph, feeds, dtype).items()}

    monkeypatch.setattr(interpret, "run", wrong)
    with pytest.raises(InternalError, match="does not equal the reference"):
        edgesmith.compile(tiny, "host", out=tmp_path / "deep" / "out", calibration=typical)
    assert not (tmp_path / "deep").exists()


def test_memory_other_than_planned_is_no_artifact(tiny, typical, tmp_path, monkeypatch):
    from edgesmith.runtimes import emulator

    real = emulator.Program.measure

    def one_byte_more(self, arrays):
        found = real(self, arrays)
        return dataclasses.replace(found, arena=found.arena + 1)

    monkeypatch.setattr(emulator.Program, "measure", one_byte_more)
    with pytest.raises(InternalError, match="another amount of memory than planned"):
        edgesmith.compile(tiny, TARGET, out=tmp_path / "deep" / "out", calibration=typical)
    assert not (tmp_path / "deep").exists()


def test_stack_counts_against_the_budget(compiled, tiny, typical, tmp_path):
    arena, total = compiled.memory["arena_bytes"], compiled.memory["total"]
    enough = edgesmith.compile(
        tiny, TARGET, out=tmp_path / "fits", calibration=typical, ram=arena + library.STACK_ALLOWANCE
    )
    assert enough.memory["total"] == total
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch, pytest.raises(BudgetError, match=r"bytes of RAM .* more than the budget"):
        patch.setattr(library, "STACK_ALLOWANCE", 0)
        edgesmith.compile(tiny, TARGET, out=tmp_path / "deep" / "out", calibration=typical, ram=total - 1)
    assert not (tmp_path / "deep").exists()


def test_a_failed_compile_keeps_the_artifact_that_was_there(tiny, typical, tmp_path):
    edgesmith.compile(tiny, "host", out=tmp_path / "out", calibration=typical)
    before = hashes(tmp_path / "out")
    with pytest.raises(ModelError):
        edgesmith.compile(tiny, "host", out=tmp_path / "out", calibration=np.zeros((2, 3, 7, 7)))
    with pytest.raises(BudgetError):
        edgesmith.compile(tiny, TARGET, out=tmp_path / "out", calibration=typical, ram=100)
    assert hashes(tmp_path / "out") == before


# ---- running ----


def test_own_inputs_are_compared_with_the_host(compiled):
    inputs = np.random.default_rng(9).standard_normal((5, 3, 8, 8)).astype(np.float32)
    outcome = edgesmith.run(compiled, on="emulator", inputs=inputs, runs=4, check=True)
    assert (outcome.samples, outcome.equal, outcome.against) == (4, 4, "host")
    assert outcome.raw["y"].dtype == np.int16 and outcome.outputs["y"].dtype == np.float32
    assert outcome.measurement.instructions == compiled.manifest["cost"]["instructions"]


def test_outputs_are_near_the_float_model_s(compiled, place):
    inputs = np.load(place / "typical.npy")
    graph = edgesmith.load(place / "tiny.onnx")
    wanted = np.stack([interpret.run(graph, {"x": image[None]})["y"] for image in inputs])
    found = edgesmith.run(compiled.folder, on="host", inputs=inputs, runs=99).outputs["y"]
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


def test_pixels_go_in_as_pixels(tiny_pixels, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 3), np.uint8)
    found = edgesmith.compile(tiny_pixels, "host", out=tmp_path / "out", calibration=pixels)
    unit = pixels.astype(np.float32) / np.float32(255)  # in the same precision: pixels may lie between two integers
    floats = ((unit - np.float32(0.5)) / np.float32(0.25)).transpose(0, 3, 1, 2)
    by_pixels, by_floats = (edgesmith.run(found, on="host", inputs=given, runs=6) for given in (pixels, floats))
    assert np.array_equal(by_pixels.raw["y"], by_floats.raw["y"])


def test_a_wrong_result_is_counted(compiled, monkeypatch):
    feeds, wanted = execution.load_vectors(compiled.folder)
    wanted[1] = {"y": wanted[1]["y"] + 1}
    monkeypatch.setattr(execution, "load_vectors", lambda folder: (feeds, wanted))
    outcome = edgesmith.run(compiled, on="host", runs=3, check=True)
    assert (outcome.samples, outcome.equal) == (3, 2)


def test_outputs_are_saved_where_nothing_lies(compiled, tmp_path):
    outcome = edgesmith.run(compiled, on="host", runs=2, save=tmp_path / "y.npz")
    assert np.array_equal(np.load(tmp_path / "y.npz")["y"], outcome.outputs["y"])
    with pytest.raises(UsageError, match="exists"):
        edgesmith.run(compiled, on="host", save=tmp_path / "y.npz")


def test_inputs_that_do_not_fit(compiled):
    with pytest.raises(ModelError, match=r"\[N, 3, 8, 8\]"):
        edgesmith.run(compiled, on="host", inputs=np.zeros((1, 3, 4, 4), np.float32))


def test_an_artifact_changed_by_hand_does_not_run(tiny, typical, tmp_path):
    found = edgesmith.compile(tiny, "host", out=tmp_path / "out", calibration=typical)
    (found.folder / "src" / "tiny.c").write_text("/* mine */")
    with pytest.raises(UsageError, match=r"src/tiny\.c"):
        edgesmith.run(found, on="host")


def test_a_runner_that_lacks_something(compiled, monkeypatch):
    from edgesmith import runtimes

    monkeypatch.setattr(type(runtimes.load("host")), "why_not", lambda self: "pip install ziglang")
    with pytest.raises(MachineError, match="pip install ziglang"):
        edgesmith.run(compiled, on="host")


@pytest.mark.parametrize(("target", "dtype"), [("host", "float32"), ("host", "int8"), ("onnx", "float32")])
def test_an_output_may_be_an_input(target, dtype, tmp_path):
    x, y = (helper.make_tensor_value_info(name, 1, [1, 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "through", [x], [y, x])
    opset = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, ir_version=8, opset_imports=opset), tmp_path / "through.onnx")
    compiled = edgesmith.compile(tmp_path / "through.onnx", target, out=tmp_path / "out", dtype=dtype)
    assert compiled.verification[-1]["cosine"] > 0.999
    given = np.array([[-2.0, -1.0, 1.0, 2.0]], np.float32)
    outputs = edgesmith.run(tmp_path / "out", inputs=given).outputs
    assert set(outputs) == {"y", "x.1"}
    assert np.abs(outputs["x.1"] - given).max() < 0.05 and np.abs(outputs["y"] - np.maximum(given, 0)).max() < 0.05
