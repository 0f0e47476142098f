"""Arithmetic outside the layers of networks: whole parts, remainders, angles, extremes and products along axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph import Array
from .activation import _Unary
from .elementwise import _Binary
from .pool import _Reduce


class Floor(_Unary):
    """The greatest integer that is not above x."""

    def f(self, x: Array) -> Any:
        """See the class."""
        return np.floor(x)


class Round(_Unary):
    """The nearest integer, the even one of two."""

    def f(self, x: Array) -> Any:
        """See the class."""
        return np.rint(x)


class Sin(_Unary):
    """Sine of an angle in radians."""

    def f(self, x: Array) -> Any:
        """See the class."""
        return np.sin(x)


class Cos(_Unary):
    """Cosine of an angle in radians."""

    def f(self, x: Array) -> Any:
        """See the class."""
        return np.cos(x)


class Mod(_Binary):
    """What remains of a after whole multiples of b, with the sign of b, as in Python."""

    fn = np.mod


class ReduceMin(_Reduce):
    """The least element."""

    fn = np.min


class Prod(_Reduce):
    """The product."""

    fn = np.prod
