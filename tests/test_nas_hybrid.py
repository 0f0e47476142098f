"""Hybrids for small images: blocks of either kind, tokens that no block reads, and heads of all tokens."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from edgesmith.ir.errors import UsageError
from edgesmith.ir.graph import Graph
from edgesmith.ir.interpret import run
from edgesmith.nas.families import assemble, build, parts
from edgesmith.nas.families.hybrid import Classifier, ResidualBlock, Stem, Tokens
from edgesmith.nas.space import Genome, Space
from edgesmith.nas.supernet.ends import smallest

SPACE = Space.load("small")
SPACE = replace(SPACE, settings={**SPACE.settings, "image": 16})


def kinds(genome: Genome) -> Counter[str]:
    return Counter(type(node.op).__name__ for node in build(SPACE, genome).nodes)


def answer(graph: Graph, pixels: np.ndarray) -> np.ndarray:
    (image,) = graph.inputs
    return next(iter(run(graph, {image.name: pixels}).values()))


def test_genes_say_which_blocks_there_are() -> None:
    least = {**smallest(SPACE), "early_block": ("depthwise",), "local_block": ("depthwise",)}
    assert least["mixer"] == ("skip",) and least["head"] == "mean"
    plain = kinds(least)
    residual = kinds({**least, "local_block": ("residual",)})
    assert (residual["Conv"], residual["Gelu"], residual["Relu"]) == (
        plain["Conv"] - 1, plain["Gelu"] - 1, plain["Relu"] + 2,
    )  # fmt: skip
    assert not plain["Attention"] and plain["Linear"] == 1
    assert kinds({**least, "mixer": ("none",)})["Linear"] == 3
    attends = kinds({**least, "mixer": ("softmax",)})
    assert attends["Attention"] == 1 and attends["Linear"] == 7
    flat = kinds({**least, "head": "flat"})
    assert not flat["Mean"] and not flat["RepNorm"] and flat["Linear"] == 1


def test_a_space_that_does_not_name_blocks_or_head_has_depthwise_ones_and_a_mean() -> None:
    genome = {**smallest(SPACE), "early_block": ("depthwise",), "local_block": ("depthwise",), "head": "mean"}
    silent = {name: each for name, each in genome.items() if name not in ("early_block", "local_block", "head")}
    assert parts("hybrid", silent, SPACE.settings) == parts("hybrid", genome, SPACE.settings)
    with pytest.raises(UsageError, match="no block 'dense'"):
        parts("hybrid", {**genome, "local_block": ("dense",)}, SPACE.settings)


def test_a_residual_block_whose_branch_is_nothing_keeps_what_is_positive() -> None:
    chain = [("stem", Stem((1, 8, 8), 0, 4)), ("block", ResidualBlock(4, 4, 2)), ("tokens", Tokens(4, 4))]
    chain.append(("head", Classifier(16, 4, "RepNorm", 3, True)))
    graph = assemble("block", chain)
    weights = {value.name: value.array for value in graph.constants if value.array.ndim}
    for name in ("weight", "bias"):
        weights[f"block.back.bn.{name}"] = np.zeros(4, np.float32)
    weights["block.back.bn.running_mean"] = np.zeros(4, np.float32)
    pixels = np.random.default_rng(0).standard_normal((1, 1, 8, 8)).astype(np.float32)
    without = assemble("none", [part for part in chain if part[0] != "block"], weights)
    assert np.allclose(answer(assemble("block", chain, weights), pixels), answer(without, pixels), atol=1e-6)


def test_a_flat_head_reads_the_leading_columns_of_a_wider_one() -> None:
    """Channels that are nothing change nothing: so do networks of several widths share one matrix."""

    def chain(width: int):
        return [("stem", Stem((1, 8, 8), 0, width)), ("tokens", Tokens(4, width)),
                ("head", Classifier(16, width, "RepNorm", 3, True))]  # fmt: skip

    wide = assemble("wide", chain(6))
    weights = {value.name: value.array.copy() for value in wide.constants if value.array.ndim}
    weights["stem.start.bn.weight"][4:] = weights["stem.start.bn.bias"][4:] = 0
    weights["tokens.position"][..., 4:] = 0
    narrow = assemble("narrow", chain(4))
    shapes = {value.name: value.shape for value in narrow.constants}
    leading = {name: array[tuple(slice(n) for n in shapes[name])] for name, array in weights.items() if name in shapes}
    pixels = np.random.default_rng(0).standard_normal((1, 1, 8, 8)).astype(np.float32)
    found = answer(assemble("narrow", chain(4), leading), pixels)
    assert np.allclose(found, answer(assemble("wide", chain(6), weights), pixels), atol=1e-5)
