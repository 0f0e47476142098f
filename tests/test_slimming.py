"""Slimming goes down from the largest network by the cheapest steps; MES is that of the paper."""

from __future__ import annotations

import math

import pytest

from edgesmith.ir.errors import ModelError
from edgesmith.nas.problem import Budgets, Costs
from edgesmith.nas.space import Gene, Space
from edgesmith.nas.supernet.ends import largest, smallest
from edgesmith.nas.supernet.slimming import logarithm, mes, slim


class Toy:
    """Width is dear and worth much, depth cheap and worth little."""

    space = Space("toy", "", (Gene("width", (8, 16, 32)), Gene("depth", (1, 2, 3)), Gene("mixer", ("a", "b"))), {})
    asked = 0

    def starts(self):
        return []

    def costs(self, genome) -> Costs:
        return Costs(macs=genome["width"] ** 2 * genome["depth"], flash=genome["width"] * genome["depth"])

    def quality(self, genome) -> float:
        self.asked += 1
        return math.log2(genome["width"]) + 0.1 * genome["depth"] + (genome["mixer"] == "a")

    def model(self, genome) -> bytes:
        raise NotImplementedError


@pytest.mark.parametrize(
    "size, latency, published",
    [(3.5, 0.9, 102.9), (6.1, 1.1, 63.8), (12.6, 1.6, 30.5), (26.1, 2.7, 12.6)],
    ids=["S0", "S1", "S2", "L"],
)
def test_mes_is_as_published(size: float, latency: float, published: float) -> None:
    assert round(mes({"flash": size * 1e6, "latency": latency}), 1) == published


def test_slimming_gives_up_what_is_worth_little_first_and_ends_within_the_budgets() -> None:
    problem = Toy()
    way = list(slim(problem, Budgets(macs=600), logarithm({"macs": 1.0})))
    assert way[0].genome == largest(problem.space) == {"width": 32, "depth": 3, "mixer": "a"}
    costs = [each.costs.macs for each in way]
    assert costs == sorted(costs, reverse=True) and costs[-1] <= 600 < costs[-2]
    assert [each.genome["depth"] for each in way[:3]] == [3, 2, 1], "depth is worth little and goes first"
    assert way[-1].genome == {"width": 16, "depth": 1, "mixer": "a"}


def test_slimming_says_when_nothing_is_left_to_save() -> None:
    problem = Toy()
    with pytest.raises(ModelError, match=r"macs by a factor of 6\.40"):
        list(slim(problem, Budgets(macs=10), logarithm({"macs": 1.0, "flash": 0.5})))
    assert smallest(problem.space) == {"width": 8, "depth": 1, "mixer": "b"}
