"""Checks 1 and 2: MCUFormer's search space, its published RAM rule and its sizes, against the figures known for it."""

from __future__ import annotations

import pytest

from edgesmith.nas.mcuformer import (
    DEPTHS,
    PATCHES,
    RANKS,
    RATIOS,
    SPACE,
    WIDTHS,
    Supernet,
    parameters,
    peak_bytes,
    published_tokens,
    tokens,
)
from edgesmith.nas.space import Space
from edgesmith.nas.supernet.ends import smallest

TABLE = {  # KiB at ratio 4 for rank ratios 0.4, 0.6, 0.9
    168: {16: (229.5, 251.5, 284.6), 20: (163.0, 185.1, 218.2), 24: (127.0, 149.0, 182.1), 28: (105.2, 127.2, 160.3)},
    192: {16: (269.5, 298.3, 341.5), 20: (193.5, 222.3, 265.5), 24: (152.3, 181.1, 224.3), 28: (127.4, 156.2, 199.4)},
    216: {16: (311.3, 347.7, 402.4), 20: (225.8, 262.3, 317.0), 24: (179.4, 215.9, 270.5), 28: (151.4, 187.9, 242.6)},
}


@pytest.mark.parametrize("width", TABLE)
def test_check_1_peaks_are_those_of_the_table(width: int) -> None:
    for patch, row in TABLE[width].items():
        found = [peak_bytes(width, published_tokens(patch), 4, rank) / 1024 for rank in (0.4, 0.6, 0.9)]
        assert found == pytest.approx(row, abs=0.06)


def test_check_1_legal_fractions() -> None:
    expected = {16: [1] + 7 * [2 / 3] + 4 * [1 / 3], 20: 11 * [1] + [2 / 3]}
    for patch in PATCHES:
        found = [Supernet(patch, rank).legal_fraction() for rank in RANKS]
        assert found == pytest.approx(expected.get(patch, 12 * [1]), abs=1e-3)


def test_padded_grids_have_more_tokens_than_the_rule_counts() -> None:
    assert [tokens(patch) for patch in PATCHES] == [225, 144, 100, 81, 64]
    assert tokens(28) > published_tokens(28) and tokens(32) > published_tokens(32)


def test_the_space_is_the_one_that_the_rule_judges() -> None:
    genes = {gene.name: gene.choices for gene in Space.load(SPACE).genes}
    rule = {"patch": PATCHES, "rank": RANKS, "width": WIDTHS, "depth": DEPTHS, "heads": (3, 4), "ratio": RATIOS}
    assert genes == rule


def test_check_2_the_smallest_network_has_3_38_million_parameters() -> None:
    genome = smallest(Space.load(SPACE))
    assert {name: genome[name] for name in ("patch", "rank", "width", "depth")} == {
        "patch": 16, "rank": 0.4, "width": 168, "depth": 12
    }  # fmt: skip
    assert parameters(genome) == pytest.approx(3.38e6, abs=5e3)
