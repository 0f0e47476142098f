"""Token mixers and heads of vision models in the many ways in which they are written, for `spellings.Speller`."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np

STRUCTURES = runpy.run_path(str(Path(__file__).with_name("structure_spellings.py")))
drawn, integers, reshape, transpose, linear, pieces, scores_of = (
    STRUCTURES[name] for name in ("drawn", "integers", "reshape", "transpose", "linear", "pieces", "scores_of")
)
HEADS, DEPTH, WIDTH, SIDE, QKV, QKV_BIAS, PROJECTION = (
    STRUCTURES[name] for name in ("HEADS", "DEPTH", "WIDTH", "SIDE", "QKV", "QKV_BIAS", "PROJECTION")
)
GAIN, SHIFT = drawn(WIDTH, low=0.6, high=1.4), drawn(WIDTH)
GAMMA = drawn(WIDTH, low=0.2, high=0.5)
EPS = 1e-5


def norm(s, x):
    """LayerNorm of tokens: the operator, or its formula."""
    if s.choose("operator", "formula") == "operator":
        return s.op("LayerNormalization", x, s.constant(GAIN), s.constant(SHIFT), axis=-1, epsilon=EPS)
    centred = s.op("Sub", x, s.mean(x, [-1]))
    spread = s.op("Sqrt", s.plus(s.mean(s.square(centred), [-1]), EPS))
    return s.commuted("Add", s.commuted("Mul", s.op("Div", centred, spread), s.constant(GAIN)), s.constant(SHIFT))


def selected(s, x, index, axis=1):
    """One token without its axis: gathered, or cut and then squeezed, reshaped, or summed over its one entry."""
    form = s.choose("Gather", "Squeeze", "Reshape", "mean")
    if form == "Gather":
        return s.op("Gather", x, s.constant(index, np.int64), axis=axis)
    if form == "mean":
        token = s.op("Gather", x, integers(s, index), axis=axis)
        return s.mean(token, [axis], keep=0)
    token = s.op("Slice", x, integers(s, index), integers(s, index + 1), integers(s, axis))
    return s.op("Squeeze", token, integers(s, axis)) if form == "Squeeze" else reshape(s, token, 1, WIDTH)


# ---- TNT: attention among the pixels of each patch, whose result is added to the patch's token ----

PATCHES, PIXELS = 4, 4
QK, V, INNER = drawn(WIDTH, 2 * WIDTH), drawn(WIDTH, WIDTH), drawn(WIDTH, WIDTH)
OUTER, OUTER_BIAS = drawn(PIXELS * WIDTH, WIDTH), drawn(WIDTH)


def queries_and_keys(s, x, rows, tokens):
    """q, k [B, H, N, d] out of one product or of two, turned at once or one by one."""
    if s.choose("joint", "apart") == "apart":
        parts = [linear(s, x, QK[:, i : i + WIDTH]) for i in (0, WIDTH)]
        return [transpose(s, reshape(s, part, rows, tokens, HEADS, DEPTH), 0, 2, 1, 3) for part in parts]
    y = transpose(s, reshape(s, linear(s, x, QK), rows, tokens, 2, HEADS, DEPTH), 2, 0, 3, 1, 4)
    if s.choose("Gather", "cut") == "Gather":
        return [s.op("Gather", y, s.constant(i, np.int64), axis=0) for i in range(2)]
    return [s.op("Squeeze", part, integers(s, 0)) for part in pieces(s, y, 0, [1, 1])]


def inner_transformer(s, x):
    """Pixels [1, patches pixels, c] attend to those of their own patch, then join the token of the patch."""
    x = reshape(s, x, PATCHES, PIXELS, WIDTH)
    y = norm(s, x)
    q, k = queries_and_keys(s, y, PATCHES, PIXELS)
    v = transpose(s, reshape(s, linear(s, y, V), PATCHES, PIXELS, HEADS, DEPTH), 0, 2, 1, 3)
    weights = s.op("Softmax", scores_of(s, q, k, DEPTH**-0.5), axis=-1)
    y = transpose(s, s.op("MatMul", weights, v), 0, 2, 1, 3)
    x = s.commuted("Add", x, linear(s, reshape(s, y, PATCHES, PIXELS, WIDTH), INNER))
    y = norm(s, x)
    if s.choose("joined as tokens", "joined as rows") == "joined as tokens":
        return linear(s, reshape(s, y, 1, PATCHES, PIXELS * WIDTH), OUTER, OUTER_BIAS)
    rows = reshape(s, y, PATCHES, PIXELS * WIDTH)
    if s.choose("Gemm", "MatMul") == "Gemm":
        rows = s.op("Gemm", rows, s.constant(OUTER), s.constant(OUTER_BIAS))
    else:
        rows = linear(s, rows, OUTER, OUTER_BIAS)
    return reshape(s, rows, 1, PATCHES, WIDTH)


# ---- PoolFormer: what an average of neighbours adds to a pixel ----


def group_norm(s, x):
    """GroupNorm of one group on [1, C, S, S], as exporters before opset 18 have it."""
    rows = s.op("Reshape", x, integers(s, *s.choose((1, 1, -1), (0, 1, -1), (1, 1, WIDTH * SIDE * SIDE))))
    y = s.op("InstanceNormalization", rows, s.constant([1.0]), s.constant([0.0]), epsilon=EPS)
    y = s.op("Reshape", y, integers(s, 1, WIDTH, SIDE, SIDE))
    y = s.commuted("Mul", y, s.constant(GAIN[:, None, None]))
    return s.commuted("Add", y, s.constant(SHIFT[:, None, None]))


def pooling_mixer(s, x):
    """x + gamma (average - itself) on [1, C, S, S]."""
    y = group_norm(s, x)
    pads = s.choose({"pads": [1, 1, 1, 1]}, {"auto_pad": "SAME_UPPER"})
    average = s.op("AveragePool", y, kernel_shape=[3, 3], count_include_pad=0, **pads)
    form = s.choose("Sub", "sum with the negative", "negative of the other")
    if form == "Sub":
        mixed = s.op("Sub", average, y)
    elif form == "sum with the negative":
        mixed = s.commuted("Add", average, s.negative(y))
    else:
        mixed = s.negative(s.op("Sub", y, average))
    gamma = GAMMA.reshape(s.choose((-1, 1, 1), (1, -1, 1, 1)))
    return s.commuted("Add", x, s.commuted("Mul", mixed, s.constant(gamma)))


# ---- heads ----

TOKENS, CLASSES = STRUCTURES["TOKENS"], 3
HEAD, HEAD_BIAS = drawn(WIDTH, CLASSES), drawn(CLASSES)
SECOND, SECOND_BIAS = drawn(WIDTH, CLASSES), drawn(CLASSES)


def classified(s, token, weight, bias):
    """A head on [1, C]."""
    form = s.choose("Gemm, turned", "Gemm", "MatMul")
    if form == "MatMul":
        return linear(s, token, weight, bias)
    turned = form == "Gemm, turned"
    return s.op("Gemm", token, s.constant(weight.T if turned else weight), s.constant(bias), transB=int(turned))


def class_head(s, x):
    """The class token of [1, N, C], cut out before the norm, after it, or after the head."""
    when = s.choose("before the norm", "after the norm", "after the head")
    if when == "after the head":
        y = linear(s, norm(s, x), HEAD, HEAD_BIAS)
        return s.op("Gather", y, s.constant(0, np.int64), axis=1)
    if when == "after the norm":
        return classified(s, selected(s, norm(s, x), 0), HEAD, HEAD_BIAS)
    return classified(s, norm(s, selected(s, x, 0)), HEAD, HEAD_BIAS)


def distilled_head(s, x):
    """DeiT: the mean of a head on token 0 and another on token 1."""
    y = norm(s, x)
    if s.choose("one by one", "together") == "one by one":
        first, second = selected(s, y, 0), selected(s, y, 1)
    else:
        both = s.op("Slice", y, integers(s, 0), integers(s, 2), integers(s, 1))
        first, second = (s.op("Squeeze", each, integers(s, 1)) for each in pieces(s, both, 1, [1, 1]))
    a, b = classified(s, first, HEAD, HEAD_BIAS), classified(s, second, SECOND, SECOND_BIAS)
    form = s.choose("sum", "each", "stack")
    if form == "sum":
        return s.times(s.commuted("Add", a, b), 0.5)
    if form == "each":
        return s.commuted("Add", s.times(a, 0.5), s.times(b, 0.5))
    stacked = s.op("Concat", *(s.op("Unsqueeze", each, integers(s, 0)) for each in (a, b)), axis=0)
    return s.mean(stacked, [0], keep=0)


# ---- gMLP and MambaOut: one part of the channels gates another ----

OVER_TOKENS, TOKEN_BIAS = drawn(TOKENS, TOKENS), drawn(TOKENS)


def over_tokens(s, x):
    """A layer over the tokens of [1, N, C]: turned there and back, or from the left."""
    if s.choose("turned", "left") == "left":
        y = s.op("MatMul", s.constant(OVER_TOKENS), x)
        return s.commuted("Add", y, s.constant(TOKEN_BIAS.reshape(s.choose((-1, 1), (1, -1, 1)))))
    y = linear(s, s.op("Transpose", x, perm=[0, 2, 1]), OVER_TOKENS.T, TOKEN_BIAS)
    return s.op("Transpose", y, perm=[0, 2, 1])


def halves(s, x):
    """Two layers' results, out of one product or of two."""
    weight, bias = QKV[:, : 2 * WIDTH], QKV_BIAS[: 2 * WIDTH]
    if s.choose("joint", "apart") == "joint":
        return pieces(s, linear(s, x, weight, bias), s.choose(2, -1), [WIDTH, WIDTH])
    return [linear(s, x, weight[:, i : i + WIDTH], bias[i : i + WIDTH]) for i in (0, WIDTH)]


def spatial_gate(s, x):
    """gMLP: half of the channels, mixed over tokens, gates the other half."""
    kept, gate = halves(s, x)
    return linear(s, s.commuted("Mul", kept, over_tokens(s, norm(s, gate))), PROJECTION)


DEPTHWISE, DEPTHWISE_BIAS = drawn(WIDTH, 1, 3, 3), drawn(WIDTH)


def gated_convolution(s, x):
    """MambaOut: a gate on channels of [1, S, S, C] that a depthwise convolution has mixed over pixels."""
    gate, value = (reshape(s, each, 1, SIDE, SIDE, WIDTH) for each in halves(s, reshape(s, x, 1, SIDE * SIDE, WIDTH)))
    y = s.op("Conv", s.op("Transpose", value, perm=[0, 3, 1, 2]), s.constant(DEPTHWISE), s.constant(DEPTHWISE_BIAS),
             pads=[1] * 4, group=WIDTH)  # fmt: skip
    y = transpose(s, y, 0, 2, 3, 1)
    gate = s.commuted("Mul", gate, s.op("Sigmoid", gate))
    return linear(s, s.commuted("Mul", gate, y), PROJECTION)


# ---- MobileNetV4: heads of queries share one head of keys and values ----

QUERIES, KEYS, VALUES = drawn(HEADS * DEPTH, WIDTH, 1, 1), drawn(DEPTH, WIDTH, 1, 1), drawn(DEPTH, WIDTH, 1, 1)
STRIDED, OUT = drawn(WIDTH, 1, 3, 3), drawn(WIDTH, HEADS * DEPTH, 1, 1)


def shared_keys_attention(s, x):
    """[1, C, S, S]; keys and values at half the resolution."""
    pixels, fewer = SIDE * SIDE, (SIDE // 2) ** 2
    small = s.op("Conv", x, s.constant(STRIDED), pads=[1] * 4, strides=[2, 2], group=WIDTH)
    q, k, v = (s.op("Conv", of, s.constant(w)) for of, w in ((x, QUERIES), (small, KEYS), (small, VALUES)))
    q = transpose(s, reshape(s, q, 1, HEADS, DEPTH, pixels), 0, 1, 3, 2)
    form = s.choose("broadcast", "expanded")
    k, v = (reshape(s, each, 1, 1, DEPTH, fewer) for each in (k, v))
    if form == "expanded":
        k, v = (s.op("Expand", each, integers(s, 1, HEADS, DEPTH, fewer)) for each in (k, v))
    place = s.choose("queries", "scores")
    scores = s.op("MatMul", s.times(q, DEPTH**-0.5) if place == "queries" else q, k)
    weights = s.op("Softmax", s.times(scores, DEPTH**-0.5) if place == "scores" else scores, axis=s.choose(3, -1))
    y = s.op("MatMul", weights, transpose(s, v, 0, 1, 3, 2))
    y = s.op("Reshape", transpose(s, y, 0, 1, 3, 2), integers(s, 1, HEADS * DEPTH, SIDE, SIDE))
    return s.op("Conv", y, s.constant(OUT))


# ---- SLAB: linear attention of heads as a batch, and a convolution of the values ----

WHERE, KERNEL, KERNEL_BIAS = drawn(TOKENS, WIDTH), drawn(DEPTH, 1, 3, 3), drawn(DEPTH)


def product(s, a, b, equation, turned=False):
    """Of matrices [H, ., .] by Einsum, or by MatMul with b turned."""
    if s.choose("MatMul", "Einsum") == "Einsum":
        return s.op("Einsum", a, b, equation=equation)
    return s.op("MatMul", a, s.op("Transpose", b, perm=[0, 2, 1]) if turned else b)


def linear_attention_by_head(s, x):
    """[1, N, C]: q (k^T v) / (q sum k) + a depthwise convolution of v, heads in place of the batch."""
    y = s.op("Transpose", reshape(s, linear(s, x, QKV, QKV_BIAS), 1, TOKENS, 3, WIDTH), perm=[2, 0, 1, 3])
    q, k, v = (s.op("Gather", y, s.constant(i, np.int64), axis=0) for i in range(3))
    k = s.commuted("Add", k, s.constant(WHERE.reshape(s.choose((TOKENS, WIDTH), (1, TOKENS, WIDTH)))))
    q, k, v = (reshape(s, part, 1, TOKENS, HEADS, DEPTH) for part in (s.op("Relu", q), s.op("Relu", k), v))
    q, k, v = (reshape(s, transpose(s, part, 0, 2, 1, 3), HEADS, TOKENS, DEPTH) for part in (q, k, v))
    total = s.op("ReduceSum", k, integers(s, 1), keepdims=1)
    bottom = s.plus(product(s, q, total, "bic,bjc->bij", turned=True), 1e-3)
    if s.choose("keys with values", "queries with keys") == "keys with values":
        top = s.op("MatMul", q, product(s, s.op("Transpose", k, perm=[0, 2, 1]), v, "bcj,bjd->bcd"))
    else:
        top = s.op("MatMul", product(s, q, k, "bic,bjc->bij", turned=True), v)
    form = s.choose("Div", "Reciprocal")
    y = s.op("Div", top, bottom) if form == "Div" else s.commuted("Mul", top, s.op("Reciprocal", bottom))
    side = int(TOKENS**0.5)
    image = s.op("Reshape", s.op("Transpose", v, perm=[0, 2, 1]), integers(s, HEADS, DEPTH, side, side))
    image = s.op("Conv", image, s.constant(KERNEL), s.constant(KERNEL_BIAS), pads=[1] * 4, group=DEPTH)
    image = s.op("Transpose", s.op("Reshape", image, integers(s, HEADS, DEPTH, TOKENS)), perm=[0, 2, 1])
    y = reshape(s, s.commuted("Add", y, image), 1, HEADS, TOKENS, DEPTH)
    return linear(s, reshape(s, transpose(s, y, 0, 2, 1, 3), 1, TOKENS, WIDTH), PROJECTION)


# ---- PVT and LeViT: keys and values, or queries, of fewer tokens ----

REDUCE = drawn(WIDTH, WIDTH, 2, 2)


def fewer_keys_attention(s, x):
    """PVT: queries of all tokens [1, S S, C], keys and values of an image half as large."""
    tokens, fewer = SIDE * SIDE, (SIDE // 2) ** 2
    q = transpose(s, reshape(s, linear(s, x, QK[:, :WIDTH]), 1, tokens, HEADS, DEPTH), 0, 2, 1, 3)
    image = s.op("Reshape", s.op("Transpose", x, perm=[0, 2, 1]), integers(s, 1, WIDTH, SIDE, SIDE))
    image = s.op("Conv", image, s.constant(REDUCE), strides=[2, 2])
    rows = s.op("Reshape", image, integers(s, *s.choose((1, WIDTH, -1), (0, WIDTH, fewer), (0, 0, -1))))
    y = norm(s, s.op("Transpose", rows, perm=[0, 2, 1]))
    k, v = queries_and_keys(s, y, 1, fewer)
    weights = s.op("Softmax", scores_of(s, q, k, DEPTH**-0.5), axis=s.choose(3, -1))
    y = transpose(s, s.op("MatMul", weights, v), 0, 2, 1, 3)
    return linear(s, reshape(s, y, 1, tokens, WIDTH), INNER)


def fewer_queries_attention(s, x):
    """LeViT where it downsamples: queries of every second pixel of [1, S S, C] either way."""
    tokens, fewer = SIDE * SIDE, (SIDE // 2) ** 2
    image = reshape(s, x, 1, SIDE, SIDE, WIDTH)
    form = s.choose("Slice", "one after the other", "Gather")
    if form == "Slice":
        image = s.op("Slice", image, integers(s, 0, 0), integers(s, SIDE, SIDE), integers(s, 1, 2), integers(s, 2, 2))
    elif form == "Gather":
        for axis in (1, 2):
            image = s.op("Gather", image, integers(s, *range(0, SIDE, 2)), axis=axis)
    else:
        for axis in (1, 2):
            image = s.op("Slice", image, integers(s, 0), integers(s, 2**31 - 1), integers(s, axis), integers(s, 2))
    q = reshape(s, linear(s, reshape(s, image, 1, fewer, WIDTH), INNER), 1, fewer, HEADS, DEPTH)
    k, v = queries_and_keys(s, x, 1, tokens)
    weights = s.op("Softmax", scores_of(s, transpose(s, q, 0, 2, 1, 3), k, DEPTH**-0.5), axis=-1)
    y = transpose(s, s.op("MatMul", weights, v), 0, 2, 1, 3)
    return linear(s, reshape(s, y, 1, fewer, WIDTH), V)


# ---- relative positions: a table of distances, looked up or computed, is one constant per head ----

GRID = 4
DISTANCES = drawn(2 * GRID - 1, 2 * GRID - 1, HEADS)


def relative(s):
    """[1, H, N, N] of a table by the distance of two pixels, as Swin and BEiT look it up."""
    place = np.stack(np.meshgrid(range(GRID), range(GRID), indexing="ij")).reshape(2, -1)
    down, across = (place[:, :, None] - place[:, None]) + GRID - 1
    if s.choose("flat", "by axis") == "by axis":
        both = np.stack((down, across), axis=-1)
        table = s.op("GatherND", s.constant(DISTANCES), s.constant(both, np.int64))
    else:
        flat = s.constant(DISTANCES.reshape(-1, HEADS))
        index = (2 * GRID - 1) * down + across
        if s.choose("rows", "table") == "rows":
            table = s.op("Gather", flat, s.constant(index.reshape(-1), np.int64), axis=0)
            table = s.op("Reshape", table, integers(s, TOKENS, TOKENS, -1))
        else:
            table = s.op("Gather", flat, s.constant(index, np.int64), axis=0)
    return s.op("Unsqueeze", s.op("Transpose", table, perm=[2, 0, 1]), integers(s, 0))


def relative_attention(s, x):
    """Tokens [1, N, C] with a bias by distance."""
    q, k = queries_and_keys(s, x, 1, TOKENS)
    v = transpose(s, reshape(s, linear(s, x, V), 1, TOKENS, HEADS, DEPTH), 0, 2, 1, 3)
    scores = s.commuted("Add", scores_of(s, q, k, DEPTH**-0.5), relative(s))
    y = transpose(s, s.op("MatMul", s.op("Softmax", scores, axis=-1), v), 0, 2, 1, 3)
    return linear(s, reshape(s, y, 1, TOKENS, WIDTH), INNER)


# ---- Hiera: units of neighbouring patches, in an order that the embedding takes up ----

PATCH = drawn(WIDTH, 3, 2, 2)
UNIT = 2


def unrolled_embedding(s, x):
    """An image [1, 3, S, S] as patches plus positions, their tokens so that those of a unit lie UNIT apart."""
    side = SIDE // 2
    y = s.op("Conv", x, s.constant(PATCH), strides=[2, 2])
    y = s.op("Transpose", s.op("Reshape", y, integers(s, 1, WIDTH, side * side)), perm=[0, 2, 1])
    y = s.commuted("Add", y, s.constant(WHERE.reshape(s.choose((TOKENS, WIDTH), (1, TOKENS, WIDTH)))))
    count = side // UNIT
    if s.choose("at once", "axis by axis") == "at once":
        y = transpose(s, reshape(s, y, 1, count, UNIT, count, UNIT, WIDTH), 0, 2, 4, 1, 3, 5)
    else:
        y = transpose(s, reshape(s, y, 1, count, UNIT, side, WIDTH), 0, 2, 1, 3, 4)
        y = transpose(s, reshape(s, y, UNIT, count, count, UNIT, WIDTH), 0, 3, 1, 2, 4)
    y = reshape(s, y, 1, TOKENS, WIDTH)
    q, k = queries_and_keys(s, y, 1, TOKENS)
    v = transpose(s, reshape(s, linear(s, y, V), 1, TOKENS, HEADS, DEPTH), 0, 2, 1, 3)
    y = transpose(s, s.op("MatMul", s.op("Softmax", scores_of(s, q, k, DEPTH**-0.5), axis=-1), v), 0, 2, 1, 3)
    return s.mean(linear(s, reshape(s, y, 1, TOKENS, WIDTH), INNER), [1], keep=0)


# ---- weights of two values ----

SIGNED = drawn(2 * WIDTH, WIDTH)


def binarised_linear(s, x):
    """XNOR-Net: signs of the weights times the mean size of each row, computed or known; the factor anywhere."""
    sizes = np.abs(SIGNED).mean(1)
    form = s.choose("Sign", "compared", "known")
    if form == "Sign":
        signs = s.op("Sign", s.constant(SIGNED))
    elif form == "compared":
        above = s.op("GreaterOrEqual", s.constant(SIGNED), s.constant(0.0))
        signs = s.op("Where", above, s.constant(1.0), s.constant(-1.0))
    else:
        signs = s.constant(np.sign(SIGNED))
    computed = s.choose("computed", "known") == "computed"
    size = s.mean(s.op("Abs", s.constant(SIGNED)), [1]) if computed else s.constant(sizes[:, None])
    if s.choose("weights", "result") == "weights":
        return s.op("MatMul", x, s.op("Transpose", s.commuted("Mul", signs, size), perm=[1, 0]))
    y = s.op("MatMul", x, s.op("Transpose", signs, perm=[1, 0]))
    return s.commuted("Mul", y, s.op("Reshape", size, integers(s, 2 * WIDTH)))
