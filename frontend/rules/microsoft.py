"""What ONNX Runtime's optimisers make of several operators, taken apart again."""

from __future__ import annotations

import math

import numpy as np

from ...ir.graph import Value
from ...ir.op import Op
from ...ir.ops import activation as ops
from ...ir.ops.linear import Linear, MatMul
from ...ir.ops.norm import LayerNorm, RMSNorm
from ...ir.ops.shape import Split
from ..call import Call, Result, rule
from .attention import by_head, joined_heads
from .conv import convolved
from .linear import gemm, product
from .terms import add, cast, choose, equal, mul, turn, view
from .window import window

OWN = "com.microsoft."


@rule(OWN + "Gelu", OWN + "BiasGelu", OWN + "FastGelu")
def biased_gelu(call: Call) -> Result:
    """GELU, by tanh if it is the fast one, of the sum with a bias if there is one."""
    bias = call.get(1)
    x = call.x if bias is None else add(call, call.x, bias)
    result: Value = call.add(ops.Gelu("tanh" if call.node.op_type == "FastGelu" else "none"), x)
    return result


@rule(OWN + "QuickGelu")
def quick_gelu(call: Call) -> Result:
    """x * sigmoid(alpha * x), which has names for two values of alpha."""
    x, alpha = call.x, call.attr("alpha", 1.702)
    known: dict[float, Op] = {1.0: ops.Silu(), 1.702: ops.Gelu("sigmoid")}
    for value, op in known.items():
        if math.isclose(alpha, value, rel_tol=1e-6):
            result: Value = call.add(op, x)
            return result
    return mul(call, x, call.add(ops.Sigmoid(), mul(call, x, alpha)))


@rule(OWN + "SkipLayerNormalization", OWN + "SkipSimplifiedLayerNormalization")
def skip_norm(call: Call) -> Result:
    """The norm of a sum, and the sum."""
    simple = call.node.op_type != "SkipLayerNormalization"
    unread = set(call.node.output[1:3]) - {""}
    call.require(not unread & call.read, "its mean and deviation must not be read")
    bias, a, b = call.get(3 if simple else 4), call[0], call[1]
    if a.producer is None or not isinstance(a.producer.op, Linear):
        a, b = b, a  # so that the bias comes next to the layer that it belongs to
    total = add(call, a if bias is None else add(call, a, bias), b)
    eps = call.attr("epsilon", 1e-12)
    vectors = [call.get(2)] if simple else [call.get(2), call.get(3)]
    y: Value = call.add(RMSNorm(eps) if simple else LayerNorm(eps), total, *vectors)
    return y, y, y, total


@rule(OWN + "FusedMatMul", OWN + "TransposeMatMul")
def fused_product(call: Call) -> Result:
    """alpha * a b, either with its last axes exchanged."""
    call.require(not call.flag("transBatchA", 0) and not call.flag("transBatchB", 0), "with batches behind rows")
    sides = []
    for side, name in ((call[0], "transA"), (call[1], "transB")):
        rank = len(side.shape)
        exchanged = call.flag(name, 0) and rank > 1
        sides.append(turn(call, side, (*range(rank - 2), rank - 1, rank - 2)) if exchanged else side)
    y, alpha = product(call, *sides), call.attr("alpha", 1.0)
    return y if alpha == 1.0 else mul(call, y, alpha)


def activated(call: Call, y: Value, numbers: tuple[float, ...]) -> Value:
    """The function that a node applies to its own result."""
    name = call.attr("activation", "")
    if not name:
        return y
    functions: dict[str, type[Op]] = {
        "Relu": ops.Relu, "Sigmoid": ops.Sigmoid, "Tanh": ops.Tanh, "LeakyRelu": ops.LeakyRelu, "Clip": ops.Clip,
        "HardSigmoid": ops.HardSigmoid,
    }  # fmt: skip
    call.require(name in functions, f"with the activation {name}")
    taken = numbers if name in ("LeakyRelu", "Clip", "HardSigmoid") else ()
    result: Value = call.add(functions[name](*taken), y)
    return result


@rule(OWN + "FusedConv")
def fused_conv(call: Call) -> Result:
    """A convolution, what is added to it, and an activation."""
    weight = call[1]
    y = convolved(call, call.x, weight, call.get(2), window(call, weight.shape[2:]), call.attr("group", 1))
    more = call.get(3)
    return activated(call, y if more is None else add(call, y, more), call.attr("activation_params", ()))


@rule(OWN + "FusedGemm")
def fused_gemm(call: Call) -> Result:
    """A Gemm and an activation."""
    y = gemm(call)
    assert isinstance(y, Value)
    given = (call.attr(f"activation_{name}") for name in ("alpha", "beta", "gamma"))
    return activated(call, y, tuple(number for number in given if number is not None))


@rule(OWN + "Attention")
def packed_attention(call: Call) -> Result:
    """Self-attention with its input projections; weights [C, H*d + H*d + H*dv]."""
    call.require(call.get(4) is None and not call.attr("do_rotary", 0), "with a past or rotation")
    call.only_first("present keys and values")
    x, weights, bias = call[0], call[1], call.get(2)
    every = product(call, x, weights)
    every = every if bias is None else add(call, every, bias)
    sizes = call.attr("qkv_hidden_sizes", (weights.shape[1] // 3,) * 3)
    call.demand(sum(sizes) == weights.shape[1], f"{weights.shape} does not divide into {sizes}")
    q, k, v = call.add(Split(2, tuple(sizes)), every)
    return _by_heads(call, (q, k, v), call.get(3), call.get(5))


@rule(OWN + "MultiHeadAttention")
def multi_head_attention(call: Call) -> Result:
    """Attention of projected queries, keys and values, to which a bias may still be added."""
    call.require(call.get(6) is None and call.get(7) is None, "with a past")
    call.require(call.get(2) is not None and len(call.x.shape) == 3, "with packed keys and values")
    call.only_first("present keys and values")
    parts, bias = [call[i] for i in range(3)], call.get(3)
    if bias is not None:
        biases = call.add(Split(0, tuple(part.shape[-1] for part in parts)), bias)
        parts = [add(call, part, own) for part, own in zip(parts, biases, strict=True)]
    return _by_heads(call, parts, call.get(4), call.get(5))


def _by_heads(call: Call, parts: tuple[Value, ...] | list[Value], mask: Value | None, bias: Value | None) -> Value:
    """softmax(scale * q k^T + biases) v over [B, N, H*d], or keys and values [B, H, M, d] of their own."""
    heads = call.attr("num_heads")
    q, k, v = (by_head(call, part, heads) if len(part.shape) == 3 else part for part in parts)
    scale = call.attr("scale", 0.0) or 1 / math.sqrt(q.shape[-1])
    scores = mul(call, call.add(MatMul(), q, turn(call, k, (0, 1, 3, 2))), scale)
    n, m = scores.shape[2:]
    lowest = call.attr("mask_filter_value", -10000.0)
    if call.flag("unidirectional", 0):
        scores = add(call, scores, call.constant(np.where(np.tri(n, m, m - n), 0.0, lowest), "mask"))
    if mask is not None:
        scores = add(call, scores, _masked(call, mask, (n, m), lowest))
    scores = scores if bias is None else add(call, scores, bias)
    return joined_heads(call, call.add(MatMul(), call.add(ops.Softmax(-1), scores), v))


def _masked(call: Call, mask: Value, size: tuple[int, int], lowest: float) -> Value:
    """What keys [B, M], or keys for each query [B, N, M], lose that the mask has 0 for."""
    n, m = size
    batch = call.x.shape[0]
    call.require(mask.shape in ((batch, m), (batch, n, m)), f"with a mask of {mask.shape}")
    full = view(call, cast(call, mask, "int32"), (batch, 1, mask.type.size // (batch * m), m))
    return choose(call, equal(call, full, 0), call.constant(lowest, "lowest"), 0.0)
