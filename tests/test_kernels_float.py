"""The single-precision kernels against double precision: their own exp and erf, rows, windows."""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgesmith.ir import integer_ops

Call = Callable[..., None]
call = runpy.run_path(str(Path(__file__).with_name("kernel_calls.py")))["call"]

FUNCTIONS: list[Callable[[float], float]] = [
    math.exp, math.erf, lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2, math.tanh, lambda x: 1 / (1 + math.exp(-x)),
    lambda x: x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2, lambda x: x / (1 + math.exp(-x)),
    lambda x: x * min(max(x / 6 + 0.5, 0), 1), lambda x: max(x, 0), lambda x: math.log(x) if x else -math.inf,
    math.sqrt,
]  # fmt: skip


@pytest.mark.parametrize("which", range(len(FUNCTIONS)))
def test_float_functions(call: Call, which: int) -> None:
    x = np.concatenate([np.linspace(-12, 12, 301), [0.0, -0.0, 1e-6, -1e-6]]).astype(np.float32)
    x = np.abs(x) if which > 8 else x
    out = np.zeros_like(x)
    call("t_map_f32", which, x, x.size, out)
    exact = np.array([FUNCTIONS[which](float(value)) for value in x])
    finite = np.isfinite(exact)
    assert (np.abs(out[finite] - exact[finite]) <= 1e-6 * np.maximum(1, np.abs(exact[finite]))).all()
    assert (out[~finite] == exact[~finite]).all()


def test_float_powers(call: Call) -> None:
    pairs = np.meshgrid(np.linspace(-3, 3, 13), np.linspace(-4, 4, 17))
    x, y = (array.reshape(-1).astype(np.float32) for array in pairs)
    out = np.zeros_like(x)
    call("t_pow_f32", x, y, x.size, out)
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.float64), y)
    np.testing.assert_allclose(out, exact, rtol=2e-6)


def softmax(x: np.ndarray) -> np.ndarray:
    """Along the last axis, in double precision."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def test_float_rows(call: Call) -> None:
    noise = np.random.default_rng(8)
    x, w, k, v = (noise.normal(size=shape).astype(np.float32) for shape in ((5, 6), (7, 6), (9, 6), (9, 3)))
    bias, gamma, beta, scores = (noise.normal(size=size).astype(np.float32) for size in (7, 6, 6, (5, 9)))
    out, scratch = np.zeros((5, 7), np.float32), np.zeros(9, np.float32)
    call("t_linear_f32", x, 5, 6, w, bias, 7, out)
    np.testing.assert_allclose(out, x.astype(float) @ w.T + bias, rtol=1e-5, atol=1e-5)
    normal, mean, square = np.zeros_like(x), x.mean(1, keepdims=True), (x.astype(float) ** 2).mean(1, keepdims=True)
    call("t_norm_f32", x, 5, 6, 1, gamma, beta, normal)
    np.testing.assert_allclose(normal, (x - mean) / np.sqrt(square - mean**2 + 1e-5) * gamma + beta, atol=2e-5)
    call("t_norm_f32", x, 5, 6, 0, gamma, beta, normal)
    np.testing.assert_allclose(normal, x / np.sqrt(square + 1e-5) * gamma + beta, atol=1e-5)
    call("t_softmax_f32", x, 5, 6, normal)
    np.testing.assert_allclose(normal, softmax(x.astype(float)), atol=1e-6)
    mixed = np.zeros((5, 3), np.float32)
    call("t_attention_f32", x, 5, 6, k, v, 9, 3, scores, scratch, mixed)
    np.testing.assert_allclose(mixed, softmax(x.astype(float) @ k.T / 4 + scores) @ v, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dilations", [(1, 1), (2, 1)])
def test_float_windows(call: Call, groups: int, dilations: tuple[int, int]) -> None:
    shape, kernel, strides, pads = (7, 5, 6), (3, 2), (2, 1), (1, 0, 1, 2)
    noise, depth = np.random.default_rng(groups), shape[2] // groups
    x = noise.normal(size=shape).astype(np.float32)
    w = noise.normal(size=(4, *kernel, depth)).astype(np.float32)
    bias = noise.normal(size=4).astype(np.float32)
    size = integer_ops.output_size((7, 5), kernel, strides, pads, dilations)
    g, pixels = np.array([*shape, *kernel, *strides, *pads[:2], *dilations, *size, 0], np.int32), size[0] * size[1]
    planes, out = np.ascontiguousarray(x.transpose(2, 0, 1)), np.zeros((4, pixels), np.float32)
    call("t_conv_f32", planes, g, groups, w, bias, 4, out)
    patches = integer_ops.windows(x, kernel, strides, pads, 0, dilations).reshape(pixels, *kernel, groups, depth)
    blocks = w.reshape(groups, 4 // groups, *kernel, depth)
    expected = np.einsum("pijgc,goijc->pgo", patches, blocks).reshape(pixels, 4) + bias
    np.testing.assert_allclose(out.T, expected, atol=1e-4)


def test_float_pools(call: Call) -> None:
    shape, kernel, strides, pads = (7, 5, 6), (3, 2), (2, 1), (1, 0, 1, 2)
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    size = integer_ops.output_size((7, 5), kernel, strides, pads)
    g, pixels = np.array([*shape, *kernel, *strides, *pads[:2], 1, 1, *size, 0], np.int32), size[0] * size[1]
    planes, pooled = np.ascontiguousarray(x.transpose(2, 0, 1)), np.zeros((shape[2], pixels), np.float32)
    call("t_pool_f32", planes, g, 2, shape[0] + pads[2], shape[1] + pads[3], pooled)
    patches = integer_ops.windows(x, kernel, strides, pads, 0).reshape(pixels, -1, shape[2])
    np.testing.assert_allclose(pooled.T, patches.mean(1), atol=1e-5)
    call("t_pool_f32", planes, g, 0, 0, 0, pooled)
    border = np.pad(x, ((pads[0], pads[2]), (pads[1], pads[3]), (0, 0)), constant_values=-np.inf)
    patches = integer_ops.windows(border, kernel, strides, (0, 0, 0, 0), 0).reshape(pixels, -1, shape[2])
    np.testing.assert_array_equal(pooled.T, patches.max(1))
