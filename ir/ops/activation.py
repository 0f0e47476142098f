"""Functions of one element: activations and the primitives that exporters build them from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..graph import Array, Type
from ..op import Example, Op, require
from .sampling import sample


@dataclass(frozen=True)
class _Unary(Op):
    """y = f(x), element by element."""

    inplace: ClassVar[tuple[int, ...]] = (0,)
    low: ClassVar[float] = -4.0

    def f(self, x: Array) -> Any:
        """The function, in numpy."""
        raise NotImplementedError

    def infer(self, x: Type) -> Type:
        """The type of x."""
        require(x.dtype != "bool", "expects numbers, not truth values")
        return Type(x.dtype, x.shape)

    def reference(self, x: Array) -> Array:
        """See the class."""
        return np.asarray(self.f(x)).astype(x.dtype, copy=False)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """A small tensor in the function's domain."""
        yield cls(), (sample(2, 5, 3, low=cls.low, high=4.0),)


def erf(x: Array) -> Array:
    """The error function in the precision of x."""
    from scipy.special import erf as special_erf

    return np.asarray(special_erf(x))


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


class Erf(_Unary):
    """The error function."""

    def f(self, x: Array) -> Any:
        """See the class."""
        return erf(x)


class Exp(_Unary):
    """e**x."""

    def f(self, x: Array) -> Any:
        """See the class."""
        return np.exp(x)


class Log(_Unary):
    """Natural logarithm."""

    low = 0.1

    def f(self, x: Array) -> Any:
        """See the class."""
        return np.log(x)


class Sqrt(_Unary):
    """Square root."""

    low = 0.1

    def f(self, x: Array) -> Any:
        """See the class."""
        return np.sqrt(x)


class Reciprocal(_Unary):
    """1 / x."""

    low = 0.1

    def f(self, x: Array) -> Any:
        """See the class."""
        return 1 / x


class Neg(_Unary):
    """-x."""

    def f(self, x: Array) -> Any:
        """See the class."""
        return -x


class Abs(_Unary):
    """|x|."""

    def f(self, x: Array) -> Any:
        """See the class."""
        return np.abs(x)


class Sigmoid(_Unary):
    """1 / (1 + exp(-x))."""

    def f(self, x: Array) -> Any:
        """See the class."""
        return sigmoid(x)


class Tanh(_Unary):
    """Hyperbolic tangent."""

    def f(self, x: Array) -> Any:
        """See the class."""
        return np.tanh(x)


class Relu(_Unary):
    """max(x, 0)."""

    def f(self, x: Array) -> Any:
        """See the class."""
        return np.maximum(x, 0)


class Silu(_Unary):
    """x * sigmoid(x), also called Swish."""

    def f(self, x: Array) -> Any:
        """See the class."""
        return x * sigmoid(x)


class HardSwish(_Unary):
    """x * clip(x / 6 + 1/2, 0, 1)."""

    def f(self, x: Array) -> Any:
        """See the class."""
        return x * np.clip(x / 6 + 0.5, 0, 1)


@dataclass(frozen=True)
class HardSigmoid(_Unary):
    """clip(alpha * x + beta, 0, 1)."""

    alpha: float = 0.2
    beta: float = 0.5

    def f(self, x: Array) -> Any:
        """See the class."""
        return np.clip(self.alpha * x + self.beta, 0, 1)


@dataclass(frozen=True)
class LeakyRelu(_Unary):
    """x where positive, alpha * x elsewhere."""

    alpha: float = 0.01

    def f(self, x: Array) -> Any:
        """See the class."""
        return np.where(x > 0, x, self.alpha * x)


@dataclass(frozen=True)
class Clip(_Unary):
    """min(max(x, low), high)."""

    minimum: float = -math.inf
    maximum: float = math.inf

    def f(self, x: Array) -> Any:
        """See the class."""
        return np.clip(x, self.minimum, self.maximum)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Both bounds, and one."""
        yield cls(0.0, 6.0), (sample(3, 7, low=-8, high=8),)
        yield cls(-1.0), (sample(3, 7, low=-8, high=8),)


@dataclass(frozen=True)
class Gelu(_Unary):
    """x * Phi(x): exactly by erf ("none"), by tanh ("tanh"), or as x * sigmoid(1.702 x) ("sigmoid").

    Source: Hendrycks and Gimpel, Gaussian Error Linear Units, section 2.
    """

    approximate: str = "none"

    def infer(self, x: Type) -> Type:
        """The type of x."""
        require(self.approximate in FORMS, f"approximate must be one of {', '.join(FORMS)}, not {self.approximate!r}")
        return Type(x.dtype, x.shape)

    def f(self, x: Array) -> Any:
        """See the class."""
        return FORMS[self.approximate](x)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """All three forms."""
        for form in FORMS:
            yield cls(form), (sample(4, 6, low=-5, high=5),)


FORMS: dict[str, Callable[[Array], Array]] = {
    "none": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))),
    "sigmoid": lambda x: x * sigmoid(1.702 * x),
}


@dataclass(frozen=True)
class Softmax(Op):
    """exp(x - max) / sum along one axis."""

    axis: int = -1
    inplace: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, x: Type) -> Type:
        """The type of x."""
        require(-x.rank <= self.axis < x.rank, f"axis {self.axis} is outside a tensor of rank {x.rank}")
        require(x.numpy.kind == "f", f"expects real numbers, not {x.dtype}")
        return Type(x.dtype, x.shape)

    def reference(self, x: Array) -> Array:
        """See the class."""
        e = np.exp(x - x.max(axis=self.axis, keepdims=True, initial=-np.inf))
        return np.asarray(e / e.sum(axis=self.axis, keepdims=True))

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Last and middle axis; logits of +-80 must not overflow."""
        yield cls(-1), (sample(2, 3, 5),)
        yield cls(1), (sample(2, 3, 5, low=-80, high=80),)
