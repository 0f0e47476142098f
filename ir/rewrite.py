"""Patterns over the data flow, rules that replace what they match, and the reason for the nearest miss.

A pattern is written as the expression it matches, root last to compute:

    x = Any("x")
    gelu = P(Mul, P(Mul, x, P(Add, P(Erf, P(Div, x, Const(math.sqrt(2)))), Const(1.0))), Const(0.5))

Operands of commutative ops match in either order; a name bound twice must be the same value twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any as AnyType

import numpy as np

from .graph import Array, ComputedError, Graph, Node, Value, sources_of
from .op import Op
from .ops.elementwise import Add, Maximum, Minimum, Mul

COMMUTATIVE: tuple[type[Op], ...] = (Add, Mul, Maximum, Minimum)


class Miss(Exception):  # noqa: N818  (it is the ordinary outcome of a check, not an error)
    """A rule does not apply here; the message says why in the reader's terms."""


@dataclass(frozen=True)
class Any:
    """Matches every value and binds it to `name`."""

    name: str


@dataclass(frozen=True)
class Const:
    """Matches a constant: any at all, or a scalar equal to `value` within a relative `tolerance`."""

    value: float | None = None
    name: str = ""
    tolerance: float = 1e-4


@dataclass(frozen=True, init=False)
class P:
    """Matches an op (or one of several) applied to operands that match; `where` looks at the op's attributes."""

    ops: tuple[type[Op], ...]
    operands: tuple[Pattern, ...]
    name: str
    where: Callable[[AnyType], bool] | None
    shared: bool

    def __init__(
        self,
        ops: type[Op] | tuple[type[Op], ...],
        *operands: Pattern,
        name: str = "",
        where: Callable[[AnyType], bool] | None = None,
        shared: bool = False,
    ) -> None:
        """`name` binds the output value; `shared` allows other readers of it although it is not the root."""
        for key, value in {
            "ops": ops if isinstance(ops, tuple) else (ops,),
            "operands": operands,
            "name": name,
            "where": where,
            "shared": shared,
        }.items():
            object.__setattr__(self, key, value)


Pattern = Any | Const | P


@dataclass
class Match:
    """What a pattern bound: values by name, and the nodes it covers (root first)."""

    graph: Graph
    values: dict[str, Value] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)

    def __getitem__(self, name: str) -> Value:
        """The value bound to a name."""
        return self.values[name]

    def array(self, name: str) -> Array:
        """The data of the constant bound to a name."""
        return self.values[name].array

    def node(self, name: str) -> Node:
        """The node that made the value bound to a name."""
        producer = self.values[name].producer
        assert producer is not None
        return producer

    @property
    def root(self) -> Node:
        """The node at which the pattern was tried."""
        return self.nodes[0]

    @property
    def sources(self) -> tuple[str, ...]:
        """ONNX names of all covered nodes, in data-flow order."""
        return sources_of(*sorted(self.nodes, key=lambda node: node.serial))

    def add(self, op: Op, *inputs: Value | None, name: str = "") -> AnyType:
        """Add a node that stands for the matched ones."""
        return self.graph.add(op, *inputs, name=name or self.root.name, sources=self.sources)


@dataclass(frozen=True)
class Rule:
    """Where `pattern` matches, `build` makes the replacement of the root's output, or raises `Miss`."""

    name: str
    pattern: P
    build: Callable[[Match], Value]


@dataclass
class Trace:
    """What a rewrite did and what it almost did: (rule, node, reason, how many nodes had matched)."""

    hits: list[tuple[str, str]] = field(default_factory=list)
    misses: list[tuple[str, str, str, int]] = field(default_factory=list)

    def nearest(self, rule: str) -> str:
        """The miss that got furthest where no other rule matched, in words; empty when nothing came close."""
        done = {node for _, node in self.hits}
        tries = [miss for miss in self.misses if miss[0] == rule and miss[3] > 0 and miss[1] not in done]
        if not tries:
            return ""
        _, node, reason, depth = max(tries, key=lambda miss: miss[3])
        return f"{rule} at '{node}': {depth} nodes matched, then: {reason}"


tracing: ContextVar[Trace | None] = ContextVar("tracing", default=None)


@dataclass
class _Attempt:
    """One try of one rule at one root; remembers the furthest failure.

    At equal depth a `close` one counts more: the op was the right one, only what surrounds it was not.
    """

    root: Node
    depth: int = 0
    reason: str = ""
    close: bool = False

    def fail(self, depth: int, reason: str, close: bool = False) -> None:
        if (depth, close) >= (self.depth, self.close):
            self.depth, self.reason, self.close = depth, reason, close


def rewrite(graph: Graph, rules: Sequence[Rule]) -> int:
    """Apply rules until none matches; returns the number of rewrites. Dead nodes are pruned."""
    total = 0
    while True:
        count = sum(_apply_at(graph, node, rules) for node in graph.nodes if node in graph)
        graph.prune()
        _restore_names(graph)
        total += count
        if count == 0:
            return total


def _restore_names(graph: Graph) -> None:
    """Give a new value, numbered while the one it replaces was still there, the name of its node."""
    taken = {value.name for node in graph.nodes for value in node.outputs}
    taken |= {value.name for value in (*graph.inputs, *graph.constants)}
    public = {value.name for value in graph.outputs}
    for node in graph.nodes:
        own, name = node.outputs[0].name, node.name
        numbered = own != name and own.removeprefix(f"{name}.").isdigit()
        if len(node.outputs) == 1 and numbered and name not in taken and own not in public:
            taken.discard(own)
            taken.add(name)
            graph.rename(node.outputs[0], name)


def _apply_at(graph: Graph, node: Node, rules: Sequence[Rule]) -> int:
    trace = tracing.get()
    for rule in rules:
        attempt = _Attempt(node)
        for match in find(graph, rule.pattern, node, attempt):
            old = node.output
            try:
                new = rule.build(match)
            except (Miss, ComputedError) as miss:
                attempt.fail(len(match.nodes), str(miss), close=True)
                continue
            graph.replace(old, new)
            if trace is not None:
                trace.hits.append((rule.name, old.name))
            return 1
        if trace is not None and attempt.depth:
            trace.misses.append((rule.name, node.name, attempt.reason, attempt.depth))
    return 0


def find(graph: Graph, pattern: P, root: Node, attempt: _Attempt | None = None) -> Iterator[Match]:
    """Every way in which `pattern` matches with its last op at `root`."""
    if not isinstance(root.op, pattern.ops) or len(root.outputs) != 1 or root not in graph:
        return
    yield from _match(pattern, root.output, Match(graph), attempt or _Attempt(root))


def _match(pattern: Pattern, value: Value | None, match: Match, attempt: _Attempt) -> Iterator[Match]:
    depth = len(match.nodes)
    if value is None:
        attempt.fail(depth, "an optional operand is absent")
    elif isinstance(pattern, Any):
        yield from _bind(pattern.name, value, match, attempt)
    elif isinstance(pattern, Const):
        if _is_constant(pattern, value):
            yield from _bind(pattern.name, value, match, attempt)
        else:
            expected = "a constant" if pattern.value is None else f"the constant {pattern.value:g}"
            attempt.fail(depth, f"operand '{value.name}' is not {expected}")
    else:
        yield from _match_op(pattern, value, match, attempt)


def _match_op(pattern: P, value: Value, match: Match, attempt: _Attempt) -> Iterator[Match]:
    node, depth = value.producer, len(match.nodes)
    wanted = " or ".join(op.__name__ for op in pattern.ops)
    if node is None or not isinstance(node.op, pattern.ops):
        found = "an input or constant" if node is None else type(node.op).__name__
        return attempt.fail(depth, f"expected {wanted} as maker of '{value.name}', found {found}")
    if pattern.where is not None and not pattern.where(node.op):
        return attempt.fail(depth, f"the attributes of {wanted} '{node.name}' are not those of the pattern", close=True)
    outside = [reader.name for reader in value.readers if reader not in match.nodes]
    public = any(value is out for out in match.graph.outputs)
    if depth and not pattern.shared and (outside or public):
        others = ", ".join(outside) or "the graph output"
        return attempt.fail(depth, f"'{value.name}' is also read by {others}", close=True)
    operands = node.inputs[: len(pattern.operands)]
    orders = [operands]
    if len(operands) == 2 and isinstance(node.op, COMMUTATIVE):
        orders.append((operands[1], operands[0]))
    inner = Match(match.graph, match.values, [*match.nodes, node])
    for bound in _bind(pattern.name, value, inner, attempt):
        for order in orders:
            if len(order) == len(pattern.operands):
                yield from _match_all(pattern.operands, order, bound, attempt)
    return None


def _match_all(
    patterns: tuple[Pattern, ...], values: tuple[Value | None, ...], match: Match, attempt: _Attempt
) -> Iterator[Match]:
    if not patterns:
        yield match
        return
    for first in _match(patterns[0], values[0], match, attempt):
        yield from _match_all(patterns[1:], values[1:], first, attempt)


def _bind(name: str, value: Value, match: Match, attempt: _Attempt) -> Iterator[Match]:
    if not name:
        yield match
    elif match.values.get(name, value) is value:
        yield Match(match.graph, {**match.values, name: value}, match.nodes)
    else:
        attempt.fail(len(match.nodes), f"'{value.name}' and '{match.values[name].name}' should be the same value")


def _is_constant(pattern: Const, value: Value) -> bool:
    if value.data is None:
        return False
    if pattern.value is None:
        return True
    return value.data.size == 1 and bool(
        np.isclose(float(value.data.reshape(())), pattern.value, rtol=pattern.tolerance, atol=0)
    )
