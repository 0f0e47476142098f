"""Every C kernel equals its numpy definition bit for bit, on this computer and on emulated cores, at awkward shapes."""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesmith.ir import integer, integer_layout, integer_ops, integer_rows

CANARY = 77
Call = Callable[..., None]
CALLS = runpy.run_path(str(Path(__file__).with_name("kernel_calls.py")))
call = CALLS["call"]


def int8(noise: np.random.Generator, *shape: int) -> np.ndarray:
    return noise.integers(-128, 128, shape).astype(np.int8)


def int16(noise: np.random.Generator, *shape: int, most: int = 32767) -> np.ndarray:
    return noise.integers(-most, most + 1, shape).astype(np.int16)


def values(noise: np.random.Generator, bits: int, *shape: int) -> np.ndarray:
    return int8(noise, *shape) if bits == 8 else int16(noise, *shape)


def room(count: int, dtype: type) -> np.ndarray:
    """Space for `count` results and eight more values that nobody may touch."""
    return np.full(count + 8, CANARY, dtype)


def same(got: np.ndarray, expected: np.ndarray) -> None:
    """The results are the expected ones and nothing past them was written."""
    np.testing.assert_array_equal(got[: expected.size], expected.reshape(-1))
    assert (got[expected.size :] == CANARY).all()


# -- the core and its helpers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 4, 5, 8, 12, 15, 16, 17, 36, 64, 200])
def test_dot(call: Call, k: int) -> None:
    noise = np.random.default_rng(k)
    x, w = int16(noise, 3, k), int8(noise, 2, k)
    if k > 100:
        x = x // 8
    bias, acc = np.array([123456, -7], np.int32), room(6, np.int32)
    call("t_dot", integer_layout.pack(w), integer_layout.pack_tile(x), bias, acc, (k + 3) // 4)
    same(acc, (integer.matmul(x, w) + bias).T)


@pytest.mark.emulator
def test_dot_loads_pairs_on_word_boundaries(tmp_path: Path) -> None:
    strict = CALLS["device_call"](tmp_path, "stm32f746", strict=True)
    test_dot(strict, 36)


def test_dot_at_the_overflow_bound(call: Call) -> None:
    """The largest sum the quantiser may allow, reached exactly: 511 products of -128 and -32768, and a bias."""
    x, w = np.full((3, 511), -32768, np.int16), np.full((2, 511), -128, np.int8)
    bias, acc = np.array([2**22 - 1, 0], np.int32), room(6, np.int32)
    call("t_dot", integer_layout.pack(w), integer_layout.pack_tile(x), bias, acc, 128)
    same(acc, np.repeat([2**31 - 1, 511 * 2**22], 3).astype(np.int32))


def test_roots_and_reciprocals(call: Call) -> None:
    noise = np.random.default_rng(0)
    v = np.concatenate([noise.integers(2**30, 2**32, 500), [2**30, 2**30 + 1, 2**32 - 1]])
    out = room(v.size, np.int32)
    call("t_rsqrt", v.astype(np.uint32), v.size, out)
    same(out, integer_rows.rsqrt(v))
    total = np.concatenate([noise.integers(8193, 2**24, 500), [8193, 2**24 - 1, 2**14, 2**15, 2**16 - 1, 32767]])
    out = room(total.size, np.int32)
    call("t_inverse", total.astype(np.int32), total.size, out)
    same(out, integer_rows.inverse(total))


# -- linear layers and where they write --------------------------------------------------------------------------------

SHAPES = [(1, 1, 1), (2, 5, 3), (3, 4, 2), (7, 13, 9), (13, 192, 10), (10, 30, 33)]


def linear(
    call: Call, noise: np.random.Generator, shape: tuple[int, int, int], kind: int, out: np.ndarray, *, bits_x: int = 8,
    bits: int = 8, stored: int = 8, stride: int = 0, limits: tuple[int, int] | None = None,
    table: tuple[int, np.ndarray] = (0, np.zeros(1, np.int8)), added: tuple[int, ...] = (0,) * 4, tile_rows: int = 6,
) -> np.ndarray:
    """Run a random linear layer of `bits` wide values into `out`, `stored` wide; its numpy value before any table."""
    rows, k, n = shape
    x, w = values(noise, bits_x, rows, k), int8(noise, n, k)
    bias = noise.integers(-(10**5), 10**5, n).astype(np.int32)
    reach = math.sqrt(k) * (2**12 if bits_x == 8 else 2**20) / 2 ** (bits - 1)
    mult = (noise.uniform(0.3, 2, n) * 2.0**31 / reach / 4).clip(1, 2**31 - 1).astype(np.int32)
    zero, (low, high) = int(noise.integers(-9, 9)), limits or integer.LIMITS[bits]
    tile = room(tile_rows * ((k + 3) // 4 * 4), np.int16)
    arguments = (x, bits_x, rows, k, integer_layout.pack(w), integer_layout.pack_pairs(bias), n, tile, tile_rows, kind)
    call("t_linear", *arguments, out, stored, stride, mult, 1, zero, low, high, *table, *added)
    assert (tile[-8:] == CANARY).all()
    return integer.qlinear(x, w, bias, mult, 1, zero, bits, low, high)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("bits_x", "bits"), [(8, 8), (16, 8), (8, 16), (16, 16)])
def test_linear_to_rows(call: Call, shape: tuple[int, int, int], bits_x: int, bits: int) -> None:
    out = room(shape[0] * shape[2], integer.DTYPES[bits])
    noise = np.random.default_rng(sum(shape))
    kinds = {"bits_x": bits_x, "bits": bits, "stored": bits}
    same(out, linear(call, noise, shape, 0, out, stride=shape[2], limits=(-100, 90), **kinds))


@pytest.mark.parametrize("tile_rows", [3, 6, 12, 15])
def test_linear_does_not_depend_on_the_tile(call: Call, tile_rows: int) -> None:
    out = room(13 * 12, np.int8)
    same_seed = np.random.default_rng(3)
    expected = linear(call, same_seed, (13, 20, 10), 0, out, stride=12, tile_rows=tile_rows)
    rows = out[: 13 * 12].reshape(13, 12)
    np.testing.assert_array_equal(rows[:, :10], expected)
    assert (rows[:, 10:] == CANARY).all()


@pytest.mark.parametrize("table_kind", [0, 1, 2, 3])
@pytest.mark.parametrize("n", [9, 16])
def test_linear_to_the_next_tile(call: Call, table_kind: int, n: int) -> None:
    noise = np.random.default_rng(table_kind)
    table = [np.zeros(1, np.int8), int8(noise, 256), int16(noise, 256), int16(noise, 257)][table_kind]
    through = [lambda x, t: x, integer.table8, integer.table8, integer.table16][table_kind]
    quads = (n + 3) // 4
    out = room(6 * quads * 4, np.int16)
    out[:-8] = 0
    bits = 16 if table_kind == 3 else 8
    made = {"bits": bits, "stored": 16 if table_kind > 1 else 8, "stride": quads}
    plain = linear(call, noise, (5, 11, n), 1, out, table=(table_kind, table), **made)
    same(out, CALLS["pack_tile"](call, through(plain, table)))


@pytest.mark.parametrize("shape", SHAPES)
def test_linear_to_packed(call: Call, shape: tuple[int, int, int]) -> None:
    rows, _, n = shape
    out = room(integer_layout.packed_bytes(rows, n), np.int8)
    out[:-8] = 0
    keys = linear(call, np.random.default_rng(1), shape, 2, out, stride=(n + 3) // 4)
    same(out, integer_layout.pack(keys))
    out = room(integer_layout.packed_bytes(n, rows), np.int8)
    out[:-8] = 0
    transposed = linear(call, np.random.default_rng(1), shape, 3, out, stride=(rows + 3) // 4)
    same(out, integer_layout.pack(transposed.T))


@pytest.mark.parametrize("bits", [8, 16])
def test_linear_into_the_residual(call: Call, bits: int) -> None:
    noise = np.random.default_rng(5)
    stream = values(noise, bits, 7, 9)
    out = room(63, integer.DTYPES[bits])
    out[:63] = stream.reshape(-1)
    added = (200, 16384, -20000, 14) if bits == 8 else (9000, 16384, -20000, 14)
    branch = linear(call, noise, (7, 21, 9), 4, out, bits=16, stored=bits, stride=9, added=added)
    same(out, integer.qadd(branch, stream, *added, bits))


# -- rows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2, 5, 64, 192, 197, 770])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("centred", [0, 1])
def test_norms(call: Call, width: int, bits: int, centred: int) -> None:
    noise = np.random.default_rng(width)
    rows = values(noise, bits, 5, width)
    rows[1] = 7
    rows[2] = rows[2] // 64
    rows[3, 0], rows[3, 1:] = integer.LIMITS[bits][1], integer.LIMITS[bits][0]
    zero, eps = (0 if centred or bits == 16 else -11), 1 + width
    tile = room(6 * ((width + 3) // 4 * 4), np.int16)
    tile[:-8] = 0
    call("t_norm", rows, bits, 5, width, centred, zero, eps, tile)
    expected = integer_rows.layernorm(rows, eps) if centred else integer_rows.rmsnorm(rows, eps, zero)
    same(tile, integer_layout.pack_tile(expected))


@pytest.mark.parametrize(("rows", "m", "d", "dv"), [(1, 1, 4, 2), (3, 5, 7, 3), (7, 50, 64, 64), (4, 197, 12, 5)])
@pytest.mark.parametrize("with_bias", [0, 1])
@pytest.mark.parametrize("bits", [8, 16])
def test_attention(call: Call, rows: int, m: int, d: int, dv: int, with_bias: int, bits: int) -> None:
    noise = np.random.default_rng(m)
    q, k, v = int16(noise, rows, d, most=9000), int8(noise, m, d), int8(noise, m, dv)
    bias, shift = int16(noise, 1, rows, m), 5
    mz, pre = integer_rows.score_multiplier(3e-6 if m > 1 else 3e-3)
    mult, table = noise.integers(2**20, 2**21 if bits == 8 else 2**28, dv).astype(np.int32), integer_rows.exp_table(m)
    q_tile, scratch = integer_layout.pack_tile(q), room(14 * ((m + 3) // 4 * 4) // 4 + 1, np.int32)
    out = room(rows * dv, integer.DTYPES[bits])
    packed = integer_layout.pack(k), m, integer_layout.pack(v.T), dv
    exponent = (table, int(mz), pre, bias, with_bias, shift)
    call("t_attention", q_tile, rows, d, *packed, *exponent, mult, 3, scratch, out, bits)
    expected = integer_rows.attention(
        q, k, v, 1, mz, mult, table, pre, 3, bits, bias if with_bias else None, shift
    )
    same(out, expected)
    assert (scratch[-8:] == CANARY).all()


@pytest.mark.parametrize("width", [1, 2, 49, 197])
@pytest.mark.parametrize("bits", [8, 16])
def test_softmax(call: Call, width: int, bits: int) -> None:
    x, table = int8(np.random.default_rng(width), 3, width), integer_rows.make_softmax_table(0.07, width)
    mult = integer_rows.softmax_multiplier(2.0**-8 if bits == 8 else 2.0**-15)
    out = room(x.size, integer.DTYPES[bits])
    call("t_softmax", x, 3, width, table, mult, -128 if bits == 8 else 0, bits, out)
    same(out, integer_rows.softmax(x, table, mult, -128 if bits == 8 else 0, bits))


# -- elements ----------------------------------------------------------------------------------------------------------


def test_tables(call: Call) -> None:
    noise = np.random.default_rng(0)
    x = np.arange(-128, 128).astype(np.int8)
    for bits in (8, 16):
        table, out = values(noise, bits, 256), room(256, integer.DTYPES[bits])
        call("t_table8", x, 256, table, bits, out)
        same(out, integer.table8(x, table))
    wide = np.concatenate([np.array([-32768, -1, 0, 255, 256, 32767], np.int16), int16(noise, 200)])
    points, out = int16(noise, 257), room(wide.size, np.int16)
    call("t_table16", wide, wide.size, points, out)
    same(out, integer.table16(wide, points))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("bits_a", [8, 16])
@pytest.mark.parametrize("bits_b", [8, 16])
def test_add_and_mul(call: Call, bits: int, bits_a: int, bits_b: int) -> None:
    noise = np.random.default_rng(bits)
    a, b = values(noise, bits_a, 35), values(noise, bits_b, 35)
    constants = integer.add_constants(0.03 / 2**bits_a, 0.05 / 2**bits_b, 0.04 / 2**bits, 3, -2, 5, bits_a, bits_b)
    out = room(35, integer.DTYPES[bits])
    call("t_add", a, bits_a, b, bits_b, 35, *constants, out, bits)
    same(out, integer.qadd(a, b, *constants, bits))
    out = room(35, integer.DTYPES[bits])
    zeros = (0 if bits_a == 16 else 4, 0 if bits_b == 16 else -9)
    mult, pre = integer.multiplier(2.0 ** (bits - bits_a - bits_b + 1))
    call("t_mul", a, bits_a, zeros[0], b, bits_b, zeros[1], 35, 7, int(mult), pre, 6, out, bits)
    same(out, integer.qmul(a.reshape(5, 7), b[:7], mult, pre, *zeros, 6, bits))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("bits_x", [8, 16])
def test_affine_rescale_mean(call: Call, bits: int, bits_x: int) -> None:
    noise = np.random.default_rng(bits + bits_x)
    x, factor = values(noise, bits_x, 9, 11), 2.0 ** (bits - bits_x)
    lift = 20 if bits_x == 8 else 12
    mult = (noise.uniform(-1, 1, 11) * factor * 2.0 ** (31 - lift)).astype(np.int32)
    bias, out = noise.integers(-(2**26), 2**26, 11).astype(np.int32), room(99, integer.DTYPES[bits])
    call("t_affine", x, bits_x, 9, 11, mult, bias, lift, 2, out, bits)
    same(out, integer.qaffine(x, mult, bias, lift, 2, bits))
    mult, pre = integer.multiplier(0.7 * factor, 2**bits_x)
    out = np.full(9 * 20, CANARY, integer.DTYPES[bits])
    call("t_rescale", x, bits_x, 9, 11, 3, int(mult), pre, -4, out, bits, 20, 5)
    expected = np.full((9, 20), CANARY, integer.DTYPES[bits])
    expected[:, 5:16] = integer_ops.rescale(x, mult, pre, 3, -4, bits)
    np.testing.assert_array_equal(out, expected.reshape(-1))
    mult, pre = integer.multiplier(factor / 9, 9 * 2**bits_x)
    out = room(11, integer.DTYPES[bits])
    call("t_mean", x, bits_x, 9, 11, -27, int(mult), pre, 1, out, bits)
    same(out, integer.qmean(x, 0, mult, pre, -27, 1, bits))


# -- space -------------------------------------------------------------------------------------------------------------

# (height, width, channels), kernel, strides, pads, dilations
GEOMETRIES = [
    ((5, 6, 4), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((7, 5, 6), (3, 2), (2, 3), (0, 1, 1, 0), (1, 1)),
    ((8, 8, 2), (3, 3), (1, 2), (2, 2, 2, 2), (2, 2)),
    ((4, 4, 8), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    ((8, 12, 3), (4, 4), (4, 4), (0, 0, 0, 0), (1, 1)),
]


def window(geometry: Any, zero: int) -> tuple[np.ndarray, int]:
    """The integers of an es_window and the number of output pixels."""
    shape, kernel, strides, pads, dilations = geometry
    out = integer_ops.output_size(shape[:2], kernel, strides, pads, dilations)
    return np.array([*shape, *kernel, *strides, *pads[:2], *dilations, *out, zero], np.int32), out[0] * out[1]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bits_x", [8, 16])
def test_conv(call: Call, geometry: Any, groups: int, bits_x: int) -> None:
    shape, kernel, strides, pads, dilations = geometry
    if shape[2] % groups:
        groups = 3
    noise = np.random.default_rng(groups)
    depth, outputs = shape[2] // groups, 3 * groups
    x, w = values(noise, bits_x, *shape), int8(noise, outputs, *kernel, depth)
    if bits_x == 16:
        x = x // 4
    bias = noise.integers(-(10**4), 10**4, outputs).astype(np.int32)
    mult = noise.integers(10**6, 10**7, outputs).astype(np.int32) // (1 if bits_x == 8 else 256)
    g, pixels = window(geometry, 5)
    packed = np.concatenate([integer_layout.pack(w[i : i + 3].reshape(3, -1)) for i in range(0, outputs, 3)])
    k = kernel[0] * kernel[1] * depth
    tile, out = room(6 * ((k + 3) // 4 * 4), np.int16), room(pixels * outputs, np.int8)
    limits = (-90, 100)
    arguments = (x, bits_x, g, groups, packed, np.append(bias, np.int32(0)), outputs, tile, 6, mult, 1, -3)
    call("t_conv", *arguments, *limits, out, 8)
    expected = integer_ops.qconv(
        x, w, bias, mult, 1, -3, 8, strides, pads, groups, 5, dilations, *limits
    )
    same(out, expected)
    assert (tile[-8:] == CANARY).all()


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("bits", [8, 16])
def test_pools(call: Call, geometry: Any, bits: int) -> None:
    shape, kernel, strides, pads, dilations = geometry
    pads = tuple(min(pad, kernel[i % 2] - 1) for i, pad in enumerate(pads))
    x = values(np.random.default_rng(2), bits, *shape)
    g, pixels = window((shape, kernel, strides, pads, dilations), 0)
    out = room(pixels * shape[2], integer.DTYPES[bits])
    call("t_maxpool", x, bits, g, out)
    same(out, integer_ops.qmaxpool(x, kernel, strides, pads, dilations))
    zero = 4 if bits == 8 else 0
    g, pixels = window((shape, kernel, strides, pads, (1, 1)), zero)
    area = kernel[0] * kernel[1]
    mults, pre = integer_ops.pool_multipliers(0.8, kernel, area * 2**bits)
    for whole in (0, 1):
        out = room(pixels * shape[2], integer.DTYPES[bits])
        call("t_avgpool", x, bits, g, whole, mults, pre, -2, out, bits)
        same(out, integer_ops.qavgpool(x, kernel, strides, mults, pre, pads, zero, -2, bits, bool(whole)))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("coordinate", ["half_pixel", "asymmetric", "align_corners"])
def test_resize(call: Call, bits: int, coordinate: str) -> None:
    x = values(np.random.default_rng(4), bits, 5, 7, 3)
    x[0] = integer.LIMITS[bits][0]
    for linear_ in (0, 1):
        if linear_:
            rows, cols = (integer_ops.linear_taps(i, o, coordinate) for i, o in ((5, 8), (7, 4)))
        else:
            rows, cols = (integer_ops.nearest_taps(i, o, coordinate, "floor") for i, o in ((5, 8), (7, 4)))
        out = room(8 * 4 * 3, integer.DTYPES[bits])
        call("t_resize", linear_, x, bits, 7, 3, rows, 8, cols, 4, out)
        same(out, (integer_ops.resize_bilinear if linear_ else integer_ops.resize_nearest)(x, rows, cols))


@pytest.mark.parametrize(("patch", "channels"), [(4, 3), (5, 1), (2, 4)])
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 2, 0), (3, 2, 0, 1)])
def test_patches_through_a_callback(call: Call, patch: int, channels: int, pads: tuple[int, ...]) -> None:
    height, width = 2 * patch - pads[0] - pads[2], 3 * patch - pads[1] - pads[3]
    image, kernel = int8(np.random.default_rng(6), height, width, channels), (patch, patch)
    g, count = window((image.shape, kernel, kernel, pads, (1, 1)), -9)
    tile, scratch = room(6 * ((patch * patch * channels + 3) // 4 * 4), np.int16), room(patch * channels, np.int8)
    tile[:-8] = 0
    call("t_patches", image, g, scratch, tile)
    patches = integer_ops.windows(image, kernel, kernel, pads, -9).reshape(count, -1)
    same(tile, CALLS["pack_tile"](call, patches))
    assert (scratch[-8:] == CANARY).all()
