"""Normalisations: over channels of a token, over an image, or with statistics frozen at training time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..graph import Array, Type
from ..op import Example, Op, require
from .elementwise import along
from .sampling import sample


def _vectors(size: int, *types: Type | None) -> None:
    for type in types:
        require(type is None or type.shape == (size,), f"expects vectors of {size}, got {type.shape if type else ()}")


@dataclass(frozen=True)
class LayerNorm(Op):
    """y = (x - mean) / sqrt(var + eps) * g + b over the last axis (g, b optional)."""

    eps: float = 1e-5

    def infer(self, x: Type, g: Type | None = None, b: Type | None = None) -> Type:
        """The type of x; g and b have the length of its last axis."""
        _vectors(x.shape[-1], g, b)
        return Type(x.dtype, x.shape)

    def reference(self, x: Array, g: Array | None = None, b: Array | None = None) -> Array:
        """See the class."""
        centred = x - x.mean(axis=-1, keepdims=True)
        y = centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.asarray(self.eps, x.dtype))
        y = y if g is None else y * g
        return np.asarray(y if b is None else y + b)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """With and without scale and shift."""
        yield cls(1e-6), (sample(2, 5, 8), sample(8), sample(8, low=0))
        yield cls(), (sample(3, 7), None, None)


@dataclass(frozen=True)
class RMSNorm(Op):
    """y = x / sqrt(mean(x^2) + eps) * g over the last axis (g optional). Source: Zhang and Sennrich 2019, section 3."""

    eps: float = 1e-5

    def infer(self, x: Type, g: Type | None = None) -> Type:
        """The type of x."""
        _vectors(x.shape[-1], g)
        return Type(x.dtype, x.shape)

    def reference(self, x: Array, g: Array | None = None) -> Array:
        """See the class."""
        y = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.asarray(self.eps, x.dtype))
        return np.asarray(y if g is None else y * g)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """With and without scale."""
        yield cls(1e-6), (sample(2, 5, 8), sample(8))
        yield cls(), (sample(3, 7), None)


@dataclass(frozen=True)
class BatchNorm(Op):
    """y = (x - mean) / sqrt(var + eps) * scale + bias with frozen statistics along `axis`."""

    axis: int = 1
    eps: float = 1e-5

    def infer(self, x: Type, scale: Type, bias: Type, mean: Type, var: Type) -> Type:
        """The type of x."""
        _vectors(x.shape[self.axis], scale, bias, mean, var)
        return Type(x.dtype, x.shape)

    def coefficients(self, scale: Array, bias: Array, mean: Array, var: Array) -> tuple[Array, Array]:
        """The affine map (a, c) it is: y = a * x + c, in float64."""
        a = scale.astype(np.float64) / np.sqrt(var.astype(np.float64) + self.eps)
        return a, bias - mean * a

    def reference(self, x: Array, scale: Array, bias: Array, mean: Array, var: Array) -> Array:
        """See the class."""
        a, c = (along(v, self.axis, x.ndim).astype(x.dtype) for v in self.coefficients(scale, bias, mean, var))
        return np.asarray(x * a + c)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """An image, and tokens."""
        yield cls(1), (sample(2, 3, 4, 4), sample(3), sample(3), sample(3), sample(3, low=0.2))
        yield cls(2), (sample(2, 5, 3), sample(3), sample(3), sample(3), sample(3, low=0.2))


@dataclass(frozen=True)
class RepNorm(BatchNorm):
    """BatchNorm(x) + eta * x, what PRepBN is at inference: the affine map a + eta, c.

    Source: Guo et al., SLAB, section 3.2.
    """

    axis: int = -1
    eps: float = 1e-5

    def infer(self, x: Type, scale: Type, bias: Type, mean: Type, var: Type, eta: Type | None = None) -> Type:
        """The type of x; eta holds one number, or one per channel."""
        require(eta is not None, "expects eta")
        assert eta is not None
        require(eta.size in (1, x.shape[self.axis]), f"eta must hold 1 or {x.shape[self.axis]} numbers, not {eta.size}")
        return super().infer(x, scale, bias, mean, var)

    def reference(
        self, x: Array, scale: Array, bias: Array, mean: Array, var: Array, eta: Array | None = None
    ) -> Array:
        """See the class."""
        assert eta is not None
        return np.asarray(super().reference(x, scale, bias, mean, var) + along(eta.reshape(-1), self.axis, x.ndim) * x)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Tokens, one eta for all channels."""
        yield cls(), (sample(2, 5, 3), sample(3), sample(3), sample(3), sample(3, low=0.2), np.full(1, 0.7, np.float32))


@dataclass(frozen=True)
class GroupNorm(Op):
    """Normalise x [B, C, ...] over each group of channels and all pixels, then scale and shift per channel.

    One group is PoolFormer's norm; as many groups as channels is InstanceNorm. Source: Wu and He, 2018, section 3.
    """

    groups: int = 1
    eps: float = 1e-5

    def infer(self, x: Type, g: Type | None = None, b: Type | None = None) -> Type:
        """The type of x."""
        fits = x.rank >= 3 and self.groups > 0 and x.shape[1] % self.groups == 0
        require(fits, f"{x.shape} does not divide into {self.groups} groups")
        _vectors(x.shape[1], g, b)
        return Type(x.dtype, x.shape)

    def reference(self, x: Array, g: Array | None = None, b: Array | None = None) -> Array:
        """See the class."""
        rows = x.reshape(x.shape[0], self.groups, -1)
        y = np.asarray(LayerNorm(self.eps).reference(rows)).reshape(x.shape)
        y = y if g is None else y * along(g, 1, x.ndim)
        return np.asarray(y if b is None else y + along(b, 1, x.ndim))

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """One group, several, and one per channel."""
        yield cls(1), (sample(2, 4, 3, 3), sample(4), sample(4))
        yield cls(2), (sample(2, 4, 3, 3), sample(4), None)
        yield cls(4), (sample(1, 4, 9), None, None)
