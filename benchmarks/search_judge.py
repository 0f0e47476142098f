"""How many networks one core judges a second on RAM, bytes of constants and products: with nothing known yet, and on.

Each part of a network is judged once by quantiser, planner and packer; what follows is looked up and added. The price
of code, which takes a compiler, is asked only for networks that fit without it.
"""

import argparse
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from edgesmith.ir.errors import EdgesmithError
from edgesmith.nas.costs.network import PartTable
from edgesmith.nas.families import parts
from edgesmith.nas.space import Genome, Space


def judged(table: PartTable, space: Space, genomes: list[Genome]) -> tuple[float, int]:
    """CPU seconds that the genomes take, and how many of them are networks with an integer form."""
    begun, legal = time.process_time(), 0
    for genome in genomes:
        try:
            table.of(parts(space.family, genome, space.settings))
        except EdgesmithError:
            continue
        legal += 1
    return time.process_time() - begun, legal


def main() -> None:
    """Print both rates for each space."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spaces", nargs="*", default=["small", "vit"], help="names of shipped spaces")
    parser.add_argument("--networks", type=int, default=200, help="how many are drawn, twice (default: %(default)s)")
    options = parser.parse_args()
    shown = Table("space", "networks", "first, a CPU second", "later ones", "all parts known")
    for name in options.spaces:
        space, table, draw = Space.load(name), PartTable(), np.random.default_rng(0)
        first, later = ([space.draw(draw) for _ in range(options.networks)] for _ in range(2))
        times = [judged(table, space, genomes) for genomes in (first, later, later)]
        rates = [f"{options.networks / max(seconds, 1e-9):,.0f}" for seconds, _ in times]
        shown.add_row(name, str(options.networks), *rates)
    Console().print(shown)


if __name__ == "__main__":
    main()
