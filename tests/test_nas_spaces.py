"""Every shipped space builds; its genes decide about networks, and move only what they say they move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgesmith.ir.text import show
from edgesmith.ir.verify import verify
from edgesmith.nas.costs.network import PartTable
from edgesmith.nas.families import build, parts
from edgesmith.nas.families.net import Net
from edgesmith.nas.space import MOVES, Choice, Gene, Genome, Space
from edgesmith.nas.supernet.ends import largest

JUDGED = {"ram": "arena", "flash": "constants", "macs": "macs"}
"""Fields of `Totals` for what a gene moves."""

DECLARED = [
    (name, gene)
    for name in Space.shipped()
    for gene in Space.load(name).genes
    if set(JUDGED) - set(gene.moves)
]  # fmt: skip


GENES = [(name, gene) for name in Space.shipped() for gene in Space.load(name).genes]

PRICED = [(name, gene) for name, gene in GENES if name in ("small", "vit")]
"""Of networks small enough to be judged in no time."""

def everywhere(space: Space, gene: Gene, choice: Choice) -> Genome:
    """The largest network, of as many tokens as any, with a choice wherever the gene decides."""
    chosen = {"patch": 0, gene.name: gene.choices.index(choice)}
    vector = zip(space.variables, space.vector(largest(space)), strict=True)
    return space.genome([chosen.get(name, index) for (name, _, _), index in vector])


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters without values: of networks that are only looked at."""
    blank = np.zeros((), np.float32)
    monkeypatch.setattr(Net, "_drawn", lambda _self, _name, shape, *_: np.broadcast_to(blank, shape))


@pytest.mark.parametrize("name, gene", GENES, ids=[f"{name}-{gene.name}" for name, gene in GENES])
@pytest.mark.usefixtures("undrawn")
def test_a_gene_decides_about_the_network(name: str, gene: Gene) -> None:
    """Words each make another network; of numbers the least and the greatest do."""
    space = Space.load(name)
    choices = gene.choices if isinstance(gene.choices[0], str) else {gene.choices[0], gene.choices[-1]}
    graphs = [build(space, everywhere(space, gene, choice)) for choice in choices]
    seen = {(show(graph), str(sorted(graph.metadata.items()))) for graph in graphs}
    assert len(seen) == len(choices)


@pytest.mark.parametrize("name, gene", PRICED, ids=[f"{name}-{gene.name}" for name, gene in PRICED])
def test_a_gene_moves_costs(name: str, gene: Gene, tables: dict[str, PartTable]) -> None:
    space, table = Space.load(name), tables.setdefault(name, PartTable())
    genomes = [everywhere(space, gene, choice) for choice in (gene.choices[0], gene.choices[-1])]
    one, other = (table.of(parts(space.family, genome, space.settings)) for genome in genomes)
    moved = {what for what, field in JUDGED.items() if getattr(one, field) != getattr(other, field)}
    assert moved and moved <= set(gene.moves)


@pytest.fixture(scope="module")
def tables() -> dict[str, PartTable]:
    """What is known of parts, by space."""
    return {}


def test_the_image_may_be_a_gene_of_a_space_of_ones_own() -> None:
    space, table = Space.load("vit"), PartTable()
    sized = replace(space, genes=(*space.genes, Gene("image", (16, 24, 32))))
    genome = dict(space.draw(np.random.default_rng(2)))
    found = [table.of(parts(sized.family, {**genome, "image": side}, sized.settings)) for side in (16, 24, 32)]
    assert [build(sized, {**genome, "image": side}).inputs[0].shape[2] for side in (16, 32)] == [16, 32]
    assert found[0].macs < found[1].macs < found[2].macs and found[0].arena < found[2].arena


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
