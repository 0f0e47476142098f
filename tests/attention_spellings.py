"""Attention and softmax as ONNX spells them, and what only looks like them; tests read it with runpy."""

from __future__ import annotations

import math

import numpy as np

BATCH, TOKENS, WIDTH, HEADS, DEPTH = 2, 5, 7, 3, 4
SCALE = DEPTH**-0.5
QUERIES, GROUPS = 6, 2


def weight(s, *shape):
    return s.constant(s.rng.normal(0, 0.5, shape))


def shaped(s, x, *shape):
    return s.op("Reshape", x, s.constant(shape, np.int64))


def linear(s, x, width, batch=BATCH, tokens=TOKENS):
    """A layer over [B, N, 7] without bias, with one in either order of the sum, or as a product of matrices."""
    form = s.choose("biased", "bare", "matrix")
    if form == "matrix":
        rows = shaped(s, x, batch * tokens, WIDTH)
        return shaped(s, s.op("Gemm", rows, weight(s, width, WIDTH), weight(s, width), transB=1), batch, tokens, width)
    y = s.op("MatMul", x, weight(s, WIDTH, width))
    return y if form == "bare" else s.commuted("Add", y, weight(s, width))


def pieces(s, x, axis, sizes):
    """An axis cut by Split, Slices, or Gathers of many indices."""
    ends = np.cumsum(sizes)
    form = s.choose("split", "slice", "gather")
    if form == "split":
        return s.op("Split", x, s.constant(sizes, np.int64), axis=axis, outputs=len(sizes))
    if form == "slice":
        bounds = [
            [s.constant([edge], np.int64) for edge in (end - size, end)] for end, size in zip(ends, sizes, strict=True)
        ]
        return [s.op("Slice", x, *edges, s.constant([axis], np.int64)) for edges in bounds]
    return [
        s.op("Gather", x, s.constant(np.arange(e - n, e), np.int64), axis=axis)
        for e, n in zip(ends, sizes, strict=True)
    ]


def unbound(s, x, axis):
    """The three parts of an axis of three, without it."""
    if s.choose("gather", "cut") == "gather":
        return [s.op("Gather", x, s.constant(i, np.int64), axis=axis) for i in range(3)]
    return [s.op("Squeeze", part, s.constant([axis], np.int64)) for part in pieces(s, x, axis, [1, 1, 1])]


def by_head(s, x, depth=DEPTH, tokens=TOKENS):
    """[B, N, H*d] -> [B, H, N, d]."""
    return s.op("Transpose", shaped(s, x, BATCH, tokens, HEADS, depth), perm=[0, 2, 1, 3])


def projected(s, x):
    """q, k, v [B, H, N, d] out of three layers, or of one that is cut along one of four axes."""
    packing = s.choose("separate", "whole", "parts first", "parts inside", "heads first")
    if packing == "separate":
        return [by_head(s, linear(s, x, HEADS * DEPTH)) for _ in "qkv"]
    packed = linear(s, x, 3 * HEADS * DEPTH)
    if packing == "whole":
        return [by_head(s, part) for part in pieces(s, packed, 2, [HEADS * DEPTH] * 3)]
    if packing == "heads first":
        rows = s.op("Transpose", shaped(s, packed, BATCH, TOKENS, HEADS, 3 * DEPTH), perm=[0, 2, 1, 3])
        return pieces(s, rows, 3, [DEPTH] * 3)
    apart = shaped(s, packed, BATCH, TOKENS, 3, HEADS, DEPTH)
    if packing == "parts inside":
        return unbound(s, s.op("Transpose", apart, perm=[0, 3, 2, 1, 4]), 2)
    return unbound(s, s.op("Transpose", apart, perm=[2, 0, 3, 1, 4]), 0)


def scaled(s, value, factor):
    return value if factor == 1 else s.times(value, factor)


def softmax(s, scores, rank, axis=-1):
    """The op, or written out."""
    axis = s.choose(axis, axis % rank)
    form = s.choose("op", "shifted", "inverse", "plain")
    if form == "op":
        return s.op("Softmax", scores, axis=axis)
    if form != "plain":
        scores = s.op("Sub", scores, s.mean(scores, [axis], "ReduceMax"))
    grown = s.op("Exp", scores)
    total = s.op("ReduceSum", grown, s.constant([axis], np.int64), keepdims=1)
    return s.commuted("Mul", grown, s.op("Reciprocal", total)) if form == "inverse" else s.op("Div", grown, total)


def biased(s, scores, rank):
    """A table per head, per pair of tokens, or per key."""
    shapes = [(HEADS, TOKENS, TOKENS), (1, HEADS, TOKENS, TOKENS), (TOKENS, TOKENS), (HEADS, 1, TOKENS)]
    shape = s.choose(*shapes) if rank == 4 else shapes[2]
    return s.commuted("Add", scores, weight(s, *shape))


def mixed(s, q, k, v):
    """Attention of operands [B, H, N, d], to tokens."""
    rank = s.choose(4, 3)
    if rank == 3:
        q, k, v = (shaped(s, each, BATCH * HEADS, TOKENS, DEPTH) for each in (q, k, v))
    place = s.choose("scores", "q", "k", "both")
    root = math.sqrt(SCALE)
    q = scaled(s, q, {"q": SCALE, "both": root}.get(place, 1))
    k = scaled(s, k, {"k": SCALE, "both": root}.get(place, 1))
    turn = [0, 1, 3, 2][-rank:] if rank == 4 else [0, 2, 1]
    lead = "bh"[: rank - 2]
    if s.choose("product", "sum") == "product":
        scores = s.op("MatMul", q, s.op("Transpose", k, perm=turn))
    else:
        scores = s.op("Einsum", q, k, equation=f"{lead}nd,{lead}md->{lead}nm")
    when = s.choose("never", "before", "after")
    scores = biased(s, scores, rank) if when == "before" else scores
    scores = scaled(s, scores, SCALE if place == "scores" else 1)
    scores = biased(s, scores, rank) if when == "after" else scores
    weights = softmax(s, scores, rank)
    form = s.choose("rows", "columns", "sum")
    if form == "columns":
        y = s.op("MatMul", s.op("Transpose", v, perm=turn), s.op("Transpose", weights, perm=turn))
        y = s.op("Transpose", y, perm=turn)
    elif form == "sum":
        y = s.op("Einsum", weights, v, equation=f"{lead}nm,{lead}md->{lead}nd")
    else:
        y = s.op("MatMul", weights, v)
    return y if rank == 4 else shaped(s, y, BATCH, HEADS, TOKENS, DEPTH)


def finished(s, y, depth=DEPTH, tokens=TOKENS):
    """[B, H, N, d] -> [B, N, H*d] -> a layer."""
    y = shaped(s, s.op("Transpose", y, perm=[0, 2, 1, 3]), BATCH, tokens, HEADS * depth)
    return s.commuted("Add", s.op("MatMul", y, weight(s, HEADS * depth, WIDTH)), weight(s, WIDTH))


def self_attention(s, x):
    return finished(s, mixed(s, *projected(s, x)))


def narrow_attention(s, x):
    """Queries of the class token alone, cut before their layer or after it, or learned; values have their own width."""
    cut, first = s.choose("slice", "gather"), s.choose(True, False)

    def token(y):
        if cut == "gather":
            return s.op("Gather", y, s.constant([0], np.int64), axis=1)
        return s.op("Slice", y, *(s.constant([i], np.int64) for i in (0, 1, 1)))

    values = 5
    if s.choose("computed", "learned") == "learned":
        q = weight(s, BATCH, HEADS, 1, DEPTH)
    else:
        q = s.op("MatMul", token(x) if first else x, weight(s, WIDTH, HEADS * DEPTH))
        q = by_head(s, q if first else token(q), tokens=1)
    k = s.op("MatMul", x, weight(s, WIDTH, HEADS * DEPTH))
    if s.choose("turned", "at once") == "at once":
        k = s.op("Transpose", shaped(s, k, BATCH, TOKENS, HEADS, DEPTH), perm=[0, 2, 3, 1])
    else:
        k = s.op("Transpose", by_head(s, k), perm=[0, 1, 3, 2])
    v = by_head(s, linear(s, x, HEADS * values), values)
    place = s.choose("q", "scores")
    scores = scaled(s, s.op("MatMul", scaled(s, q, SCALE if place == "q" else 1), k), SCALE if place == "scores" else 1)
    return finished(s, s.op("MatMul", softmax(s, scores, 4), v), values, 1)


def grouped(s, x):
    """Six heads of queries, two of keys and values: repeated, broadcast on an axis of their own, or by turns."""

    def cut(width, heads):
        y = s.op("MatMul", x, weight(s, WIDTH, width))
        return s.op("Transpose", shaped(s, y, BATCH, TOKENS, heads, DEPTH), perm=[0, 2, 1, 3])

    q, k, v = cut(QUERIES * DEPTH, QUERIES), cut(GROUPS * DEPTH, GROUPS), cut(GROUPS * DEPTH, GROUPS)
    order = s.choose("neighbours", "turns")
    way = s.choose("expand", "broadcast", "choice")
    place = 2 if order == "neighbours" else 1
    apart = [BATCH, GROUPS, TOKENS, DEPTH]
    wide = [BATCH, GROUPS, QUERIES // GROUPS] if order == "neighbours" else [BATCH, QUERIES // GROUPS, GROUPS]
    if way == "choice":
        heads = np.repeat(range(GROUPS), 3) if order == "neighbours" else np.tile(range(GROUPS), 3)
        k, v = (s.op("Gather", each, s.constant(heads, np.int64), axis=1) for each in (k, v))
    else:
        k, v = (shaped(s, each, *apart[:place], 1, *apart[place:]) for each in (k, v))
        if way == "expand":
            k, v = (s.op("Expand", each, s.constant([*wide, TOKENS, DEPTH], np.int64)) for each in (k, v))
            k, v = (shaped(s, each, BATCH, QUERIES, TOKENS, DEPTH) for each in (k, v))
        else:
            q = shaped(s, q, *wide, TOKENS, DEPTH)
    rank = 5 if way == "broadcast" else 4
    turn = [*range(rank - 2), rank - 1, rank - 2]
    scores = s.times(s.op("MatMul", q, s.op("Transpose", k, perm=turn)), SCALE)
    if s.choose(True, False):
        table = s.rng.normal(0, 0.5, (QUERIES, TOKENS, TOKENS))
        table = table.reshape(*wide[1:], TOKENS, TOKENS) if rank == 5 else table
        scores = s.commuted("Add", scores, s.constant(table))
    y = s.op("MatMul", softmax(s, scores, rank), v)
    y = shaped(s, y, BATCH, QUERIES, TOKENS, DEPTH)
    y = shaped(s, s.op("Transpose", y, perm=[0, 2, 1, 3]), BATCH, TOKENS, QUERIES * DEPTH)
    return s.op("MatMul", y, weight(s, QUERIES * DEPTH, WIDTH))


def operator(s, x):
    """The operator of opset 23 on tokens or on heads, with a mask of numbers or truths, or causal."""
    heads = s.choose(HEADS, 1)
    q, k, v = (linear(s, x, width) for width in (HEADS * DEPTH, heads * DEPTH, heads * DEPTH))
    table, causal = "", 0
    mask = s.choose("none", "numbers", "truths", "causal")
    if mask == "numbers":
        table = weight(s, TOKENS, TOKENS)
    elif mask == "truths":
        table = s.constant(np.tri(TOKENS, dtype=bool), np.bool_)
    elif mask == "causal":
        causal = 1
    options = {"is_causal": causal, "scale": s.choose(SCALE, 0.3)}
    operands = lambda *x: [each for each in (*x, table) if each]  # noqa: E731
    if s.choose(True, False):
        y = s.op("Attention", *operands(q, k, v), q_num_heads=HEADS, kv_num_heads=heads, **options)
    else:
        rows = [shaped(s, x, BATCH, TOKENS, n, DEPTH) for x, n in ((q, HEADS), (k, heads), (v, heads))]
        rows = [s.op("Transpose", each, perm=[0, 2, 1, 3]) for each in rows]
        y = s.op("Transpose", s.op("Attention", *operands(*rows), **options), perm=[0, 2, 1, 3])
        y = shaped(s, y, BATCH, TOKENS, HEADS * DEPTH)
    return s.op("MatMul", y, weight(s, HEADS * DEPTH, WIDTH))


def token_first(s, x):
    """[N, B, C] with heads joined to the images: nn.MultiheadAttention."""
    packed = linear(s, x, 3 * HEADS * DEPTH, TOKENS, 1)
    q, k, v = pieces(s, packed, 2, [HEADS * DEPTH] * 3)
    q, k, v = (s.op("Transpose", shaped(s, each, TOKENS, HEADS, DEPTH), perm=[1, 0, 2]) for each in (q, k, v))
    scores = s.op("MatMul", s.times(q, SCALE), s.op("Transpose", k, perm=[0, 2, 1]))
    y = s.op("MatMul", softmax(s, scores, 3), v)
    y = shaped(s, s.op("Transpose", y, perm=[1, 0, 2]), TOKENS, 1, HEADS * DEPTH)
    return s.op("MatMul", y, weight(s, HEADS * DEPTH, WIDTH))


def written(s, x, product=None, scores=None, weights=None, axis=-1):
    """The plain form with a step of one's own after the products, before softmax, or after it."""
    q, k, v = (by_head(s, s.op("MatMul", x, weight(s, WIDTH, HEADS * DEPTH))) for _ in "qkv")
    y = s.op("MatMul", q, s.op("Transpose", k, perm=[0, 1, 3, 2]))
    y = product(y) if product else y
    y = scores(s.times(y, SCALE)) if scores else s.times(y, SCALE)
    y = s.op("Softmax", y, axis=axis)
    y = weights(y) if weights else y
    return finished(s, s.op("MatMul", y, v))


def factors_and_masks(s, x):
    """A factor per head, or keys that are hidden from some queries."""
    form = s.choose("factor", "quotient", "hidden", "shown", "sum")
    seen = np.tri(TOKENS, dtype=bool)

    def step(y):
        if form in ("factor", "quotient"):
            gain = s.constant(np.linspace(0.5, 2, HEADS).reshape(s.choose((HEADS, 1, 1), (1, HEADS, 1, 1))))
            return s.commuted("Mul", y, gain) if form == "factor" else s.op("Div", y, gain)
        least = s.choose(-1e9, float("-inf"), -30000.0)
        if form == "sum":
            return s.commuted("Add", y, s.constant(np.where(seen, 0, max(least, -1e30))))
        low = s.constant(least)
        if form == "shown":
            return s.op("Where", s.constant(seen, np.bool_), y, low)
        return s.op("Where", s.constant(~seen, np.bool_), low, y)

    return written(s, x, scores=step)


def negatives(s):
    """What looks like attention; of two values the second is an output because it is read elsewhere too."""
    x = s.input(BATCH, TOKENS, WIDTH)

    def joined(kind, *shape):
        """A step with an operand that is an input, or a weight of that shape."""
        return lambda y: s.op(kind, y, weight(s, *shape) if shape else s.input(BATCH, 1, 1, TOKENS))

    def choice(seen, low):
        return lambda y: s.op("Where", s.constant(seen, np.bool_), y, s.constant(low))

    def also(y):
        s.outputs.append(y)
        return y

    def dropped(y):
        return s.op("Mul", y, s.input(BATCH, HEADS, TOKENS, TOKENS))

    mix, below = joined("Conv", HEADS, HEADS, 1, 1), np.tri(TOKENS)
    yield written(s, x, scores=lambda y: s.op("Mul", y, s.mean(y, [2, 3])))  # a scale that depends on the data
    yield written(s, x, scores=joined("Add"))  # a mask that is an input
    yield written(s, x, scores=joined("Mul"))
    yield written(s, x, scores=joined("Mul", TOKENS))  # a factor per key
    yield written(s, x, scores=joined("Mul", TOKENS, 1))  # a factor per query
    yield written(s, x, scores=mix)  # heads that talk before softmax
    yield written(s, x, weights=mix)  # and after it
    yield written(s, x, scores=lambda y: s.op("Tanh", y))
    yield written(s, x, scores=choice(below, -1.0))  # what is hidden counts
    yield written(s, x, scores=choice(below - np.eye(TOKENS), -1e9))  # the first query sees nothing
    yield written(s, x, axis=2)  # softmax over queries
    yield written(s, x, axis=1)  # softmax over heads
    yield written(s, x, weights=dropped)  # like dropout
    yield written(s, x, weights=joined("Mul", TOKENS, TOKENS))
    yield written(s, x, weights=joined("Add", HEADS, 1, 1))
    yield written(s, x, product=also)  # the product is read twice
    yield written(s, x, scores=also)
    yield written(s, x, weights=also)  # the map is an output
    yield s.op("MatMul", s.op("Softmax", s.op("Add", x, x), axis=2), s.op("Transpose", x, perm=[0, 2, 1]))  # no product


def softmaxes(s):
    """What looks like softmax."""
    x, y = s.input(2, 3, 5), s.input(2, 3, 5)
    grown, other = s.op("Exp", x), s.op("Exp", y)

    def total(y, axes=(2,), keep=1):
        return s.op("ReduceSum", y, s.constant(axes, np.int64), keepdims=keep)

    yield s.op("Div", s.op("Exp", x), total(other))
    yield s.op("Div", other, total(s.op("Exp", s.op("Sub", y, s.mean(y, [2])))))
    yield s.op("Div", s.op("Exp", s.op("Add", x, y)), total(s.op("Exp", s.op("Add", y, s.op("Neg", x)))))
    shifted = s.op("Exp", s.op("Sub", x, y))
    yield s.op("Div", shifted, total(shifted, (1, 2)))
    kept = s.op("Exp", s.op("Abs", x))
    yield from (s.op("Div", kept, total(kept)), kept)
    yield s.op("Div", total(grown), grown)
