"""Scaled dot-product attention over tokens, all heads in one op, heads side by side in the channels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..graph import Array, Type
from ..op import Example, Op, require
from .activation import Softmax
from .sampling import sample


@dataclass(frozen=True)
class Attention(Op):
    """softmax(scale * q k^T + bias) v per head. Source: Vaswani et al., Attention Is All You Need, section 3.2.

    Channels are head-major: head h owns channels [h*d, (h+1)*d) of q and k, and [h*dv, (h+1)*dv) of v and the output.
    """

    heads: int
    scale: float = 1.0

    def infer(self, q: Type, k: Type, v: Type, bias: Type | None = None) -> Type:
        """q [B, N, H*d], k [B, M, H*d], v [B, M, H*dv], bias broadcastable to [B, H, N, M] -> [B, N, H*dv]."""
        require(q.rank == k.rank == v.rank == 3, f"expects rank 3, got {q.shape}, {k.shape}, {v.shape}")
        same = k.shape[:2] == v.shape[:2] and q.shape[0] == k.shape[0]
        require(same, f"tokens of k and v differ: {k.shape}, {v.shape}")
        require(q.shape[2] == k.shape[2], f"q has {q.shape[2]} channels, k has {k.shape[2]}")
        divided = q.shape[2] % self.heads == 0 and v.shape[2] % self.heads == 0
        require(divided, f"channels do not divide into {self.heads} heads")
        if bias is not None:
            full = (q.shape[0], self.heads, q.shape[1], k.shape[1])
            pairs = zip(reversed(bias.shape), reversed(full), strict=False)
            fits = bias.rank <= 4 and all(b in (1, f) for b, f in pairs)
            require(fits, f"bias {bias.shape} does not broadcast to {full}")
        return Type(q.dtype, (q.shape[0], q.shape[1], v.shape[2]))

    def reference(self, q: Array, k: Array, v: Array, bias: Array | None = None) -> Array:
        """See the class."""
        queries, keys, values = (self._split(x) for x in (q, k, v))
        scores = np.matmul(queries, keys.transpose(0, 1, 3, 2)) * np.asarray(self.scale, q.dtype)
        scores = scores if bias is None else scores + bias
        out = np.matmul(np.asarray(Softmax().reference(scores)), values)
        return np.ascontiguousarray(out.transpose(0, 2, 1, 3).reshape(q.shape[0], q.shape[1], -1))

    def _split(self, x: Array) -> Array:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(0, 2, 1, 3)

    def macs(self, q: Type, k: Type, v: Type, bias: Type | None = None) -> int:
        """Scores and weighted values."""
        return q.shape[0] * q.shape[1] * k.shape[1] * (q.shape[2] + v.shape[2])

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Self attention, cross attention with other value width, and a bias table."""
        yield cls(2, 0.5), (sample(2, 5, 8), sample(2, 5, 8, low=-1), sample(2, 5, 8, low=0), None)
        yield cls(3, 0.7), (sample(1, 4, 6), sample(1, 7, 6), sample(1, 7, 9), sample(3, 4, 7))
