"""Spoilt ONNX models are refused in our words or read soundly, within limits; what the fuzzer found stays mended."""

from __future__ import annotations

import importlib
import os
import sys
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("resource", reason="limits on processes are those of Unix")
sys.path.insert(0, str(Path(__file__).parent / "fuzz"))  # the fuzzer is a script with neighbours, not a package
fuzz, grown, mutations, seeds, sweep, trial = map(
    importlib.import_module, ("fuzz", "grown", "mutations", "seeds", "sweep", "trial")
)
FILES = sorted(seeds.FOUND.glob("*.onnx"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_was_found_stays_mended(file: Path) -> None:
    counts, findings, _ = fuzz.attempt([(file.stem, file.read_bytes())])
    assert [(each.kind, each.text) for each in findings] == []
    assert counts["refused"] + counts["sound"] == 1


def test_some_seconds_of_the_fuzzer_find_nothing() -> None:
    counts, findings, _ = fuzz.attempt(fuzz.spoilt(0), cpu=8)
    assert [(each.kind, each.text) for each in findings] == []
    assert counts["refused"] > counts["sound"] > 50


def test_a_part_of_the_sweep_finds_nothing() -> None:
    some = list(islice(sweep.swept(), 0, None, 499))
    assert any("axis" in name for name, _ in some) and len({name for name, _ in some}) == len(some)
    _, findings, _ = fuzz.attempt(some)
    assert [(each.kind, each.text) for each in findings] == []


@settings(max_examples=40, deadline=None)
@given(draw=st.randoms(use_true_random=False), mutate=st.booleans())
def test_spoilt_models_shrink_to_what_breaks(draw, mutate: bool) -> None:
    content = mutations.mutated(draw.choice(seeds.seeds()), draw) if mutate else grown.grown(draw)
    _, findings, _ = fuzz.attempt([("hypothesis", content)])
    assert [(each.kind, each.text) for each in findings] == []


def test_seeds_are_sound(tmp_path: Path) -> None:
    path = tmp_path / "seed.onnx"
    outcomes = []
    for content in seeds.seeds()[::97]:
        path.write_bytes(content)
        outcomes.append(trial.judge(path, lambda phase: None))
    assert outcomes.count("sound") > 0.8 * len(outcomes)


def test_the_same_seed_makes_the_same_models() -> None:
    first, second = (fuzz.spoilt(5) for _ in range(2))
    assert [next(first) for _ in range(30)] == [next(second) for _ in range(30)]


@pytest.mark.parametrize("fault", ["crash", "death", "hang", "memory", "wrong"])
def test_the_fuzzer_notices(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(path: Path, enter) -> str:
        enter(2)
        if fault == "crash":
            raise KeyError("lost")
        if fault == "death":
            os.abort()
        if fault == "memory":
            return str(len(bytearray(2 * fuzz.MEMORY)))
        if fault == "wrong":
            raise fuzz.Wrong("the imported graph's Relu: 'y' has other numbers")
        while True:
            pass

    monkeypatch.setattr(fuzz, "judge", judged)
    monkeypatch.setattr(fuzz, "CPU_SECONDS", 1)
    counts, findings, _ = fuzz.attempt([("one", b"1"), ("two", b"2")])
    assert counts["found"] == 2
    expected = {
        "crash": "KeyError", "death": "SIGABRT in simplify", "hang": "hangs in simplify", "memory": "MemoryError",
        "wrong": "wrong: the imported graph's Relu",
    }  # fmt: skip
    assert all(each.kind.startswith(expected[fault]) for each in findings)
    assert [each.content for each in findings] == [b"1", b"2"]
