"""Families of networks, one file each: a genome becomes a chain of parts, and the parts become a float graph.

A family is a module that offers `parts(genome, settings)`. A part is a frozen dataclass that holds everything its
layers depend on, so that equal parts cost the same wherever they stand: it builds its layers, and it is the key of what
they cost. To add a gene, give a part a field and read it in `parts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from ...ir.errors import UsageError
from ...ir.graph import Array, Graph, Value
from ..space import Choice, Genome, Space
from .net import Net

__all__ = ["Chain", "Part", "Parts", "Source", "assemble", "build", "parts", "source"]


class Part(Protocol):
    """Layers between two values of a network, through which everything passes. Hashable, and equal if they are."""

    def add(self, net: Net, x: Value) -> Value:
        """Add the layers; returns what the next part reads."""
        ...


class Source(Part, Protocol):
    """The first part of a network: it knows what the network is given."""

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        ...


Parts = Sequence[tuple[str, Part]]
"""A network: its parts in order, each under the name that its parameters begin with."""


@dataclass(frozen=True)
class Chain:
    """Several parts as one, where they cannot be told apart: some passes work across their borders.

    A part that stands twice under one name shares its weights.
    """

    parts: tuple[tuple[str, Part], ...]

    def add(self, net: Net, x: Value) -> Value:
        """See `Part`."""
        for name, part in self.parts:
            with net.within(name):
                x = part.add(net, x)
        return x


def parts(family: str, genome: Genome, settings: Mapping[str, Choice]) -> Parts:
    """The parts of a network, first the one that reads the image.

    Raises:
        UsageError: There is no such family, or it has no such network.
    """
    try:
        module = import_module(f".{family}", __name__)
    except ModuleNotFoundError as error:
        raise UsageError(f"there is no family '{family}' of networks", do="see nas/families") from error
    found: Parts = module.parts(genome, settings)
    return found


def build(space: Space, genome: Genome, weights: Mapping[str, Array] | None = None, seed: int = 0) -> Graph:
    """The float graph of a genome, with recognised ops.

    Args:
        space: Names the family and its settings.
        genome: One of the space.
        weights: All parameters by name, as float32; without, they are drawn from `seed`.
        seed: See there.

    Raises:
        UsageError: It is no genome of this space.
        ModelError: The weights do not fit.
    """
    space.check(genome)
    chain = parts(space.family, genome, space.settings)
    return assemble(space.name, chain, weights, seed)


def source(chain: Parts) -> Source:
    """The part that reads the image; a network begins with it."""
    return cast(Source, chain[0][1])


def assemble(name: str, chain: Parts, weights: Mapping[str, Array] | None = None, seed: int = 0) -> Graph:
    """The float graph of a chain of parts that begins with a source."""
    net = Net(name, weights, seed)
    x = net.input("image", 1, *source(chain).image)
    return net.finish(Chain(tuple(chain)).add(net, x))
