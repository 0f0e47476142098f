"""Parallel linear branches that are added up become one layer (structural re-parameterisation)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph import Array, Graph, Node, Type, Value, sources_of
from ...ops.conv import Conv, Pads
from ...ops.elementwise import Add, Affine, Sub
from ...ops.linear import Linear
from ...ops.norm import BatchNorm
from ...ops.pool import AveragePool
from ...rewrite import Match, Miss, P, Rule
from ..base import Pass
from .absorb import is_public, parameters, require_own_weights
from .channel_map import double, norm_map

LINEAR = (Conv, Linear, Affine, BatchNorm, AveragePool)


@dataclass(frozen=True, eq=False)
class Branch:
    """A linear map of `x` that one term of a sum computes; `nodes` is empty for x itself.

    A map per channel is a depthwise 1x1 convolution, so that all branches over images are convolutions.
    """

    x: Value
    op: Conv | Linear
    weight: Array
    bias: Array | None
    nodes: tuple[Node, ...]
    merged: bool = False

    @property
    def has_weights(self) -> bool:
        """Whether some layer is part of it, not only x itself or a norm."""
        return any(isinstance(node.op, Conv | Linear) for node in self.nodes)


@dataclass(frozen=True, eq=False)
class Term:
    """A value that a sum adds or takes away."""

    value: Value
    sign: int = 1


def terms_of(graph: Graph, root: Node, sign: int = 1) -> list[Term]:
    """The terms of the tree of Adds and Subs that ends at `root`, left to right."""
    terms: list[Term] = []
    for value, own in ((root.input(0), sign), (root.input(1), -sign if isinstance(root.op, Sub) else sign)):
        node = value.producer
        inner = node is not None and isinstance(node.op, Add | Sub) and value.shape == root.output.shape
        if inner and node is not None and len(value.uses) == 1 and not is_public(graph, value):
            terms += terms_of(graph, node, own)
        else:
            terms.append(Term(value, own))
    return terms


def add_up(graph: Graph, terms: Sequence[Term], name: str, sources: Sequence[str]) -> Value:
    """A left-leaning tree of Adds and Subs; the first term is one that is added."""
    first, *rest = sorted(terms, key=lambda term: -term.sign)
    total = first.value
    for term in rest:
        total = graph.add(Add() if term.sign > 0 else Sub(), total, term.value, name=name, sources=sources)
    return total


def branch(graph: Graph, term: Term) -> Branch:
    """How a term of a sum comes about; one that is taken away has its weights negated.

    Raises:
        Miss: It is read elsewhere too, its weight is shared, or it is no linear map.
    """
    made = _branch(graph, term.value)
    if term.sign > 0:
        return made
    return dataclasses.replace(made, weight=-made.weight, bias=None if made.bias is None else -made.bias)


def _branch(graph: Graph, value: Value) -> Branch:
    node = value.producer
    linear = node is not None and isinstance(node.op, LINEAR)
    if node is None or not linear or len(value.uses) > 1 or is_public(graph, value):
        if value.type.rank != 4:
            raise Miss(f"'{value.name}' is no linear branch that only the sum reads")
        return Branch(value, Conv(groups=value.shape[1]), np.ones((value.shape[1], 1, 1, 1)), None, ())
    x = node.input(0)
    if isinstance(node.op, Conv | Linear):
        require_own_weights(graph, [node])
        bias = node.optional(2)
        return Branch(x, node.op, double(node.input(1)), None if bias is None else double(bias), (node,))
    if isinstance(node.op, AveragePool):
        return _average(node, node.op)
    m = norm_map(node)
    if m.axis != 1 or x.type.rank != 4:
        raise Miss(f"'{node.name}' is a map per channel of tokens, not of an image")
    return Branch(x, Conv(groups=len(m.a)), m.a.reshape(-1, 1, 1, 1), m.c, (node,))


def _average(node: Node, pool: AveragePool) -> Branch:
    """An average whose windows all count the same number of pixels is a depthwise convolution."""
    x = node.input(0)
    channels, (height, width) = x.shape[1], pool.kernel
    op = Conv(pool.strides, pool.pads, groups=channels)
    weight = np.full((channels, 1, height, width), 1 / (height * width))
    uneven = any(pool.pads) and not pool.count_include_pad
    if uneven or op.infer(x.type, Type(x.dtype, weight.shape)) != node.output.type:
        raise Miss(f"the windows of '{node.name}' count fewer pixels at the border")
    return Branch(x, op, weight, None, (node,))


def merge(p: Branch, q: Branch) -> Branch:
    """One branch that is the sum of two.

    Raises:
        Miss: They read different values or step differently, or one kernel would cost more than the two.
    """
    if p.x is not q.x:
        raise Miss(f"the branches read different values '{p.x.name}' and '{q.x.name}'")
    bias = q.bias if p.bias is None else p.bias if q.bias is None else p.bias + q.bias
    nodes = (*p.nodes, *q.nodes)
    if not (p.has_weights or q.has_weights):
        raise Miss("no branch has weights")
    if isinstance(p.op, Conv) and isinstance(q.op, Conv):
        op, kernel = _common_window(p, q)
        weight = _placed(p, op, kernel) + _placed(q, op, kernel)
        if weight.size > p.weight.size + q.weight.size:
            raise Miss(f"the common kernel has {weight.size} weights, the branches {p.weight.size} and {q.weight.size}")
        return Branch(p.x, op, weight, bias, nodes, merged=True)
    if isinstance(p.op, Linear) and isinstance(q.op, Linear):
        return Branch(p.x, p.op, p.weight + q.weight, bias, nodes, merged=True)
    raise Miss("a convolution and a Linear do not merge")


def _common_window(p: Branch, q: Branch) -> tuple[Conv, tuple[int, int]]:
    """The convolution whose taps cover those of both, and its kernel size; taps are counted from the output pixel."""
    a, b = p.op, q.op
    assert isinstance(a, Conv) and isinstance(b, Conv)
    if a.strides != b.strides:
        raise Miss(f"the branches have strides {a.strides} and {b.strides}")
    dilations, kernel, begins, ends = [], [], [], []
    for axis in (0, 1):
        sizes = p.weight.shape[2 + axis], q.weight.shape[2 + axis]
        steps = {op.dilations[axis] for op, size in zip((a, b), sizes, strict=True) if size > 1}
        if len(steps) > 1:
            raise Miss(f"the branches have dilations {a.dilations} and {b.dilations}")
        step = max(steps, default=1)
        firsts = [-op.pads[axis] for op in (a, b)]
        lasts = [first + (size - 1) * step for first, size in zip(firsts, sizes, strict=True)]
        if (firsts[0] - firsts[1]) % step:
            raise Miss(f"pads {a.pads} and {b.pads} put the taps between each other")
        dilations.append(step)
        kernel.append((max(lasts) - min(firsts)) // step + 1)
        begins.append(-min(firsts))
        # The output size depends on (end pad - last tap) only, so the branch that reaches furthest decides.
        ends.append((a, b)[lasts.index(max(lasts))].pads[2 + axis])
    pads: Pads = (begins[0], begins[1], ends[0], ends[1])
    return Conv(a.strides, pads, (dilations[0], dilations[1]), math.gcd(a.groups, b.groups)), (kernel[0], kernel[1])


def _placed(branch: Branch, op: Conv, kernel: tuple[int, int]) -> Array:
    """A branch's weight in the common kernel: smaller windows inside larger, groups as blocks of wider groups."""
    own = branch.op
    assert isinstance(own, Conv)
    outputs, depth, height, width = branch.weight.shape
    top, left = ((op.pads[i] - own.pads[i]) // op.dilations[i] for i in (0, 1))
    weight = np.zeros((outputs, depth * own.groups // op.groups, *kernel))
    for o in range(outputs):
        first = o // (outputs // own.groups) * depth - o // (outputs // op.groups) * weight.shape[1]
        weight[o, first : first + depth, top : top + height, left : left + width] = branch.weight[o]
    return weight


def _fold(match: Match) -> Value:
    graph, root = match.graph, match.root
    uses = root.output.uses
    if len(uses) == 1 and isinstance(uses[0][0].op, Add | Sub) and uses[0][0].output.shape == root.output.shape:
        raise Miss("it is part of a larger sum")
    kept: list[tuple[Branch, Term]] = []
    others: list[Term] = []
    reasons = ["only one term is a linear branch"]
    for term in terms_of(graph, root):
        try:
            kept.append((branch(graph, term), term))
        except Miss as miss:
            others.append(term)
            reasons.append(str(miss))
    # Layers first: what has no weights can only join one that has.
    merged = _merged(sorted(kept, key=lambda pair: not pair[0].has_weights), reasons)
    if not any(each.merged for each, _ in merged):
        raise Miss(reasons[-1])
    terms = [Term(_value(graph, each)) if each.merged else term for each, term in merged]
    return add_up(graph, [*terms, *others], root.name, root.sources)


def _merged(terms: Sequence[tuple[Branch, Term]], reasons: list[str]) -> list[tuple[Branch, Term]]:
    """The terms, each merged into the first earlier one that takes it; the reasons why others did not are added."""
    kept: list[tuple[Branch, Term]] = []
    for each, term in terms:
        for i, (other, first) in enumerate(kept):
            try:
                kept[i] = merge(other, each), first
                break
            except Miss as miss:
                reasons.append(str(miss))
        else:
            kept.append((each, term))
    return kept


def _value(graph: Graph, term: Branch) -> Value:
    """The layer that merged branches are, under the name of the first that has weights."""
    first = term.nodes[0]
    operands = parameters(graph, first, term.weight, term.bias)
    made: Value = graph.add(term.op, term.x, *operands, name=first.name, sources=sources_of(*term.nodes))
    return made


@dataclass(frozen=True)
class MergeBranches(Pass):
    """Merge the terms of a sum that are linear maps of the same value.

        Conv 3x3(x) + Conv 1x1(x) + BatchNorm(x)      becomes    Conv 3x3(x)
        Conv 1x1 in 4 groups + Conv 1x1 in 2 groups   becomes    Conv 1x1 in 2 groups
        x - BatchNorm(x) + Conv 3x3(x)                becomes    Conv 3x3(x)
        Linear(x) + Linear(x)                         becomes    Linear(x)

    Kernels are laid over each other by the position of their taps, identity is a Dirac kernel, an average is a kernel
    of equal weights, groups are scattered into the blocks of the greatest common group count. Legal for equal strides
    and dilations when nothing else reads a branch and no weight is shared; done where the common kernel has no more
    weights than the branches together.
    Sources: Ding et al., RepVGG, section 3.3; Vasu et al., MobileOne, section 3.2.
    """

    rules: ClassVar[tuple[Rule, ...]] = (Rule("merge_branches", P((Add, Sub)), _fold),)
