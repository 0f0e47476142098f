"""The integer semantics against real arithmetic: how near, at which bounds, and that no bound breaks in silence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.ir import integer, integer_layout, integer_ops, integer_rows

ONE = np.ones((1, 1), np.int8)
INT32 = st.integers(-(2**31), 2**31 - 1)


def gelu(x: np.ndarray) -> np.ndarray:
    return np.array([value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in x])


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


# -- scaling -----------------------------------------------------------------------------------------------------------


@given(INT32, INT32)
def test_multiply_high_is_the_rounded_quotient(a: int, b: int) -> None:
    assert integer.multiply_high(a, b) == (a * b + 2**31) // 2**32


@given(st.integers(-(2**20), 2**20), st.floats(1e-6, 100))
def test_requant_rounds_the_real_product(acc: int, scale: float) -> None:
    mult, pre = integer.multiplier(scale, 2**20)
    got = int(integer.requant(acc, mult, pre, 3, 16))
    error = 0.5 + abs(acc) * 2.0 ** (pre - 33)  # half a unit of the result, half a unit of the multiplier
    assert abs(got - min(max(acc * scale + 3, -32768), 32767)) <= error + 1e-9


def test_multiplier_uses_the_least_shift() -> None:
    assert integer.multiplier(0.25)[1] == 0
    assert integer.multiplier(0.5)[1] == 1
    mult, pre = integer.multiplier(np.array([3.0, 0.001]))
    assert pre == 3
    np.testing.assert_allclose(mult * 2.0 ** (pre - 32), [3.0, 0.001], rtol=1e-6)


@pytest.mark.parametrize(
    ("what", "attempt"),
    [
        ("accumulator << pre", lambda: integer.requant(2**30, 5, 1)),
        ("dot product", lambda: integer.matmul(np.full((1, 513), 32767, np.int16), np.full((1, 513), 128, np.int16))),
        ("accumulator leaves", lambda: integer.qlinear(ONE, ONE, [2**31 - 1], 1)),
        ("weighted sum", lambda: integer.qadd(np.int16([32767]), np.int16([32767]), 32767, 32767, 2**20, 1)),
        ("no room", lambda: integer.multiplier(1000.0, 2**25)),
        ("finite", lambda: integer.multiplier(math.inf)),
        ("2047", lambda: integer_rows.exp_table(3000)),
        ("fixed-point range", lambda: integer_rows.layernorm(np.ones((1, 1025), np.int16), 1)),
        ("row total", lambda: integer_rows.inverse(np.array([8192]))),
    ],
)  # fmt: skip
def test_broken_bounds_are_refused(what: str, attempt: object) -> None:
    with pytest.raises(OverflowError, match=what):
        attempt()  # type: ignore[operator]


def test_dot_at_the_bound_is_exact() -> None:
    x, w = np.full((1, 511), -32768, np.int16), np.full((1, 511), -128, np.int8)
    assert integer.matmul(x, w)[0, 0] == 511 * 2**22


@given(st.floats(0.01, 3), st.floats(0.01, 3), st.integers(-128, 127), st.integers(-128, 127))
def test_add_is_nearly_rounded(ratio_a: float, ratio_b: float, a: int, b: int) -> None:
    constants = integer.add_constants(ratio_a, ratio_b, 1.0, 5, -7, 2)
    got = int(integer.qadd(np.int8([a]), np.int8([b]), *constants)[0])
    assert abs(got - min(max(ratio_a * (a - 5) + ratio_b * (b + 7) + 2, -128), 127)) < 0.52


# -- tables ------------------------------------------------------------------------------------------------------------


def test_check_19_gelu_table_is_exact_to_rounding() -> None:
    scale_in, scale_out, x = 0.04, 0.03, np.arange(-128, 128)
    table = integer.make_table8(gelu, scale_in, 9, scale_out, -100)
    got = scale_out * (integer.table8(x.astype(np.int8), table).astype(float) + 100)
    exact = np.clip(gelu(scale_in * (x - 9)), scale_out * (-128 + 100), scale_out * (127 + 100))
    assert np.abs(got - exact).max() <= scale_out / 2 + 1e-12


def test_gelu_curve_is_far_below_an_int8_step() -> None:
    scale_in, scale_out, x = 8 / 32768, 8 / 32768, np.arange(-32768, 32768)
    got = integer.table16(x.astype(np.int16), integer.make_table16(gelu, scale_in, scale_out)) * scale_out
    assert np.abs(got - gelu(x * scale_in)).max() < 8 / 128 / 100


# -- roots and reciprocals ---------------------------------------------------------------------------------------------


def test_check_19_isqrt_is_the_floor() -> None:
    roots = np.arange(2, 65536, dtype=np.int64)
    n = np.concatenate([np.arange(20_000), roots**2, roots**2 - 1, np.arange(2**32 - 999, 2**32)])
    np.testing.assert_array_equal(integer_rows.isqrt(n), [math.isqrt(int(value)) for value in n])


@given(st.integers(2**30, 2**32 - 1))
def test_rsqrt(v: int) -> None:
    assert abs(int(integer_rows.rsqrt(np.array([v]))[0]) / (2.0**46 / math.sqrt(v)) - 1) < 2.0**-25


@given(st.integers(8193, 2**24 - 1))
def test_inverse(total: int) -> None:
    assert abs(int(integer_rows.inverse(np.array([total]))[0]) * total / 2.0**44 - 1) < 2.0**-15


# -- rows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [3, 64, 192, 197, 1024])
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_norms_are_rounded_real_norms(width: int, dtype: type) -> None:
    noise = np.random.default_rng(width)
    spread = 30 if dtype == np.int8 else 6000
    x = np.clip(noise.normal(spread / 9, spread, (20, width)), np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)
    scale, eps, steps = 0.01, 1e-5, 2.0 ** integer_rows.norm_fraction_bits(width)
    eps_q = integer_rows.norm_epsilon(eps, width, scale)
    real, exact_eps = x * scale, eps_q * (scale / width) ** 2
    centred = real - real.mean(1, keepdims=True)
    exact = centred / np.sqrt(real.var(1, keepdims=True) + exact_eps)
    assert np.abs(integer_rows.layernorm(x, eps_q) - exact * steps).max() < 0.51
    exact = real / np.sqrt((real**2).mean(1, keepdims=True) + exact_eps)
    assert np.abs(integer_rows.rmsnorm(x, eps_q) - exact * steps).max() < 0.51


def test_norms_at_their_extremes() -> None:
    spike = np.zeros((1, 1024), np.int16)
    spike[0, 0] = 32767
    assert integer_rows.layernorm(spike, 1)[0, 0] == round(math.sqrt(1023) * 2**10)
    assert not integer_rows.layernorm(np.full((1, 64), 100, np.int8), 1).any()
    halves = np.tile(np.int16([32767, -32768]), (1, 512))
    np.testing.assert_array_equal(np.abs(integer_rows.layernorm(halves, 1)), 1024)
    assert integer_rows.rmsnorm(np.pad(np.int8([[127]]), ((0, 0), (0, 255))), 1)[0, 0] == 32767


def attention_case(seed: int = 0, rows: int = 20, keys: int = 50) -> tuple[np.ndarray, ...]:
    noise = np.random.default_rng(seed)
    q = noise.integers(-9000, 9001, (rows, 32)).astype(np.int16)
    k, v = (noise.integers(-127, 128, (keys, 32)).astype(np.int8) for _ in range(2))
    return q, k, v, noise.integers(-3000, 3001, (2, rows, keys)).astype(np.int16)


@pytest.mark.parametrize("scale", [1e-7, 1e-6, 1e-5])
def test_attention_is_within_a_step_of_the_real_one(scale: float) -> None:
    q, k, v, bias = attention_case()
    mz, pre = integer_rows.score_multiplier(scale)
    mult, table = integer_rows.output_multiplier(1.5), integer_rows.exp_table(50)
    got = integer_rows.attention(q, k, v, 2, mz, mult, table, pre, 4, 8, bias, 6)
    for head, own in enumerate((slice(0, 16), slice(16, 32))):
        scores = (q[:, own].astype(float) @ k[:, own].T.astype(float) + bias[head] * 64.0) * scale
        exact = np.clip(softmax(scores) @ v[:, own] * 1.5 + 4, -128, 127)
        assert np.abs(got[:, own] - exact).max() < 1


def test_attention_does_not_depend_on_tile_or_order_of_heads() -> None:
    q, k, v, _ = attention_case(1)
    mz, pre = integer_rows.score_multiplier(np.array([2e-6, 5e-6]))
    table, mult = integer_rows.exp_table(50), np.arange(32) * 10**5
    whole = integer_rows.attention(q, k, v, 2, mz, mult, table, pre)
    rows = [integer_rows.attention(q[i : i + 3], k, v, 2, mz, mult, table, pre) for i in range(0, 20, 3)]
    np.testing.assert_array_equal(np.concatenate(rows), whole)
    heads = [
        integer_rows.attention(q[:, s], k[:, s], v[:, s], 1, mz[h], mult[s], table, pre)
        for h, s in enumerate((slice(0, 16), slice(16, 32)))
    ]
    np.testing.assert_array_equal(np.concatenate(heads, axis=1), whole)


@pytest.mark.parametrize("width", [1, 10, 512, 1100, 2047])
def test_softmax_is_near_the_real_one(width: int) -> None:
    x = np.random.default_rng(width).integers(-128, 128, (8, width)).astype(np.int8)
    table = integer_rows.make_softmax_table(0.05, width)
    got = integer_rows.softmax(x, table, integer_rows.softmax_multiplier(2.0**-15), 0, 16)
    tail = width * 0.5 / integer_rows.exp_peak(width)  # each exponential is rounded once
    assert np.abs(got - np.minimum(softmax(x * 0.05) * 2**15, 32767)).max() <= 1.5 + tail


# -- space and layout --------------------------------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(1, 14))
def test_packing_is_invertible_and_padded_with_zeros(n: int, k: int) -> None:
    w = np.arange(1, n * k + 1).reshape(n, k).astype(np.int8)
    packed = integer_layout.pack(w)
    assert packed.size == integer_layout.packed_bytes(n, k)
    np.testing.assert_array_equal(integer_layout.unpack(packed, n, k), w)
    assert np.count_nonzero(packed) == n * k


def test_packed_order_is_the_one_the_core_reads() -> None:
    packed = integer_layout.pack(np.arange(8).reshape(2, 4).astype(np.int8))
    assert packed.tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert integer_layout.pack_tile(np.arange(12).reshape(3, 4)).tolist() == list(range(12))


def test_padding_is_real_zero() -> None:
    """A border of zero points, with the whole kernel folded into the bias, is a border of real zeros."""
    noise = np.random.default_rng(0)
    x, w, zero = noise.integers(-128, 128, (4, 5, 3)).astype(np.int8), noise.integers(-127, 128, (2, 3, 3, 3)), 17
    bias = -zero * w.sum(axis=(1, 2, 3))
    mult = np.array([2**31 - 1] * 2)
    got = integer_ops.qconv(x, w.astype(np.int8), bias, mult, bits=16, pads=(1, 1, 1, 1), zero_x=zero)
    patches = integer_ops.windows(x.astype(np.int64) - zero, (3, 3), (1, 1), (1, 1, 1, 1), 0)
    exact = np.einsum("hwijc,oijc->hwo", patches, w)
    np.testing.assert_array_equal(got, np.clip((exact * (2**31 - 1) + 2**31) >> 32, -32768, 32767))


@pytest.mark.parametrize("include", [False, True])
def test_average_pool_is_rounded(include: bool) -> None:
    x = np.random.default_rng(0).integers(-128, 128, (6, 6, 2)).astype(np.int8)
    mults, pre = integer_ops.pool_multipliers(1.0, (3, 3), 9 * 255)
    got = integer_ops.qavgpool(x, (3, 3), (2, 2), mults, pre, (1, 1, 1, 1), 5, 5, 8, include)
    total = integer_ops.windows(x.astype(np.int64) - 5, (3, 3), (2, 2), (1, 1, 1, 1), 0).sum(axis=(2, 3))
    inside = integer_ops.windows(np.ones((6, 6, 1)), (3, 3), (2, 2), (1, 1, 1, 1), 0).sum(axis=(2, 3))
    assert np.abs(got - 5 - total / (9 if include else inside)).max() <= 0.5 + 1e-6
    assert inside.min() == 4


def test_bilinear_resize_of_int16_extremes_keeps_its_range() -> None:
    x = np.array([[-32768, 32767], [32767, -32768]], np.int16)[:, :, None]
    taps = integer_ops.linear_taps(2, 9, "align_corners")
    out = integer_ops.resize_bilinear(x, taps, taps)[:, :, 0]
    assert out[0, 0] == -32768 and out[0, 8] == 32767 and abs(int(out[4, 4])) <= 1
    exact = np.linspace(-32768, 32767, 9)
    assert np.abs(out[0] - exact).max() <= 1 + 65535 / 512
