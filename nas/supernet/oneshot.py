"""One-shot search over a data set: train all networks at once, judge each on inherited weights, finish the chosen one.

Sources: Guo et al., Single Path One-Shot NAS (2020) for uniform sampling and for norms that take their statistics anew
in each network that is judged; Yu et al., BigNAS (2020) for the sandwich of largest, smallest and two drawn networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...ir.errors import ModelError, UsageError
from ...ir.graph import Graph
from ...lowering.onnx.write import write
from ..data import Data
from ..families import build
from ..space import Genome, Space
from .ends import largest, smallest
from .entangle import Entangled, initial
from .program import Program
from .train import Network, Pixels, Recipe, accuracy, device, fit, recalibrated

__all__ = ["SAMPLING", "OneShot", "fitted"]

SAMPLING = ("uniform", "sandwich")
"""One network drawn per step, or the largest, the smallest and two drawn ones."""

CALIBRATED = 500
"""Training samples on which a network's norms take their statistics before it is judged."""

DRAWS = 10_000
"""How often a legal network is drawn for before it is said that there is none."""

Say = Callable[[str], None]
Legal = Callable[[Genome], bool]


def fitted(space: Space, data: Data) -> Space:
    """The space with the image size, channels and classes of a data set."""
    channels, height, width = data.train.images.shape[1:]
    if height != width:
        raise ModelError(f"images of {height}x{width} are not square", do="pad them")
    return replace(space, settings={**space.settings, "image": height, "channels": channels, "classes": data.classes})


@dataclass(frozen=True)
class OneShot:
    """What networks of a space are worth on a data set. Workers get a pickled copy, which reads the supernet's file.

    Attributes:
        space: Its settings fit the data.
        data: Training samples fit weights, validation samples judge; the test samples are never looked at here.
        folder: Where `supernet.pt` is, or will be.
        recipe: How the supernet is trained.
        tuning: How a chosen network is trained on from what it inherited.
        sampling: One of `SAMPLING`.
    """

    space: Space
    data: Data = field(repr=False)
    folder: Path
    recipe: Recipe
    tuning: Recipe
    sampling: str = "uniform"

    def __post_init__(self) -> None:
        """Refuse a way of sampling that nobody knows."""
        if self.sampling not in SAMPLING:
            raise UsageError(f"there is no sampling '{self.sampling}'", do=f"choose {' or '.join(SAMPLING)}")

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: what was made of them is made again where it is needed."""
        return {name: value for name, value in self.__dict__.items() if name in self.__dataclass_fields__}

    @cached_property
    def pixels(self) -> Pixels:
        """How bytes become numbers."""
        return Pixels.of(self.data)

    def train(self, legal: Legal | None = None, say: Say = lambda line: None) -> None:
        """Train the supernet, or go on with it; a checkpoint is kept in the folder.

        Args:
            legal: Says which of the drawn networks are trained; all by default.
            say: Told of the progress.

        Raises:
            ModelError: No legal network is found.
        """
        whole = self._untrained()

        def sample(step: int) -> list[Network]:
            draw = np.random.default_rng((self.recipe.seed, step, 2))
            count = 1 if self.sampling == "uniform" else 2
            drawn = [self._drawn(draw, legal) for _ in range(count)]
            ends = [] if self.sampling == "uniform" else [largest(self.space), smallest(self.space)]
            return [whole.network(genome) for genome in (*ends, *drawn)]

        fit(_trained(whole), sample, self.data.train, self.pixels, self.recipe, self._checkpoint, say)
        self.__dict__["supernet"] = whole

    @cached_property
    def supernet(self) -> Entangled:
        """The trained weights of all networks.

        Raises:
            UsageError: They were not trained to the end.
        """
        if not self._checkpoint.is_file():
            raise UsageError(f"there is no supernet in {self.folder}", do="train it first")
        saved = torch.load(self._checkpoint, map_location=device(), weights_only=True)
        if saved["step"] < self.recipe.steps or saved["recipe"] != str(self.recipe):
            why = f"it has done {saved['step']} steps of {saved['recipe']}"
            raise UsageError(f"the supernet in {self.folder} is not trained to the end", why=why, do="train it again")
        whole = self._untrained()
        whole.weights.update(saved["weights"])
        return whole

    def quality(self, genome: Genome) -> float:
        """Validation accuracy with inherited weights, the norms' statistics taken anew."""
        network = self.supernet.network(genome)
        return accuracy((network[0], self._settled(network)), self.data.validation, self.pixels)

    def tuned(
        self, genome: Genome, say: Say = lambda line: None, inherit: bool = True, checkpoint: Path | None = None
    ) -> Graph:
        """The network trained on by `tuning` from its inherited weights, or from drawn ones.

        Args:
            genome: One of the space.
            say: Told of the progress.
            inherit: Whether it begins with what it is in the supernet.
            checkpoint: A file to go on from, where it exists, and to save to.
        """
        if inherit:
            program, cut = self.supernet.network(genome)
            weights = {name: tensor.detach().clone() for name, tensor in cut.items()}
        else:
            program = Program(build(self.space, genome))
            weights = initial(program, torch.Generator().manual_seed(self.tuning.seed))
        leaves = {name: weights[name] for name in program.trained}
        fit(leaves, lambda step: [(program, weights)], self.data.train, self.pixels, self.tuning, checkpoint, say)
        return self.graph(genome, self._settled((program, weights)))

    def model(self, genome: Genome) -> bytes:
        """The finished network as ONNX, ready for `edgesmith.compile`."""
        return bytes(write(self.tuned(genome)).SerializeToString())

    def graph(self, genome: Genome, weights: Mapping[str, Tensor]) -> Graph:
        """The family's graph with these weights, and the normalisation that it expects of pixels."""
        graph = build(self.space, genome, {name: tensor.detach().cpu().numpy() for name, tensor in weights.items()})
        graph.metadata |= {f"edgesmith.{name}": str(value) for name, value in asdict(self.pixels).items()}
        return graph

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "supernet.pt"

    def _untrained(self) -> Entangled:
        return Entangled(self.space, lambda genome: build(self.space, genome), self.recipe.seed)

    def _settled(self, network: Network) -> dict[str, Tensor]:
        return recalibrated(network, self.data.train.first(CALIBRATED), self.pixels)

    def _drawn(self, draw: np.random.Generator, legal: Legal | None) -> Genome:
        for _ in range(DRAWS):
            genome = self.space.draw(draw)
            if legal is None or legal(genome):
                return genome
        raise ModelError(f"none of {DRAWS:,} networks drawn is legal", do="allow more RAM or flash, or widen the space")


def _trained(whole: Entangled) -> dict[str, Tensor]:
    """What of the shared weights learns."""
    return {name: whole.weights[name] for name in sorted(whole.trained)}
