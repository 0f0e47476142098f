"""Which networks of MCUFormer's released space fit the RAM and the flash of its device, by this project's own planner.

RAM is the arena of the smallest plan and `STACK`. A network needs as much as its neediest part, so the parts of every
width, rank and patch decide about all networks; nothing is drawn. Flash is all constants as they are packed, and for
the networks that fit the machine code as well. The space is built without relative positions; see its file.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import product

import numpy as np

from edgesmith import targets
from edgesmith.ir.graph import Graph
from edgesmith.nas.compress.price import Price
from edgesmith.nas.costs.network import PartTable, Totals
from edgesmith.nas.families import Parts, assemble, parts
from edgesmith.nas.mcuformer import DEPTHS, LIMIT, PATCHES, RANKS, RATIOS, SPACE, WIDTHS, Supernet
from edgesmith.nas.space import Genome, Space

TARGET = "stm32f746"
FLASH = 1024 * 1024
STACK = 4096
"""Bytes left for the stack: compiles keep 512, and two rows of decoded weights are fewer than 2,000."""

HEADS = (3, 4)
CODES = ("int8", "int4", "shift", "ternary")
DENSE = 0.0
"""The rank of a network without low-rank layers."""

SETTINGS = Space.load(SPACE).settings


def genome(patch: int, rank: float, width: int, depth: int, heads: int, ratio: float) -> Genome:
    """A network whose blocks are all alike."""
    each = {"heads": (heads,) * depth, "ratio": (ratio,) * depth}
    return {"patch": patch, "rank": rank, "width": width, "depth": depth, **each}


def chain(network: Genome, code: str = "int8", edges: str = "int8") -> Parts:
    """Its parts, with weights in such a code in all blocks, and at both ends."""
    return parts("vit", network, {**SETTINGS, "primitive": code, "edges": edges})


def greatest(patch: int, rank: float, width: int) -> int:
    """Bytes of RAM of the neediest network with these three: one of those whose blocks are alike."""
    table = PartTable()
    every = (genome(patch, rank, width, DEPTHS[0], heads, ratio) for heads, ratio in product(HEADS, RATIOS))
    return max(table.of(chain(each)).arena for each in every) + STACK


def ram() -> None:
    """The RAM of every width in every supernet."""
    print(f"KiB of RAM of the neediest network of widths {'/'.join(map(str, WIDTHS))}; in brackets the share of")
    print(f"networks that the published rule allows in {LIMIT // 1024} KiB, and the share of widths that fit here")
    print("rank " + "".join(f"{f'patch {patch}':>28}" for patch in PATCHES), flush=True)
    fitting = found = 0
    for rank in (*RANKS, DENSE):
        cells = []
        for patch in PATCHES:
            bytes_ = [greatest(patch, rank, width) for width in WIDTHS]
            rule = f"{Supernet(patch, rank).legal_fraction():.2f}" if rank else "-"
            mine = sum(each <= LIMIT for each in bytes_)
            fitting, found = fitting + mine, found + len(WIDTHS)
            cells.append(f"{'/'.join(f'{each / 1024:.0f}' for each in bytes_)} ({rule}, {mine / len(WIDTHS):.2f})")
        print(f"{rank or 'none':<5}" + "".join(f"{cell:>28}" for cell in cells), flush=True)
    print(f"{fitting} of {found} combinations of patch, rank and width fit {LIMIT:,} bytes with all that they can have")


def totals(network: Genome, code: str, edges: str) -> Totals:
    """What it takes."""
    return PartTable().of(chain(network, code, edges))


def flash() -> None:
    """Constants of the smallest network and the largest, by code."""
    print(f"\nbytes of constants; {FLASH:,} are there")
    print(f"{'blocks':8} {'ends':8} {'smallest, rank 0.4':>20} {'smallest, no rank':>20} {'largest':>12}")
    small, large = (WIDTHS[0], DEPTHS[0], HEADS[0], RATIOS[0]), (WIDTHS[-1], DEPTHS[-1], HEADS[-1], RATIOS[-1])
    for code, edges in (pair for each in CODES for pair in dict.fromkeys(((each, "int8"), (each, each)))):
        least = [min(totals(genome(p, rank, *small), code, edges).constants for p in PATCHES) for rank in (0.4, DENSE)]
        most = max(totals(genome(p, RANKS[-1], *large), code, edges).constants for p in PATCHES)
        print(f"{code:8} {edges:8} {least[0]:20,} {least[1]:20,} {most:12,}", flush=True)


def fitting(code: str) -> Iterator[tuple[Genome, int]]:
    """Networks with the fewest heads and the least ratio whose constants fit, and their bytes."""
    for patch, width, depth in product(PATCHES, WIDTHS, DEPTHS):
        for rank in RANKS:
            network = genome(patch, rank, width, depth, HEADS[0], RATIOS[0])
            constants = totals(network, code, code).constants
            if constants > FLASH:  # more rank is more bytes
                break
            yield network, constants


def fits() -> None:
    """The networks that fit with everything in one code, and the smallest of them with its machine code."""
    for code in CODES:
        found = sorted(fitting(code), key=lambda each: each[1])
        print(f"\n{code}: {len(found)} combinations of patch, rank, width and depth with constants that fit")
        for network, constants in found:
            print("   " + ", ".join(f"{name} {network[name]}" for name in ("patch", "rank", "width", "depth")), end="")
            print(f": {constants:,}", flush=True)
        if found:
            graph = assemble(SPACE, chain(found[0][0], code, code))
            costs = Price(targets.get(TARGET), {"image": noise(graph)}, ram=LIMIT).of(graph)
            print(f"   the first with machine code, as planned for {TARGET}: flash {costs.flash:,}, RAM {costs.ram:,}")


def noise(graph: Graph) -> np.ndarray:
    """An image for the ranges of activations."""
    return np.random.default_rng(0).standard_normal(graph.inputs[0].shape).astype(np.float32)


SECTIONS = {"ram": ram, "flash": flash, "fits": fits}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Which networks of MCUFormer's space fit its device.")
    parser.add_argument("sections", nargs="*", metavar="section", help=f"of {', '.join(SECTIONS)}; default: all")
    chosen = parser.parse_args().sections or list(SECTIONS)
    if odd := sorted(set(chosen) - set(SECTIONS)):
        sys.exit(f"there is no section {odd[0]}; there are {', '.join(SECTIONS)}")
    for name in chosen:
        SECTIONS[name]()


if __name__ == "__main__":
    main()
