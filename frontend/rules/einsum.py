"""Einstein sums, taken apart into products of matrices, pair after pair."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from ...ir.graph import Value
from ...ir.ops.linear import MatMul
from ...ir.ops.shape import Expand, Gather
from ..call import Call, Result, rule
from .terms import mul, total, turn, view


@dataclass(frozen=True)
class Labelled:
    """A tensor whose axes have letters; those an ellipsis stands for are numbers from the right, "~0" the last."""

    value: Value
    labels: tuple[str, ...]

    def size(self, label: str) -> int:
        """Of an axis."""
        return self.value.shape[self.labels.index(label)]


@rule("Einsum")
def einsum(call: Call) -> Result:
    """Letters that repeat in one operand are diagonals, letters missing from the result are summed."""
    left, arrow, right = re.sub(r"\s", "", call.attr("equation")).partition("->")
    terms = left.split(",")
    call.demand(len(terms) == len(call.operands), f"{len(terms)} terms for {len(call.operands)} operands")
    parts = [_labelled(call, call[i], term) for i, term in enumerate(terms)]
    out = _result(parts, right if arrow else None, left)
    done = parts[0]
    for i, part in enumerate(parts[1:], 1):
        later = {label for other in parts[i + 1 :] for label in other.labels} | set(out)
        done = _paired(call, done, part, later)
    done = _summed(call, done, set(out))
    call.demand(set(done.labels) == set(out), f"the result {right} has letters that no operand has")
    return turn(call, done.value, tuple(done.labels.index(label) for label in out))


def _labelled(call: Call, x: Value, term: str) -> Labelled:
    before, dots, after = term.partition("...")
    covered = len(x.shape) - len(before) - len(after)
    fits = covered >= 0 if dots else covered == 0
    call.demand(fits and re.fullmatch("[A-Za-z]*", before + after) is not None, f"{term!r} does not fit {x.shape}")
    inner = tuple(f"~{covered - 1 - i}" for i in range(covered))
    return _diagonal(call, Labelled(x, (*before, *inner, *after)))


def _diagonal(call: Call, part: Labelled) -> Labelled:
    """Equal letters become one axis: elements with equal indices are picked from both axes joined."""
    for label in part.labels:
        if part.labels.count(label) > 1:
            first = part.labels.index(label)
            second = part.labels.index(label, first + 1)
            rank, size = len(part.labels), part.value.shape[first]
            call.demand(part.value.shape[second] == size, f"the axes {label} differ")
            rest = tuple(i for i in range(rank) if i not in (first, second))
            x = turn(call, part.value, (*rest, first, second))
            x = view(call, x, (*x.shape[:-2], size * size))
            picks = call.constant(np.arange(size) * (size + 1), "diagonal", "int64")
            x = call.add(Gather(rank - 2), x, picks)
            return _diagonal(call, Labelled(x, (*(part.labels[i] for i in rest), label)))
    return part


def _result(parts: list[Labelled], right: str | None, left: str) -> tuple[str, ...]:
    """Letters of the result; without an arrow those that occur once, in alphabetical order."""
    inner = sorted({label for part in parts for label in part.labels if label[0] == "~"}, key=lambda s: -int(s[1:]))
    if right is None:
        return (*inner, *sorted(c for c in set(left) if c.isalpha() and left.count(c) == 1))
    before, dots, after = right.partition("...")
    return (*before, *(inner if dots else ()), *after)


def _summed(call: Call, part: Labelled, kept: set[str]) -> Labelled:
    gone = tuple(i for i, label in enumerate(part.labels) if label not in kept)
    if not gone:
        return part
    return Labelled(total(call, part.value, gone, False), tuple(label for label in part.labels if label in kept))


def _paired(call: Call, a: Labelled, b: Labelled, later: set[str]) -> Labelled:
    """The product of two operands, summed over what both have and nothing later reads."""
    a, b = _summed(call, a, later | set(b.labels)), _summed(call, b, later | set(a.labels))
    a, b = _even(call, a, b), _even(call, b, a)
    shared = [label for label in a.labels if label in b.labels]
    batch, inner = [s for s in shared if s in later], [s for s in shared if s not in later]
    rows, columns = [s for s in a.labels if s not in shared], [s for s in b.labels if s not in shared]
    left, right = _arranged(call, a, batch, rows, inner), _arranged(call, b, batch, inner, columns)
    y: Value = call.add(MatMul(), left, right) if inner else mul(call, left, right)
    labels = (*batch, *rows, *columns)
    return Labelled(view(call, y, tuple((a if s in a.labels else b).size(s) for s in labels)), labels)


def _even(call: Call, a: Labelled, b: Labelled) -> Labelled:
    """Axes of size 1 that the other operand stretches."""
    shape = tuple(b.size(s) if n == 1 and s in b.labels else n for s, n in zip(a.labels, a.value.shape, strict=True))
    return a if shape == a.value.shape else Labelled(call.add(Expand(shape), a.value), a.labels)


def _arranged(call: Call, part: Labelled, batch: list[str], first: list[str], second: list[str]) -> Value:
    """[*batch, first axes as one, second axes as one]."""
    order = (*batch, *first, *second)
    x = turn(call, part.value, tuple(part.labels.index(s) for s in order))
    sizes = [math.prod(part.size(s) for s in group) for group in (first, second)]
    return view(call, x, (*(part.size(s) for s in batch), *sizes))
