"""Architectures as a question to search: networks of a space, what they take, and what they are worth trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from ..ir.graph import Array
from ..targets import Target
from . import phone
from .compress.price import Price
from .families import build
from .problem import Costs
from .space import Genome, Space
from .supernet.ends import largest, smallest

__all__ = ["Architecture", "Judge"]


class Judge(Protocol):
    """Who knows what networks of a space are worth; `supernet.oneshot.OneShot` is one."""

    def quality(self, genome: Genome) -> float:
        """The higher the better."""
        ...

    def model(self, genome: Genome) -> bytes:
        """The network, trained, as ONNX."""
        ...


@dataclass
class Architecture:
    """A `nas.problem.Problem`.

    Attributes:
        space: Its settings fit the data.
        target: The device.
        judge: Trained on the data.
        samples: A few inputs as the networks take them, float32 [samples, channels, height, width].
        stream: "int8" or "int16", of the tokens between blocks; a compile of the result takes the same option.
    """

    space: Space
    target: Target
    judge: Judge
    samples: Array
    stream: str = "int8"

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: workers make of them what they need."""
        return {name: value for name, value in self.__dict__.items() if name in self.__dataclass_fields__}

    def starts(self) -> Sequence[Genome]:
        """The smallest network of the space and the largest."""
        return [smallest(self.space), largest(self.space)]

    def costs(self, genome: Genome) -> Costs:
        """What it takes; see `Price` for targets of the C back end, `phone` for others."""
        graph = build(self.space, genome)
        if self.target.backend == "c":
            return self._price(graph.inputs[0].name).of(graph)
        return phone.costs(graph, self.target)

    def quality(self, genome: Genome) -> float:
        """What the judge says."""
        return self.judge.quality(genome)

    def model(self, genome: Genome) -> bytes:
        """What the judge makes of it."""
        return self.judge.model(genome)

    def _price(self, name: str) -> Price:
        """The one that knows every function that was linked so far."""
        return self._prices.setdefault(name, Price(self.target, {name: self.samples}, self.stream))

    @cached_property
    def _prices(self) -> dict[str, Price]:
        return {}
