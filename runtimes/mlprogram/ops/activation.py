"""Activations; their inside is computed in the accumulator's precision, step by step."""

from __future__ import annotations

import math

import numpy as np

from ....ir.ops.activation import erf
from ..arithmetic import Arithmetic
from .rule import Array, Rules

__all__ = ["RULES"]

ROOT_HALF, ROOT_TWO_OVER_PI = np.float32(math.sqrt(0.5)), np.float32(math.sqrt(2 / math.pi))


def sigmoid(x: Array) -> Array:
    """Logistic function, without overflow on either side."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def gelu(f: Arithmetic, x: Array, mode: str = "EXACT") -> Array:
    """Gaussian error linear unit, exact or by one of two approximations."""
    half_of = np.float32(0.5)
    if mode == "EXACT":
        return half_of * x * f.round(1 + f.round(erf(f.round(x * ROOT_HALF))))
    if mode == "TANH_APPROXIMATION":
        cube = f.round(f.round(x * x) * x)
        inner = f.round(ROOT_TWO_OVER_PI * f.round(x + f.round(np.float32(0.044715) * cube)))
        return half_of * x * f.round(1 + f.round(np.tanh(inner)))
    if mode == "SIGMOID_APPROXIMATION":
        return x * f.round(sigmoid(f.round(np.float32(1.702) * x)))
    raise ValueError(f"gelu has no mode {mode}")


def leaky_relu(x: Array, alpha: float) -> Array:
    """Slope alpha below zero."""
    return np.where(x >= 0, x, x * np.float32(alpha))


def clamped_relu(x: Array, alpha: float, beta: float) -> Array:
    """Slope alpha below zero, never above beta."""
    return np.minimum(leaky_relu(x, alpha), np.float32(beta))


def thresholded_relu(x: Array, alpha: float) -> Array:
    """Zero below alpha."""
    return np.where(x >= np.float32(alpha), x, np.float32(0))


def prelu(x: Array, alpha: Array) -> Array:
    """A slope of its own below zero for each channel (axis 1)."""
    return np.where(x > 0, x, x * _channels(alpha, x))


def elu(x: Array, alpha: float) -> Array:
    """Exponential below zero."""
    return np.where(x < 0, np.float32(alpha) * np.expm1(np.minimum(x, 0)), x)


def linear_activation(x: Array, alpha: float, beta: float) -> Array:
    """A line."""
    return np.float32(alpha) * x + np.float32(beta)


def scaled_tanh(x: Array, alpha: float, beta: float) -> Array:
    """Hyperbolic tangent with two scales."""
    return np.float32(alpha) * np.tanh(np.float32(beta) * x)


def sigmoid_hard(x: Array, alpha: float, beta: float) -> Array:
    """A line cut off at 0 and 1."""
    return np.asarray(np.clip(np.float32(alpha) * x + np.float32(beta), np.float32(0), np.float32(1)))


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), without overflow."""
    return np.asarray(np.logaddexp(x, np.float32(0)))


def softplus_parametric(x: Array, alpha: Array, beta: Array) -> Array:
    """Softplus with two scales for each channel (axis 1)."""
    return np.asarray(_channels(alpha, x) * softplus(_channels(beta, x) * x))


def softmax(f: Arithmetic, x: Array, axis: int = -1) -> Array:
    """Exponentials, less the largest, divided by their sum."""
    raised = f.round(np.exp(f.round(x - x.max(axis, keepdims=True))))
    return raised / f.sum(raised, axis, keepdims=True)


def _channels(array: Array, x: Array) -> Array:
    """One number for each channel, in a shape that meets axis 1 of x."""
    return array.reshape(-1, *[1] * (x.ndim - 2))


RULES: Rules = {
    "relu": lambda x: np.maximum(x, np.float32(0)),
    "relu6": lambda x: np.clip(x, np.float32(0), np.float32(6)),
    "silu": lambda x: x * sigmoid(x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "sigmoid": sigmoid,
    "gelu": gelu,
    "leaky_relu": leaky_relu,
    "clamped_relu": clamped_relu,
    "thresholded_relu": thresholded_relu,
    "prelu": prelu,
    "elu": elu,
    "linear_activation": linear_activation,
    "scaled_tanh": scaled_tanh,
    "sigmoid_hard": sigmoid_hard,
    "softplus": softplus,
    "softplus_parametric": softplus_parametric,
    "softmax": softmax,
}
