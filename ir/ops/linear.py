"""Matrix products: against a weight (Linear) and between two activations (MatMul)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..graph import Array, Type
from ..op import Example, Op, require
from .elementwise import broadcast
from .sampling import sample


@dataclass(frozen=True)
class Linear(Op):
    """y[..., n] = sum_k x[..., k] * w[n, k] (+ b[n]); weights are stored output-major, as torch does."""

    def infer(self, x: Type, w: Type, b: Type | None = None) -> Type:
        """x [..., K], w [N, K], b [N] -> [..., N]."""
        require(x.rank >= 1 and w.rank == 2, f"expects x of rank >= 1 and w of rank 2, got {x.shape} and {w.shape}")
        require(x.shape[-1] == w.shape[1], f"x has {x.shape[-1]} features, the weight expects {w.shape[1]}")
        require(b is None or b.shape == (w.shape[0],), f"bias must be ({w.shape[0]},), not {b.shape if b else ()}")
        return Type(x.dtype, (*x.shape[:-1], w.shape[0]))

    def reference(self, x: Array, w: Array, b: Array | None = None) -> Array:
        """See the class."""
        y = x @ w.T
        return np.asarray(y if b is None else y + b)

    def macs(self, x: Type, w: Type, b: Type | None = None) -> int:
        """Rows times weights."""
        return x.size // x.shape[-1] * w.size

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """With and without bias, rank 1 to 3."""
        yield cls(), (sample(2, 5, 8), sample(3, 8), sample(3))
        yield cls(), (sample(4, 7), sample(6, 7), None)


@dataclass(frozen=True)
class MatMul(Op):
    """Batched a @ b of two activations, batch axes broadcast."""

    def infer(self, a: Type, b: Type) -> Type:
        """[..., M, K] and [..., K, N] -> [..., M, N]; both of rank >= 2."""
        require(a.rank >= 2 and b.rank >= 2, f"expects ranks >= 2, got {a.shape} and {b.shape}")
        require(a.shape[-1] == b.shape[-2], f"inner sizes differ: {a.shape} and {b.shape}")
        return Type(a.dtype, (*broadcast(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]))

    def reference(self, a: Array, b: Array) -> Array:
        """See the class."""
        return np.asarray(np.matmul(a, b))

    def macs(self, a: Type, b: Type) -> int:
        """Output elements times inner size."""
        out = self.infer(a, b)
        return out.size * a.shape[-1]

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Plain, batched, and broadcast."""
        yield cls(), (sample(3, 4), sample(4, 5))
        yield cls(), (sample(2, 3, 4, 5), sample(3, 5, 2))
