"""What memory buys: a front of plans that falls in bytes and rises in work, and programs that prove it."""

import runpy
from itertools import pairwise
from pathlib import Path

import pytest

import edgesmith
from edgesmith.cli import console
from edgesmith.driver.schedules import ranked
from edgesmith.ir.errors import BudgetError, UsageError
from edgesmith.ir.memory import front, plan, thinned

HERE = Path(__file__)
GRAPHS = runpy.run_path(str(HERE.with_name("integer_graphs.py")))
build = runpy.run_path(str(HERE.with_name("build.py")))["vit"]


@pytest.fixture(scope="module")
def transformer():
    return GRAPHS["vit"](224, 16, 192, 3, depth=3)


def test_a_front_falls_in_bytes_and_rises_in_work(transformer):
    plans = front(transformer)
    assert len(plans) > 3
    assert all(one.arena_bytes > two.arena_bytes and one.work < two.work for one, two in pairwise(plans))
    assert plans[-1].arena_bytes == plan(transformer).arena_bytes
    assert plans[0].work == plan(transformer, 10**9).work


def test_a_front_keeps_within_a_budget(transformer):
    whole = front(transformer)
    middle = whole[len(whole) // 2].arena_bytes
    assert [p.arena_bytes for p in front(transformer, middle)] == [
        p.arena_bytes for p in whole if p.arena_bytes <= middle
    ]
    with pytest.raises(BudgetError):
        front(transformer, whole[-1].arena_bytes - 8)


def test_deit_tiny_in_104_kib(transformer):
    assert plan(transformer, 104 * 1024 - 512).arena_bytes <= 103 * 1024


def test_a_thinned_front_keeps_its_ends(transformer):
    plans = front(transformer)
    few = thinned(plans, 3)
    assert len(few) == 3 and few[0] is plans[0] and few[-1] is plans[-1]
    assert thinned(plans, len(plans)) == plans and thinned(plans, 1) == plans[-1:]


def test_schedules_that_another_beats_are_told_apart():
    rows = [{"ram": ram, "instructions": count} for ram, count in ((10, 100), (8, 103), (9, 104), (8, 103))]
    found = ranked(rows)
    assert [(row["ram"], row["best"]) for row in found] == [(10, True), (9, False), (8, True), (8, True)]
    assert [round(row["over"], 2) for row in found] == [0, 0.04, 0.03, 0.03]


@pytest.mark.compiler
@pytest.mark.emulator
def test_every_schedule_of_a_model_is_built_and_emulated(tmp_path):
    graph = build("float32", depth=1, width=24, heads=3)
    made = edgesmith.compile(graph, "stm32f746", out=tmp_path / "out", schedules="all")
    rows = made.manifest["schedules"]
    chosen = (made.memory["total"], made.manifest["cost"]["instructions"])
    assert chosen in [(row["ram"], row["instructions"]) for row in rows]
    assert len({row["ram"] for row in rows}) > 1 and rows[0]["ram"] == max(row["ram"] for row in rows)
    assert all(row["instructions"] > 0 and row["over"] >= 0 for row in rows) and any(row["best"] for row in rows)
    with console.OUT.capture() as said:
        console.compile({**made.manifest, "folder": "out"})
    assert all(f"{row['instructions']:,}" in said.get() for row in rows)


@pytest.mark.compiler
def test_schedules_need_a_device_that_is_emulated(tmp_path):
    with pytest.raises(UsageError, match="counts no instructions"):
        edgesmith.compile(build("float32", depth=1), "host", out=tmp_path / "out", schedules="all")
