"""The sample's network compressed without training, against the same network as it is; accuracies are of int8 C.

Compression sees pictures of the training set only, without labels; accuracy is that of the whole test set, which is
looked at once, at the end. RAM is the arena of the smallest plan and the stack, flash is code and weights, as compiled.
The C runs on this computer; a compile has shown that the emulated device gives the same bits.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import edgesmith
from edgesmith import targets
from edgesmith.driver import feeds
from edgesmith.ir.errors import BudgetError
from edgesmith.lowering.artifact import Artifact
from edgesmith.nas.compress import Compression
from edgesmith.nas.data import Labelled, load
from edgesmith.nas.engine.search import Plan, Round, search
from edgesmith.nas.problem import Budgets

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "samples" / "fashion" / "model.onnx"
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Of Debian's package dataset-fashion-mnist."""

OUT = ROOT / "build" / "search" / "compress"
TARGET = "stm32f746"
FLASH, RAM, POINTS = 0.5, 0.7, 0.01
"""What is to be reached: shares of what the network takes as it is, and the accuracy that it may cost."""

SEEN = 512
"""Pictures of the training set that compression sees, without their labels."""


@dataclass(frozen=True)
class Built:
    """A compiled network: bytes, and the share of the test pictures that its C puts into the right class."""

    ram: int
    flash: int
    accuracy: float


def smallest(model: Path, calibration: np.ndarray, folder: Path) -> Artifact:
    """Compile with the least RAM for which there is a plan: what it takes, and then no more than that."""
    roomy = edgesmith.compile(model, TARGET, out=folder, calibration=calibration, stream="int8", check=False)
    stack = roomy.memory["stack_bytes"]
    least = roomy.memory["lower_bound"]
    for extra in range(0, 2048, 64):
        try:
            ram = least + max(stack, 512) + extra
            return edgesmith.compile(model, TARGET, out=folder, calibration=calibration, stream="int8", ram=ram)
        except BudgetError:
            continue
    return roomy


def built(artifact: Artifact, test: Labelled) -> Built:
    """Run the C on the test pictures."""
    outcome = edgesmith.run(artifact, on="host", inputs=test.images, runs=len(test))
    scores = next(iter(outcome.outputs.values())).reshape(len(test), -1)
    right = float(np.mean(scores.argmax(1) == test.labels))
    return Built(artifact.memory["total"], artifact.flash["internal"], right)


def show(standing: Round) -> None:
    """A line when a network has been judged; divergence is that of the best."""
    best = f", divergence {-standing.front[0].quality:.4f}" if standing.front else ""
    known = f"{standing.judged} of {standing.of} judged, {standing.illegal} not legal"
    print(f"  round {standing.number}: {known}{best}", flush=True)


def main() -> None:
    """Search, compile the best, and print both networks."""
    parser = argparse.ArgumentParser(description="Compress the sample's network without training.")
    parser.add_argument("--generations", type=int, default=1)
    parser.add_argument("--population", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train, test = load(FASHION_MNIST)
    assert test is not None
    chosen = np.sort(np.random.default_rng(options.seed).choice(len(train), SEEN, replace=False))
    pictures = train.images[chosen]
    with tempfile.TemporaryDirectory() as scratch:
        original = built(smallest(MODEL, pictures[:64], Path(scratch) / "original"), test)
        say("original", original)
        problem, budgets = question(pictures, original)
        plan = Plan(budgets, (), options.seed, options.generations, options.population)
        OUT.mkdir(parents=True, exist_ok=True)
        journal = OUT / f"journal_{options.seed}_{options.generations}x{options.population}.jsonl"
        found = search(problem, plan, journal=journal, progress=show)
        if not found.front:
            sys.exit(f"nothing meets {budgets}; closest is {found.closest}")
        path = OUT / "compressed.onnx"
        path.write_bytes(problem.model(found.front[0].genome))
        small = built(smallest(path, pictures[:64], Path(scratch) / "compressed"), test)
    say("compressed", small)
    say_shares(original, small)


def question(pictures: np.ndarray, original: Built) -> tuple[Compression, Budgets]:
    """What is searched, and how much of the device the answer may take."""
    graph = edgesmith.load(MODEL)
    rows = feeds.samples(pictures, feeds.inputs_of(graph), "images")
    seen = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    budgets = Budgets(flash=int(original.flash * FLASH), ram=int(original.ram * RAM))
    return Compression(graph, targets.get(TARGET), seen, ram=budgets.ram), budgets


def say(name: str, network: Built) -> None:
    """A line for a network."""
    print(f"{name:12} RAM {network.ram:6,} B, flash {network.flash:7,} B, accuracy {network.accuracy:.2%}", flush=True)


def say_shares(original: Built, small: Built) -> None:
    """What was gained and lost, beside what was to be reached."""
    lost = original.accuracy - small.accuracy
    print(f"RAM {small.ram / original.ram:.3f} (goal {RAM}), flash {small.flash / original.flash:.3f} (goal {FLASH}), "
          f"{100 * lost:.2f} points lost (goal {100 * POINTS:g})")  # fmt: skip


if __name__ == "__main__":
    main()
