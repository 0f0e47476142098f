"""What memory costs a device decides loop order and place: operands near, far weights read less often."""

import runpy
from pathlib import Path

import numpy as np
import pytest

import edgesmith
from edgesmith.ir.memory import plan
from edgesmith.ir.memory.offsets import Rectangle, place
from edgesmith.ir.memory.rates import Rates
from edgesmith.ir.memory.traffic import streams

HERE = Path(__file__)
GRAPHS = runpy.run_path(str(HERE.with_name("integer_graphs.py")))
play = runpy.run_path(str(HERE.with_name("test_memory.py")))["play"]
build = runpy.run_path(str(HERE.with_name("build.py")))["vit"]
KIB = 1024
NEAR, FAR = Rates(operand=0.3, fast=56 * KIB, cache=4 * KIB), Rates(weight=7.0)


@pytest.fixture(scope="module")
def transformer():
    return GRAPHS["vit"](224, 16, 192, 3, depth=3)


def slow(rates, found):
    return sum(rates.slow(step.group, step.schedule, step.scratch) for step in found.steps)


def test_without_rates_plans_are_those_of_rates_that_say_nothing(transformer):
    for budget in (None, 130_000):
        assert plan(transformer, budget).to_json() == plan(transformer, budget, rates=Rates()).to_json()


@pytest.mark.parametrize("rates", [NEAR, FAR, Rates(7.0, 0.3, 56 * KIB, 4 * KIB)])
def test_plans_by_rates_run_and_keep_budgets(transformer, rates):
    for budget in (None, 120_000, 256 * KIB):
        found = plan(transformer, budget, rates=rates)
        play(transformer, found)
        assert budget is None or found.arena_bytes <= budget


@pytest.mark.parametrize("seed", range(12))
def test_any_graph_planned_by_rates_runs(seed):
    graph = GRAPHS["tangle"](seed, 9)
    play(graph, plan(graph, effort=0.2, rates=Rates(7.0, 0.3, 256, 64)))


def test_operands_move_to_fast_ram_at_no_byte_more(transformer):
    plain, near = plan(transformer), plan(transformer, rates=NEAR)
    assert near.arena_bytes == plain.arena_bytes
    assert slow(NEAR, near) < 0.1 * slow(NEAR, plain)


def test_far_weights_are_read_less_often(transformer):
    for budget in (128 * KIB, 256 * KIB):
        plain, far = plan(transformer, budget), plan(transformer, budget, rates=FAR)
        assert far.weight_bytes < 0.7 * plain.weight_bytes
        assert far.arena_bytes <= budget


def test_a_cache_that_holds_an_operand_makes_its_place_indifferent(transformer):
    (step, *_) = (step for step in plan(transformer).steps if step.group.kind == "ffn")
    reads = sum(stream.read for stream in streams(step.group, step.schedule))
    far_end = 10**6
    assert Rates(cache=0).slow(step.group, step.schedule, far_end) == reads
    assert Rates(cache=10**6).slow(step.group, step.schedule, far_end) == 0
    assert Rates(fast=10**9).slow(step.group, step.schedule, far_end) == 0


def test_arrangements_as_low_are_told_apart_by_what_they_wait_for():
    blocks = [(Rectangle(64, 0, 1),), (Rectangle(128, 0, 0),), (Rectangle(32, 1, 1),)]
    for wanted in (0, 1, 2):
        found = place(blocks, 192, waits=lambda offsets, wanted=wanted: offsets[wanted], near=(wanted,))
        assert found.bytes == 192 and found.offsets[wanted] == 0


@pytest.mark.compiler
@pytest.mark.emulator
def test_operands_are_read_as_often_as_the_emulator_counts(tmp_path):
    from edgesmith.driver.execution import load_vectors
    from edgesmith.runtimes import emulator

    graph = build("float32", depth=1, width=48, heads=3)
    made = edgesmith.compile(graph, "stm32f411", out=tmp_path / "out", check=False)
    program = emulator.Program(made.folder, strict=True)
    arrays = program.library.arrays(load_vectors(made.folder)[0][0])
    counted = [result.traffic["sram"][0] for _, result in program.steps(arrays)]
    told = [step["operand_bytes"] for step in made.memory["plan"]["steps"]]
    assert len(told) == len(counted)
    for expected, reads in zip(told, counted, strict=True):
        assert expected <= reads
    # The rest are rows on their way into tiles, and the stack: nine registers for a dot product, which is short here.
    assert sum(told) > 0.5 * sum(counted)
    assert np.argmax(told) == np.argmax(counted)
