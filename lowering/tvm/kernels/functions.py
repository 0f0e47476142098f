"""Functions of one element as TIR expressions for any number of lanes, exact to 1e-6 of the value without a call.

The coefficients are least-squares fits of numpy's double-precision functions, reweighted until the largest relative
error no longer fell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .body import Body, Expr

__all__ = ["FUNCTIONS", "exp_fast"]

LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
EXP = (1.0, 1.0, 0.5, 0.16666415477, 0.04166621827, 0.00837512889, 0.00139485808)
LOG = (0.33333316674, -0.25000020689, 0.20001783315, -0.16667006375, 0.14226403466, -0.12429467761,
       0.11857833142, -0.11507866595, 0.06608098126)  # fmt: skip
ERF_TOP, TANH_TOP = 4.0, 9.0
"""Beyond these both are 1 in single precision."""
ERF = ((1.12837914, 0.193545157, 0.0531017598, 0.0038833479, 0.000284565951, 1.98678145e-06),
       (1.0, 0.504857485, 0.11535004, 0.0152072597, 0.00118557198, 3.74201676e-05))  # fmt: skip
TANH = ((0.999999999, 0.136808569, 0.00386950852, 2.8031321e-05, 3.06425492e-08, -1.22462595e-11),
        (1.0, 0.47014189, 0.0272501586, 0.00039407143, 1.28903576e-06))  # fmt: skip

Function = Callable[..., Expr]


def polynomial(body: Body, x: Expr, coefficients: Sequence[float], lanes: int) -> Expr:
    """Horner's rule; the constant coefficient comes first."""
    y = body.number(coefficients[-1], lanes)
    for each in reversed(coefficients[:-1]):
        y = y * x + body.number(each, lanes)
    return y


def clamp(body: Body, x: Expr, low: float, high: float, lanes: int) -> Expr:
    """Keep x between two bounds; infinite ones are none."""
    x = x if high == math.inf else body.least(x, body.number(high, lanes))
    return x if low == -math.inf else body.most(x, body.number(low, lanes))


def _exp_parts(body: Body, x: Expr, lanes: int) -> tuple[Expr, Expr]:
    """Mantissa and integer power of two of e**x."""
    n = body.tir.floor(x * body.number(1 / math.log(2), lanes) + body.number(0.5, lanes))
    rest = x - n * body.number(LN2_HIGH, lanes) - n * body.number(LN2_LOW, lanes)
    return polynomial(body, rest, EXP, lanes), body.cast(n, "int32", lanes)


def _power_of_two(body: Body, n: Expr, lanes: int) -> Expr:
    biased = n + body.number(127, lanes, "int32")
    return body.bits(body.tir.shift_left(biased, body.number(23, lanes, "int32")), "float32", lanes)


def exp_fast(body: Body, x: Expr, lanes: int) -> Expr:
    """e**x for x <= 88; below -87 it stays at the smallest normal number."""
    mantissa, n = _exp_parts(body, clamp(body, x, -87.0, 88.0, lanes), lanes)
    return mantissa * _power_of_two(body, n, lanes)


def exp(body: Body, x: Expr, lanes: int) -> Expr:
    """e**x with its zeros and infinities: the power of two is applied in two halves."""
    mantissa, n = _exp_parts(body, clamp(body, x, -110.0, 100.0, lanes), lanes)
    half = body.tir.shift_right(n, body.number(1, lanes, "int32"))
    return mantissa * _power_of_two(body, half, lanes) * _power_of_two(body, n - half, lanes)


def log(body: Body, x: Expr, lanes: int) -> Expr:
    """Natural logarithm of a positive normal number: its exponent, and a polynomial of its mantissa in [0.7, 1.4)."""
    offset = body.bits(x, "int32", lanes) - body.number(0x3F3504F3, lanes, "int32")
    n = body.tir.shift_right(offset, body.number(23, lanes, "int32"))
    mantissa = body.bits(x, "int32", lanes) - body.tir.shift_left(n, body.number(23, lanes, "int32"))
    z = body.bits(mantissa, "float32", lanes) - body.number(1.0, lanes)
    tail = z * z * z * polynomial(body, z, LOG, lanes) - z * z * body.number(0.5, lanes)
    n = body.cast(n, "float32", lanes)
    return n * body.number(LN2_HIGH, lanes) + (z + (tail + n * body.number(LN2_LOW, lanes)))


def _odd(top: float, ratio: tuple[tuple[float, ...], tuple[float, ...]]) -> Function:
    """x * P(x^2) / Q(x^2), constant beyond +-top."""

    def function(body: Body, x: Expr, lanes: int) -> Expr:
        x = clamp(body, x, -top, top, lanes)
        over, under = (polynomial(body, x * x, each, lanes) for each in ratio)
        return x * over / under

    return function


erf, tanh = _odd(ERF_TOP, ERF), _odd(TANH_TOP, TANH)


def sigmoid(body: Body, x: Expr, lanes: int) -> Expr:
    """1 / (1 + e**-x)."""
    one = body.number(1.0, lanes)
    return one / (one + exp_fast(body, body.number(0.0, lanes) - x, lanes))


def gelu_erf(body: Body, x: Expr, lanes: int) -> Expr:
    """x * Phi(x)."""
    half = x * body.number(0.5, lanes)
    return half + half * erf(body, x * body.number(math.sqrt(0.5), lanes), lanes)


def gelu_tanh(body: Body, x: Expr, lanes: int) -> Expr:
    """Its approximation by tanh."""
    half, factor = x * body.number(0.5, lanes), math.sqrt(2 / math.pi)
    inner = x * (body.number(factor, lanes) + x * x * body.number(factor * 0.044715, lanes))
    return half + half * tanh(body, inner, lanes)


def gelu_sigmoid(body: Body, x: Expr, lanes: int) -> Expr:
    """Its approximation by the logistic function."""
    return x * sigmoid(body, x * body.number(1.702, lanes), lanes)


def hard_sigmoid(body: Body, x: Expr, lanes: int, alpha: float, beta: float) -> Expr:
    """clip(alpha * x + beta, 0, 1)."""
    return clamp(body, x * body.number(alpha, lanes) + body.number(beta, lanes), 0.0, 1.0, lanes)


def power(body: Body, a: Expr, b: Expr, lanes: int) -> Expr:
    """a ** b by the C library."""
    return body.tir.pow(a, b)


def quantise(body: Body, x: Expr, lanes: int, scale: float, zero: float, low: float, high: float) -> Expr:
    """Round(x / scale) + zero, ties to even, between two integers."""
    whole = body.tir.nearbyint(x / body.number(scale, lanes)) + body.number(zero, lanes)
    return clamp(body, whole, low, high, lanes)


def dequantise(body: Body, q: Expr, lanes: int, scale: float, zero: float) -> Expr:
    """(q - zero) * scale."""
    return (q - body.number(zero, lanes)) * body.number(scale, lanes)


FUNCTIONS: dict[str, Function] = {
    "abs": lambda b, x, n: b.most(x, b.number(0.0, n) - x),
    "neg": lambda b, x, n: b.number(0.0, n) - x,
    "reciprocal": lambda b, x, n: b.number(1.0, n) / x,
    "sqrt": lambda b, x, n: b.tir.sqrt(x),
    "relu": lambda b, x, n: b.most(x, b.number(0.0, n)),
    "leaky": lambda b, x, n, alpha: b.choose(x > b.number(0.0, n), x, x * b.number(alpha, n)),
    "exp": exp,
    "log": log,
    "erf": erf,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "silu": lambda b, x, n: x * sigmoid(b, x, n),
    "hard_sigmoid": hard_sigmoid,
    "hard_swish": lambda b, x, n: x * hard_sigmoid(b, x, n, 1 / 6, 0.5),
    "gelu_none": gelu_erf,
    "gelu_tanh": gelu_tanh,
    "gelu_sigmoid": gelu_sigmoid,
    "clip": lambda b, x, n, low, high: clamp(b, x, low, high, n),
    "add": lambda b, x, y, n: x + y,
    "sub": lambda b, x, y, n: x - y,
    "mul": lambda b, x, y, n: x * y,
    "div": lambda b, x, y, n: x / y,
    "min": lambda b, x, y, n: b.least(x, y),
    "max": lambda b, x, y, n: b.most(x, y),
    "pow": power,
    "less": lambda b, x, y, n: b.choose(x < y, b.number(1.0, n), b.number(0.0, n)),
    "equal": lambda b, x, y, n: b.choose(x == y, b.number(1.0, n), b.number(0.0, n)),
    "where": lambda b, c, x, y, n: b.choose(c > b.number(0.5, n), x, y),
    "real": lambda b, x, n: b.cast(x, "float32", n),
    "quantise": quantise,
    "dequantise": dequantise,
}
"""Each takes the body, its operands, the number of lanes, and its parameters."""
