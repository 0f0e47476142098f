"""Blocks of vision transformers in the many ways in which exporters and authors write them, for `spellings.Speller`."""

from __future__ import annotations

import numpy as np

HEADS, DEPTH, WIDTH = 2, 3, 6
SIDE, WINDOW, SHIFT = 8, 4, 2
TOKENS = WINDOW * WINDOW
DRAW = np.random.default_rng(3)


def drawn(*shape, low=-0.7, high=0.7):
    return DRAW.uniform(low, high, shape)


QKV, QKV_BIAS = drawn(WIDTH, 3 * WIDTH), drawn(3 * WIDTH)
PROJECTION = drawn(WIDTH, WIDTH)
POSITIONS = drawn(HEADS, TOKENS, TOKENS)
MIX_BEFORE, MIX_AFTER, BIAS_BEFORE, BIAS_AFTER = drawn(2, 2), drawn(2, 2), drawn(2), drawn(2)
TEMPERATURE = drawn(HEADS, low=0.5, high=2)


def shift_mask():
    """0, or -100 between pixels of different regions, per window [W, N, N], as Swin has it."""
    region = np.zeros((SIDE, SIDE))
    cuts = (slice(0, -WINDOW), slice(-WINDOW, -SHIFT), slice(-SHIFT, None))
    for i, rows in enumerate(cuts):
        for j, columns in enumerate(cuts):
            region[rows, columns] = 3 * i + j
    count = SIDE // WINDOW
    by_window = region.reshape(count, WINDOW, count, WINDOW).transpose(0, 2, 1, 3).reshape(-1, TOKENS)
    return np.where(by_window[:, :, None] == by_window[:, None], 0.0, -100.0)


def integers(s, *values):
    return s.constant(values, np.int64)


def reshape(s, x, *shape):
    """The last axis as a number or as what is left."""
    return s.op("Reshape", x, integers(s, *shape[:-1], s.choose(shape[-1], -1)))


def transpose(s, x, *perm):
    """At once, or with the first two axes exchanged before and back after."""
    if len(perm) > 3 and s.choose(False, True):
        first = (1, 0, *range(2, len(perm)))
        return s.op("Transpose", s.op("Transpose", x, perm=first), perm=[first.index(axis) for axis in perm])
    return s.op("Transpose", x, perm=list(perm))


def linear(s, x, weight, bias=None):
    y = s.op("MatMul", x, s.constant(weight))
    return y if bias is None else s.commuted("Add", y, s.constant(bias))


def pieces(s, x, axis, sizes):
    """The pieces of an axis by Split or by Slice, counted from either end."""
    ends = np.cumsum(sizes)
    if s.choose("Split", "Slice") == "Split":
        return list(s.op("Split", x, integers(s, *sizes), axis=axis, outputs=len(sizes)))
    last = s.choose(ends[-1], 2**31 - 1)
    return [
        s.op("Slice", x, integers(s, end - size), integers(s, last if end == ends[-1] else end), integers(s, axis))
        for size, end in zip(sizes, ends, strict=True)
    ]


def rolled(s, x, axis, by, size):
    """np.roll along an axis, as pieces that change places or as a gathered order."""
    by %= size
    if s.choose("pieces", "Gather") == "Gather":
        return s.op("Gather", x, integers(s, *np.roll(np.arange(size), by)), axis=axis)
    first, second = pieces(s, x, axis, [size - by, by])
    return s.op("Concat", second, first, axis=axis)


def heads_of(s, x, batch, rows):
    """q, k and v [batch, H, rows, d] of tokens [batch, rows, C], out of one product or of three."""
    if s.choose("joint", "apart") == "apart":
        parts = [
            linear(s, x, QKV[:, i * WIDTH : (i + 1) * WIDTH], QKV_BIAS[i * WIDTH : (i + 1) * WIDTH]) for i in range(3)
        ]
        return [transpose(s, reshape(s, part, batch, rows, HEADS, DEPTH), 0, 2, 1, 3) for part in parts]
    y = reshape(s, linear(s, x, QKV, QKV_BIAS), batch, rows, 3, HEADS, DEPTH)
    if s.choose("turned", "cut") == "turned":
        turned = transpose(s, y, 2, 0, 3, 1, 4)
        form = s.choose("Split", "Gather")
        if form == "Gather":
            return [s.op("Gather", turned, s.constant(i, np.int64), axis=0) for i in range(3)]
        return [s.op("Squeeze", part, integers(s, 0)) for part in pieces(s, turned, 0, [1, 1, 1])]
    parts = [s.op("Squeeze", part, integers(s, 2)) for part in pieces(s, y, 2, [1, 1, 1])]
    return [transpose(s, part, 0, 2, 1, 3) for part in parts]


def scores_of(s, q, k, scale):
    """scale * q k^T with the factor in any place."""
    place = s.choose("q", "both", "after")
    if place == "both":
        q, k = s.times(q, scale**0.5), s.times(k, scale**0.5)
    q = s.times(q, scale) if place == "q" else q
    scores = s.op("MatMul", q, transpose(s, k, 0, 1, 3, 2))
    return s.times(scores, scale) if place == "after" else scores


def partitioned(s, x):
    """[1, S, S, C] as windows [W, N, C]."""
    count = SIDE // WINDOW
    x = transpose(s, reshape(s, x, 1, count, WINDOW, count, WINDOW, WIDTH), 0, 1, 3, 2, 4, 5)
    return reshape(s, x, count * count, TOKENS, WIDTH)


def merged(s, x):
    count = SIDE // WINDOW
    x = transpose(s, reshape(s, x, 1, count, count, WINDOW, WINDOW, WIDTH), 0, 1, 3, 2, 4, 5)
    return reshape(s, x, 1, SIDE, SIDE, WIDTH)


def masked(s, scores, windows, mask):
    """Positions per head and a mask per window, one after the other or as one table, in a view with windows apart."""
    form = s.choose("one after the other", "with windows apart", "one table")
    table = s.constant(POSITIONS)
    if form == "one table":
        return s.commuted("Add", scores, s.constant(POSITIONS[None] + mask[:, None]))
    scores = s.commuted("Add", scores, table)
    if form == "one after the other":
        return s.commuted("Add", scores, s.constant(mask[:, None]))
    apart = reshape(s, scores, 1, windows, HEADS, TOKENS, TOKENS)
    apart = s.commuted("Add", apart, s.constant(mask[None, :, None]))
    return reshape(s, apart, windows, HEADS, TOKENS, TOKENS)


def attended(s, weights, v, batch, rows):
    y = transpose(s, s.op("MatMul", weights, v), 0, 2, 1, 3)
    return linear(s, reshape(s, y, batch, rows, WIDTH), PROJECTION)


def window_attention(s, x):
    """Swin: x [1, S, S, C]."""
    windows = (SIDE // WINDOW) ** 2
    q, k, v = heads_of(s, partitioned(s, x), windows, TOKENS)
    scores = s.commuted("Add", scores_of(s, q, k, DEPTH**-0.5), s.constant(POSITIONS))
    return merged(s, attended(s, s.op("Softmax", scores, axis=-1), v, windows, TOKENS))


def shifted_window_attention(s, x):
    windows = (SIDE // WINDOW) ** 2
    x = rolled(s, rolled(s, x, 1, -SHIFT, SIDE), 2, -SHIFT, SIDE)
    q, k, v = heads_of(s, partitioned(s, x), windows, TOKENS)
    scores = masked(s, scores_of(s, q, k, DEPTH**-0.5), windows, shift_mask())
    y = merged(s, attended(s, s.op("Softmax", scores, axis=-1), v, windows, TOKENS))
    return rolled(s, rolled(s, y, 1, SHIFT, SIDE), 2, SHIFT, SIDE)


def mask_unit_attention(s, x, pool=4):
    """Hiera: tokens [1, units within * 16, C] whose unit counts fastest; queries pooled over `pool` tokens."""
    rows, units = 16, 4
    y = reshape(s, linear(s, x, QKV, QKV_BIAS), 1, rows, units, 3, HEADS, DEPTH)
    y = transpose(s, y, 3, 0, 4, 2, 1, 5)
    q, k, v = (s.op("Squeeze", part, integers(s, 0)) for part in pieces(s, y, 0, [1, 1, 1]))
    if pool > 1:
        q = reshape(s, q, 1, HEADS, units, pool, rows // pool, DEPTH)
        q = s.op("ReduceMax", q, axes=[s.choose(3, -3)], keepdims=0)
    scale = DEPTH**-0.5
    place = s.choose("q", "after")
    scores = s.op("MatMul", s.times(q, scale) if place == "q" else q, s.op("Transpose", k, perm=[0, 1, 2, 4, 3]))
    weights = s.op("Softmax", scores if place == "q" else s.times(scores, scale), axis=-1)
    y = transpose(s, s.op("MatMul", weights, v), 0, 3, 2, 1, 4)
    return linear(s, reshape(s, y, 1, rows // pool * units, WIDTH), PROJECTION)


def unit(s, x):
    """x / max(|x|, 1e-12) over the last axis."""
    form = s.choose("ReduceL2", "root of sum", "power")
    axes = s.choose([3], [-1])
    if form == "ReduceL2":
        length = s.op("ReduceL2", x, axes=axes, keepdims=1)
    else:
        total = s.op("ReduceSum", s.square(x), integers(s, *axes), keepdims=1)
        length = s.op("Sqrt", total) if form == "root of sum" else s.op("Pow", total, s.constant(0.5))
    length = s.op(*s.choose(("Clip", length), ("Max", length)), s.constant(1e-12))
    form = s.choose("Div", "Expand", "Reciprocal")
    if form == "Reciprocal":
        return s.commuted("Mul", x, s.op("Reciprocal", length))
    if form == "Expand":
        length = s.op("Expand", length, integers(s, 1, HEADS, DEPTH, TOKENS))
    return s.op("Div", x, length)


def cross_covariance_attention(s, x):
    """XCiT: tokens [1, N, C], attention between channels."""
    q, k, v = (s.op("Transpose", part, perm=[0, 1, 3, 2]) for part in heads_of(s, x, 1, TOKENS))
    q, k = unit(s, q), unit(s, k)
    temperature = s.constant(TEMPERATURE[:, None, None])
    place = s.choose("scores", "queries")
    q = s.commuted("Mul", q, temperature) if place == "queries" else q
    scores = s.op("MatMul", q, transpose(s, k, 0, 1, 3, 2))
    scores = s.commuted("Mul", scores, temperature) if place == "scores" else scores
    y = transpose(s, s.op("MatMul", s.op("Softmax", scores, axis=-1), v), 0, 3, 1, 2)
    return linear(s, reshape(s, y, 1, TOKENS, WIDTH), PROJECTION)


def talking(s, scores, weight, bias):
    """Heads mixed by a convolution, or by a matrix with heads at the end."""
    if s.choose("Conv", "MatMul") == "Conv":
        return s.op("Conv", scores, s.constant(weight[:, :, None, None]), s.constant(bias), kernel_shape=[1, 1])
    return s.op("Transpose", linear(s, s.op("Transpose", scores, perm=[0, 2, 3, 1]), weight.T, bias), perm=[0, 3, 1, 2])


def talking_heads(s, x):
    """CaiT, EfficientFormer V2: tokens [1, N, C]."""
    q, k, v = heads_of(s, x, 1, TOKENS)
    scores = s.commuted("Add", scores_of(s, q, k, DEPTH**-0.5), s.constant(POSITIONS))
    weights = s.op("Softmax", talking(s, scores, MIX_BEFORE, BIAS_BEFORE), axis=-1)
    return attended(s, talking(s, weights, MIX_AFTER, BIAS_AFTER), v, 1, TOKENS)


def linear_attention(s, x):
    """EfficientViT, SLAB: tokens [1, N, C]; ones beside v, or the sum of k; either order of the products."""
    q, k, v = heads_of(s, x, 1, TOKENS)
    q, k = s.op("Relu", q), s.op("Relu", k)
    keys = s.op("Transpose", k, perm=[0, 1, 3, 2])
    form = s.choose("ones", "sum of keys", "sum of scores")
    if form == "ones":
        padded = s.op("Pad", v, integers(s, 0, 0, 0, 0, 0, 0, 0, 1), s.constant(1.0), mode="constant")
        y = s.op("MatMul", q, s.op("MatMul", keys, padded))
        top, bottom = pieces(s, y, 3, [DEPTH, 1])
    elif form == "sum of keys":
        top = s.op("MatMul", q, s.op("MatMul", keys, v))
        bottom = s.op("MatMul", q, s.op("ReduceSum", keys, integers(s, s.choose(3, -1)), keepdims=1))
    else:
        scores = s.op("MatMul", q, keys)
        top, bottom = s.op("MatMul", scores, v), s.op("ReduceSum", scores, integers(s, 3), keepdims=1)
    bottom = s.plus(bottom, 1e-3)
    form = s.choose("Div", "Reciprocal")
    y = s.op("Div", top, bottom) if form == "Div" else s.commuted("Mul", top, s.op("Reciprocal", bottom))
    return linear(s, reshape(s, transpose(s, y, 0, 2, 1, 3), 1, TOKENS, WIDTH), PROJECTION)


ROTATED = 4
"""Channels of a head whose pairs are turned."""
ANGLES = drawn(TOKENS, ROTATED // 2, low=-3, high=3)
ROTARY, ROTARY_BIAS = drawn(2 * ROTATED, 6 * ROTATED), drawn(6 * ROTATED)


def rotated(s, x, tokens):
    """[1, H, N, d] turned by angles: neighbours or halves, by an exchange with signs or part by part."""
    form = s.choose("exchanged", "part by part")
    half = ROTATED // 2
    if form == "part by part":
        a, b = pieces(s, x, 3, [half, half])
        cosine, sine = s.constant(np.cos(ANGLES[:tokens])), s.constant(np.sin(ANGLES[:tokens]))
        left = s.op("Sub", s.commuted("Mul", a, cosine), s.commuted("Mul", b, sine))
        right = s.commuted("Add", s.commuted("Mul", b, cosine), s.commuted("Mul", a, sine))
        return s.op("Concat", left, right, axis=s.choose(3, -1))
    a, b = pieces(s, x, 3, [half, half])
    exchanged = s.op("Concat", s.negative(b), a, axis=-1)
    cosine, sine = (s.constant(np.tile(table(ANGLES[:tokens]), 2)) for table in (np.cos, np.sin))
    return s.commuted("Add", s.commuted("Mul", x, cosine), s.commuted("Mul", exchanged, sine))


def neighbours(s, x, tokens):
    """The same with pairs side by side, as strided pieces that are put back between each other."""
    a = s.op("Slice", x, integers(s, 0), integers(s, 2**31 - 1), integers(s, 3), integers(s, 2))
    b = s.op("Slice", x, integers(s, 1), integers(s, 2**31 - 1), integers(s, 3), integers(s, 2))
    pair = [s.op("Unsqueeze", each, integers(s, 4)) for each in (s.negative(b), a)]
    exchanged = s.op("Reshape", s.op("Concat", *pair, axis=-1), integers(s, 1, HEADS, tokens, ROTATED))
    cosine, sine = (s.constant(np.repeat(table(ANGLES[:tokens]), 2, axis=1)) for table in (np.cos, np.sin))
    return s.commuted("Add", s.commuted("Mul", x, cosine), s.commuted("Mul", exchanged, sine))


def rotary_attention(s, x):
    """RoFormer, EVA-02: tokens [1, N, C], perhaps with a class token that is not turned."""
    order = np.arange(ROTATED)
    turn = s.choose(rotated, neighbours)
    if turn is neighbours:  # the same model: rows of queries and keys in the order of pairs
        order = order.reshape(2, -1).T.reshape(-1)
    rows = np.arange(3 * HEADS * ROTATED).reshape(3, HEADS, ROTATED)
    rows[:2] = rows[:2, :, order]
    rows = rows.reshape(-1)
    y = linear(s, x, ROTARY[:, rows], ROTARY_BIAS[rows])
    y = transpose(s, reshape(s, y, 1, TOKENS, 3, HEADS, ROTATED), 2, 0, 3, 1, 4)
    q, k, v = (s.op("Squeeze", part, integers(s, 0)) for part in pieces(s, y, 0, [1, 1, 1]))
    turned = []
    for part in (q, k):
        token, others = pieces(s, part, 2, [1, TOKENS - 1])
        turned.append(s.op("Concat", token, turn(s, others, TOKENS - 1), axis=2))
    weights = s.op("Softmax", scores_of(s, *turned, ROTATED**-0.5), axis=-1)
    y = transpose(s, s.op("MatMul", weights, v), 0, 2, 1, 3)
    return reshape(s, y, 1, TOKENS, HEADS * ROTATED)


TERNARY = np.sign(drawn(2 * WIDTH, WIDTH)) * (np.abs(drawn(2 * WIDTH, WIDTH)) > 0.3)
STEP = 0.17


def ternary_linear(s, x):
    """Weights of -1, 0 and 1 with one factor, which stands at the weights, at x or at the result."""
    form = s.choose("Sign", "compared", "known")
    if form == "Sign":
        weight = s.op("Sign", s.constant(TERNARY * 0.4))
    elif form == "compared":
        signs = [s.op("Cast", s.op(kind, s.constant(TERNARY), s.constant(bound)), to=1)
                 for kind, bound in (("Greater", 0.5), ("Less", -0.5))]  # fmt: skip
        weight = s.op("Sub", *signs)
    else:
        weight = s.constant(TERNARY)
    place = s.choose("weights", "x", "result")
    weight = s.times(weight, STEP) if place == "weights" else weight
    y = s.op("MatMul", s.times(x, STEP) if place == "x" else x, s.op("Transpose", weight, perm=[1, 0]))
    return s.times(y, STEP) if place == "result" else y


SCALE, OFFSET = drawn(WIDTH), drawn(WIDTH)


def response_norm(s, x):
    """ConvNeXt V2's GRN on [1, C, S, S]."""
    scale, offset = SCALE[:, None, None], OFFSET[:, None, None]
    if s.choose("ReduceL2", "root of sum") == "ReduceL2":
        length = s.op("ReduceL2", x, axes=[2, 3], keepdims=1)
    else:
        length = s.op("Sqrt", s.op("ReduceSum", s.square(x), integers(s, 2, 3), keepdims=1))
    ratio = s.op("Div", length, s.plus(s.mean(length, [1]), 1e-6))
    form = s.choose("product first", "gate first", "one gate")
    if form == "one gate":
        gate = s.plus(s.commuted("Mul", ratio, s.constant(scale)), 1.0)
        return s.commuted("Add", s.commuted("Mul", x, gate), s.constant(offset))
    if form == "gate first":
        y = s.commuted("Mul", x, s.commuted("Mul", ratio, s.constant(scale)))
    else:
        y = s.commuted("Mul", s.commuted("Mul", x, ratio), s.constant(scale))
    if s.choose("shift first", "sum first") == "shift first":
        return s.commuted("Add", x, s.commuted("Add", y, s.constant(offset)))
    return s.commuted("Add", s.commuted("Add", x, y), s.constant(offset))


REDUCE, EXPAND = drawn(3, WIDTH), drawn(WIDTH, 3)
REDUCE_BIAS, EXPAND_BIAS = drawn(3), drawn(WIDTH)


def squeeze_excite(s, x):
    """[1, C, S, S] times a gate: layers on [1, C, 1, 1] or on [1, C]."""
    if s.choose("pixels", "vectors") == "pixels":
        y = s.op("GlobalAveragePool", x) if s.choose(True, False) else s.mean(x, s.choose([2, 3], [-1, -2]))
        y = s.op("Conv", y, s.constant(REDUCE[:, :, None, None]), s.constant(REDUCE_BIAS), kernel_shape=[1, 1])
        y = s.op("Conv", s.op("Relu", y), s.constant(EXPAND[:, :, None, None]), s.constant(EXPAND_BIAS))
        return s.commuted("Mul", x, s.op("Sigmoid", y))
    form = s.choose("dropped", "Flatten", "Squeeze")
    if form == "dropped":
        y = s.mean(x, [2, 3], keep=0)
    else:
        y = s.op("GlobalAveragePool", x)
        y = s.op("Flatten", y, axis=1) if form == "Flatten" else s.op("Squeeze", y, integers(s, 2, 3))
    if s.choose("Gemm", "MatMul") == "Gemm":
        y = s.op("Relu", s.op("Gemm", y, s.constant(REDUCE), s.constant(REDUCE_BIAS), transB=1))
        y = s.op("Gemm", y, s.constant(EXPAND), s.constant(EXPAND_BIAS), transB=1)
    else:
        y = linear(s, s.op("Relu", linear(s, y, REDUCE.T, REDUCE_BIAS)), EXPAND.T, EXPAND_BIAS)
    gate, late = s.op("Sigmoid", y) if s.choose(True, False) else y, len(s.nodes)
    squashed = s.nodes[late - 1].op_type == "Sigmoid"
    gate = s.op("Unsqueeze", gate, integers(s, 2, 3)) if s.choose(True, False) else reshape(s, gate, 1, WIDTH, 1, 1)
    return s.commuted("Mul", x, gate if squashed else s.op("Sigmoid", gate))


def gated_linear(s, x):
    """SwiGLU: tokens [1, N, C], the gate first."""
    sizes = [WIDTH, WIDTH]
    weight, bias = QKV[:, : 2 * WIDTH], QKV_BIAS[: 2 * WIDTH]
    if s.choose("joint", "apart") == "joint":
        gate, value = pieces(s, linear(s, x, weight, bias), s.choose(2, -1), sizes)
    else:
        gate, value = (linear(s, x, weight[:, i : i + WIDTH], bias[i : i + WIDTH]) for i in (0, WIDTH))
    return linear(s, s.commuted("Mul", s.commuted("Mul", gate, s.op("Sigmoid", gate)), value), PROJECTION)


SEPARABLE, SEPARABLE_BIAS = drawn(1 + 2 * WIDTH, WIDTH, 1, 1), drawn(1 + 2 * WIDTH)


def separable_attention(s, x):
    """MobileViT V2: [1, C, pixels of a patch, patches]; one score per patch weighs the keys."""
    qkv = s.op("Conv", x, s.constant(SEPARABLE), s.constant(SEPARABLE_BIAS), kernel_shape=[1, 1])
    q, k, v = pieces(s, qkv, 1, [1, WIDTH, WIDTH])
    weights = s.op("Softmax", q, axis=s.choose(3, -1))
    context = s.op("ReduceSum", s.commuted("Mul", k, weights), integers(s, s.choose(3, -1)), keepdims=1)
    if s.choose(False, True):
        context = s.op("Expand", context, integers(s, 1, WIDTH, SIDE, SIDE))
    return s.commuted("Mul", s.op("Relu", v), context)
