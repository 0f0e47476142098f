"""What papers publish about their spaces and scores, from this project's own rules: each beside the published figure.

Nothing is trained or compiled; it takes seconds.
"""

from collections.abc import Mapping

from edgesmith.nas.mcuformer import (
    LIMIT,
    PATCHES,
    RANKS,
    RATIOS,
    RELATIVE,
    SPACE,
    WIDTHS,
    Supernet,
    parameters,
    peak_bytes,
    published_tokens,
)
from edgesmith.nas.space import Space
from edgesmith.nas.supernet.ends import smallest
from edgesmith.nas.supernet.slimming import mes

SHOWN = (0.4, 0.6, 0.9)
"""Rank ratios of the table of peaks."""

SAMPLED: Mapping[tuple[int, float], float] = {
    (16, 0.9): 0.384, (16, 0.6): 0.666, (20, 0.85): 1.0, (28, 0.65): 1.0, (28, 0.95): 1.0,
}  # fmt: skip
"""Legal share of 500 networks drawn of a supernet. Source: sample rows in the authors' search code."""

SCORES = (("S0", 3.5, 0.9, 102.9), ("S1", 6.1, 1.1, 63.8), ("S2", 12.6, 1.6, 30.5), ("L", 26.1, 2.7, 12.6))
"""EfficientFormerV2 (2023), table 1: millions of parameters, milliseconds and MES."""


def peaks() -> None:
    """The rule's bytes, and the share of each supernet that it allows."""
    print(f"1. MCUFormer's rule, KiB at MLP ratio {RATIOS[-1]:g} and rank ratios {', '.join(map(str, SHOWN))}")
    print("width" + "".join(f"{f'patch {patch}':>20}" for patch in PATCHES))
    for width in WIDTHS:
        cells = []
        for patch in PATCHES:
            found = [peak_bytes(width, published_tokens(patch), RATIOS[-1], rank) / 1024 for rank in SHOWN]
            cells.append("/".join(f"{each:.1f}" for each in found))
        print(f"{width:5}" + "".join(f"{cell:>20}" for cell in cells))
    print(f"\n   share of networks with at most {LIMIT // 1024} KiB by the rule (published: of 500 drawn)")
    print("rank " + "".join(f"{f'patch {patch}':>20}" for patch in PATCHES))
    for rank in RANKS:
        cells = []
        for patch in PATCHES:
            published = SAMPLED.get((patch, rank))
            cells.append(f"{Supernet(patch, rank).legal_fraction():.3f}" + (f" ({published:.3f})" if published else ""))
        print(f"{rank:<5}" + "".join(f"{cell:>20}" for cell in cells))


def sizes() -> None:
    """Parameters of the smallest network."""
    genome = smallest(Space.load(SPACE))
    depth = genome["depth"]
    assert isinstance(depth, int)
    count, relative = parameters(genome), depth * RELATIVE
    print(f"\n2. smallest network of MCUFormer's space: {count / 1e6:.2f} M parameters (known: 3.38 M)")
    print(f"   {count - relative:,} as built here, {relative:,} of relative positions, which `{SPACE}` leaves out")


def scores() -> None:
    """EfficientFormerV2's efficiency scores."""
    print("\n3. MES of EfficientFormerV2 from its size and time (published)")
    for name, size, latency, published in SCORES:
        found = mes({"flash": size * 1e6, "latency": latency})
        print(f"   {name:3} {size:5.1f} M {latency:4.1f} ms {found:7.1f} ({published})")


if __name__ == "__main__":
    peaks()
    sizes()
    scores()
