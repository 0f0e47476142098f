"""CMSIS-NN as a peer: built from a folder of its sources, or represented by instruction counts measured before.

None of its code is part of this project: the folder is an argument. Every call's result is held to numpy, so that a
count never stands for work that was not done.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgesmith.benchmarks.kernels import Array, Case

HERE = Path(__file__).parent
ENTRIES = ("peer_add", "peer_conv", "peer_depthwise", "peer_linear", "peer_scores", "peer_softmax")
FOLDERS = (
    "BasicMathFunctions", "ConvolutionFunctions", "FullyConnectedFunctions", "NNSupportFunctions", "SoftmaxFunctions",
    "TransposeFunctions",
)  # fmt: skip
COUNTED = {
    "cortex-m7": {
        "matmul 49x192x192": 1.674, "matmul 197x192x576": 1.619, "linear 49x192x192": 2.136,
        "linear 197x192x576": 2.134, "scores 197x64x197": 2.660, "patch 16x16 to 14x14x192": 1.765,
        "softmax row of 49": 528.0, "softmax row of 197": 521.0, "add int8 + int8": 80.8,
    },
    "cortex-m4": {
        "matmul 49x192x192": 1.706, "matmul 197x192x576": 1.651, "linear 49x192x192": 2.134,
        "linear 197x192x576": 2.133,
    },
    "cortex-m3": {
        "matmul 49x192x192": 2.776, "matmul 197x192x576": 2.712, "linear 49x192x192": 3.527,
        "linear 197x192x576": 3.525,
    },
}  # fmt: skip
"""Instructions per unit of work of version 7.0.0 (commit 99f736a) under gcc 12.2 -O3, counted in QEMU by a plugin: what
stands in where its sources are not at hand. Lines that are not here were never counted that way."""


def files(sources: Path, folder: Path) -> tuple[list[Path], tuple[str, ...], tuple[str, ...]]:
    """What the benchmark calls, to be built by our compiler: sources, functions to keep, flags."""
    headers = folder / "headers"
    headers.mkdir(exist_ok=True)
    # A compiler for bare metal brings no C library: these are the two of its headers that the sources name. They read
    # words by memcpy, which a freestanding compiler calls unless it is named as what it has built in: one load.
    builtin = "".join(f"#define {name} __builtin_{name}\n" for name in ("memcpy", "memset"))
    (headers / "string.h").write_text(f"#include <stddef.h>\n{builtin}")
    (headers / "math.h").write_text("")
    found = (path for part in FOLDERS for path in (sources / "Source" / part).glob("*.c"))
    needed = sorted(path for path in found if not path.stem.endswith(("_f16", "_f32", "_flt")))
    flags = (f"-I{headers}", f"-I{sources / 'Include'}", "-Wno-unused-parameter")
    return [HERE / "cmsis.c", *needed], ENTRIES, flags


def available(sources: Path | None) -> bool:
    """Whether a folder holds the sources."""
    return sources is not None and (sources / "Include" / "arm_nnfunctions.h").is_file()


def scales(mult: Array) -> tuple[Array, Array]:
    """Our multipliers, scale * 2^32, as its pairs of a mantissa in [2^30, 2^31) and a shift."""
    lift = 30 - np.floor(np.log2(mult)).astype(np.int32)
    return (mult << lift).astype(np.int32), (-1 - lift).astype(np.int32)


def convolution(
    name: str, x: Array, w: Array, bias: Array, mult: Array, expected: Array, sizes: Sequence[int], work: int,
    function: str = "peer_conv",
) -> Case:  # fmt: skip
    """A convolution or linear layer; `bias` without the zero point folded in. Requantisation rounds twice: +-1."""
    mantissas, shifts = scales(mult)
    scratch, out = np.zeros(16 * w[0].size + 64 * x.shape[-1] * 4, np.int8), np.zeros(expected.shape, np.int8)
    arguments = (np.array(sizes, np.int32), x, w, bias, mantissas, shifts, scratch, out)
    return Case(name, function, arguments, 7, expected, work, "MAC", tolerance=1)


def scores(name: str, x: Array, y: Array, work: int) -> Case:
    """Queries times keys, to int8."""
    scale = 2**-14
    exact = np.clip(np.rint((x.astype(np.int64) @ y.T.astype(np.int64)) * scale), -128, 127).astype(np.int8)
    sizes = np.array([len(x), x.shape[1], len(y), 1 << 30, -13], np.int32)
    scratch, out = np.zeros(4 * len(y), np.int32), np.zeros(exact.shape, np.int8)
    return Case(name, "peer_scores", (sizes, x, y, scratch, out), 4, exact, work, "MAC", tolerance=1)


def softmax(name: str, x: Array) -> Case:
    """One int8 row, of differences in sixteenths."""
    real = np.exp((x.astype(np.float64) - x.max()) / 16)
    expected = np.clip(np.rint(256 * real / real.sum()) - 128, -128, 127).astype(np.int8)
    return Case(
        name, "peer_softmax", (x, x.size, np.zeros_like(x)), 2, expected, x.size, "element", tolerance=1
    )


def add(name: str, x: Array, y: Array) -> Case:
    """The mean of two tensors."""
    expected = np.floor((x.astype(np.float64) + y) / 2 + 0.5).astype(np.int8)
    arguments = (x, y, x.size, np.zeros_like(x))
    return Case(name, "peer_add", arguments, 3, expected, x.size, "element", tolerance=1)
