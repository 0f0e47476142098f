"""What benchmarks/mcu.py runs: each kernel with literal sizes, its numpy twin, and the same work for CMSIS-NN."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from edgesmith.benchmarks import cmsis, kernels
from edgesmith.benchmarks.kernels import Array, Case
from edgesmith.ir import integer, integer_layout, integer_ops
from edgesmith.ir.memory.scratch import planes_bytes

M7, M4, M3, M55, RV32 = "cortex-m7", "cortex-m4", "cortex-m3", "cortex-m55", "rv32imc"
NEAR = 1.05
"""How much more a Cortex-M4 may take than a Cortex-M7."""
ZERO_X = 5

POINTWISE = (
    (56, 32, 32), (56, 32, 128), (56, 128, 32), (28, 96, 64), (28, 64, 192), (28, 48, 192), (28, 192, 48),
    (14, 192, 96), (14, 96, 128), (14, 96, 192), (14, 96, 288), (14, 288, 96), (14, 96, 384), (14, 384, 96),
    (14, 96, 512), (14, 96, 576), (14, 1024, 96), (7, 96, 256), (7, 96, 1024), (7, 128, 384), (7, 384, 128),
    (7, 128, 512), (7, 512, 128), (7, 576, 128), (7, 128, 960), (7, 176, 256), (7, 512, 176), (7, 176, 528),
    (7, 528, 176), (7, 176, 704), (7, 704, 176), (7, 176, 1024), (7, 1024, 176), (1, 960, 1280),
)  # fmt: skip
"""(height = width, channels, outputs) of the 1x1 convolutions of mobilenetv4_conv_small and efficientformerv2_s0."""

STRIDED = (
    (224, 3, 16), (224, 3, 32), (112, 16, 32), (112, 32, 32), (56, 32, 48), (56, 32, 96), (28, 48, 96), (14, 96, 176),
)  # fmt: skip
"""The same of their dense 3x3 convolutions, all of stride 2."""

DEPTHWISE = (
    (56, 128, 3, 1), (28, 192, 3, 1), (14, 96, 3, 1), (14, 192, 3, 1), (14, 288, 3, 1), (14, 384, 3, 1),
    (7, 512, 3, 1), (7, 528, 3, 1), (7, 704, 3, 1), (7, 1024, 3, 1), (14, 96, 3, 2), (14, 512, 3, 2), (14, 576, 3, 2),
    (28, 64, 5, 1), (28, 192, 5, 2), (7, 128, 5, 1), (7, 384, 5, 1), (7, 512, 5, 1), (14, 160, 7, 1),
)  # fmt: skip
"""(height = width, channels, kernel, stride) of their depthwise convolutions, and one 7x7 of a ConvNeXt."""


@dataclass(frozen=True)
class Contest:
    """A case of ours, the C text it needs beside kernels.c, the same work for the peer, and goals by core."""

    ours: Case
    peer: Case | None = None
    text: str = ""
    goals: dict[str, float] = field(default_factory=dict)
    convolution: bool = False


def contests() -> Iterator[Contest]:
    """All, in the table's order; data are made as they are asked for."""
    noise = np.random.default_rng(0)
    yield linear(noise, 49, 192, 192, {M7: 0.98, M4: 0.98 * NEAR, M3: 2.1, M55: 0.16, RV32: 3.2})
    yield linear(noise, 197, 192, 576, {M7: 0.92, M4: 0.92 * NEAR, M3: 2.1, M55: 0.16, RV32: 3.2})
    yield linear(noise, 49, 192, 192, {M7: 0.98, M4: 0.98 * NEAR}, fully_connected=True)
    yield linear(noise, 197, 192, 576, {M7: 0.92, M4: 0.92 * NEAR}, fully_connected=True)
    yield from rows(noise)
    yield convolution(noise, "patch 16x16 to 14x14x192", 224, 3, 192, 16, 16, {M7: 1.05, M4: 1.05 * NEAR})
    for size, channels, outputs in STRIDED:
        yield convolution(noise, f"conv 3x3/2 {size}x{size}x{channels} to {outputs}", size, channels, outputs, 3, 2)
    for size, channels, outputs in POINTWISE:
        yield pointwise(noise, size, channels, outputs)
    for shape in DEPTHWISE:
        yield depthwise(noise, *shape)


def parameters(noise: np.random.Generator, w: Array, zero: int) -> tuple[Array, Array, Array]:
    """(bias, the same with x's zero point folded in, mult) for weights [outputs, ...], so that int8 is well used."""
    outputs, taps = len(w), w[0].size
    bias = noise.integers(-9999, 9999, outputs).astype(np.int32)
    folded = bias - zero * w.reshape(outputs, -1).sum(axis=1, dtype=np.int32)
    mult = noise.integers(2**31, 2**32, outputs) / (64 * np.sqrt(taps))
    return bias, folded, mult.astype(np.int32)


SCALE = "{mult, 0, 0, -128, 127, NULL, NULL, NULL}"
ARGUMENTS = "const int8_t *x, const int8_t *w, const int32_t *bias, const int32_t *mult, int16_t *tile, int8_t *out"


def linear(
    noise: np.random.Generator, rows: int, depth: int, outputs: int, goals: dict[str, float],
    fully_connected: bool = False,
) -> Contest:  # fmt: skip
    """Rows times weights; the peer's faster kernel is its 1x1 convolution, the other is what TFLite Micro calls."""
    x, w = kernels._bytes(noise, rows, depth), kernels._bytes(noise, outputs, depth)
    name = f"{'linear' if fully_connected else 'matmul'} {rows}x{depth}x{outputs}"
    if fully_connected:
        return product(noise, name, x, w, goals, "peer_linear", (rows, depth, outputs, ZERO_X))
    return product(noise, name, x, w, goals, "peer_conv", (1, rows, depth, 1, 1, 1, rows, outputs, 1, 0, ZERO_X))


def product(
    noise: np.random.Generator, name: str, x: Array, w: Array, goals: dict[str, float], function: str,
    sizes: tuple[int, ...], convolution: bool = False,
) -> Contest:  # fmt: skip
    """x [rows, depth] times w [outputs, depth] through tiles of 48 rows at most, as the planner has them."""
    (rows, depth), outputs = x.shape, len(w)
    bias, folded, mult = parameters(noise, w, ZERO_X)
    expected, work = integer.qlinear(x, w, folded, mult), rows * depth * outputs
    tile = min(48, max(3, rows // 3 * 3))
    text = (
        f"void linear_{rows}_{depth}_{outputs}({ARGUMENTS})\n"
        f"{{\n    const es_to_rows to = {{out, 8, {outputs}, {SCALE}}};\n"
        f"    es_linear(x, 8, {rows}, {depth}, {depth}, w, bias, {outputs}, tile, {tile}, es_store_rows, &to);\n}}\n"
    )
    scratch, out = np.zeros(tile * (depth + 3), np.int16), np.zeros(expected.shape, np.int8)
    packed, pairs = integer_layout.pack(w), integer_layout.pack_pairs
    arguments = (x, packed, pairs(folded), pairs(mult), scratch, out)
    ours = Case(name, f"linear_{rows}_{depth}_{outputs}", arguments, 5, expected, work, "MAC")
    peer = cmsis.convolution(name, x, w, bias, mult, expected, sizes, work, function)
    return Contest(ours, peer, text, goals, convolution)


def pointwise(noise: np.random.Generator, size: int, channels: int, outputs: int) -> Contest:
    """A 1x1 convolution."""
    x, w = kernels._bytes(noise, size * size, channels), kernels._bytes(noise, outputs, channels)
    name = f"conv 1x1 {size}x{size}x{channels} to {outputs}"
    sizes = (size, size, channels, 1, 1, size, size, outputs, 1, 0, ZERO_X)
    return product(noise, name, x, w, {}, "peer_conv", sizes, convolution=True)


def window(size: int, channels: int, kernel: int, stride: int, padding: int, out: int) -> str:
    """The `es_window` of a square kernel over a square image."""
    fields = (size, size, channels, kernel, kernel, stride, stride, padding, padding, 1, 1, out, out, ZERO_X)
    return f"static const es_window g = {{{', '.join(map(str, fields))}}};"


def convolution(
    noise: np.random.Generator, name: str, size: int, channels: int, outputs: int, kernel: int, stride: int,
    goals: dict[str, float] | None = None,
) -> Contest:  # fmt: skip
    """A dense convolution of a square image."""
    padding = kernel // 2 if kernel % 2 else 0
    x, w = kernels._bytes(noise, size, size, channels), kernels._bytes(noise, outputs, kernel, kernel, channels)
    bias, folded, mult = parameters(noise, w, ZERO_X)
    out = (size + 2 * padding - kernel) // stride + 1
    pads, strides = (padding,) * 4, (stride, stride)
    expected = integer_ops.qconv(x, w, folded, mult, strides=strides, pads=pads, zero_x=ZERO_X)
    function = f"conv_{size}_{channels}_{outputs}_{kernel}"
    text = (
        f"void {function}({ARGUMENTS})\n{{\n    {window(size, channels, kernel, stride, padding, out)}\n"
        f"    const es_to_rows to = {{out, 8, {outputs}, {SCALE}}};\n"
        f"    es_conv(x, 8, &g, 1, (es_matrix){{w, ES_INT8, NULL}}, bias, {outputs}, tile, 48, &to);\n}}\n"
    )
    flat, work = w.reshape(outputs, -1), expected.size * w[0].size
    pairs, scratch = integer_layout.pack_pairs, np.zeros(48 * (flat.shape[1] + 3), np.int16)
    arguments = (x, integer_layout.pack(flat), pairs(folded), pairs(mult), scratch, np.zeros(expected.shape, np.int8))
    sizes = (size, size, channels, kernel, kernel, out, out, outputs, stride, padding, ZERO_X)
    ours = Case(name, function, arguments, 5, expected, work, "MAC")
    peer = cmsis.convolution(name, x, w, bias, mult, expected, sizes, work)
    return Contest(ours, peer, text, goals or {}, goals is None)


def depthwise(noise: np.random.Generator, size: int, channels: int, kernel: int, stride: int) -> Contest:
    """One kernel per channel over a square image."""
    padding, name = kernel // 2, f"depthwise {kernel}x{kernel}/{stride} {size}x{size}x{channels}"
    x, w = kernels._bytes(noise, size, size, channels), kernels._bytes(noise, kernel, kernel, channels)
    bias, folded, mult = parameters(noise, np.ascontiguousarray(w.transpose(2, 0, 1)), ZERO_X)
    out = (size + 2 * padding - kernel) // stride + 1
    pads, strides = (padding,) * 4, (stride, stride)
    expected = integer_ops.qdepthwise(x, w, folded, mult, strides=strides, pads=pads, zero_x=ZERO_X)
    band = min(out, 14)
    function = f"depthwise_{size}_{channels}_{kernel}_{stride}"
    text = (
        f"void {function}({ARGUMENTS})\n{{\n    {window(size, channels, kernel, stride, padding, out)}\n"
        f"    const es_to_rows to = {{out, 8, {channels}, {SCALE}}};\n"
        f"    es_depthwise(x, 8, &g, w, bias, tile, {band}, &to);\n}}\n"
    )
    scratch = np.zeros(planes_bytes(band, (kernel, kernel), strides, out), np.int8)
    work = expected.size * kernel * kernel
    arguments = (x, w, folded, mult, scratch, np.zeros(expected.shape, np.int8))
    sizes = (size, size, channels, kernel, kernel, out, out, channels, stride, padding, ZERO_X)
    ours = Case(name, function, arguments, 5, expected, work, "MAC")
    peer = cmsis.convolution(name, x, w, bias, mult, expected, sizes, work, "peer_depthwise")
    return Contest(ours, peer, text, {}, convolution=True)


def rows(noise: np.random.Generator) -> Iterator[Contest]:
    """Scores, softmax and the residual sum: kernels.c has ours."""
    _, head = kernels.matmul_cases(noise)
    x, y = kernels._bytes(noise, 197, 64), kernels._bytes(noise, 197, 64)
    yield Contest(head, cmsis.scores(head.name, x, y, head.work), goals={M7: 1.15, M4: 1.15 * NEAR})
    softmax, _ = kernels.attention_cases(noise)
    row = noise.integers(-128, 128, 197).astype(np.int8)
    yield Contest(softmax, cmsis.softmax(softmax.name, row), goals={M7: 15, M4: 15 * NEAR})
    add, *_ = kernels.row_cases(noise)
    x, y = kernels._bytes(noise, add.work), kernels._bytes(noise, add.work)
    yield Contest(add, cmsis.add(add.name, x, y), goals={M7: 12, M4: 12 * NEAR})
