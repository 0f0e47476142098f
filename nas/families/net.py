"""A float graph under construction: layers under the names of their parameters, which are given or drawn at random.

Norms are drawn with statistics of their own, never 0 and 1, so that no pass finds them already folded. What is asked
for twice under one name is one constant: so blocks share weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from zlib import crc32

import numpy as np

from ...ir.errors import ModelError
from ...ir.graph import Array, Graph, Type, Value
from ...ir.op import Op
from ...ir.ops.activation import Gelu, Relu
from ...ir.ops.conv import Conv
from ...ir.ops.elementwise import Add
from ...ir.ops.linear import Linear
from ...ir.ops.norm import BatchNorm, LayerNorm, RepNorm, RMSNorm
from ...ir.passes.quantise.codes import note_codes

__all__ = ["NORMS", "Net"]

NORMS = ("LayerNorm", "RMSNorm", "RepNorm")
"""Norms over the channels of a token; "RepNorm" is what PRepBN has become when its training ends."""

EPS = 1e-6


class Net:
    """Adds layers to a graph; every layer has a name, and names nest."""

    def __init__(self, name: str, weights: Mapping[str, Array] | None = None, seed: int = 0) -> None:
        """An empty network; parameters come from `weights`, float32 by full name, or are drawn from `seed`."""
        self.graph = Graph(name)
        self.codes: dict[str, str] = {}
        self._weights, self._seed = weights, seed
        self._known: dict[str, Value] = {}
        self._prefix = ""

    @contextmanager
    def within(self, name: str) -> Iterator[None]:
        """Names of what is added stand behind this one; an empty name changes nothing."""
        before = self._prefix
        self._prefix = f"{before}{name}." if name else before
        try:
            yield
        finally:
            self._prefix = before

    def finish(self, output: Value) -> Graph:
        """Declare the output; the graph is then complete."""
        self.graph.output(output)
        note_codes(self.graph, self.codes)
        return self.graph

    # ---- parameters ----

    def parameter(self, name: str, shape: tuple[int, ...], scale: float = 1.0, positive: bool = False) -> Value:
        """The float32 parameter of this name; drawn ones are normal with deviation `scale`, or in 0.5 to 1.5 of it.

        Raises:
            ModelError: Weights are given, but not this one, or in another shape.
        """
        full = f"{self._prefix}{name}"
        if full not in self._known:
            array = self._drawn(full, shape, scale, positive) if self._weights is None else self._given(full, shape)
            self._known[full] = self.graph.constant(array, full)
        return self._known[full]

    def _drawn(self, name: str, shape: tuple[int, ...], scale: float, positive: bool) -> Array:
        generator = np.random.default_rng((self._seed, crc32(name.encode())))
        drawn = generator.uniform(0.5, 1.5, shape) if positive else generator.standard_normal(shape)
        return np.asarray(scale * drawn, np.float32)

    def _given(self, name: str, shape: tuple[int, ...]) -> Array:
        assert self._weights is not None
        if name not in self._weights:
            raise ModelError(f"the weights lack '{name}'", do="give a parameter of this name and shape " + str(shape))
        array = np.array(self._weights[name], np.float32)
        if array.shape != shape:
            raise ModelError(f"'{name}' has shape {array.shape}, not {shape}", do="cut the weights for this genome")
        return array

    # ---- layers ----

    def add(self, op: Op, *inputs: Value | None, name: str) -> Value:
        """Any op with one output, under a name."""
        full = f"{self._prefix}{name}"
        made: Value = self.graph.add(op, *inputs, name=full, sources=(full,))
        return made

    def input(self, name: str, *shape: int) -> Value:
        """What the network is given."""
        return self.graph.input(name, Type("float32", shape))

    def store(self, name: str, code: str) -> None:
        """Note what the weights of the layer of this name are to be stored in."""
        if code != "int8":
            self.codes[f"{self._prefix}{name}"] = code

    def linear(self, x: Value, width: int, name: str, code: str = "int8", bias: bool = True) -> Value:
        """A Linear of `width` outputs whose weights are to be stored in `code`."""
        depth = x.shape[-1]
        self.store(name, code)
        w = self.parameter(f"{name}.weight", (width, depth), depth**-0.5)
        b = self.parameter(f"{name}.bias", (width,), 0.1) if bias else None
        return self.add(Linear(), x, w, b, name=name)

    def conv(
        self, x: Value, width: int, name: str, kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> Value:
        """A convolution [B, C, H, W] -> [B, width, ...] whose border keeps the size up to its stride."""
        depth, pad = x.shape[1] // groups, kernel // 2
        w = self.parameter(f"{name}.weight", (width, depth, kernel, kernel), (depth * kernel * kernel) ** -0.5)
        b = self.parameter(f"{name}.bias", (width,), 0.1) if bias else None
        op = Conv((stride, stride), (pad, pad, pad, pad), groups=groups)
        return self.add(op, x, w, b, name=name)

    def conv_norm(self, x: Value, width: int, name: str, kernel: int = 1, stride: int = 1, groups: int = 1) -> Value:
        """A convolution without bias and the BatchNorm behind it, under `name`.conv and `name`.bn."""
        with self.within(name):
            return self.batch_norm(self.conv(x, width, "conv", kernel, stride, groups), "bn")

    def batch_norm(self, x: Value, name: str, axis: int = 1) -> Value:
        """BatchNorm with frozen statistics."""
        return self.add(BatchNorm(axis), x, *self._statistics(x.shape[axis], name), name=name)

    def _statistics(self, width: int, name: str) -> list[Value]:
        """Scale, shift, mean and variance."""
        return [
            self.parameter(f"{name}.weight", (width,), positive=True),
            self.parameter(f"{name}.bias", (width,), 0.1),
            self.parameter(f"{name}.running_mean", (width,), 0.1),
            self.parameter(f"{name}.running_var", (width,), positive=True),
        ]

    def norm(self, x: Value, kind: str, name: str) -> Value:
        """One of `NORMS` over the last axis."""
        width = x.shape[-1]
        if kind == "RepNorm":
            eta = self.parameter(f"{name}.eta", (1,), positive=True)
            return self.add(RepNorm(), x, *self._statistics(width, name), eta, name=name)
        scale = self.parameter(f"{name}.weight", (width,), positive=True)
        if kind == "RMSNorm":
            return self.add(RMSNorm(EPS), x, scale, name=name)
        return self.add(LayerNorm(EPS), x, scale, self.parameter(f"{name}.bias", (width,), 0.1), name=name)

    def gelu(self, x: Value, name: str) -> Value:
        """The exact GELU."""
        return self.add(Gelu(), x, name=name)

    def relu(self, x: Value, name: str) -> Value:
        """max(x, 0)."""
        return self.add(Relu(), x, name=name)

    def plus(self, x: Value, y: Value, name: str) -> Value:
        """A sum, such as that of a branch and its stream."""
        return self.add(Add(), x, y, name=name)
