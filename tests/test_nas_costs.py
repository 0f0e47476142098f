"""Costs added up part by part are those of the whole network as it is quantised, planned and packed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgesmith import targets
from edgesmith.ir.memory import plan
from edgesmith.ir.passes.pipelines import INTEGER, run_pipeline
from edgesmith.ir.passes.quantise import QuantOptions, quantise
from edgesmith.ir.passes.quantise.legalise_integer import prepare
from edgesmith.ir.passes.quantise.outline import outline
from edgesmith.lowering.c.constants import Constants
from edgesmith.lowering.c.lower import emitted
from edgesmith.nas.architecture import Architecture
from edgesmith.nas.costs.network import PartTable, Totals
from edgesmith.nas.costs.part import linked_bytes
from edgesmith.nas.families import assemble, build, parts
from edgesmith.nas.mcuformer import peak_bytes, tokens
from edgesmith.nas.problem import Budgets
from edgesmith.nas.space import Space
from edgesmith.nas.supernet.ends import largest


class Pool(Constants):
    """Also counts tables of activations that are equal by chance of the data: no shape says so."""

    coincident = 0

    def add(self, array, what: str, reads: int = 1) -> str:
        before = len(self.items)
        name = super().add(array, what, reads)
        if what.endswith("act_table") and len(self.items) == before:
            self.coincident += linked_bytes(array.nbytes)
        return name


def whole(space: Space, genome) -> Totals:
    """The slow road: everything a compile does before it writes C, with real numbers."""
    graph = build(space, genome)
    (image,) = graph.inputs
    # Data by which no zero point of a stream happens to be 0: biases would be 0 then, and stored once.
    data = {image.name: np.random.default_rng(2).standard_normal((4, *image.shape[1:])).astype(np.float32)}
    run_pipeline(graph, INTEGER)
    made = quantise(graph, data, QuantOptions(stream="int8"))
    found, pool = plan(made), Pool("k")
    emitted(found, pool)
    macs = sum(step.group.macs for step in found.steps)
    constants = sum(linked_bytes(len(item.data)) for item in pool.items.values())
    return Totals(macs, found.arena_bytes, constants + pool.coincident)


@pytest.mark.parametrize("name", ["vit", "small"])
def test_sums_over_parts_equal_the_whole_to_the_byte(name: str) -> None:
    space, table, generator = Space.load(name), PartTable(), np.random.default_rng(3)
    for _ in range(5):
        genome = dict(space.draw(generator))
        if "recursion" in genome:
            genome["recursion"] = 1
        assert table.of(parts(space.family, genome, space.settings)) == whole(space, genome)


@pytest.mark.parametrize("rank", [0.4, 0.95])
def test_the_arena_of_a_large_network_is_that_of_its_neediest_part(rank: float) -> None:
    """MCUFormer's greatest network at either end of its ranks; it takes 64 KiB less than the published rule says."""
    space = Space.load("mcuformer")
    genome = {**largest(space), "patch": 16, "rank": rank}
    chain = parts(space.family, genome, space.settings)
    graph = assemble(space.name, chain)
    run_pipeline(graph, INTEGER)
    found = plan(outline(prepare(graph), "int8")).arena_bytes
    assert PartTable().of(chain).arena == found
    width, grid = int(genome["width"]), tokens(16)
    assert found + 65536 < peak_bytes(width, grid, 4, rank)


def test_blocks_applied_twice_are_planned_exactly_and_keep_their_weights_once() -> None:
    space, generator = Space.load("vit"), np.random.default_rng(5)
    genome = dict(space.draw(generator), depth=2, recursion=2, mixer=("softmax", "pool"), heads=(2, 1))
    genome |= {"ratio": (1, 2), "primitive": ("int8", "int4")}
    table = PartTable()
    found, real = table.of(parts("vit", genome, space.settings)), whole(space, genome)
    assert (found.macs, found.arena) == (real.macs, real.arena)
    assert found.constants == pytest.approx(real.constants, rel=0.05)


@pytest.mark.compiler
def test_networks_over_a_limit_are_told_so_without_their_code_and_others_as_ever() -> None:
    """What a limit spares is work: whoever meets it costs what it costs without."""
    space, device = Space.load("small"), targets.get("stm32f411")
    side = int(space.settings["image"])
    pixels = np.random.default_rng(0).standard_normal((2, int(space.settings["channels"]), side, side))
    free = Architecture(space, device, None, pixels.astype(np.float32))  # type: ignore[arg-type]
    genome = free.starts()[0]
    whole, least = free.costs(genome), free.least(genome)
    assert whole.flash is not None and least.flash is not None and whole.flash > least.flash
    assert least.macs == whole.macs and least.ram is not None and whole.ram is not None and least.ram < whole.ram
    assert replace(free, limits=Budgets(flash=least.flash)).costs(genome) == whole
    tight = replace(free, limits=Budgets(flash=least.flash - 1))
    assert tight.costs(genome) == least and tight.limits.excess(least)
