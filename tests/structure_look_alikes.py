"""Close to a block, and none: scale or mask is data, an axis is another, a value inside is read twice."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np

STRUCTURES = runpy.run_path(str(Path(__file__).with_name("structure_spellings.py")))
HEADS, DEPTH, WIDTH, TOKENS, SIDE = (STRUCTURES[name] for name in ("HEADS", "DEPTH", "WIDTH", "TOKENS", "SIDE"))
integers, heads_of, attended, linear = (STRUCTURES[name] for name in ("integers", "heads_of", "attended", "linear"))
ROWS, IMAGE = (1, TOKENS, WIDTH), (1, WIDTH, SIDE, SIDE)
WINDOWS = (4, TOKENS, WIDTH)


def scores(s, x, batch=1):
    q, k, v = heads_of(s, x, batch, TOKENS)
    return s.op("MatMul", q, s.op("Transpose", k, perm=[0, 1, 3, 2])), v


def mask_from_input(s, x, mask):
    raw, v = scores(s, x, 4)
    weights = s.op("Softmax", s.op("Add", raw, s.op("Unsqueeze", mask, integers(s, 1))), axis=-1)
    return attended(s, weights, v, 4, TOKENS)


def temperature_from_input(s, x, temperature):
    raw, v = scores(s, x)
    return attended(s, s.op("Softmax", s.op("Mul", raw, temperature), axis=-1), v, 1, TOKENS)


def softmax_over_heads(s, x):
    raw, v = scores(s, x)
    return attended(s, s.op("Softmax", raw, axis=1), v, 1, TOKENS)


def weights_are_read(s, x):
    raw, v = scores(s, x, 4)
    weights = s.op("Softmax", raw, axis=-1)
    return attended(s, weights, v, 4, TOKENS), s.op("ReduceMax", weights, axes=[1], keepdims=0)


def length(s, x, axis=2):
    return s.op("ReduceL2", x, axes=[axis], keepdims=1)


def coarse_bound(s, x):
    return s.op("Div", x, s.op("Clip", length(s, x), s.constant(0.1)))


def bounded_above(s, x):
    return s.op("Div", x, s.op("Clip", length(s, x), s.constant(1e-12), s.constant(0.5)))


def length_of_another(s, x, y):
    return s.op("Div", x, s.op("Clip", length(s, y), s.constant(1e-12)))


def length_is_read(s, x):
    size = length(s, x)
    return s.op("Div", x, s.op("Clip", size, s.constant(1e-12))), s.op("Neg", size)


def sum_of_sizes(s, x):
    size = s.op("ReduceL1", x, axes=[2], keepdims=1)
    return s.op("Div", x, s.op("Clip", size, s.constant(1e-12)))


def talking_over_tokens(s, x):
    """A convolution that sees neighbours as well."""
    raw, v = scores(s, x)
    biased = s.op("Add", raw, s.constant(STRUCTURES["POSITIONS"]))
    kernel = s.constant(np.full((HEADS, HEADS, 3, 3), 0.1))
    mixed = s.op("Conv", biased, kernel, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    return attended(s, s.op("Softmax", mixed, axis=-1), v, 1, TOKENS)


def biased_scores_are_read(s, x):
    raw, v = scores(s, x)
    biased = s.op("Add", raw, s.constant(STRUCTURES["POSITIONS"]))
    mixed = s.op("Conv", biased, s.constant(STRUCTURES["MIX_BEFORE"][:, :, None, None]), kernel_shape=[1, 1])
    return attended(s, s.op("Softmax", mixed, axis=-1), v, 1, TOKENS), s.op("Neg", biased)


def padded_with_twos(s, x, value=2.0, extra=1):
    q, k, v = heads_of(s, x, 1, TOKENS)
    padded = s.op("Pad", v, integers(s, 0, 0, 0, 0, 0, 0, 0, extra), s.constant(value), mode="constant")
    y = s.op("MatMul", q, s.op("MatMul", s.op("Transpose", k, perm=[0, 1, 3, 2]), padded))
    top, bottom = s.op("Split", y, integers(s, DEPTH, extra), axis=3, outputs=2)
    bottom = s.op("ReduceSum", s.op("Mul", bottom, bottom), integers(s, 3), keepdims=1)
    return s.op("Div", top, s.plus(bottom, 1.0))


def padded_twice(s, x):
    return padded_with_twos(s, x, 1.0, 2)


def ratio_to_greatest(s, x):
    size = s.op("ReduceL2", x, axes=[2, 3], keepdims=1)
    ratio = s.op("Div", size, s.plus(s.op("ReduceMax", size, axes=[1], keepdims=1), 1e-6))
    return s.op("Add", x, s.op("Mul", s.op("Mul", x, ratio), s.constant(np.full((WIDTH, 1, 1), 0.5))))


def ratio_of_another(s, x, y):
    size = s.op("ReduceL2", y, axes=[2, 3], keepdims=1)
    ratio = s.op("Div", size, s.plus(s.mean(size, [1]), 1e-6))
    return s.op("Add", x, s.op("Mul", s.op("Mul", x, ratio), s.constant(np.full((WIDTH, 1, 1), 0.5))))


def gate_per_pixel(s, x):
    """The mean over channels and rows gates columns."""
    y = s.mean(x, [1, 2], keep=0)
    y = s.op("Sigmoid", linear(s, y, np.full((SIDE, SIDE), 0.1)))
    return s.op("Mul", x, s.op("Reshape", y, integers(s, 1, 1, 1, SIDE)))


def gate_is_an_output(s, x):
    y = s.op("Sigmoid", linear(s, s.mean(x, [2, 3], keep=0), STRUCTURES["PROJECTION"]))
    return s.op("Mul", x, s.op("Reshape", y, integers(s, 1, WIDTH, 1, 1))), s.op("Neg", y)


def halves(s, x):
    """Of what a curve made of a product."""
    y = s.op("Relu", linear(s, x, STRUCTURES["QKV"][:, : 2 * WIDTH]))
    return s.op("Split", y, integers(s, WIDTH, WIDTH), axis=2, outputs=2)


def half_squared(s, x):
    a, b = halves(s, x)
    return s.op("Add", s.op("Mul", a, a), b)


def half_is_read(s, x):
    a, b = halves(s, x)
    return s.op("Mul", s.op("Sigmoid", a), b), s.op("Neg", b)


def pooled_channels(s, x):
    """The greatest of each head's channels, not of tokens."""
    q, _, _ = heads_of(s, x, 1, TOKENS)
    return s.op("ReduceMax", q, axes=[3], keepdims=1)


def angles_from_input(s, x, cosine, sine):
    q, k, v = heads_of(s, x, 1, TOKENS)
    turned = []
    for part in (q, k):
        a, b, c = s.op("Split", part, integers(s, 1, 1, 1), axis=3, outputs=3)
        exchanged = s.op("Concat", s.op("Neg", b), a, c, axis=3)
        turned.append(s.op("Add", s.op("Mul", part, cosine), s.op("Mul", exchanged, sine)))
    raw = s.op("MatMul", turned[0], s.op("Transpose", turned[1], perm=[0, 1, 3, 2]))
    return attended(s, s.op("Softmax", raw, axis=-1), v, 1, TOKENS)


def three_channels_turned(s, x):
    """Each channel is made of all three of its head."""
    q, k, v = heads_of(s, x, 1, TOKENS)
    turned = []
    for part in (q, k):
        a, b, c = s.op("Split", part, integers(s, 1, 1, 1), axis=3, outputs=3)
        tables = [s.constant(STRUCTURES["drawn"](TOKENS, DEPTH)) for _ in range(3)]
        moved = [part, s.op("Concat", b, c, a, axis=3), s.op("Concat", c, a, b, axis=3)]
        parts = [s.op("Mul", each, table) for each, table in zip(moved, tables, strict=True)]
        turned.append(s.op("Add", s.op("Add", parts[0], parts[1]), parts[2]))
    raw = s.op("MatMul", turned[0], s.op("Transpose", turned[1], perm=[0, 1, 3, 2]))
    return attended(s, s.op("Softmax", raw, axis=-1), v, 1, TOKENS)


def pieces_with_a_gap(s, x):
    first = s.op("Slice", x, integers(s, 0), integers(s, 4), integers(s, 1))
    last = s.op("Slice", x, integers(s, 6), integers(s, TOKENS), integers(s, 1))
    return s.op("Concat", last, first, axis=1)


def order_that_turns_back(s, x):
    return s.op("Gather", x, integers(s, *reversed(range(TOKENS))), axis=1)


def sum_with_a_scaled_negative(s, x):
    """-0.99995 times the average is no negative of it."""
    average = s.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=0)
    return s.op("Add", x, s.op("Mul", average, s.constant(-0.99995)))


def negative_of_a_difference_that_is_read(s, x):
    """It is there anyway; only its negative would be another."""
    less = s.op("Sub", s.op("Relu", x), x)
    return s.op("Neg", less), s.op("Sigmoid", less)


def token_chosen_by_input(s, x, scores):
    """The token with the highest score, not the first."""
    index = s.op("ArgMax", scores, axis=0, keepdims=0)
    return linear(s, s.op("Gather", x, index, axis=1), STRUCTURES["PROJECTION"])


def two_tokens_as_one_row(s, x):
    """A head on both tokens side by side."""
    both = s.op("Slice", x, integers(s, 0), integers(s, 2), integers(s, 1))
    rows = s.op("Reshape", s.op("Relu", both), integers(s, 1, 2 * WIDTH))
    return linear(s, rows, np.full((2 * WIDTH, 3), 0.1))


def average_along_the_joined_axis_and_another(s, x):
    parts = [linear(s, x, STRUCTURES["QKV"][:, i : i + WIDTH]) for i in (0, WIDTH)]
    return s.mean(s.op("Concat", *parts, axis=0), [0, 1], keep=0)


def matrix_from_input_at_the_left(s, x, matrix):
    return s.op("Add", s.op("MatMul", matrix, x), s.constant(np.full((TOKENS, 1), 0.3)))


def a_matrix_for_each_of_a_batch(s, x):
    return s.op("MatMul", s.constant(STRUCTURES["drawn"](4, TOKENS, TOKENS)), x)


def sizes_from_input(s, x):
    """Binary weights, and a factor that depends on the data."""
    y = linear(s, x, np.sign(STRUCTURES["PROJECTION"]))
    return s.op("Mul", y, s.mean(s.op("Abs", x), [2]))


NONE: set[str] = set()
LOOK_ALIKES = {
    "mask_from_input": (mask_from_input, (WINDOWS, (4, TOKENS, TOKENS)), {"Softmax"}, {"Attention"}),
    "temperature_from_input": (temperature_from_input, (ROWS, (HEADS, 1, 1)), {"Softmax"}, {"Attention"}),
    "softmax_over_heads": (softmax_over_heads, (ROWS,), {"Softmax"}, {"Attention"}),
    "weights_are_read": (weights_are_read, (WINDOWS,), {"Softmax"}, {"Attention"}),
    "coarse_bound": (coarse_bound, (ROWS,), {"Clip", "Sqrt"}, {"RMSNorm"}),
    "bounded_above": (bounded_above, (ROWS,), {"Clip", "Sqrt"}, {"RMSNorm"}),
    "length_of_another": (length_of_another, (ROWS, ROWS), {"Div", "Sqrt"}, {"RMSNorm"}),
    "length_is_read": (length_is_read, (ROWS,), {"Div", "Sqrt"}, {"RMSNorm"}),
    "sum_of_sizes": (sum_of_sizes, (ROWS,), {"Div", "Abs"}, {"RMSNorm"}),
    "talking_over_tokens": (talking_over_tokens, (ROWS,), {"Conv", "Softmax"}, {"Attention"}),
    "biased_scores_are_read": (biased_scores_are_read, (ROWS,), {"Conv", "Softmax", "Neg"}, {"Attention"}),
    "padded_with_twos": (padded_with_twos, (ROWS,), {"Pad", "Split"}, NONE),
    "padded_twice": (padded_twice, (ROWS,), {"Pad", "Split"}, NONE),
    "ratio_to_greatest": (ratio_to_greatest, (IMAGE,), {"ReduceMax", "Sqrt"}, NONE),
    "ratio_of_another": (ratio_of_another, (IMAGE, IMAGE), {"Mean", "Sqrt"}, NONE),
    "gate_per_pixel": (gate_per_pixel, (IMAGE,), {"Linear"}, {"Conv"}),
    "gate_is_an_output": (gate_is_an_output, (IMAGE,), {"Linear", "Neg"}, {"Conv"}),
    "half_squared": (half_squared, (ROWS,), {"Split"}, NONE),
    "half_is_read": (half_is_read, (ROWS,), {"Split", "Neg"}, NONE),
    "pooled_channels": (pooled_channels, (ROWS,), {"ReduceMax"}, NONE),
    "angles_from_input": (angles_from_input, (ROWS, (TOKENS, DEPTH), (TOKENS, DEPTH)), {"Neg", "Concat"}, NONE),
    "three_channels_turned": (three_channels_turned, (ROWS,), {"Concat", "Split"}, NONE),
    "pieces_with_a_gap": (pieces_with_a_gap, (ROWS,), {"Slice", "Concat"}, {"Split"}),
    "sum_with_a_scaled_negative": (sum_with_a_scaled_negative, (IMAGE,), {"Mul", "Add"}, {"Sub"}),
    "negative_of_a_difference_that_is_read": (negative_of_a_difference_that_is_read, (ROWS,), {"Neg", "Sub"}, NONE),
    "token_chosen_by_input": (token_chosen_by_input, (ROWS, (TOKENS,)), {"Gather"}, {"Slice"}),
    "two_tokens_as_one_row": (two_tokens_as_one_row, (ROWS,), {"Slice", "Reshape"}, {"Gather"}),
    "average_along_another": (average_along_the_joined_axis_and_another, (ROWS,), {"Concat", "Mean"}, NONE),
    "matrix_from_input_at_the_left": (
        matrix_from_input_at_the_left, (ROWS, (TOKENS, TOKENS)), {"MatMul", "Add"}, {"Linear"},
    ),
    "a_matrix_for_each_of_a_batch": (a_matrix_for_each_of_a_batch, (WINDOWS,), {"MatMul"}, {"Linear"}),
    "sizes_from_input": (sizes_from_input, (ROWS,), {"Linear", "Mul", "Mean"}, NONE),
    "order_that_turns_back": (order_that_turns_back, (ROWS,), {"Gather"}, {"Split", "Slice"}),
}
