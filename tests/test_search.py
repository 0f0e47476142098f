"""The verb `search`: what it leaves in its folder, and what it says when nothing is found."""

import dataclasses
import importlib
import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from edgesmith.cli import commands, fronts
from edgesmith.driver import questions, search
from edgesmith.driver.report import scatter
from edgesmith.ir.errors import BudgetError, MachineError, UsageError
from edgesmith.nas.engine.search import Round

HERE = Path(__file__).parent
DOCS = HERE.parents[0] / "docs"
SHORT = {"generations": 3, "population": 6, "method": "random", "workers": 0, "finalists": 0}


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("toy_search")


@pytest.fixture
def inquiry(toys, networks):
    """The toy's question; all its networks are the tiny one."""

    class Networks(toys.Toy):
        def model(self, genome):
            model = networks.tiny_network()
            model.doc_string = toys.key(genome)
            return model.SerializeToString(deterministic=True)

    data = np.random.default_rng(5).standard_normal((12, 3, 8, 8)).astype(np.float32)
    return questions.Inquiry("toy", Networks(), {"data": "given"}, "worth", data, {})


def reference(model, images):
    """What ONNX Runtime says of each."""
    session = onnxruntime.InferenceSession(model)
    return [{"y": session.run(None, {"x": each[None]})[0]} for each in images]


def call(*arguments):
    return CliRunner().invoke(commands, [str(argument) for argument in arguments])


def documented(section):
    text = re.split(r"^## ", (DOCS / "json.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    table = next(part for part in text if part.split("\n")[0] == section)
    return {key for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)}


# ---- what it leaves ----


def test_every_network_of_the_front_is_a_file_and_the_result_is_documented(toys, inquiry, tmp_path):
    found = search.conduct(inquiry, "stm32f746", tmp_path / "out", ram=3000, flash=40_000, **SHORT)
    assert set(found) == documented("search") and found["judged"] == 18
    told = json.loads((tmp_path / "out" / "result.json").read_text())
    assert {**told, "folder": found["folder"]} == json.loads(json.dumps(found))
    for row in found["front"]:
        assert set(row) == documented("search: front")
        model = onnx.load(tmp_path / "out" / row["model"])
        assert toys.SPACE.read(model.doc_string) == row["genome"]
        assert row["costs"]["ram"] <= 3000 and row["costs"]["flash"] <= 40_000
    assert all(set(each) == documented("search: history") for each in found["history"])
    assert found["plan"]["axes"] == ("flash", "ram")


def test_the_same_search_again_leaves_the_same_bytes(inquiry, tmp_path):
    out = tmp_path / "out"

    def contents():
        search.conduct(inquiry, "stm32f746", out, ram=3000, **SHORT)
        return {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    first = contents()
    (out / "front" / "77.onnx").write_bytes(b"of an earlier front")
    assert contents() == first


def test_the_page_shows_front_budgets_and_decisions(inquiry, tmp_path):
    found = search.conduct(inquiry, "stm32f746", tmp_path / "out", ram=3000, flash=40_000, **SHORT)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count('class="best"') == 2 * len(found["front"]) and page.count('class="dot"') == 2 * found["judged"]
    assert page.count("<details>") == len(found["front"]) and "2.9 KiB" in page and "worth" in page
    assert "http" not in page.replace("http://www.w3.org", "") and "<script" not in page


@pytest.mark.emulator
@pytest.mark.slow
def test_the_front_is_compiled_and_told_with_the_figures_of_its_programs(inquiry, tmp_path):
    """All toys are one network, so of those that compile the best one is left, and artifacts are kept by contents."""
    out = tmp_path / "out"
    options = {**SHORT, "finalists": None}
    wanted = np.concatenate([each["y"] for each in reference(inquiry.problem.model({}), inquiry.calibration)])
    labels = np.where(np.arange(12) < 9, wanted.argmax(1), 3 - wanted.argmax(1))
    inquiry = dataclasses.replace(inquiry, held_out=(inquiry.calibration, labels))
    found = search.conduct(inquiry, "stm32f746", out, **options)
    best = max(found["candidates"], key=lambda each: each["quality"])
    (row,) = found["front"]
    assert (row["genome"], row["artifact"]) == (best["genome"], "compiled/01") and row["costs"] != best["costs"]
    manifest = json.loads((out / row["artifact"] / "manifest.json").read_text())
    assert set(row["compiled"]) == documented("search: compiled") and row["compiled"]["accuracy"] == 9 / 12
    assert row["costs"]["ram"] == row["compiled"]["ram"] == manifest["memory"]["total"]
    assert row["costs"]["flash"] == row["compiled"]["flash"] == manifest["flash"]["internal"]
    assert row["costs"]["instructions"] == manifest["cost"]["instructions"]
    assert row["costs"]["latency"] == manifest["cost"]["latency_ms"][1]
    assert f"{row['artifact']}/report.html" in (out / "report.html").read_text()
    kept = (out / row["artifact"] / "manifest.json").stat().st_mtime_ns
    search.conduct(inquiry, "stm32f746", out, **options)
    assert (out / row["artifact"] / "manifest.json").stat().st_mtime_ns == kept
    assert [path.name for path in (out / "compiled").iterdir()] == ["01"] and not (out / ".drafts").exists()


@pytest.mark.emulator
def test_what_is_over_a_budget_once_it_is_compiled_leaves_the_front(inquiry, tmp_path):
    """The toys are planned in hundreds of bytes; their program takes thousands."""
    options = {**SHORT, "finalists": None, "check": False}
    with pytest.raises(BudgetError, match="once it is compiled"):
        search.conduct(inquiry, "stm32f746", tmp_path / "out", ram=3000, flash=1000, **options)


@pytest.mark.emulator
def test_a_finalist_that_does_not_compile_is_told(inquiry, tmp_path, networks):
    class Dire(type(inquiry.problem)):
        def model(self, genome):
            model = networks.tiny_network()
            model.graph.node[1].op_type = "Mystery"
            return model.SerializeToString()

    dire = dataclasses.replace(inquiry, problem=Dire())
    found = search.conduct(dire, "stm32f746", tmp_path / "out", **{**SHORT, "finalists": 1})
    assert "Mystery" in json.dumps(found["front"][0]["refused"]) and found["front"][0]["compiled"] is None
    assert "does not compile" in (tmp_path / "out" / "report.html").read_text()


# ---- what goes wrong ----


def test_budgets_that_nobody_meets_name_the_closest(inquiry, tmp_path):
    with pytest.raises(BudgetError) as raised:
        search.conduct(inquiry, "stm32f746", tmp_path / "out", ram=200, flash=300, **SHORT)
    assert "none of" in raised.value.what and raised.value.exit_code == 4
    assert "384 bytes of flash, 1.28 times the budget of 300" in raised.value.why
    assert "256 bytes of RAM, 1.28 times the budget of 200" in raised.value.why and "width 8" in raised.value.why
    assert (tmp_path / "out" / search.JOURNAL).is_file()


def test_a_space_of_which_no_network_comes_says_why(inquiry, tmp_path):
    from edgesmith.ir.errors import ModelError

    class Barren(type(inquiry.problem)):
        def costs(self, genome):
            raise ModelError("too thin to stand")

    with pytest.raises(BudgetError, match="too thin to stand"):
        search.conduct(dataclasses.replace(inquiry, problem=Barren()), "stm32f746", tmp_path / "out", **SHORT)


@pytest.mark.parametrize("options, what", [
    ({"ms": 3.0}, "nothing is known of latency"), ({"address": "somewhere:1"}, "a Ray cluster"),
    ({"engine": "steam"}, "no engine 'steam'"), ({"ram": 2**40}, "bytes of RAM, not"),
    ({"axes": ("beauty",)}, "'beauty' is no axis"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(inquiry, tmp_path, options, what):
    with pytest.raises(UsageError, match=what):
        search.conduct(inquiry, "stm32f746", tmp_path / "out", **{**SHORT, **options})


def test_a_folder_of_something_else_is_left_alone(inquiry, tmp_path):
    (tmp_path / "precious").touch()
    with pytest.raises(UsageError, match="something else than a search"):
        search.conduct(inquiry, "stm32f746", tmp_path, **SHORT)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_folder_of_another_search_is_left_alone(inquiry, tmp_path):
    search.conduct(inquiry, "stm32f746", tmp_path / "out", **SHORT)
    with pytest.raises(UsageError, match=r"(?s)another search.*its target is"):
        search.conduct(inquiry, "stm32f411", tmp_path / "out", **SHORT)


def test_a_disk_that_is_full_at_the_end_keeps_what_was_judged(inquiry, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(MachineError, match=r"(?s)cannot be written.*No space left"):
            search.conduct(inquiry, "stm32f746", out, **SHORT)
    before = (out / search.JOURNAL).read_bytes()
    assert search.conduct(inquiry, "stm32f746", out, **SHORT)["judged"] == 18
    assert (out / search.JOURNAL).read_bytes() == before


@pytest.mark.parametrize("arguments, what", [
    ((), "for a MODEL or within a --space"),
    (("model.onnx", "--space", "small"), "for a MODEL or within a --space"),
    (("model.onnx", "--steps", "3"), "go with a --space"),
    (("--space", "small", "--labels", "labels.npy"), "with a MODEL"),
    (("model.onnx", "--target", "nonsense"), "nonsense"),
])  # fmt: skip
def test_the_command_line_is_held_to_its_two_forms(tmp_path, arguments, what):
    rest = () if "--target" in arguments else ("--target", "stm32f746")
    result = call("search", *arguments, *rest, "--data", tmp_path / "none.npz", "-o", tmp_path / "out")
    assert result.exit_code == 2 and what in result.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize("text, what", [
    ("", "has no genes"), ("genes = 3", "describes no search space"), ("[genes.width]\nchoices = []", "no choices"),
    ("[genes", "is no TOML"),
])  # fmt: skip
def test_a_space_that_is_none_is_refused(tmp_path, text, what):
    space = tmp_path / "space.toml"
    space.write_text(text if text.startswith("[genes\n") or text == "[genes" else f'family = "hybrid"\n{text}\n')
    data = tmp_path / "set.npz"
    draw = np.random.default_rng(0)
    np.savez(data, images=draw.integers(0, 255, (60, 28, 28), np.uint8), labels=np.arange(60) % 3)
    result = call("search", "--space", space, "--target", "stm32f746", "--data", data, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 3 and what in json.loads(result.stdout)["what"]


@pytest.mark.parametrize("labels, what", [
    (np.zeros(3, np.int64), "labels have shape"), (np.full(12, 9), "labels run from 9"), (np.zeros(12), "are float"),
])  # fmt: skip
def test_wrong_labels_are_refused(tiny, typical, tmp_path, labels, what):
    np.save(tmp_path / "labels.npy", labels)
    result = call("search", tiny, "--target", "stm32f746", "--data", typical, "--labels", tmp_path / "labels.npy",
                  "-o", tmp_path / "out", "--json")  # fmt: skip
    assert result.exit_code == 2 and what in json.loads(result.stdout)["what"]


@pytest.mark.compiler
@pytest.mark.slow
def test_a_model_is_compressed_from_the_command_line(tiny, typical, tmp_path):
    command = ("search", tiny, "--target", "stm32f746", "--data", typical, "--generations", 1, "--population", 4,
               "--workers", 0, "--finalists", 0, "-o", tmp_path / "out", "--method", "random")  # fmt: skip
    plain = call(*command)
    assert plain.exit_code == 0, plain.output + plain.stderr
    assert "round 1: 4 of 4 judged" in plain.stderr and "report.html" in plain.stdout
    found = json.loads(call(*command, "--json").stdout)
    assert found["judged"] == 4 and all((tmp_path / "out" / row["model"]).is_file() for row in found["front"])


@pytest.mark.corpus
@pytest.mark.compiler
@pytest.mark.search
@pytest.mark.slow
def test_an_architecture_is_searched_from_the_command_line(tmp_path):
    data, draw = tmp_path / "set.npz", np.random.default_rng(0)
    labels = np.arange(80) % 4
    images = (draw.integers(0, 60, (80, 28, 28)) + 50 * labels[:, None, None]).astype(np.uint8)
    np.savez(data, images=images, labels=labels)
    command = ("search", "--space", "small", "--target", "stm32f411", "--ram", "64K", "--flash", "256K", "--data", data,
               "--steps", 4, "--tuning", 1, "--generations", 1, "--population", 2, "--workers", 0, "--finalists", 0,
               "-o", tmp_path / "out", "--json")  # fmt: skip
    result = call(*command)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["judged"] == 2 and found["name"] == "small"
    for row in found["front"]:
        model = onnx.load(tmp_path / "out" / row["model"])
        assert [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim] == [1, 4]
    again = call(*command)
    assert json.loads(again.stdout)["front"] == found["front"]


# ---- how it is shown ----


def test_lines_are_printed_once_a_round_where_there_is_no_terminal(capsys):
    with fronts.watch() as shown:
        for number, judged in ((1, 1), (1, 2), (2, 3), (2, 4)):
            shown.round(Round(number, judged, 4, 5, 0, ()))
        shown.stage("compile 01")
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert lines[:2] == [f"round {number}: {judged} of 4 judged, 5 over a budget, 0 on the front"
                         for number, judged in ((1, 2), (2, 4))]  # fmt: skip


@pytest.mark.parametrize("low, high, wanted", [
    (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (9.7, 21.0, [10, 15, 20]), (-0.02, 0.01, [-0.02, -0.01, 0, 0.01]),
])  # fmt: skip
def test_ticks_are_round(low, high, wanted):
    assert scatter.ticks(low, high) == pytest.approx(wanted)


def test_points_lie_where_their_values_are():
    plot = scatter.Plot("x", "y", points=[(0.0, 0.0), (10.0, 1.0)], front=[("01", (10.0, 1.0))], budget=5.0)
    circles = re.findall(r'<circle class="dot" cx="([\d.]+)" cy="([\d.]+)"', plot.svg())
    (x0, y0), (x1, y1) = (tuple(map(float, each)) for each in circles)
    (most,) = re.findall(r'class="most" x1="([\d.]+)"', plot.svg())
    assert x0 < float(most) < x1 and y0 > y1 and float(most) == pytest.approx((x0 + x1) / 2, abs=0.1)
    assert "01: x 10, y 1" in plot.svg()
