"""Every exact pass: the rewrite as text, equal numbers, a second run that finds nothing, and why not."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import ModuleType

import pytest

from edgesmith.ir.passes.pipelines import FLOAT
from edgesmith.ir.text import show

PARTS = [runpy.run_path(str(path))["CASES"] for path in sorted(Path(__file__).parent.glob("pass_cases_*.py"))]
APPLIES = {name: case for part in PARTS for name, case in part.changed.items()}
REFUSES = {name: case for part in PARTS for name, case in part.kept.items()}


def test_every_case_has_a_name_of_its_own() -> None:
    assert len(APPLIES) == sum(len(part.changed) for part in PARTS)
    assert len(REFUSES) == sum(len(part.kept) for part in PARTS)


@pytest.mark.parametrize("name", APPLIES)
def test_rewrite_is_the_golden_one(name: str, build: ModuleType, golden) -> None:
    golden(f"passes/{name}.txt", build.before_and_after(*APPLIES[name]))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize("name", APPLIES)
def test_numbers_stay(name: str, bias: bool, dtype: str, tolerance: float, build: ModuleType) -> None:
    assert build.error_of_pass(*APPLIES[name], dtype, bias) < tolerance


@pytest.mark.parametrize("name", APPLIES)
def test_second_run_finds_nothing(name: str, build: ModuleType) -> None:
    p, make = APPLIES[name]
    graph = make(build.Net(), True)
    p.apply(graph)
    once = show(graph)
    assert p.apply(graph) == 0
    assert show(graph) == once


@pytest.mark.parametrize("name", REFUSES)
def test_refusal_says_why(name: str, build: ModuleType) -> None:
    p, reason, make = REFUSES[name]
    assert reason in build.reasons_of_refusal(p, make)


def test_every_pass_of_the_pipeline_has_a_case() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (Path(__file__).parent / "golden" / "passes").glob("*.txt")]
    shown = {line.removeprefix("# ") for text in texts for line in text.splitlines() if line.startswith("# ")}
    assert {p.name for p in FLOAT} <= shown
