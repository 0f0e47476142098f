"""Depthwise kernels, by planes and pixel by pixel, equal their numpy definition bit for bit at awkward shapes."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesmith.ir import integer_ops
from edgesmith.ir.memory.scratch import planes_bytes

CANARY = 77
Call = Callable[..., None]
call = runpy.run_path(str(Path(__file__).with_name("kernel_calls.py")))["call"]

# (height, width, channels), kernel, strides, pads, dilations
ANY = [
    ((5, 6, 4), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((7, 5, 6), (3, 2), (2, 3), (0, 1, 1, 0), (1, 1)),
    ((8, 8, 2), (3, 3), (1, 2), (2, 2, 2, 2), (2, 2)),
    ((4, 4, 8), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    ((8, 12, 3), (4, 4), (4, 4), (0, 0, 0, 0), (1, 1)),
]
FOURS = [
    ((5, 6, 4), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((14, 14, 8), (5, 5), (2, 2), (2, 2, 2, 2), (1, 1)),
    ((9, 16, 4), (7, 7), (1, 1), (3, 3, 3, 3), (1, 1)),
    ((3, 15, 4), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    ((6, 11, 4), (2, 4), (3, 1), (1, 2, 0, 3), (1, 1)),
    ((12, 1, 4), (4, 2), (1, 2), (0, 0, 3, 5), (1, 1)),
    ((2, 30, 4), (5, 15), (2, 3), (4, 0, 4, 20), (1, 1)),
]


def check(call: Call, geometry: Any, bits_x: int, rows: int, bits: int = 16) -> None:
    """`rows` rows of output from each set of planes, all at most; 0: pixel by pixel."""
    shape, kernel, strides, pads, dilations = geometry
    high, wide = integer_ops.output_size(shape[:2], kernel, strides, pads, dilations)
    noise, rows = np.random.default_rng(9), min(rows, high)
    limits = np.iinfo(f"int{bits_x}")
    x = noise.integers(limits.min, limits.max + 1, shape).astype(limits.dtype)
    w = noise.integers(-128, 128, (*kernel, shape[2])).astype(np.int8)
    bias = noise.integers(-(10**4), 10**4, shape[2]).astype(np.int32)
    mult = noise.integers(10**6, 10**8, shape[2]).astype(np.int32) // (1 if bits == 16 else 20)
    low = -9000 if bits == 16 else -128
    expected = integer_ops.qdepthwise(x, w, bias, mult, 0, 4, bits, strides, pads, -6, dilations, low)
    g = np.array([*shape, *kernel, *strides, *pads[:2], *dilations, high, wide, -6], np.int32)
    planes = np.full(planes_bytes(max(1, rows), kernel, strides, wide) // 2 + 8, CANARY, np.int16)
    out = np.full(expected.size + 8, CANARY, f"int{bits}")
    # In place, as plans have it; an emulated device gets two copies of the one array.
    if bits == bits_x == 8 and expected.shape == x.shape and rows == high:
        out[: x.size] = x.reshape(-1)
        x = out
    call("t_depthwise", x, bits_x, g, w, bias, planes, rows, mult, 0, 4, low, 2 ** (bits - 1) - 1, out, bits)
    np.testing.assert_array_equal(out[: expected.size], expected.reshape(-1))
    assert (out[expected.size :] == CANARY).all() and (planes[-8:] == CANARY).all()


@pytest.mark.parametrize("geometry", ANY)
@pytest.mark.parametrize("bits_x", [8, 16])
def test_pixel_by_pixel(call: Call, geometry: Any, bits_x: int) -> None:
    check(call, geometry, bits_x, 0)


@pytest.mark.parametrize("geometry", FOURS)
@pytest.mark.parametrize("rows", [1, 2, 30])
@pytest.mark.parametrize("bits", [8, 16])
def test_by_planes(call: Call, geometry: Any, rows: int, bits: int) -> None:
    """Even and odd kernels and strides, blocks that do not divide the width, bands that do not divide the height."""
    check(call, geometry, 8, rows, bits)
