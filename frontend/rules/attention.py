"""The Attention operator of opset 23, taken apart so that recognition sees one form only."""

from __future__ import annotations

import math

from ...ir.graph import Value
from ...ir.ops.activation import Softmax
from ...ir.ops.elementwise import Add, Mul
from ...ir.ops.linear import MatMul
from ...ir.ops.shape import Reshape, Transpose
from ..call import Call, Result, rule

ATTRIBUTES = {
    "scale",
    "q_num_heads",
    "kv_num_heads",
    "is_causal",
    "softcap",
    "qk_matmul_output_mode",
    "softmax_precision",
}
"""Those of opset 23; later ones change which scores count."""


@rule("Attention")
def attention(call: Call) -> Result:
    """Operands [B, H, N, d], or [B, N, H*d] with head counts; no cache, no causal mask."""
    call.only_first("cache and scores")
    call.require(all(call.get(i) is None for i in (4, 5, 6)), "with a cache of keys and values")
    strange = {attribute.name for attribute in call.node.attribute} - ATTRIBUTES
    call.require(not strange, f"with {', '.join(sorted(strange))}")
    call.require(not call.attr("is_causal", 0) and not call.attr("softcap", 0.0), "causal, or with a soft cap")
    heads = (call.attr("q_num_heads"), call.attr("kv_num_heads"), call.attr("kv_num_heads"))
    packed = len(call.x.shape) == 3
    q, k, v = (_by_head(call, call[i], heads[i]) if packed else call[i] for i in range(3))
    call.require(q.shape[1] == k.shape[1], "with fewer heads of keys than of queries")
    scores = call.add(MatMul(), q, call.add(Transpose((0, 1, 3, 2)), k))
    scale = call.attr("scale", 1 / math.sqrt(q.shape[-1]))
    scores = call.add(Mul(), scores, call.constant(scale, "scale"))
    if call.get(3) is not None:
        call.require(call[3].dtype == "float32", "with a mask of booleans")
        scores = call.add(Add(), scores, call[3])
    y: Value = call.add(MatMul(), call.add(Softmax(-1), scores), v)
    if packed:
        b, h, n, d = y.shape
        y = call.add(Reshape((b, n, h * d)), call.add(Transpose((0, 2, 1, 3)), y))
    return y


def _by_head(call: Call, x: Value, heads: int) -> Value:
    b, n, c = x.shape
    result: Value = call.add(Transpose((0, 2, 1, 3)), call.add(Reshape((b, n, heads, c // heads)), x))
    return result
