"""Calls of MIL operations over awkward shapes and parameters, which several tests share."""

from __future__ import annotations

from typing import Any

import numpy as np

draw = np.random.default_rng(11)


def real(*shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    """Float32 numbers."""
    return draw.uniform(low, high, shape).astype(np.float32)


X, POSITIVE, UNIT = real(2, 3, 5), real(2, 3, 5, low=0.1), real(2, 3, 5, low=-0.9, high=0.9)
IMAGE = real(2, 4, 7, 5)

Case = tuple[str, dict[str, Any]]

ONE = [(name, {"x": X}) for name in (
    "abs", "atan", "ceil", "cos", "cosh", "erf", "exp", "exp2", "floor", "identity", "relu", "relu6",
    "round", "sigmoid", "sign", "sin", "sinh", "softplus", "softsign", "square", "tan", "tanh",
)]  # fmt: skip
UNITS = [(name, {"x": UNIT}) for name in ("acos", "asin", "atanh")]
TWO = [(name, {"x": X, "y": real(3, 1, low=0.5)}) for name in (
    "add", "sub", "mul", "real_div", "floor_div", "mod", "maximum", "minimum", "equal", "not_equal", "greater",
    "greater_equal", "less", "less_equal",
)]  # fmt: skip
BOTH = [(name, {"x": X > 0, "y": X > -1}) for name in ("logical_and", "logical_or", "logical_xor")] + [
    ("logical_not", {"x": X > 0})
]
ACTIVATIONS = [(name, {"x": IMAGE, "alpha": 0.3, "beta": 0.9}) for name in (
    "clamped_relu", "clip", "linear_activation", "scaled_tanh", "sigmoid_hard")
] + [(name, {"x": IMAGE, "alpha": 0.3}) for name in ("leaky_relu", "elu", "threshold", "thresholded_relu")]  # fmt: skip
REDUCTIONS = [
    (f"reduce_{name}", {"x": POSITIVE, **how})
    for name in ("sum", "mean", "max", "min", "prod", "sum_square", "l1_norm", "l2_norm", "log_sum", "log_sum_exp")
    for how in ({}, {"axes": [-1], "keep_dims": True}, {"axes": [0, 2]})
] + [
    (f"reduce_{name}", {"x": X, **how})
    for name in ("argmax", "argmin")
    for how in ({}, {"axis": 1, "keep_dims": True})
]  # fmt: skip
LINEAR: list[Case] = [
    ("linear", {"x": X, "weight": real(4, 5), "bias": real(4)}),
    ("linear", {"x": real(1, 5), "weight": real(4, 5)}),
    ("matmul", {"x": X, "y": real(5, 4)}),
    ("matmul", {"x": X, "y": real(2, 5, 3), "transpose_x": True, "transpose_y": True}),
    ("einsum", {"values": (real(2, 3, 4, 5), real(2, 5, 4, 6)), "equation": "nchw,nwhr->nchr"}),
    ("einsum", {"values": (real(3, 4, 5), real(5, 4, 6)), "equation": "chw,whr->chr"}),
    ("scaled_dot_product_attention", {"query": real(1, 2, 7, 8), "key": real(1, 2, 5, 8), "value": real(1, 2, 5, 6)}),
    ("scaled_dot_product_attention", {
        "query": real(1, 2, 7, 8), "key": real(1, 2, 5, 8), "value": real(1, 2, 5, 6), "attn_mask": real(7, 5)}),
    ("scaled_dot_product_attention", {
        "query": real(2, 7, 8), "key": real(2, 5, 8), "value": real(2, 5, 6),
        "attn_mask": np.tri(7, 5, 1, dtype=bool)}),
]  # fmt: skip
NORMS: list[Case] = [
    ("layer_norm", {"x": X, "axes": [-1], "gamma": real(5), "beta": real(5), "epsilon": 1e-3}),
    ("layer_norm", {"x": IMAGE, "axes": [1, 3], "gamma": real(4, 5), "beta": real(4, 5)}),
    ("l2_norm", {"x": IMAGE}),
    ("softmax", {"x": X}),
    ("softmax", {"x": 30 * X, "axis": 1}),
    ("gelu", {"x": 3 * X}),
    ("gelu", {"x": 3 * X, "mode": "TANH_APPROXIMATION"}),
    ("gelu", {"x": 3 * X, "mode": "SIGMOID_APPROXIMATION"}),
    ("prelu", {"x": IMAGE, "alpha": real(4)}),
    ("softplus_parametric", {"x": IMAGE, "alpha": real(4), "beta": real(4)}),
    ("pow", {"x": POSITIVE, "y": 1.7}),
    ("inverse", {"x": POSITIVE}),
    ("inverse", {"x": POSITIVE, "epsilon": 0.5}),
    ("log", {"x": POSITIVE}),
    ("log", {"x": POSITIVE, "epsilon": 0.5}),
    ("sqrt", {"x": POSITIVE}),
    ("rsqrt", {"x": POSITIVE, "epsilon": 0.25}),
    ("rsqrt", {"x": POSITIVE}),
    ("select", {"cond": X > 0, "a": X, "b": UNIT}),
    ("cast", {"x": 3 * X, "dtype": "int32"}),
    ("cast", {"x": np.arange(-3, 3, dtype=np.int32), "dtype": "fp32"}),
    ("cast", {"x": np.arange(-3, 3, dtype=np.int32), "dtype": "bool"}),
]
SHAPES: list[Case] = [
    ("reshape", {"x": X, "shape": [-1, 2]}),
    ("transpose", {"x": IMAGE, "perm": [0, 3, 1, 2]}),
    ("transpose", {"x": IMAGE, "perm": [-4, -1, -2, -3]}),
    ("concat", {"values": (X, UNIT), "axis": -1}),
    ("stack", {"values": (X, UNIT), "axis": 1}),
    ("split", {"x": IMAGE, "num_splits": 2, "axis": 1}),
    ("split", {"x": IMAGE, "split_sizes": [1, 4, 2], "axis": -2}),
    ("squeeze", {"x": real(1, 3, 1, 2)}),
    ("squeeze", {"x": real(1, 3, 1, 2), "axes": [-2]}),
    ("expand_dims", {"x": X, "axes": [0, -1]}),
    ("slice_by_index", {"x": IMAGE, "begin": [0, 1, -5, 4], "end": [2, 3, -1, 0], "stride": [1, 1, 2, -1]}),
    ("slice_by_index", {
        "x": IMAGE, "begin": [1, 1, 0, 0], "end": [0, 0, 0, 3], "end_mask": [False, True, True, False],
        "begin_mask": [False, False, True, True], "squeeze_mask": [True, False, False, False]}),
    ("slice_by_index", {"x": X, "begin": [-1, 0, 0], "end": [0, 3, 5], "squeeze_mask": [True, False, False]}),
    ("slice_by_size", {"x": IMAGE, "begin": [0, 1, 2, 0], "size": [2, -1, 3, 4]}),
    ("gather", {"x": IMAGE, "indices": np.array([[3, 0], [1, -1]], np.int32), "axis": 1}),
    ("gather", {"x": X, "indices": 1, "axis": 0}),
    ("gather", {"x": X, "indices": np.array([[2, 0], [1, 1]], np.int32), "axis": 1, "batch_dims": 1}),
    ("gather_along_axis", {"x": X, "indices": np.zeros((2, 2, 5), np.int32), "axis": 1}),
    ("pad", {"x": X, "pad": [1, 2, 0, 1], "mode": "constant", "constant_val": 0.5}),
    ("pad", {"x": IMAGE, "pad": [1, 2, 0, 1], "mode": "reflect"}),
    ("pad", {"x": IMAGE, "pad": [1, 2], "mode": "replicate"}),
    ("tile", {"x": X, "reps": [2, 1, 3]}),
    ("reverse", {"x": X, "axes": [0, -1]}),
    ("reverse", {"x": X}),
    ("shape", {"x": X}),
    ("fill", {"shape": [2, 3], "value": 0.5}),
    ("fill_like", {"ref_tensor": X, "value": 0.5}),
    ("range_1d", {"start": 1.0, "end": 6.0, "step": 1.5}),
    ("non_zero", {"x": np.array([[0, 1], [2, 0]], np.int32)}),
    ("band_part", {"x": IMAGE, "lower": 1, "upper": 2}),
    ("flatten2d", {"x": IMAGE, "axis": 2}),
    ("cumsum", {"x": X}),
    ("argsort", {"x": X, "axis": 1, "ascending": True}),
    ("topk", {"x": X, "k": 2, "axis": -1}),
    ("quantize", {"input": X, "scale": np.float32(0.02), "zero_point": np.int8(3), "output_dtype": "int8"}),
    ("quantize", {
        "input": X, "scale": real(3, low=0.01, high=0.03), "zero_point": np.array([0, 100, 200], np.uint8),
        "axis": 1, "output_dtype": "uint8"}),
]  # fmt: skip
INFERRED: list[Case] = [
    *ONE, *UNITS, *TWO, *BOTH, *ACTIVATIONS, *REDUCTIONS, *LINEAR, *NORMS, *SHAPES,
]  # fmt: skip
"""Calls that coremltools itself can compute."""
