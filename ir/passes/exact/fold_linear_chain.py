"""Linear layers in a row are multiplied out where that is cheaper."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...graph import Array, Node, Value, sources_of
from ...ops.linear import Linear
from ...rewrite import Match, Miss, P, Rule
from ..base import Pass
from .absorb import is_public, parameters, require_own_weights
from .channel_map import double

LONGEST = 64
"""Layers that are multiplied out at a time: what to keep of a chain takes the cube of its length to find."""


def cheapest_cuts(sizes: Sequence[int]) -> tuple[int, ...]:
    """Which intermediate widths of a chain of matrices to keep so that the fewest weights (and MACs) remain.

    Args:
        sizes: Widths from the input of the first layer to the output of the last.

    Returns:
        Indices into `sizes`, first and last included; of equal choices the one with fewest layers.
    """
    best: list[tuple[int, int, tuple[int, ...]]] = [(0, 0, (0,))]
    for end in range(1, len(sizes)):
        best.append(min((best[i][0] + sizes[i] * sizes[end], best[i][1] + 1, (*best[i][2], end)) for i in range(end)))
    return best[-1][2]


def _chain(match: Match) -> list[Node]:
    """The Linears that end at the match's root, first to last."""
    node = match.root
    if [type(reader.op) for reader in node.output.readers] == [Linear] and len(node.output.uses) == 1:
        if not is_public(match.graph, node.output):
            raise Miss("it is not the last layer of its chain")
    chain, end = [node], "no other Linear comes right before it"
    while (producer := chain[0].input(0).producer) is not None and isinstance(producer.op, Linear):
        if len(producer.output.uses) > 1 or is_public(match.graph, producer.output):
            end = f"'{producer.output.name}' is also read by another node"
            break
        if len(chain) == LONGEST:
            break
        chain.insert(0, producer)
    if len(chain) == 1:
        raise Miss(end)
    return chain


def _fold(match: Match) -> Value:
    chain = _chain(match)
    require_own_weights(match.graph, chain)
    sizes = [chain[0].input(1).shape[1], *(node.input(1).shape[0] for node in chain)]
    cuts = cheapest_cuts(sizes)
    if len(cuts) == len(sizes):
        raise Miss(f"keeping widths {sizes} is cheaper than multiplying them out")
    value = chain[0].input(0)
    for start, end in itertools.pairwise(cuts):
        part = chain[start:end]
        operands = parameters(match.graph, part[-1], *_product(part))
        value = match.graph.add(Linear(), value, *operands, name=part[-1].name, sources=sources_of(*part))
    return value


def _fold_shared(match: Match) -> Value:
    """Multiply a factor that several Linears read into one of them.

    The choice is made for all of them: it is the same again for those that are left, as a factor pays for itself the
    less, the fewer outputs it serves.
    """
    node, shared = match.root, match.root.input(0)
    factor, readers = shared.producer, shared.readers
    if factor is None or not isinstance(factor.op, Linear) or len(readers) < 2:
        raise Miss("no Linear that others read as well comes right before it")
    if is_public(match.graph, shared) or any(not isinstance(reader.op, Linear) for reader in readers):
        raise Miss(f"'{shared.name}' is also read by another node")
    require_own_weights(match.graph, [factor, *readers])
    inner, inputs = factor.input(1).shape
    outputs = sum(reader.input(1).shape[0] for reader in readers)
    if inputs * outputs > inner * (inputs + outputs):
        raise Miss(f"a factor of {inner} for {outputs} outputs of {inputs} inputs is cheaper than without")
    operands = parameters(match.graph, node, *_product([factor, node]))
    made: Value = match.graph.add(
        Linear(), factor.input(0), *operands, name=node.name, sources=sources_of(factor, node)
    )
    return made


def _product(chain: Sequence[Node]) -> tuple[Array, Array | None]:
    weight, first = double(chain[0].input(1)), chain[0].optional(2)
    bias = None if first is None else double(first)
    for node in chain[1:]:
        w, b = double(node.input(1)), node.optional(2)
        weight = w @ weight
        bias = None if bias is None else w @ bias
        if b is not None:
            bias = double(b) if bias is None else bias + double(b)
    return weight, bias


@dataclass(frozen=True)
class FoldLinearChain(Pass):
    """Multiply out consecutive Linears without an activation between, where fewer weights and MACs remain.

        Linear(Linear(Linear(x, F1), F2), F3)    becomes    the cheapest of F3 F2 F1 as one, two or three Linears
        Linear(y, Q), Linear(y, K), ... of y = Linear(x, F)    becomes    Linear(x, Q F), Linear(x, K F), ... or stays

    Legal when nothing but Linears reads the values between and no weight is shared. Two factors m x k and k x n pay off
    below k = m n / (m + n): 0.75, 0.80 and 0.50 of 192 for 192 x 576, 192 x 768 and 192 x 192. A square middle factor
    always goes into a neighbour.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("fold_linear_chain", P(Linear), _fold),
        Rule("fold_shared_factor", P(Linear), _fold_shared),
    )
