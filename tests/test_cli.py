"""The command line: every answer as data with its documented keys, every failure with its exit code and no trace."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgesmith import runtimes
from edgesmith.cli import commands

DOCS = Path(__file__).parents[1] / "docs"


def call(*arguments):
    return CliRunner().invoke(commands, [str(argument) for argument in arguments])


def answer(*arguments):
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output + result.stderr
    return json.loads(result.stdout)


def failure(code, *arguments):
    """The error's parts; the exit code is the same with and without --json."""
    plain, result = call(*arguments), call(*arguments, "--json")
    assert (plain.exit_code, result.exit_code) == (code, code), plain.output
    assert plain.stdout == "" and "error: " in plain.stderr
    parts = json.loads(result.stdout)
    assert set(parts) == documented("error") and parts["exit_code"] == code
    assert parts["what"] in plain.stderr
    return parts


def documented(section):
    """Keys in the table under a heading of docs/json.md."""
    text = re.split(r"^## ", (DOCS / "json.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    table = next(part for part in text if part.split("\n")[0] == section)
    return {key for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)}


# ---- answers ----


def test_targets_are_listed_with_their_budgets():
    entries = {entry["name"]: entry for entry in answer("targets")["targets"]}
    assert entries["stm32f746"]["ram_budget"] == 256 * 1024
    assert entries["host"]["ram_budget"] is None
    assert all(set(entry) == documented("targets") for entry in entries.values())
    assert "256.0 KiB" in call("targets").stdout


def test_doctor_says_what_works():
    checks = answer("doctor")["checks"]
    assert all(set(check) == documented("doctor") for check in checks)
    assert {check["name"]: check["works"] for check in checks}["onnx"]
    assert all(check["why"] and check["do"] for check in checks if not check["works"])
    assert "onnxruntime" in call("doctor").stdout


def test_show_prints_a_graph_that_parses(tiny):
    shown = answer("show", tiny)
    assert set(shown) == documented("show")
    assert shown["macs"] == 2 * 2 * 8 * 48 + 32 * 4
    assert shown["text"] in call("show", tiny).stdout


def test_show_stops_after_a_pass(fashion):
    count = {after: answer("show", fashion / "model.onnx", "--after", after)["ops"].get("Attention", 0)
             for after in ("import", "recognise_layernorm", "recognise_attention", "canonicalise_norms")}  # fmt: skip
    assert list(count.values()) == [0, 0, 3, 3]


@pytest.mark.parametrize("text, size", [("262144", 262144), ("256K", 262144), ("0.5M", 524288), ("1kib", 1024)])
def test_sizes_have_units(text, size):
    from edgesmith.cli import Bytes

    assert Bytes().convert(text, None, None) == size


def test_the_installed_command_and_the_module_are_one():
    command = [sys.executable, "-m", "edgesmith", "targets", "--json"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == answer("targets")


# ---- your command: 2 ----


@pytest.mark.parametrize(
    "arguments",
    [["--ram", "much"], ["--ram", "0"], ["--shape", "x"], ["--shape", "x=1x-3"], ["--stream", "int4"], ["--nonsense"]],
)
def test_wrong_options_are_refused(tiny, tmp_path, arguments):
    result = call("compile", tiny, "--target", "host", "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 2 and arguments[0] in result.stderr
    assert not (tmp_path / "out").exists()


def test_unknown_target(tiny, tmp_path):
    parts = failure(2, "compile", tiny, "--target", "z80", "-o", tmp_path / "out")
    assert "z80" in parts["what"] and "stm32f746" in parts["what"]


def test_broken_target_file(tiny, tmp_path):
    (tmp_path / "mine.toml").write_text("title = 3\nbackend =")
    failure(2, "compile", tiny, "--target", tmp_path / "mine.toml", "-o", tmp_path / "out")


def test_unknown_pass(tiny):
    assert "fold_batchnorm" in failure(2, "show", tiny, "--after", "nonsense")["do"]


def test_output_that_holds_something_else(tiny, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    failure(2, "compile", tiny, "--target", "host", "-o", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_run_of_what_is_no_artifact(tmp_path):
    assert str(tmp_path) in failure(2, "run", tmp_path)["where"]


# ---- your model: 3 ----


def test_model_that_is_none(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"nothing of the kind")
    for name in ("broken.onnx", "missing.onnx", "conftest.py"):
        failure(3, "show", tmp_path / name)
        failure(3, "compile", tmp_path / name, "--target", "host", "-o", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.onnx"]


@pytest.mark.parametrize(
    "array", [np.zeros((4, 3, 9, 9), np.float32), np.full((2, 3, 8, 8), np.nan), np.zeros((2, 3, 8, 8), np.uint8)]
)
def test_calibration_that_does_not_fit(tiny, tmp_path, array):
    np.save(tmp_path / "data.npy", array)
    arguments = ("--calibration", tmp_path / "data.npy", "-o", tmp_path / "deep" / "out")
    parts = failure(3, "compile", tiny, "--target", "host", *arguments)
    assert "x" in parts["where"] or "'x'" in parts["what"]
    assert not (tmp_path / "deep").exists()


def test_calibration_that_is_not_there(tiny, tmp_path):
    arguments = ("--calibration", tmp_path / "nowhere.npz", "-o", tmp_path / "out")
    assert "no such file" in failure(3, "compile", tiny, "--target", "host", *arguments)["why"]


# ---- your budget: 4 ----


@pytest.mark.parametrize("ram", ["100", "700"])
def test_budget_that_is_too_small(tiny, typical, tmp_path, ram):
    arguments = ("--target", "stm32f746", "--ram", ram, "--calibration", typical, "-o", tmp_path / "deep" / "out")
    parts = failure(4, "compile", tiny, *arguments)
    assert ram in parts["what"] + parts["why"] and parts["do"]  # refused by the plan, or by the program that was built
    assert not (tmp_path / "deep").exists()


# ---- your machine: 5 ----


def test_no_compiler(tiny, typical, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    hidden = lambda name, *rest: None if name == "ziglang" else real(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    arguments = ("--target", "stm32f746", "--calibration", typical, "-o", tmp_path / "deep" / "out")
    assert "pip install ziglang" in failure(5, "compile", tiny, *arguments)["do"]
    assert not (tmp_path / "deep").exists()


def test_a_file_answers_with_its_own_documented_keys(tiny, typical, tmp_path):
    arguments = ("compile", tiny, "--target", "onnx", "--calibration", typical, "-o", tmp_path / "out")
    found = answer(*arguments)
    assert set(found) == documented("compile to a file")
    assert set(found["file"]) == {"name", "bytes", "operators"}
    assert set(found["cost"]) == {"macs", "parameters", "unit", "layers"}
    printed = call(*arguments).stdout
    assert "model.onnx" in printed and "Gemm" in printed and "RAM" not in printed and "flash" not in printed
    ran = answer("run", tmp_path / "out", "--on", "ort", "--runs", "3", "--check")
    assert set(ran) == documented("run")
    assert (ran["kind"], ran["samples"], ran["equal"], ran["against"]) == ("measured", 3, 3, "reference")
    assert "ort" in failure(2, "run", tmp_path / "out", "--on", "emulator")["do"]
    assert "no RAM budget" in failure(2, *arguments, "--ram", "256K")["what"]


@pytest.mark.compiler
@pytest.mark.emulator
def test_compile_and_run_answer_with_documented_keys(tiny, typical, tmp_path, monkeypatch):
    out = tmp_path / "out"
    found = answer("compile", tiny, "--target", "stm32f746", "--calibration", typical, "-o", out)
    assert found["folder"] == str(out)
    assert set(found) == documented("compile")
    for part in ("memory", "flash", "columns", "cost"):
        assert set(found[part]) == documented(f"compile: {part}")
    assert all(set(rung) == documented("compile: verification") for rung in found["verification"])
    assert all(set(tensor) == documented("compile: inputs") for tensor in found["inputs"] + found["outputs"])

    for runner, kind in (("emulator", "emulated"), ("host", "measured")):
        ran = answer("run", out, "--on", runner, "--runs", "3", "--check")
        assert set(ran) == documented("run")
        assert (ran["kind"], ran["samples"], ran["equal"], ran["against"]) == (kind, 3, 3, "reference")
        assert np.shape(ran["outputs"]["y"]["values"]) == (3, 1, 4)
    assert "bit for bit" in call("run", out, "--on", "host", "--check").stdout
    assert failure(2, "run", out, "--on", "moon")["do"]
    failure(2, "run", out, "--on", "ort")

    monkeypatch.setattr(type(runtimes.load("emulator")), "why_not", lambda self: "pip install unicorn")
    assert failure(5, "run", out, "--on", "emulator")["do"] == "pip install unicorn"
