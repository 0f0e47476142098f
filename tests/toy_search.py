"""A problem that is searched in no time, whose workers die, hang about or complain where they are told to.

Run as a program it searches in a folder and prints the front: `python toy_search.py FOLDER SEED WORKERS [PAUSE]`.
"""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from edgesmith.ir.errors import ModelError
from edgesmith.nas.engine.crew import Here
from edgesmith.nas.engine.local import Local
from edgesmith.nas.engine.search import Plan, search
from edgesmith.nas.problem import Budgets, Costs
from edgesmith.nas.space import Gene, Space, key

SPACE = Space(
    "toy", "", (
        Gene("width", tuple(range(8, 72, 8))),
        Gene("depth", (1, 2, 3, 4, 5, 6)),
        Gene("ratio", (1.0, 2.0, 3.0, 4.0), "depth"),
        Gene("mixer", ("softmax", "linear", "pool"), "depth"),
    ), {},
)  # fmt: skip
WORTH = {"softmax": 3.0, "linear": 2.0, "pool": 1.0}
PLAN = Plan(Budgets(flash=40_000, ram=3_000), ("flash", "ram"), seed=3, generations=6, population=8)


@dataclass
class Toy:
    """Wide, deep networks of many softmaxes are good and dear; no network is 8 wide and 6 deep.

    Attributes:
        pause: Seconds that a judgement takes.
        dies: Name of a genome that ends its worker, each time if `marks` is empty.
        marks: Folder in which a worker notes that it has died, to live the next time.
        raises: What every judgement complains of.
    """

    pause: float = 0.0
    dies: str = ""
    marks: str = ""
    raises: str = ""
    space = SPACE

    def starts(self):
        return [{"width": 16, "depth": 1, "ratio": (1.0,), "mixer": ("pool",)}]

    def costs(self, genome):
        width, depth = genome["width"], genome["depth"]
        if width * depth == 48 and depth == 6:
            raise ModelError("too thin to stand")
        flash = sum(int(width * width * (4 + 2 * ratio)) for ratio in genome["ratio"])
        return Costs(macs=flash * 16, flash=flash, ram=int(width * (16 + 16 * max(genome["ratio"]))))

    def quality(self, genome):
        if self.raises:
            raise OSError(self.raises)
        time.sleep(self.pause)
        if self.dies == key(genome):
            self._die()
        worth = sum(WORTH[mixer] * ratio**0.5 for mixer, ratio in zip(genome["mixer"], genome["ratio"], strict=True))
        return worth * genome["width"] ** 0.5

    def model(self, genome):
        return key(genome).encode()

    def _die(self):
        mark = Path(self.marks or ".") / "died"
        if not self.marks or not mark.exists():
            if self.marks:
                mark.touch()
            os.kill(os.getpid(), 9)


class Absent(Toy):
    """Needs something that workers do not have."""

    def __setstate__(self, state):
        raise ImportError("only at home")


def shown(result):
    """A front as text: equal for equal fronts."""
    return json.dumps([[key(each.genome), each.quality, each.costs.flash, each.costs.ram] for each in result.front])


def main():
    folder, seed, workers, *pause = sys.argv[1:]
    toy = Toy(pause=float(pause[0]) if pause else 0.0)
    plan = Plan(PLAN.budgets, PLAN.axes, int(seed), PLAN.generations, PLAN.population)
    with Local(toy, int(workers)) if int(workers) else Here(toy) as crew:
        print(shown(search(toy, plan, journal=Path(folder) / "journal.jsonl", crew=crew)))


if __name__ == "__main__":
    main()
