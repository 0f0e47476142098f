"""One-shot searches on a data set, against random search and a network made by hand, all trained for as many steps.

Budgets are those of a small part of the STM32F411 class. One supernet serves all searches; three seeds of evolution and
of random search each judge as many networks with its weights, and the best of each is trained on. The network made by
hand is that of samples/fashion, as wide as the budgets allow. Accuracies are of the integer C library, run on this
computer; the emulated device computes the same bits for the first pictures, or the benchmark fails.

Everything is kept under build/search: what was broken off goes on, and what is there is not made again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import edgesmith
from edgesmith.lowering.artifact import load
from edgesmith.lowering.onnx.write import write
from edgesmith.nas.architecture import Architecture
from edgesmith.nas.data import Data
from edgesmith.nas.engine.search import Plan, search
from edgesmith.nas.problem import Budgets, Candidate, Costs
from edgesmith.nas.space import Gene, Genome, Space, key
from edgesmith.nas.supernet.ends import largest
from edgesmith.nas.supernet.oneshot import OneShot, fitted
from edgesmith.nas.supernet.train import Recipe, threads
from edgesmith.targets import get

TARGET, RAM, FLASH = "stm32f411", 64 * 1024, 256 * 1024
FRONT = (32, 64, 128, 256)
"""KiB of RAM, each with the same flash."""

SEEDS = (0, 1, 2)
GENERATIONS, POPULATION = 8, 6
BATCH = 64
"""Pictures of a step."""

HAND: Genome = {
    "stem": 0, "early": 32, "early_depth": 1, "early_block": ("depthwise",), "early_ratio": (2,), "local_depth": 1,
    "local_block": ("depthwise",), "local_ratio": (2,), "kernel": (3,), "depth": 3, "mixer": ("softmax",) * 3,
    "ratio": (2,) * 3, "head": "mean",
}  # fmt: skip
"""The sample's network but for its width, heads of 16 channels share what they can of it."""

WIDTHS = (64, 72, 80, 88)
EMULATED, CALIBRATED, RANGED = 4, 64, 4
"""Pictures run on the emulator, pictures that set a compile's ranges, and those of a candidate whose price is asked."""


def hand_space(space: Space, width: int) -> Space:
    """A space of one network."""
    chosen = {**HAND, "width": width, "heads": (width // 16,) * 3}
    genes = []
    for gene in space.genes:
        choice = chosen[gene.name]
        genes.append(Gene(gene.name, (choice[0] if isinstance(choice, tuple) else choice,), gene.count))
    return Space("hand", space.family, tuple(genes), {**space.settings, "norm": "LayerNorm"})


class Remembered(Architecture):
    """Networks that several searches meet are judged once."""

    def costs(self, genome: Genome) -> Costs:
        """See `Architecture`."""
        known = self.__dict__.setdefault("known_costs", {})
        return known[key(genome)] if key(genome) in known else known.setdefault(key(genome), super().costs(genome))

    def quality(self, genome: Genome) -> float:
        """See `Architecture`."""
        known = self.__dict__.setdefault("known_quality", {})
        return known[key(genome)] if key(genome) in known else known.setdefault(key(genome), super().quality(genome))


@dataclass(frozen=True)
class Final:
    """A compiled network and how often it is right on pictures that nothing was chosen by."""

    name: str
    accuracy: float
    ram: int
    flash: int


@dataclass(frozen=True)
class Case:
    """A data set and how networks are trained on it.

    Attributes:
        name: Of its folder.
        read: See `datasets`.
        supernet, tuning: Steps of all networks together, and of a chosen one from there. One made by hand has both.
        shift: The most pixels that a training picture is moved by.
    """

    name: str
    read: Callable[[Path], Data]
    supernet: int
    tuning: int
    shift: int = 0

    @property
    def folder(self) -> Path:
        """Where everything is kept."""
        return Path(__file__).parents[1] / "build" / "search" / self.name

    @cached_property
    def data(self) -> Data:
        """See `datasets`."""
        return self.read(self.folder)

    def recipe(self, steps: int, seed: int = 0, layer_share: float = 0.5) -> Recipe:
        """The same for all but what is given."""
        return Recipe(steps, BATCH, shift=self.shift, layer_share=layer_share, seed=seed, save_every=40)

    @cached_property
    def space(self) -> Space:
        """For this data set."""
        return fitted(Space.load("small"), self.data)

    def judge(self, seed: int = 0) -> OneShot:
        """The supernet; `seed` is that of what is trained on from it."""
        tuning = self.recipe(self.tuning, seed, layer_share=0.0)
        return OneShot(self.space, self.data, self.folder, self.recipe(self.supernet), tuning)

    def problem(self, judge: OneShot) -> Remembered:
        """What the searches ask."""
        pixels = (self.data.train.first(RANGED).images.astype(np.float32) / 255 - self.data.mean) / self.data.std
        limits = Budgets(ram=max(FRONT) * 1024, flash=FLASH)
        return Remembered(judge.space, get(TARGET), judge, pixels, limits=limits)

    def best(self, problem: Remembered, method: str, seed: int, ram: int = RAM) -> Candidate:
        """What one search finds; of equally good networks the first."""
        plan = Plan(Budgets(ram=ram, flash=FLASH), (), seed, GENERATIONS, POPULATION, method)
        journal = self.folder / f"{method}_{seed}_{ram}.jsonl"
        found = search(problem, plan, journal=journal, about={"recipe": str(self.recipe(self.supernet))})
        return found.front[0]

    def file(self, name: str, judge: OneShot, genome: Genome, inherit: bool = True) -> Path:
        """A network trained and written."""
        path = self.folder / f"{name}.onnx"
        if not path.is_file():
            began = time.process_time()
            graph = judge.tuned(genome, inherit=inherit, checkpoint=self.folder / f"{name}.pt")
            path.write_bytes(write(graph).SerializeToString())
            print(f"  {name} trained in {time.process_time() - began:.0f} CPU s", flush=True)
        return path

    def final(self, name: str, path: Path) -> Final:
        """Compile, run all test pictures on this computer and a few on the emulator."""
        folder, test = self.folder / "compiled" / name, self.data.test
        if folder.exists():
            artifact = load(folder)
        else:
            calibration = self.data.train.first(CALIBRATED).images
            artifact = edgesmith.compile(path, TARGET, out=folder, calibration=calibration, ram=RAM)
        outcome = edgesmith.run(artifact, on="host", inputs=test.images, runs=len(test))
        scores = next(iter(outcome.outputs.values())).reshape(len(test), -1)
        emulated = edgesmith.run(artifact, on="emulator", inputs=test.images[:EMULATED], runs=EMULATED, check=True)
        if emulated.equal != EMULATED:
            raise SystemExit(f"{name}: the emulated {TARGET} computes other bits than the same C here")
        right = float((scores.argmax(1) == test.labels).mean())
        made = Final(name, right, artifact.memory["total"], artifact.flash["internal"])
        print(f"  {name:12}{right:8.2%}{made.ram:10,} B RAM{made.flash:10,} B flash", flush=True)
        return made


def by_hand(case: Case, problem: Remembered) -> Space:
    """The widest network made by hand that fits."""
    fits = []
    for width in WIDTHS:
        space = hand_space(case.space, width)
        costs = Architecture(space, problem.target, problem.judge, problem.samples).costs(largest(space))
        if not Budgets(ram=RAM, flash=FLASH).excess(costs):
            fits.append((width, space, costs))
    width, widest, costs = fits[-1]
    print(f"  by hand: width {width}, {costs.ram:,} B RAM, {costs.flash:,} B flash, {costs.macs / 1e6:.1f} M MACs")
    return widest


def front(case: Case, problem: Remembered) -> None:
    """Print the best network for each amount of RAM, by validation accuracy on inherited weights."""
    print(f"  the front, each within {FLASH:,} B of flash:")
    for kib in FRONT:
        found = case.best(problem, "evolution", SEEDS[0], kib * 1024)
        costs = found.costs
        print(f"  {kib:5} KiB: {found.quality:.2%} on validation, {costs.ram:,} B RAM, {costs.flash:,} B flash,"
              f" {costs.macs / 1e6:.1f} M MACs, {key(found.genome)}", flush=True)  # fmt: skip


def run(case: Case) -> None:
    """Everything, in the order in which it is of use if it is broken off."""
    threads(1)
    began, cpu = time.monotonic(), time.process_time()
    data = case.data
    print(f"{case.name}: {len(data.train)} pictures to train, {len(data.validation)} to choose, {len(data.test)} to"
          f" judge by; {case.supernet} + {case.tuning} steps of {BATCH}", flush=True)  # fmt: skip
    judge = case.judge()
    problem = case.problem(judge)
    judge.train(
        lambda genome: not problem.limits.excess(problem.least(genome)),  # what fits nowhere is not worth a step
        lambda line: print(f"  supernet: {line}", flush=True),
    )
    hand = by_hand(case, problem)
    finals: dict[str, list[Final]] = {"evolution": [], "random": [], "hand": []}
    for seed in SEEDS:
        for method in ("evolution", "random"):
            found = case.best(problem, method, seed)
            print(f"  {method} {seed}: {found.quality:.2%} on validation with shared weights,"
                  f" {found.costs.macs / 1e6:.1f} M MACs, {key(found.genome)}", flush=True)  # fmt: skip
            name = f"{method}_{seed}"
            finals[method].append(case.final(name, case.file(name, case.judge(seed), found.genome)))
        alone = replace(case.judge(seed), space=hand, tuning=case.recipe(case.supernet + case.tuning, seed))
        path = case.file(f"hand_{seed}", alone, largest(hand), inherit=False)
        finals["hand"].append(case.final(f"hand_{seed}", path))
    front(case, problem)
    report(finals)
    print(f"  {time.monotonic() - began:.0f} s, {time.process_time() - cpu:.0f} CPU s in this run")


def report(finals: dict[str, list[Final]]) -> None:
    """Means, and whether the goals are met."""
    means: dict[str, Any] = {name: float(np.mean([each.accuracy for each in made])) for name, made in finals.items()}
    for name, mean in means.items():
        print(f"  {name:12}{mean:8.2%} mean of {len(finals[name])} seeds, int8")
    for other, least in (("hand", 0.02), ("random", 0.0)):
        lead = means["evolution"] - means[other]
        print(f"  ahead of {other}: {100 * lead:+.2f} points; goal {'met' if lead > least else 'missed'}"
              f" (more than {100 * least:.0f})")  # fmt: skip
