"""Weight entanglement: every network of a space uses the leading part of one set of weights, by parameter name.

Source: Chen et al., AutoFormer (ICCV 2021), section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ...ir.graph import Array, Graph
from ...ir.ops.conv import Conv, PatchEmbed
from ...ir.ops.linear import Linear
from ..space import Gene, Genome, Space, key
from .ends import largest
from .program import Program

__all__ = ["Entangled", "cut", "initial"]

Build = Callable[[Genome], Graph]
KEPT_PROGRAMS = 512


def _extremes(space: Space) -> Iterator[Genome]:
    """Genomes between which every weight is met at its full size.

    The largest with each choice of each gene made everywhere; and, as words decide which layers there are and the least
    number of some gene may need most of them (small patches are many tokens), each word with each gene's ends.
    """
    top = space.vector(largest(space))
    names = [name for name, _, _ in space.variables]

    def made(vector: Sequence[int], gene: Gene, index: int) -> list[int]:
        return [index if name == gene.name else i for name, i in zip(names, vector, strict=True)]

    for gene in space.genes:
        for index, choice in enumerate(gene.choices):
            chosen = made(top, gene, index)
            yield space.genome(chosen)
            for other in space.genes if isinstance(choice, str) else ():
                if other is not gene and not isinstance(other.choices[0], str):
                    yield from (space.genome(made(chosen, other, end)) for end in {0, len(other.choices) - 1})


def initial(program: Program, generator: torch.Generator) -> dict[str, Tensor]:
    """Weights to begin training with, for all constants of a graph.

    Matrices and kernels are uniform in +-1/sqrt(inputs), tables normal with deviation 0.02, biases and means 0,
    scales, variances and eta 1; what is not trained keeps its value.
    """
    roles = _roles(program)
    shapes = {name: array.shape for name, array in program.constants.items()}
    return {name: _drawn(roles[name], shapes[name], program.constants[name], generator) for name in shapes}


def _roles(program: Program) -> dict[str, str]:
    """What each constant is to the first node that reads it."""
    roles: dict[str, str] = {}
    for node in program.nodes:
        layer = isinstance(node.op, Linear | Conv | PatchEmbed)
        for place, value in enumerate(node.inputs[1:], 1):
            if value is not None and value.is_constant:
                role = ("matrix", "zero")[place - 1] if layer else "zero" if place in (2, 3) else "one"
                roles.setdefault(value.name, role)
    for name, array in program.constants.items():
        if array.dtype.kind != "f" or not array.ndim:
            roles[name] = "kept"
        elif array.ndim > 1 and roles.get(name) != "matrix":
            roles[name] = "table"
    return roles


def _drawn(role: str, shape: tuple[int, ...], array: Array, generator: torch.Generator) -> Tensor:
    if role == "matrix":
        return (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(math.prod(shape[1:]))
    if role == "table":
        return torch.randn(shape, generator=generator) * 0.02
    if role == "kept":
        return torch.from_numpy(np.array(array))
    return torch.zeros(shape) if role == "zero" else torch.ones(shape)


def cut(weights: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The leading corner of each weight that is named; gradients reach the whole through it."""
    return {name: weights[name][tuple(slice(n) for n in shape)] for name, shape in shapes.items()}


class Entangled:
    """One tensor for each parameter name of a space, as large as any network of it needs.

    Attributes:
        weights: Those tensors.
        trained: Names of those that learn.
    """

    def __init__(self, space: Space, build: Build, seed: int = 0) -> None:
        """Draw all weights; `build` makes the graph of a genome of `space`."""
        self.space, self.build = space, build
        self.program = lru_cache(KEPT_PROGRAMS)(self._program)
        shapes: dict[str, tuple[int, ...]] = {}
        roles: dict[str, str] = {}
        self.trained: set[str] = set()
        arrays: dict[str, Array] = {}
        for genome in _extremes(space):
            program = self.program(key(genome))
            for name, array in program.constants.items():
                pairs = zip(shapes.get(name, array.shape), array.shape, strict=True)
                shapes[name] = tuple(max(pair) for pair in pairs)
                arrays[name] = array
            roles |= _roles(program)
            self.trained |= set(program.trained)
        generator = torch.Generator().manual_seed(seed)
        self.weights = {name: _drawn(roles[name], shapes[name], arrays[name], generator) for name in sorted(shapes)}

    def _program(self, text: str) -> Program:
        return Program(self.build(self.space.read(text)))

    def network(self, genome: Genome) -> tuple[Program, dict[str, Tensor]]:
        """A network of the space, its weights cut from those of all."""
        program = self.program(key(genome))
        return program, cut(self.weights, {name: array.shape for name, array in program.constants.items()})

    def arrays(self, genome: Genome) -> dict[str, Array]:
        """Copies of a network's weights, as families take them."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self.network(genome)[1].items()}
