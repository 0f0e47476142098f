"""Attention and rotary embedding, taken apart so that recognition sees one form only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...ir.graph import Value
from ...ir.ops.activation import Softmax, Tanh
from ...ir.ops.linear import MatMul
from ...ir.ops.pool import ReduceMax
from ...ir.ops.shape import Concat, Expand, Gather, Pad, Slice, Split, Transpose
from ..call import Call, Result, rule
from .terms import add, both, cast, choose, div, equal, less, mul, sub, turn, view

FORBIDDEN = -1e9
"""Added to a score that does not count; beside scores of ordinary size it is as good as minus infinity."""


@rule("Attention")
def attention(call: Call) -> Result:
    """Operands [B, H, N, d], or [B, N, H*d] with head counts."""
    q, k, v = (call[i] for i in range(3))
    packed = len(q.shape) == 3
    if packed:
        q = by_head(call, q, call.attr("q_num_heads"))
        k, v = (by_head(call, each, call.attr("kv_num_heads")) for each in (k, v))
    fits = q.shape[0] == k.shape[0] == v.shape[0] and k.shape[1:3] == v.shape[1:3] and q.shape[3] == k.shape[3]
    call.demand(fits, f"queries {q.shape}, keys {k.shape} and values {v.shape} do not fit together")
    before = call.get(4)
    past = 0 if before is None else before.shape[2]
    if before is not None:
        k, v = call.add(Concat(2), before, k), call.add(Concat(2), call[5], v)
    present = k, v
    mask = Mask(call, (q.shape[2], k.shape[2]), past)
    y, scores = attended(call, q, k, v, mask, call.attr("scale", 1 / math.sqrt(q.shape[-1])))
    y = joined_heads(call, y) if packed else y
    return y, *present, scores


def by_head(call: Call, x: Value, heads: int) -> Value:
    """[B, N, H*d] -> [B, H, N, d]."""
    call.demand(bool(heads) and heads > 0 and x.shape[2] % heads == 0, f"{x.shape} does not divide into {heads} heads")
    b, n, c = x.shape
    result: Value = call.add(Transpose((0, 2, 1, 3)), view(call, x, (b, n, heads, c // heads)))
    return result


def joined_heads(call: Call, y: Value) -> Value:
    """[B, H, N, d] -> [B, N, H*d]."""
    b, h, n, d = y.shape
    return call.reshape(call.add(Transpose((0, 2, 1, 3)), y), (b, n, h * d))


@dataclass(frozen=True)
class Mask:
    """Which scores count: by position, by an operand of the node, and by the length of each sequence."""

    call: Call
    size: tuple[int, int]
    past: int

    @property
    def given(self) -> Value | None:
        """The operand, padded to all keys: those beyond it do not count."""
        call, mask = self.call, self.call.get(3)
        if mask is None or mask.shape[-1] >= self.size[1]:
            return mask
        pads = (*(0,) * (2 * len(mask.shape) - 1), self.size[1] - mask.shape[-1])
        result: Value = call.add(Pad(pads, 0.0 if mask.dtype == "bool" else -math.inf), mask)
        return result

    def by_position(self) -> Value | None:
        """Truth values [N, M], or per sequence where lengths differ: those of causal and windowed attention."""
        call, (n, m) = self.call, self.size
        causal = call.flag("is_causal", 0)
        left, right = call.attr("left_window_size", -1), call.attr("right_window_size", -1)
        if not causal and left < 0 and right < 0:
            return None
        ahead = np.arange(m) - np.arange(n)[:, None]  # of the key before the query, were the query the first
        bounds = (left if left >= 0 else n + m + self.past, min(right if right >= 0 else n + m, 0 if causal else n + m))
        lengths = call.get(6)
        if lengths is None or self.past:
            ahead = ahead - self.past
            return call.constant((ahead >= -bounds[0]) & (ahead <= bounds[1]), "positions", "bool")
        first = sub(call, call.reshape(cast(call, lengths, "int64"), (lengths.type.size, 1, 1, 1)), n)
        place = call.constant(ahead, "ahead", "int64")
        near = less(call, place, add(call, first, bounds[1] + 1))
        return both(call, near, less(call, sub(call, first, bounds[0] + 1), place))

    def by_length(self) -> Value | None:
        """Truth values [B, 1, 1, M]: keys beyond the length of their sequence do not count."""
        call, lengths = self.call, self.call.get(6)
        if lengths is None:
            return None
        call.demand(len(lengths.shape) == 1, f"lengths of sequences of shape {lengths.shape}")
        counted = call.reshape(cast(call, lengths, "int64"), (lengths.type.size, 1, 1, 1))
        return less(call, call.constant(np.arange(self.size[1]), "keys", "int64"), counted)

    def bias(self) -> tuple[Value | None, bool]:
        """What is added to the scores, and whether some row of it may forbid all keys."""
        call, given = self.call, self.given
        truths = [each for each in (self.by_position(), self.by_length()) if each is not None]
        if given is not None and given.dtype == "bool":
            truths.append(given)
            given = None
        allowed = None
        for each in truths:
            allowed = each if allowed is None else both(call, allowed, each)
        if allowed is None:
            empty = given is not None and given.data is None
            return given, empty
        open_rows = allowed.data is not None and bool(allowed.data.any(axis=-1).all())
        lowest = FORBIDDEN if open_rows and given is None and not _scores_read(call) else -math.inf
        if allowed.data is not None:
            bias: Value = call.constant(np.where(allowed.data, 0, lowest), "mask")
        else:
            bias = choose(call, allowed, call.constant(0.0, "counts"), lowest)
        bias = bias if given is None else add(call, bias, given)
        return bias, not open_rows or given is not None


def _scores_read(call: Call) -> bool:
    return len(call.node.output) > 3 and call.node.output[3] in call.read


def attended(call: Call, q: Value, k: Value, v: Value, mask: Mask, scale: float) -> tuple[Value, Value]:
    """softmax(cap(scale * q k^T) + mask) v, and the scores of the stage that is asked for."""
    k, v = (_repeated(call, each, q.shape[1]) for each in (k, v))
    scores = mul(call, call.add(MatMul(), q, turn(call, k, (0, 1, 3, 2))), scale)
    stages = [scores]
    cap = call.attr("softcap", 0.0)
    call.demand(cap >= 0, f"scores capped at {cap}")  # by ONNX's function it is the cap turned round, elsewhere none
    if cap:
        scores = mul(call, call.add(Tanh(), div(call, scores, cap)), cap)
    stages.append(scores)
    bias, may_be_empty = mask.bias()
    scores = scores if bias is None else add(call, scores, bias)
    stages.append(scores)
    weights: Value = call.add(Softmax(-1), scores)
    if may_be_empty and bias is not None:
        nothing = equal(call, call.add(ReduceMax((len(bias.shape) - 1,), True), bias), -math.inf)
        weights = choose(call, nothing, 0.0, weights)
    stages.append(weights)
    return call.add(MatMul(), weights, v), stages[call.attr("qk_matmul_output_mode", 0)]


def _repeated(call: Call, x: Value, heads: int) -> Value:
    """Keys or values of few heads for groups of queries: each head several times."""
    b, h, m, d = x.shape
    if h == heads:
        return x
    call.demand(heads % h == 0, f"{heads} heads do not share {h}")
    apart = call.reshape(x, (b, h, 1, m, d))
    return call.reshape(call.add(Expand((b, h, heads // h, m, d)), apart), (b, heads, m, d))


@rule("RotaryEmbedding")
def rotary(call: Call) -> Result:
    """Pairs of channels turned by an angle per position. Source: Su et al., RoFormer, section 3.2."""
    x = call.x
    packed = len(x.shape) == 3
    rows = by_head(call, x, call.attr("num_heads", 0)) if packed else x  # [B, H, N, d]
    cos, sin = (_angles(call, call[i], call.get(3)) for i in (1, 2))
    width = call.attr("rotary_embedding_dim", 0) or rows.shape[-1]
    rest = None
    if width < rows.shape[-1]:
        rows, rest = call.add(Split(3, (width, rows.shape[-1] - width)), rows)
    turned = rotated(call, rows, cos, sin, call.flag("interleaved", 0))
    turned = turned if rest is None else call.add(Concat(3), turned, rest)
    return joined_heads(call, turned) if packed else turned


def _angles(call: Call, cache: Value, positions: Value | None) -> Value:
    """[B or 1, 1, N, width/2] out of a table and positions, or as given per sequence."""
    table = cache if positions is None else call.add(Gather(0), cache, positions)
    return view(call, table, (table.shape[0], 1, *table.shape[1:]))


def rotated(call: Call, x: Value, cos: Value, sin: Value, interleaved: bool) -> Value:
    """(a, b) -> (a cos - b sin, a sin + b cos), for halves or for neighbours."""
    rank, width = len(x.shape), x.shape[-1]
    if interleaved:
        a, b = (call.add(Slice((i,), (width,), (rank - 1,), (2,)), x) for i in (0, 1))
    else:
        a, b = call.add(Split(rank - 1, (width // 2, width - width // 2)), x)
    real = sub(call, mul(call, a, cos), mul(call, b, sin))
    imaginary = add(call, mul(call, a, sin), mul(call, b, cos))
    if not interleaved:
        result: Value = call.add(Concat(rank - 1), real, imaginary)
        return result
    pairs = [call.reshape(each, (*each.shape, 1)) for each in (real, imaginary)]
    return call.reshape(call.add(Concat(rank), *pairs), x.shape)
