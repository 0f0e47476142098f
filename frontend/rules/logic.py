"""Comparisons, truth values, choices, and changes of the element type."""

from __future__ import annotations

import numpy as np

from ...ir.ops.activation import Abs
from ..call import Call, Result, rule
from ..model import dtype_of
from .terms import NUMBERS, both, cast, choose, contrary, either, equal, less, pair


@rule("Equal")
def same(call: Call) -> Result:
    """Element by element."""
    return equal(call, *pair(call))


@rule("Less")
def smaller(call: Call) -> Result:
    """Element by element."""
    return less(call, *pair(call))


@rule("Greater")
def larger(call: Call) -> Result:
    """Less, the other way round."""
    a, b = pair(call)
    return less(call, b, a)


@rule("LessOrEqual", "GreaterOrEqual")
def at_most(call: Call) -> Result:
    """Less or equal: not the contrary of greater, as NaN is neither."""
    a, b = (call[0], call[1]) if call.node.op_type == "LessOrEqual" else (call[1], call[0])
    return either(call, less(call, a, b), equal(call, a, b))


@rule("And")
def conjunction(call: Call) -> Result:
    """Both hold."""
    return both(call, *pair(call))


@rule("Or")
def disjunction(call: Call) -> Result:
    """One holds at least."""
    return either(call, *pair(call))


@rule("Xor")
def exclusive(call: Call) -> Result:
    """Exactly one holds."""
    return contrary(call, equal(call, *pair(call)))


@rule("Not")
def negation(call: Call) -> Result:
    """It does not hold."""
    return contrary(call, call.x)


@rule("IsNaN")
def is_nan(call: Call) -> Result:
    """What does not equal itself."""
    return contrary(call, equal(call, call.x, call.x))


@rule("IsInf")
def is_infinite(call: Call) -> Result:
    """Either sign, unless told."""
    up, down = call.attr("detect_positive", 1), call.attr("detect_negative", 1)
    call.require(bool(up or down), "that finds nothing")
    return equal(call, call.add(Abs(), call.x) if up and down else call.x, np.inf if up else -np.inf)


@rule("Where")
def where(call: Call) -> Result:
    """A choice, element by element."""
    return choose(call, call[0], call[1], call[2])


@rule("Cast", "CastLike")
def change_type(call: Call) -> Result:
    """Among real numbers, integers and truth values; double precision is computed in single."""
    source = call.x.dtype
    target = dtype_of(call.attr("to", 0)) if call.node.op_type == "Cast" else call[1].dtype
    target = "float32" if target == "float64" else target
    call.require(source in NUMBERS and target in NUMBERS, f"from {source} to {target}: real numbers are float32 here")
    return cast(call, call.x, target)
