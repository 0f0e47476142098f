"""MCUFormer's search space and its rule for RAM, as published: a yardstick beside the real memory planner.

The rule counts, in bytes of int8, the input of an FFN, its hidden layer and one low-rank weight of it held in RAM. It
leaves out queries, keys, values and scores and needs no schedule, so it is neither a bound nor what a compile takes.
Source: Liang et al., MCUFormer (NeurIPS 2023), sections 3.1 and 3.2, and the authors' released search code.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from .families import build
from .space import Genome, Space

SPACE = "mcuformer"
"""The same space with all its genes, as a file of `nas/spaces`."""

RELATIVE = 4 * 30 * 64
"""Numbers in a block that `SPACE` leaves out: relative positions of rows and columns, for keys and for values."""

IMAGE = 240
"""Pixels along each side of the input."""

WIDTHS = (168, 192, 216)
DEPTHS = (12, 13, 14)
RATIOS = (3.5, 4.0)
PATCHES = (16, 20, 24, 28, 32)
RANKS = tuple(round(0.40 + 0.05 * step, 2) for step in range(12))
"""The "tiny" space: choices per network (width, depth), per layer (MLP ratio) and per supernet (patch, rank ratio)."""

LIMIT = 320 * 1024
"""Bytes of RAM that the rule allows: all of an STM32F746's."""


def peak_bytes(width: int, tokens: float, ratio: float, rank: float) -> float:
    """The rule: width * ((tokens + 1) * (1 + ratio) + width * ratio * rank) bytes.

    Args:
        width: Embedding dimension.
        tokens: Patches, without the class token.
        ratio: The greatest MLP ratio of any layer.
        rank: Rank ratio of the low-rank weights.
    """
    return width * ((tokens + 1) * (1 + ratio) + width * ratio * rank)


def published_tokens(patch: int) -> float:
    """Tokens as the released code counts them: a fraction where the patch does not divide the image."""
    return (IMAGE / patch) ** 2


def tokens(patch: int) -> int:
    """Tokens that such a network really has: the image is padded to whole patches."""
    return (-(-IMAGE // patch)) ** 2


def parameters(genome: Genome) -> int:
    """Trained numbers of a network as released: with relative positions, no factors multiplied out."""
    graph = build(Space.load(SPACE), genome)
    depth = genome["depth"]
    assert isinstance(depth, int)
    return sum(value.array.size for value in graph.constants) + depth * RELATIVE


@dataclass(frozen=True)
class Supernet:
    """One point of the outer space: all sub-networks share a patch size and a rank ratio."""

    patch: int
    rank: float

    def legal_fraction(self, limit: int = LIMIT) -> float:
        """Share of uniformly drawn sub-networks whose RAM by the rule is at most `limit`.

        Each layer draws its ratio by itself, so the greatest one is the smaller choice with probability 2^-depth.
        """
        legal = 0.0
        for width, depth in product(WIDTHS, DEPTHS):
            shares = {RATIOS[0]: 0.5**depth, RATIOS[1]: 1 - 0.5**depth}
            count = published_tokens(self.patch)
            fits = {r: peak_bytes(width, count, r, self.rank) <= limit for r in RATIOS}
            legal += sum(share for ratio, share in shares.items() if fits[ratio])
        return legal / (len(WIDTHS) * len(DEPTHS))
