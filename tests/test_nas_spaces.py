"""Every shipped space builds, and its genes move only what they say they move."""

from __future__ import annotations

import numpy as np
import pytest

from edgesmith.ir.verify import verify
from edgesmith.nas.costs.network import PartTable
from edgesmith.nas.families import build, parts
from edgesmith.nas.space import MOVES, Gene, Space

JUDGED = {"ram": "arena", "flash": "constants", "macs": "macs"}
"""Fields of `Totals` for what a gene moves."""

DECLARED = [
    (name, gene)
    for name in Space.shipped()
    for gene in Space.load(name).genes
    if set(JUDGED) - set(gene.moves)
]  # fmt: skip


@pytest.mark.parametrize("name", Space.shipped())
def test_a_drawn_network_can_be_built(name: str) -> None:
    space = Space.load(name)
    graph = build(space, space.draw(np.random.default_rng(1)))
    verify(graph, "build")
    assert graph.outputs[0].shape == (1, space.settings["classes"])


@pytest.mark.parametrize("name, gene", DECLARED, ids=[f"{name}-{gene.name}" for name, gene in DECLARED])
def test_a_gene_moves_only_what_it_declares(name: str, gene: Gene) -> None:
    space, table = Space.load(name), PartTable()
    drawn = dict(space.draw(np.random.default_rng(2)))
    moved = set()
    first = None
    for choice in gene.choices:
        chosen = (choice,) * len(drawn[gene.name]) if isinstance(drawn[gene.name], tuple) else choice
        found = table.of(parts(space.family, {**drawn, gene.name: chosen}, space.settings))
        first = first or found
        moved |= {what for what, field in JUDGED.items() if getattr(found, field) != getattr(first, field)}
    assert moved and moved <= set(gene.moves) <= set(MOVES)


def test_some_gene_is_declared() -> None:
    assert DECLARED
