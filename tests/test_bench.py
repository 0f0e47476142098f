"""Measuring: times are those that passed, turns are taken fairly, and a device that vanishes takes nothing along."""

import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import edgesmith
from edgesmith import runtimes
from edgesmith.cli import commands
from edgesmith.driver import bench as benches
from edgesmith.driver import contenders
from edgesmith.driver.bench import WARM_UPS, bench, ratio
from edgesmith.ir.errors import MachineError, ModelError, UsageError
from edgesmith.runtimes.artifact import Tensor
from edgesmith.runtimes.runner import Layer, Measurement

NAMES = runtimes.names()


class Clock:
    """Time that passes only when a fake session runs; the processor works for half of it."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def process_time(self):
        return self.now / 2


class Session:
    """Takes a scripted time for each run; a script that ends in an error raises it."""

    def __init__(self, clock, log, name, script):
        self.clock, self.log, self.name, self.script = clock, log, name, iter(script)
        self.device, self.inputs, self.closed = "a bench of wood", (Tensor("x", "float32", (1, 2)),), False

    def run(self, inputs):
        self.log.append(self.name)
        step = next(self.script, 1.0)
        if isinstance(step, BaseException):
            raise step
        self.clock.now += step / 1e3
        return {"y": inputs["x"] * 2}

    def layers(self, inputs, runs):
        return (Layer("first", "Add", 0.25), Layer("second", "Mul", 0.5))

    def close(self):
        self.closed = True
        raise MachineError("the wire is gone")


class Fake:
    """A runner for `.onnx` files whose sessions follow the script of the file's stem."""

    backends = ("onnx",)

    def __init__(self, clock, scripts, kind="measured", missing=None):
        self.clock, self.scripts, self.kind, self.missing = clock, scripts, kind, missing
        self.name, self.log, self.sessions = "fake", [], []

    def why_not(self):
        return self.missing

    def open(self, path):
        session = Session(self.clock, self.log, path.stem, [1.0] * WARM_UPS + self.scripts.get(path.stem, []))
        self.sessions.append(session)
        return session

    def run(self, path, inputs):
        count = self.scripts[path.stem]
        return Measurement(self.name, "a model of wood", self.kind, {}, {}, (1.0, 2.0), "estimated", "so", count)


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A function that makes the fake the only runner there is, and gives it with the paths of two files."""

    def make(scripts, **traits):
        clock = Clock()
        runner = Fake(clock, scripts, **traits)
        monkeypatch.setattr(benches, "time", clock)
        monkeypatch.setattr(runtimes, "names", lambda: ("fake",))
        monkeypatch.setattr(runtimes, "load", lambda name: runner)
        paths = [tmp_path / f"{stem}.onnx" for stem in ("a", "b")]
        for path in paths:
            path.touch()
        return SimpleNamespace(runner=runner, a=paths[0], b=paths[1])

    return make


def call(*arguments):
    return CliRunner().invoke(commands, [str(argument) for argument in arguments])


# ---- figures ----


def test_figures_are_those_of_the_times_after_the_warm_up(fake):
    times = [5.0, 1.0, 2.0, 3.0, 4.0, 9.0, 6.0, 7.0, 8.0, 10.0, 11.0]
    made = fake({"a": times})
    (side,) = bench(made.a, runs=11).sides
    assert (side.runs, side.kind, side.device, side.runner) == (11, "measured", "a bench of wood", "fake")
    assert [side.wall_ms.median, side.wall_ms.p10, side.wall_ms.p90] == pytest.approx([6, 2, 10])
    assert [side.cpu_ms.median, side.cpu_ms.p10, side.cpu_ms.p90] == pytest.approx([3, 1, 5])
    assert made.runner.log == ["a"] * (WARM_UPS + 11)
    assert side.layers[1] == Layer("second", "Mul", 0.5) and side.why_no_layers == ""


def test_two_take_turns_and_who_goes_first_alternates(fake):
    made = fake({"a": [3.0] * 4, "b": [2.0] * 4})
    found = bench(made.a, runs=4, vs=made.b)
    assert made.runner.log == list("ab" + "aabb" + "abba" * 2)
    for each in found.ratios.values():
        assert [each.value, each.low, each.high] == pytest.approx([1.5] * 3)
    assert found.difference.max_error == 0 and found.difference.cosine == pytest.approx(1)


def test_sessions_are_closed_even_where_that_fails(fake):
    made = fake({"a": [], "b": [ModelError("no")]})
    with pytest.raises(MachineError):
        bench(made.a, vs=made.b)
    assert [session.closed for session in made.runner.sessions] == [True, True]


def noisy(draw, count):
    """Times [2, count] of two equal programs on a computer whose load drifts."""
    drift = np.convolve(draw.normal(0, 1, count + 4), np.ones(5) / 5, "valid")
    return 10 + np.abs(drift + draw.normal(0, 0.3, (2, count)))


def test_the_interval_holds_the_truth_as_often_as_it_says():
    draw, hits = np.random.default_rng(1), 0
    for _ in range(100):
        one, other = noisy(draw, 50)
        found = ratio(1.1 * one, other)
        hits += found.low <= 1.1 <= found.high
    assert hits >= 90


def test_the_interval_is_the_same_every_time_and_narrows():
    one, other = noisy(np.random.default_rng(2), 400)
    long, short = ratio(one, other), ratio(one[:20], other[:20])
    assert ratio(one, other) == long
    assert long.high - long.low < short.high - short.low
    assert long.low <= long.value <= long.high


def test_every_key_of_the_json_is_documented(fake):
    made = fake({"a": [3.0] * 4, "b": [2.0] * 4})
    text = (Path(__file__).parents[1] / "docs" / "json.md").read_text(encoding="utf-8")
    parts = {part.split("\n")[0]: part for part in re.split(r"^## ", text, flags=re.MULTILINE)}

    def documented(section):
        rows = re.findall(r"^\| (`.*?) \|", parts[section], re.MULTILINE)
        return {key for row in rows for key in re.findall(r"`(\w+)`", row)}

    data = json.loads(call("bench", made.a, "--runs", 4, "--vs", made.b, "--json").stdout)
    assert set(data) == documented("bench")
    assert set(data["sides"][0]) == documented("bench: sides")
    assert set(data["ratios"]["cpu"]) == documented("bench: ratios")
    assert set(data["difference"]) == documented("bench: difference")


# ---- a device that vanishes ----


@pytest.mark.parametrize("loss", [MachineError("the cable is out"), ModelError("it refuses", why="all at once")])
@pytest.mark.parametrize("side", ["a", "b"])
def test_a_device_that_vanishes_leaves_what_was_measured(fake, tmp_path, loss, side):
    made = fake({"a": [2.0] * 9, "b": [1.0] * 9, side: [4.0, 4.0, 4.0, loss]})
    found = bench(made.a, runs=9, vs=made.b, save=tmp_path / "times.jsonl")
    assert [each.runs for each in found.sides] == [3, 3]
    assert "after 3 of 9 rounds" in found.stopped.what and loss.what in found.stopped.why
    assert found.ratios["cpu"].value == pytest.approx(4 if side == "a" else 0.5)
    assert found.sides[0].layers == () and "cut short" in found.sides[0].why_no_layers
    head, *lines = map(json.loads, (tmp_path / "times.jsonl").read_text().splitlines())
    assert head["runs"] == 9 and [each["path"] for each in head["sides"]] == [str(made.a), str(made.b)]
    whole = [(number, each) for number in range(3) for each in ((0, 1) if number % 2 == 0 else (1, 0))]
    # In the fourth round the other side goes first: its time is kept too, though it takes part in no figure.
    assert [(line["round"], line["side"]) for line in lines] == whole + ([(3, 1)] if side == "a" else [])
    assert all(line["wall_ms"] == pytest.approx(4) for line in lines if line["side"] == "ab".index(side))


def test_on_the_command_line_it_ends_in_code_5_with_the_figures(fake, tmp_path):
    script = {"a": [4.0, 4.0, MachineError("the cable is out", do="put it back")]}
    made = fake(script)
    plain = call("bench", made.a, "--runs", 9, "--save", tmp_path / "times.jsonl")
    assert plain.exit_code == 5
    assert "4.000" in plain.stdout and "after 2 of 9 rounds" in plain.stderr and "put it back" in plain.stderr
    assert len((tmp_path / "times.jsonl").read_text().splitlines()) == 3
    made.runner.scripts = script
    result = call("bench", made.a, "--runs", 9, "--json")
    assert result.exit_code == 5
    data = json.loads(result.stdout)
    assert data["stopped"]["exit_code"] == 5 and data["sides"][0]["wall_ms"]["median"] == pytest.approx(4)


def test_a_device_that_was_never_there_is_an_error_alone(fake):
    made = fake({"a": [MachineError("the cable is out")]})
    with pytest.raises(MachineError, match="after 0 of 50 rounds"):
        bench(made.a)
    result = call("bench", made.a)
    assert result.exit_code == 5 and result.stdout == "" and "the cable is out" in result.stderr


def test_ctrl_c_keeps_what_was_measured(fake, tmp_path):
    made = fake({"a": [4.0, 4.0, KeyboardInterrupt()]})
    result = call("bench", made.a, "--runs", 9, "--save", tmp_path / "times.jsonl")
    assert result.exit_code == 130
    assert "stopped by hand after 2 of 9 rounds" in result.stderr and "4.000" in result.stdout
    assert len((tmp_path / "times.jsonl").read_text().splitlines()) == 3


def test_a_device_lost_in_the_profile_costs_only_the_profile(fake, monkeypatch):
    made = fake({"a": [4.0] * 2})

    def gone(self, inputs, runs):
        raise MachineError("the cable is out")

    monkeypatch.setattr(Session, "layers", gone)
    (side,) = bench(made.a, runs=2).sides
    assert side.wall_ms.median == pytest.approx(4) and side.why_no_layers == "the cable is out"


# ---- kinds of figures ----


def test_an_evaluators_time_is_never_called_a_latency(fake):
    made = fake({}, kind="evaluated")
    with pytest.raises(UsageError, match="no latency"):
        bench(made.a, "fake")
    with pytest.raises(MachineError, match="it evaluates only"):
        bench(made.a)
    assert made.runner.log == []


def test_counts_are_exact_and_have_no_interval(fake, tiny_pixels, typical, tmp_path):
    a, b = (edgesmith.compile(tiny_pixels, "onnx", out=tmp_path / name, calibration=typical) for name in "ab")
    fake({"a": 3000, "b": 2000}, kind="emulated")
    found = bench(a, vs=b)
    assert [side.instructions for side in found.sides] == [3000, 2000]
    assert found.sides[0].wall_ms is None and found.sides[0].estimate_ms == (1.0, 2.0)
    assert found.ratios == {"instructions": benches.Ratio(1.5, 1.5, 1.5)}
    plain = call("bench", a.folder, "--vs", b.folder)
    assert plain.exit_code == 0, plain.output
    assert "3,000 (emulated, exact)" in plain.stdout and "1.500 of instructions" in plain.stdout
    assert "(estimated)" in plain.stdout and "interval" not in plain.stdout


def test_figures_of_different_kinds_make_no_ratio(fake, monkeypatch):
    made = fake({})
    other = Fake(made.runner.clock, {}, kind="emulated")
    each = iter([made.runner, other])
    monkeypatch.setattr(contenders, "_able", lambda backend: next(each))
    with pytest.raises(UsageError, match="different kinds"):
        bench(made.a, vs=made.b)


# ---- what takes part ----


def test_what_is_not_there_or_of_no_kind_is_refused(fake, tmp_path):
    made = fake({})
    with pytest.raises(UsageError, match="no such artifact"):
        bench(tmp_path / "none.onnx")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="no runner takes"):
        bench(tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="not an artifact"):
        bench(tmp_path / "empty")
    assert call("bench", made.a, "--runs", 0).exit_code == 2


def test_a_runner_that_cannot_run_says_why(fake):
    made = fake({}, missing="pip install wood")
    with pytest.raises(MachineError, match="fake: pip install wood"):
        bench(made.a)


def test_a_file_to_save_to_is_never_overwritten(fake, tmp_path):
    made = fake({})
    (tmp_path / "kept.jsonl").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        bench(made.a, save=tmp_path / "kept.jsonl")
    with pytest.raises(UsageError, match="cannot be made"):
        bench(made.a, save=tmp_path / "none" / "times.jsonl")
    assert (tmp_path / "kept.jsonl").read_text() == "mine" and made.runner.log == []


def model(path, shape, gain=2.0, name="x"):
    """x * gain as an `.onnx` file."""
    make = onnx.helper
    graph = make.make_graph(
        [make.make_node("Mul", [name, "g"], [f"{name}y"])], "gain",
        [make.make_tensor_value_info(name, 1, shape)], [make.make_tensor_value_info(f"{name}y", 1, shape)],
        [onnx.numpy_helper.from_array(np.float32(gain), "g")],
    )  # fmt: skip
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_bare_files_are_fed_alike_by_name_or_place(tmp_path):
    one, other = model(tmp_path / "one.onnx", [1, 6]), model(tmp_path / "two.onnx", ["batch", 6], 2.5, "z")
    found = bench(one, runs=5, vs=other)
    assert found.difference.relative == pytest.approx(0.2) and found.difference.outputs == 1
    assert found.sides[0].why_no_layers and found.sides[0].wall_ms.median > 0
    assert found.sides[0].name == "one.onnx" and "ONNX Runtime" in found.sides[0].device


def test_files_of_different_inputs_are_timed_but_not_compared(tmp_path):
    one, other = model(tmp_path / "one.onnx", [1, 6]), model(tmp_path / "two.onnx", [1, 7])
    found = bench(one, runs=2, vs=other)
    assert found.difference is None and found.ratios["cpu"].value > 0


def test_images_turn_channels_last_where_the_other_side_wants_them(tmp_path):
    one, other = model(tmp_path / "one.onnx", [1, 3, 4, 5]), model(tmp_path / "two.onnx", [1, 4, 5, 3])
    sides = [contenders.enter(one), contenders.enter(other)]
    for side in sides:
        side.open()
    samples = sides[0].samples()
    assert all(side.feed(samples) for side in sides)
    (fed,) = sides[1].feeds
    np.testing.assert_array_equal(fed["x"], samples[0]["x"].transpose(0, 2, 3, 1))


def test_an_artifact_against_the_model_it_was_made_from(tiny_pixels, typical, tmp_path):
    built = edgesmith.compile(tiny_pixels, "onnx", out=tmp_path / "out", calibration=typical)
    found = bench(built, runs=3, vs=tiny_pixels)
    assert found.difference.relative < 1e-5 and [side.runner for side in found.sides] == ["ort", "ort"]
    plain = call("bench", built.folder, "--runs", 3, "--vs", tiny_pixels)
    assert plain.exit_code == 0, plain.output
    assert "of CPU time, 95% interval" in plain.stdout and "ort does not tell" in plain.stdout


@pytest.mark.compiler
def test_integers_in_c_against_the_floats_they_stand_for(tiny_pixels, typical, tmp_path):
    built = edgesmith.compile(tiny_pixels, "host", out=tmp_path / "c", calibration=typical)
    found = bench(built, "host", runs=3, vs=tiny_pixels)
    assert [side.runner for side in found.sides] == ["host", "ort"]
    assert 0 < found.difference.relative < 0.2
    assert found.sides[0].layers and all(layer.ms >= 0 for layer in found.sides[0].layers)


@pytest.mark.compiler
@pytest.mark.emulator
def test_the_device_itself_comes_before_this_computer(tiny_pixels, typical, tmp_path):
    built = edgesmith.compile(tiny_pixels, "stm32f746", out=tmp_path / "c", calibration=typical)
    (side,) = bench(built).sides
    assert (side.runner, side.kind) == ("emulator", "emulated") and side.wall_ms is None
    assert side.instructions == built.manifest["cost"]["instructions"]
    with pytest.raises(UsageError, match="different kinds"):
        bench(built, vs=tiny_pixels)


@pytest.mark.tflite
def test_a_tflite_of_ours_against_the_model_it_was_made_from(tiny_pixels, typical, tmp_path):
    pytest.importorskip("ai_edge_litert")
    built = edgesmith.compile(tiny_pixels, "android", out=tmp_path / "out", calibration=typical)
    found = bench(built, "litert", runs=3, vs=tiny_pixels)
    assert [side.runner for side in found.sides] == ["litert", "ort"]
    assert found.difference.relative < 1e-5 and found.sides[0].layers


@pytest.mark.tflite
def test_somebodys_tflite_with_times_by_operator(tmp_path):
    pytest.importorskip("ai_edge_litert")
    files = runpy.run_path(str(Path(__file__).with_name("tflite_files.py")))
    path = tmp_path / "dense.tflite"
    path.write_bytes(files["dense"]())
    result = call("bench", path, "--runs", 3, "--vs", path)
    assert result.exit_code == 0, result.output
    assert "Fully Connected" in result.stdout and "LiteRT" in result.stdout and "differ by 0.00e+00" in result.stdout


def test_every_runner_says_what_its_figures_are():
    assert {runtimes.load(name).kind for name in NAMES} <= {"measured", "emulated", "evaluated"}
