"""Compression of a given model as a question to search: how small it becomes, and how much of its answers is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ...ir.cost import cost
from ...ir.errors import UsageError
from ...ir.graph import Array, Graph
from ...ir.passes.pipelines import INTEGER, run_pipeline
from ...lowering.onnx.write import write
from ...targets import Target
from ..problem import Costs
from ..quality import accuracy, divergence_of, labels_for
from ..space import Genome, Space, key
from .draft import Compressor
from .judge import in_floats, in_integers
from .observe import observe
from .price import Price

__all__ = ["Compression"]

RANGES = 64
"""Samples, at most, that ranges of integers are measured on."""

JUDGED = 256
"""Samples, at most, that quality is measured on where there are no labels."""


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
    """

    graph: Graph
    target: Target
    feeds: Mapping[str, Array]
    labels: Array | None = None
    divergence: str = "angle"
    stream: str = "int8"
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
        self.price = Price(self.target, self.stream)
        divergence_of(self.divergence, self.wanted, self.wanted)
        if self.labels is not None:
            self.labels = labels_for(self.labels, len(self.wanted), self.wanted[0].size)

    @cached_property
    def space(self) -> Space:
        """See `draft.Compressor`."""
        return self.compressor.space

    def starts(self) -> Sequence[Genome]:
        """The model as it is, the same in four bits, and with three quarters and half of its widths."""
        genome, groups = self.compressor.genome, {gene.name: gene.choices for gene in self.space.genes}
        widths = [choices for name, choices in groups.items() if name.startswith("width ")]
        cuts = [tuple(choices[len(choices) * part // 4] for choices in widths) for part in (1, 2)]
        return [genome(), genome(code=["int4"]), *(genome(code=["int4"], width=cut) for cut in cuts)]

    def costs(self, genome: Genome) -> Costs:
        """What it takes; RAM and flash on targets of the C back end, else the size of the weights in the model file."""
        name = key(genome)
        if name not in self._costs:
            sketch = self.compressor.sketch(genome)
            if self.target.backend == "c":
                self._costs[name] = self.price.of(sketch)
            else:
                total = cost(sketch)
                self._costs[name] = Costs(total.macs, sum(value.type.nbytes for value in sketch.constants))
        return self._costs[name]

    def quality(self, genome: Genome) -> float:
        """See the class."""
        model = self.model(genome)
        judged = len(self.wanted) if self.labels is not None else JUDGED
        feeds = {name: np.asarray(array)[:judged] for name, array in self.feeds.items()}
        if self.target.backend == "c":
            ranges = {name: np.asarray(array)[:RANGES] for name, array in self.feeds.items()}
            found = in_integers(model, ranges, feeds, self.target, self.stream)
        else:
            found = in_floats(model, feeds)
        if self.labels is not None:
            return accuracy(self.labels, found)
        return -divergence_of(self.divergence, self.wanted[:judged], found)

    def model(self, genome: Genome) -> bytes:
        """The network, put right, as an ONNX model whose metadata says what each layer's weights are stored in."""
        made: bytes = write(self.compressor.network(genome)).SerializeToString(deterministic=True)
        return made
