"""The engine of a search: one seed, one front, whatever becomes of workers; and nothing that was found is lost."""

import importlib
import json
import random
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgesmith.ir.errors import MachineError, ModelError, UsageError
from edgesmith.nas.engine.local import Local
from edgesmith.nas.engine.search import search
from edgesmith.nas.engine.strategies import Random, Trial
from edgesmith.nas.problem import Budgets, front
from edgesmith.nas.space import key

HERE = Path(__file__).parent
KILLS = 10


@pytest.fixture
def toys(monkeypatch):
    """The module toy_search.py beside this file, by a name that workers find as well."""
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("toy_search")


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "run" / "journal.jsonl"


def lines(journal):
    return [json.loads(line) for line in journal.read_text().splitlines()]


def judged(journal):
    return [key(line["genome"]) for line in lines(journal)[1:] if "quality" in line]


@pytest.fixture
def drawn(toys):
    """A plan that needs nothing but numpy."""
    return replace(toys.PLAN, method="random")


# ---- determinism ----


@pytest.mark.search
@pytest.mark.slow
def test_workers_do_not_change_the_front(toys, tmp_path):
    one = search(toys.Toy(), toys.PLAN, journal=tmp_path / "one")
    assert len(one.front) > 5 and one.illegal and one.refused
    with Local(toys.Toy(pause=0.003), 3) as crew:
        three = search(toys.Toy(), toys.PLAN, journal=tmp_path / "three", crew=crew)
    assert toys.shown(one) == toys.shown(three)
    assert sorted(judged(tmp_path / "one")) == sorted(judged(tmp_path / "three"))


@pytest.mark.search
def test_another_seed_is_another_search(toys, tmp_path):
    fronts = [toys.shown(search(toys.Toy(), replace(toys.PLAN, seed=seed), journal=tmp_path / str(seed)))
              for seed in (1, 2)]  # fmt: skip
    assert fronts[0] != fronts[1]


@pytest.mark.search
def test_evolution_beats_draws_with_as_many_judgements(toys, tmp_path):
    best = {"evolution": [], "random": []}
    for method, found in best.items():
        for seed in range(3):
            plan = replace(toys.PLAN, method=method, seed=seed, generations=10)
            result = search(toys.Toy(), plan, journal=tmp_path / f"{method}{seed}")
            assert len(result.candidates) == len(judged(tmp_path / f"{method}{seed}")) == 80
            found.append(result.front[0].quality)
    assert np.mean(best["evolution"]) > 1.05 * np.mean(best["random"])


@pytest.mark.parametrize("method", [pytest.param("evolution", marks=pytest.mark.search), "random"])
def test_what_is_judged_is_legal_and_new_and_the_front_holds_the_best(toys, journal, method):
    result = search(toys.Toy(), replace(toys.PLAN, method=method), journal=journal)
    names = [key(each.genome) for each in result.candidates]
    assert len(set(names)) == len(names) == toys.PLAN.generations * toys.PLAN.population
    assert not [each for each in result.candidates if toys.PLAN.budgets.excess(each.costs)]
    assert result.front == front(result.candidates, toys.PLAN.axes)
    assert result.rounds[-1].judged == len(names) and result.rounds[-1].front == tuple(result.front)


def test_draws_are_uniform_and_begin_with_the_starts(toys):
    drawing = Random(toys.SPACE, toys.Toy().starts(), 3, 4000, seed=5)
    first = drawing.propose()
    assert first[0] == toys.SPACE.vector(toys.Toy().starts()[0])
    for place, (_, _, choices) in enumerate(toys.SPACE.variables):
        counts = np.bincount([vector[place] for vector in drawing.propose()], minlength=len(choices))
        assert abs(counts / 4000 - 1 / len(choices)).max() < 0.04


@pytest.mark.search
def test_children_come_from_the_better_parents(toys):
    from edgesmith.nas.engine.strategies import Evolution

    breeding = Evolution(toys.SPACE, [], 1, 20, seed=1)
    good, bad = (7,) * 14, (0,) * 14
    sizes = [len(choices) - 1 for _, _, choices in toys.SPACE.variables]
    good = tuple(min(a, b) for a, b in zip(good, sizes, strict=True))
    assert len(breeding.propose()) == 20
    breeding.learn([Trial(good, (-1.0,))] * 10 + [Trial(bad, (), excess=0.1 * i) for i in range(1, 11)])
    children = np.array(breeding.propose())
    assert (children == good).mean() > 0.6 > 0.35 > (children == bad).mean()


# ---- resuming ----


def test_a_finished_search_is_read_from_its_journal(toys, drawn, journal):
    once = search(toys.Toy(), drawn, journal=journal)
    before = journal.read_bytes()
    again = search(toys.Toy(raises="nobody may be asked"), drawn, journal=journal)
    assert toys.shown(once) == toys.shown(again) and journal.read_bytes() == before


def test_more_generations_go_on_where_fewer_ended(toys, drawn, tmp_path):
    whole = search(toys.Toy(), drawn, journal=tmp_path / "whole")
    journal = tmp_path / "parts"
    journal.write_bytes(b"".join((tmp_path / "whole").read_bytes().splitlines(keepends=True)[:31]))
    assert toys.shown(search(toys.Toy(), drawn, journal=journal)) == toys.shown(whole)
    assert sorted(judged(journal)) == sorted(judged(tmp_path / "whole"))


@pytest.mark.parametrize("tail", [b'{"genome": {"wid', b"\0\0\0\0", b'{"genome": 3\n', b'{"quality": 1.0}'])
def test_a_torn_last_line_is_dropped(toys, drawn, journal, tail):
    whole = search(toys.Toy(), drawn, journal=journal)
    before = journal.read_bytes()
    journal.write_bytes(before + tail)
    assert toys.shown(search(toys.Toy(), drawn, journal=journal)) == toys.shown(whole)
    assert journal.read_bytes() == before


def test_a_journal_of_nothing_but_a_torn_header_begins_anew(toys, drawn, journal):
    journal.parent.mkdir()
    journal.write_bytes(b'{"journal": 1, "spa')
    assert search(toys.Toy(), drawn, journal=journal).front and len(lines(journal)) > 50


def test_a_damaged_line_is_no_torn_one(toys, drawn, journal):
    search(toys.Toy(), drawn, journal=journal)
    whole = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*whole[:5], b"{rubbish\n", *whole[6:]]))
    with pytest.raises(UsageError, match="line 6 of the journal is damaged"):
        search(toys.Toy(), drawn, journal=journal)


@pytest.mark.parametrize("change, named", [
    ({"seed": 4}, "plan"), ({"budgets": Budgets(flash=1)}, "plan"), ({"axes": ("macs",)}, "plan"),
])  # fmt: skip
def test_a_journal_of_another_search_is_refused(toys, drawn, journal, change, named):
    search(toys.Toy(), drawn, journal=journal)
    before = journal.read_bytes()
    with pytest.raises(UsageError, match=rf"(?s)journal of another search.*its {named} is"):
        search(toys.Toy(), replace(drawn, **change), journal=journal)
    with pytest.raises(UsageError, match="its model is null, this search's"):
        search(toys.Toy(), drawn, journal=journal, about={"model": "other"})
    assert journal.read_bytes() == before


def test_two_searches_do_not_share_a_journal(toys, drawn, journal):
    class Nested(toys.Toy):
        def quality(self, genome):
            search(toys.Toy(), drawn, journal=journal)

    with pytest.raises(ModelError, match="another search is writing"):
        search(Nested(), drawn, journal=journal)


@pytest.mark.search
@pytest.mark.slow
def test_killed_at_random_moments_it_comes_to_the_same_front(toys, tmp_path):
    """Ten times `kill -9`, each after a few more lines; what was judged is never judged again."""
    whole = toys.shown(search(toys.Toy(), toys.PLAN, journal=tmp_path / "whole"))
    draw, journal = random.Random(11), tmp_path / "killed" / "journal.jsonl"
    command = [sys.executable, str(HERE / "toy_search.py"), str(journal.parent), str(toys.PLAN.seed), "2", "0.01"]
    for _ in range(KILLS):
        before = journal.read_bytes().count(b"\n") if journal.exists() else 0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wanted = before + draw.randint(1, 6)
        while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < wanted):
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == whole
    names = judged(journal)
    assert len(set(names)) == len(names) and sorted(names) == sorted(judged(tmp_path / "whole"))


# ---- what goes wrong ----


def test_a_worker_that_dies_is_replaced_and_asked_again(toys, drawn, tmp_path):
    whole = search(toys.Toy(), drawn, journal=tmp_path / "whole")
    victim = key(whole.candidates[9].genome)
    with Local(toys.Toy(dies=victim, marks=str(tmp_path)), 2) as crew:
        result = search(toys.Toy(), drawn, journal=tmp_path / "again", crew=crew)
    assert (tmp_path / "died").exists() and not result.failed
    assert toys.shown(result) == toys.shown(whole)


def test_a_genome_that_kills_every_worker_fails_alone(toys, drawn, tmp_path):
    victim = key(search(toys.Toy(), drawn, journal=tmp_path / "whole").candidates[9].genome)
    journal = tmp_path / "deadly"
    with Local(toys.Toy(dies=victim), 2) as crew:
        result = search(toys.Toy(), drawn, journal=journal, crew=crew)
    ((genome, why),) = result.failed
    assert (key(genome), why) == (victim, "2 workers died of it: signal 9 (SIGKILL)")
    assert [line["failed"] for line in lines(journal)[1:] if "failed" in line] == [why]
    assert len(result.candidates) == drawn.generations * drawn.population - 1
    mended = search(toys.Toy(), drawn, journal=journal)  # what failed is tried anew
    assert not mended.failed and len(mended.candidates) == drawn.generations * drawn.population


@pytest.mark.ray
@pytest.mark.slow
def test_an_actor_of_ray_that_dies_is_replaced(toys, drawn, tmp_path, monkeypatch):
    from edgesmith.nas.engine.ray import Cluster

    monkeypatch.setenv("PYTHONPATH", str(HERE))
    whole = search(toys.Toy(), drawn, journal=tmp_path / "whole")
    victim = key(whole.candidates[9].genome)
    with Cluster(toys.Toy(dies=victim, marks=str(tmp_path)), 3) as crew:
        result = search(toys.Toy(), drawn, journal=tmp_path / "again", crew=crew)
    assert (tmp_path / "died").exists() and not result.failed
    assert toys.shown(result) == toys.shown(whole)


@pytest.mark.ray
def test_an_address_without_a_cluster_is_told(toys):
    from edgesmith.nas.engine.ray import Cluster

    with pytest.raises(MachineError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        Cluster(toys.Toy(), 1, "127.0.0.1:1")


def test_a_problem_that_workers_cannot_load_is_told_at_once(toys, drawn, journal):
    with Local(toys.Absent(), 2) as crew, pytest.raises(MachineError, match=r"(?s)cannot load.*only at home"):
        search(toys.Absent(), drawn, journal=journal, crew=crew)


def test_judgements_that_all_fail_end_the_search_and_are_tried_anew(toys, drawn, journal):
    with pytest.raises(ModelError, match=r"(?s)none of the 8 networks of round 1.*OSError: no data \(toy_search.py"):
        search(toys.Toy(raises="no data"), drawn, journal=journal)
    assert len(search(toys.Toy(), drawn, journal=journal).candidates) == drawn.generations * drawn.population


@pytest.mark.parametrize("worth", [float("nan"), float("inf")])
def test_a_quality_that_is_no_number_is_a_failure(toys, drawn, journal, worth):
    class Odd(toys.Toy):
        def quality(self, genome):
            return worth if genome["depth"] == 1 else 1.0

    result = search(Odd(), drawn, journal=journal)
    assert result.failed and {why for _, why in result.failed} == {f"its quality is {worth}"}
    assert not [each for each in result.candidates if each.genome["depth"] == 1]


@contextmanager
def disk_of(size):
    """No file grows beyond so many bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_and_loses_nothing(toys, drawn, journal):
    with disk_of(5000), pytest.raises(MachineError, match=r"(?s)journal cannot be written.*make room"):
        search(toys.Toy(), drawn, journal=journal)
    kept = journal.read_bytes()
    assert 4000 < len(kept) <= 5000 and kept.endswith(b"\n")
    whole = search(toys.Toy(), drawn, journal=journal.with_name("whole"))
    assert toys.shown(search(toys.Toy(), drawn, journal=journal)) == toys.shown(whole)
    assert journal.read_bytes().startswith(kept)


@pytest.mark.parametrize("method", [pytest.param("evolution", marks=pytest.mark.search), "random"])
def test_budgets_that_nobody_meets_leave_the_closest(toys, journal, method):
    plan = replace(toys.PLAN, budgets=Budgets(flash=300, ram=200), method=method)
    result = search(toys.Toy(), plan, journal=journal)
    assert not result.front and not result.candidates
    assert (result.closest.costs.flash, result.closest.costs.ram) == (384, 256)
    assert result.closest.over == {"flash": 384 / 300, "ram": 256 / 200}


@pytest.mark.parametrize("change, what", [
    ({"population": 1}, "population of 2"), ({"generations": 0}, "and a generation"),
    ({"method": "wish"}, "no method 'wish'"), ({"axes": ("beauty",)}, "'beauty' is no axis"),
    ({"axes": ("ram", "ram")}, "given twice"), ({"axes": ("latency",)}, "nothing is known of latency here"),
    ({"budgets": Budgets(instructions=9)}, "nothing is known of instructions here"),
])  # fmt: skip
def test_a_plan_that_makes_no_sense_is_refused(toys, drawn, journal, change, what):
    with pytest.raises(UsageError, match=what):
        search(toys.Toy(), replace(drawn, **change), journal=journal)


def test_a_journal_that_cannot_be_made_is_told(toys, drawn, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="journal cannot be opened"):
        search(toys.Toy(), drawn, journal=tmp_path / "file" / "journal.jsonl")


def test_a_small_space_is_searched_to_its_end(toys, drawn, journal):
    class Small(toys.Toy):
        space = replace(toys.SPACE, genes=(toys.SPACE.genes[0], replace(toys.SPACE.genes[1], choices=(1,)),
                                           *toys.SPACE.genes[2:]))  # fmt: skip

    result = search(Small(), replace(drawn, budgets=Budgets(), generations=40), journal=journal)
    assert len(result.candidates) == len(list(Small.space.every())) == 96
