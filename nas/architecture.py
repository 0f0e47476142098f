"""Architectures as a question to search: networks of a space, what they take, and what they are worth trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from ..ir.graph import Array
from ..targets import Target
from . import phone
from .compress.price import Price
from .costs.network import PartTable
from .families import build, parts
from .problem import Budgets, Costs
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
        limits: Networks that are over these without stack and code are not built to learn of those.
        ram: The budget that a compile of the result will have; without, it makes the smallest plan.
        say: Called with a line of text while steps are measured that nobody has measured yet.
    """

    space: Space
    target: Target
    judge: Judge
    samples: Array
    stream: str = "int8"
    limits: Budgets = field(default_factory=Budgets)
    ram: int | None = None
    say: Callable[[str], None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: workers make of them what they need, and tell nobody what they do."""
        return {name: self.__dict__[name] for name in self.__dataclass_fields__} | {"say": None}

    def starts(self) -> Sequence[Genome]:
        """The smallest network of the space and the largest."""
        return [smallest(self.space), largest(self.space)]

    def costs(self, genome: Genome) -> Costs:
        """What it takes; see `Price` for targets of the C back end, `phone` for others.

        A network that is over a limit by its parts alone is told without stack and code.
        """
        if self.target.backend == "c":
            least = self.least(genome)
            if self.limits.excess(least):
                return least
            graph = build(self.space, genome)
            return self._price(graph.inputs[0].name).of(graph)
        return phone.costs(build(self.space, genome), self.target)

    def least(self, genome: Genome) -> Costs:
        """What it takes on a target of the C back end, without stack and code; quick, as each part is judged once."""
        total = self._parts.of(parts(self.space.family, genome, self.space.settings))
        return Costs(total.macs, total.constants, total.arena)

    def quality(self, genome: Genome) -> float:
        """What the judge says."""
        return self.judge.quality(genome)

    def model(self, genome: Genome) -> bytes:
        """What the judge makes of it."""
        return self.judge.model(genome)

    def _price(self, name: str) -> Price:
        """The one that has looked up every step so far."""
        if name not in self._prices:
            self._prices[name] = Price(self.target, {name: self.samples}, self.stream, ram=self.ram, say=self.say)
        return self._prices[name]

    @cached_property
    def _parts(self) -> PartTable:
        return PartTable(self.stream)

    @cached_property
    def _prices(self) -> dict[str, Price]:
        return {}
