"""Compression of a given model as a question to search: how small it becomes, and how much of its answers is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import numpy as np

from ...ir.errors import UsageError
from ...ir.graph import Array, Graph
from ...ir.passes.pipelines import INTEGER, run_pipeline
from ...lowering.onnx.write import write
from ...targets import Target
from .. import phone
from ..problem import Costs
from ..quality import accuracy, divergence_of, labels_for
from ..space import Genome, Space, key
from .draft import Compressor
from .drop import by_divergence
from .judge import in_floats, in_integers
from .observe import observe
from .price import Price

__all__ = ["Compression"]

RANGES = 64
"""Samples, at most, that ranges of integers are measured on."""

JUDGED = 256
"""Samples, at most, that quality is measured on where there are no labels."""


PRICED = 4
"""Samples that costs look at."""

SHOWN = 64
"""Samples, at most, by which branches are ranked."""

MOST_DROPPED = 2
"""Branches that a genome to begin with leaves out at most."""


@dataclass
class Compression:
    """A model, a device, and calibration data; a `nas.problem.Problem`.

    Quality is the negative of a divergence from the original's answers, or accuracy where labels are given. On a target
    of the C back end it is that of the integers that a device computes, else of floats.

    Attributes:
        graph: The float graph of the model, recognised.
        target: The device.
        feeds: Typical inputs by name, float32 [samples, ...], normalised.
        labels: The class of each sample, if known.
        divergence: One of `quality.DIVERGENCES`.
        stream: "int8" or "int16", of the tokens between blocks; a compile of the result takes the same option.
        ram: The budget that the result will be compiled with: within it plans take the quickest schedules, and code is
            counted for these. Without, it is that of the smallest plan.
    """

    graph: Graph
    target: Target
    feeds: Mapping[str, Array]
    labels: Array | None = None
    divergence: str = "angle"
    stream: str = "int8"
    ram: int | None = None
    _costs: dict[str, Costs] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Bring the graph into the form that is compressed, run it on the data, and check what was given.

        Raises:
            UsageError: Labels do not fit samples and classes, or the divergence or the stream is unknown.
            ModelError: The data does not fit the model, or the model cannot take several samples at once.
        """
        if self.stream not in ("int8", "int16"):
            raise UsageError(f"a stream is int8 or int16, not {self.stream}")
        prepared = self.graph.copy()
        run_pipeline(prepared, INTEGER)
        self.compressor = Compressor(prepared, observe(prepared, self.feeds))
        self.wanted = self.compressor.seen.wanted[prepared.outputs[0].name]
        self.price = Price(self.target, self._first(PRICED), self.stream, ram=self.ram)
        divergence_of(self.divergence, self.wanted, self.wanted)
        if self.labels is not None:
            self.labels = labels_for(self.labels, len(self.wanted), self.wanted[0].size)

    @cached_property
    def space(self) -> Space:
        """See `draft.Compressor`."""
        return self.compressor.space

    def starts(self) -> Sequence[Genome]:
        """The model as it is, and in four bits with the same done to all that is alike, from nothing to much.

        Streams and heads decide RAM, and branches, hidden units and their code flash, so that these are combined; of
        branches those are left out whose loss moves the output least.
        """
        gone = [name for name, _ in by_divergence(self.compressor.graph, self._first(SHOWN), MOST_DROPPED)]
        hidden = self.compressor.hidden_layers
        found = [self.compressor.cut({})]
        for dropped, code in product(range(len(gone) + 1), ("int4", "ternary")):
            for stream, heads in ((0.0, 0.0), (0.0, 0.6), (0.5, 0.6), (0.6, 0.6)):
                shares = {"stream": stream, "keys": heads, "values": heads / 2}
                genome = self.compressor.cut(shares, ["int4"], gone[:dropped])
                found.append({**genome, **{f"code {name}": code for name in hidden}})
        return list({key(genome): genome for genome in found}.values())

    def costs(self, genome: Genome) -> Costs:
        """What it takes; RAM and flash on targets of the C back end, else the size of the weights in the model file."""
        name = key(genome)
        if name not in self._costs:
            sketch = self.compressor.sketch(genome)
            if self.target.backend == "c":
                self._costs[name] = self.price.of(sketch)
            else:
                self._costs[name] = phone.costs(sketch, self.target)
        return self._costs[name]

    def quality(self, genome: Genome) -> float:
        """See the class."""
        model = self.model(genome)
        judged = len(self.wanted) if self.labels is not None else JUDGED
        if self.target.backend == "c":
            found = in_integers(model, self._first(RANGES), self._first(judged), self.target, self.stream)
        else:
            found = in_floats(model, self._first(judged))
        if self.labels is not None:
            return accuracy(self.labels, found)
        return -divergence_of(self.divergence, self.wanted[:judged], found)

    def model(self, genome: Genome) -> bytes:
        """The network, put right, as an ONNX model whose metadata says what each layer's weights are stored in."""
        made: bytes = write(self.compressor.network(genome)).SerializeToString(deterministic=True)
        return made

    def _first(self, count: int) -> dict[str, Array]:
        """So many samples of each input."""
        return {name: np.asarray(array)[:count] for name, array in self.feeds.items()}
