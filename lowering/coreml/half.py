"""What float16 breaks, found before it is written: each hazard has a detector, and a fix or a stay in float32."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ...ir.graph import Array, Graph, Node, Value
from ...ir.op import Op
from ...ir.ops import activation, conv, elementwise, linear, norm, pool, shape
from ...ir.ops.attention import Attention
from .intervals import RULES, UNKNOWN, Interval, intervals, largest
from .succession import succeed

__all__ = ["HAZARDS", "Lint", "examine"]

LARGEST = 65504.0
LEAST = 2.0**-24
"""Ends of float16: what is larger is infinite, what is less than half of the least is nothing."""

SMALL = 2.0**-14
"""The least that has all its digits."""

CUBE_ROOT = 40.0
"""The tanh form of Gelu cubes its operand."""

MASKED = -1e4
"""As good as no weight at all after a softmax, and far from the end of the range."""

SQUARE_ROOT = 255.0
"""Norms square their operand. Core ML's own sum the squares in float32; RMSNorm is none of these."""

FURTHEST = 4094
"""The Neural Engines of A13 and A14 slice no further along the last axis."""

LINEAR = (
    activation.Neg, conv.Conv, conv.PatchEmbed, elementwise.Add, elementwise.Mul, elementwise.Sub, linear.Linear,
    linear.MatMul, pool.Mean, pool.Sum, shape.Concat, shape.Expand, shape.Gather, shape.Pad, shape.Reshape,
    shape.Slice, shape.Split, shape.Transpose,
)  # fmt: skip
"""Ops whose results are as far off, in absolute terms, as their operands."""

STEP, LOST = 2.0**-11, 1e-2
"""Largest relative error of one rounding, and the share of a result that it may cost."""


@dataclass
class Lint:
    """What was found.

    Attributes:
        kept: Reason, by the name of the first output of a node that stays in float32.
        fixed: What was changed, by the name of the first output of the node.
        unproven: Names of values of which nothing says that they stay within range.
    """

    kept: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)
    unproven: list[str] = field(default_factory=list)

    def keep(self, node: Node, hazard: str, why: str) -> None:
        """Let a node stay in float32; the first reason stands."""
        self.kept.setdefault(node.outputs[0].name, f"{hazard}: {why}")

    def fix(self, node: Node, hazard: str, how: str) -> None:
        """Note a change."""
        name = node.outputs[0].name
        self.fixed[name] = "; ".join(filter(None, (self.fixed.get(name), f"{hazard}: {how}")))

    def notes(self, measured: bool) -> tuple[str, ...]:
        """The same in sentences."""
        said = [f"float16, {name} is changed ({how})" for name, how in self.fixed.items()]
        said += [f"float16, {name} stays in float32 ({why})" for name, why in self.kept.items()]
        if self.unproven:
            basis = "the data given and intervals" if measured else "intervals alone (no ranges were measured)"
            said.append(f"float16, {len(self.unproven)} values are not shown to stay within range by {basis}")
        return tuple(said)


def examine(graph: Graph, measured: Mapping[str, Interval]) -> Lint:
    """Repair a graph for float16 where the repair is exact, and say which nodes have to stay in float32.

    Args:
        graph: Changed in place: masks are finite, scores are scaled before their product, norms see small numbers.
        measured: Lowest and highest value seen, by name of the graph's values; may be empty.
    """
    lint = Lint()
    known = dict(measured)
    for repair in (_masks, _scores):
        repair(graph, known, lint)
    bounds = _evidence(graph, known)
    _norms(graph, bounds, lint)
    _means(graph, bounds, lint)
    bounds = _evidence(graph, known)
    for node in graph.nodes:
        for hazard, detect in HAZARDS.items():
            if (measured or hazard not in MEASURED) and (why := detect(node, bounds)):
                lint.keep(node, hazard, why)
    _makers(graph, bounds, lint)
    made = [value for node in graph.nodes for value in node.outputs if value.type.numpy.kind == "f"]
    lint.unproven = [each.name for each in made if math.isinf(largest(bounds[each])) and each.name not in lint.kept]
    return lint


def _evidence(graph: Graph, known: Mapping[str, Interval]) -> dict[Value, Interval]:
    """Intervals that say something: one that was not measured and is past the end proves nothing either way."""
    found = intervals(graph, known)
    vague = (value for value, each in found.items() if value.name not in known and largest(each) > LARGEST)
    return {**found, **dict.fromkeys(vague, UNKNOWN)}


# ---- repairs ----


def _masks(graph: Graph, known: dict[str, Interval], lint: Lint) -> None:
    """Constants of minus infinity, or next to it, that are added to scores."""
    for node in graph.nodes:
        added = isinstance(node.op, elementwise.Add) and _is_score(node.output, graph.outputs)
        for index, value in enumerate(node.inputs):
            if not (added or (isinstance(node.op, Attention) and index == 3)) or value is None or value.data is None:
                continue
            if value.data.min(initial=0.0) < 2 * MASKED:
                finite = np.maximum(value.data, np.asarray(MASKED, value.data.dtype))
                graph.set_input(node, index, graph.constant(finite, f"{value.name}_finite"))
                lint.fix(node, "mask", f"numbers below {2 * MASKED:g} are {MASKED:g}")
                if added:  # a value of its own from here on
                    known.pop(node.output.name, None)
                    graph.rename(node.output, f"{node.output.name}_finite")


def _is_score(value: Value, outputs: list[Value]) -> bool:
    """Whether softmaxes are all that comes of a value, or of its sums with others."""
    return (
        value not in outputs
        and bool(value.readers)
        and all(
            isinstance(reader.op, activation.Softmax)
            or (isinstance(reader.op, elementwise.Add) and _is_score(reader.output, outputs))
            for reader in value.readers
        )
    )


def _scores(graph: Graph, known: dict[str, Interval], lint: Lint) -> None:
    """A product that is scaled down after it is made: its first operand is scaled instead."""
    for node in graph.nodes:
        if not isinstance(node.op, elementwise.Mul | elementwise.Div):
            continue
        product, factor = node.input(0), node.input(1)
        made = product.producer
        if made is None or factor.data is None or not isinstance(made.op, linear.MatMul):
            continue
        if factor.type.size != 1 or len(product.uses) > 1 or product in graph.outputs:
            continue
        by = float(factor.data.reshape(-1)[0])
        by = by if isinstance(node.op, elementwise.Mul) else 1 / by
        if not 0 < abs(by) < 1:
            continue
        scale = graph.constant(np.array(by, np.float32), f"{node.output.name}_scale")
        scaled = graph.add(elementwise.Mul(), made.input(0), scale, name=f"{node.output.name}_scaled")
        again = graph.add(
            linear.MatMul(), scaled, made.input(1), name=node.name, sources=(*made.sources, *node.sources)
        )
        known.pop(made.output.name, None)
        lint.fix(succeed(graph, node, again), "scores", f"the factor {by:g} is on the first operand of the product")
        graph.erase(made)


def _norms(graph: Graph, bounds: dict[Value, Interval], lint: Lint) -> None:
    """Norms of large numbers see them divided by a power of two, which changes nothing but their epsilon.

    What takes a norm's place has its bounds.
    """
    for node in graph.nodes:
        op = node.op
        if not isinstance(op, norm.LayerNorm | norm.RMSNorm | norm.GroupNorm):
            continue
        x = node.input(0)
        size, root = largest(bounds[x]), math.sqrt(LARGEST / _extent(op, x.shape))
        if (root if isinstance(op, norm.RMSNorm) else SQUARE_ROOT) < size <= LARGEST:
            shift = math.ceil(math.log2(size / root))
            factor = graph.constant(np.array(2.0**-shift, np.float32), f"{node.output.name}_shrink")
            small = graph.add(elementwise.Mul(), x, factor, name=f"{node.output.name}_small", sources=node.sources)
            op = dataclasses.replace(op, eps=op.eps * 4.0**-shift)
            again = graph.add(op, small, *node.inputs[1:], name=node.name, sources=node.sources)
            bounds[again] = bounds[node.output]
            node = succeed(graph, node, again)
            lint.fix(node, "squares", f"its operand reaches {size:.3g} and is divided by {2**shift}")
        if op.eps < LEAST / 2:
            lint.fix(node, "epsilon", f"{op.eps:.1e} would be 0, it is {LEAST:.1e}")


def _extent(op: Op, shape: tuple[int, ...]) -> int:
    """How many squares a norm sums."""
    return math.prod(shape[1:]) // op.groups if isinstance(op, norm.GroupNorm) else shape[-1]


def _means(graph: Graph, bounds: Mapping[Value, Interval], lint: Lint) -> None:
    """Means over an image whose sum would overflow go over its rows first."""
    for node in graph.nodes:
        op = node.op
        if type(op) is not pool.Mean or len(op.axes) != 2 or not _sums_too_large(node, bounds):
            continue
        first, last = sorted(axis % node.input(0).type.rank for axis in op.axes)
        rows = graph.add(pool.Mean((last,), True), node.input(0), name=f"{node.output.name}_rows", sources=node.sources)
        both = graph.add(pool.Mean((first,), True), rows, name=node.name, sources=node.sources)
        if not op.keepdims:
            both = graph.add(shape.Reshape(node.output.shape), both, name=node.name, sources=node.sources)
        lint.fix(succeed(graph, node, both), "sum", "the mean is taken in two steps")


def _sums_too_large(node: Node, bounds: Mapping[Value, Interval]) -> bool:
    size = largest(bounds[node.input(0)])
    n = node.input(0).type.size // max(node.output.type.size, 1)
    if isinstance(node.op, pool.AveragePool):
        n = math.prod(node.op.kernel)
    return math.isfinite(size) and size * n > LARGEST


def _makers(graph: Graph, bounds: Mapping[Value, Interval], lint: Lint) -> None:
    """What divisors and logarithms of next to nothing are made of stays in float32.

    So do small positive numbers, and where these are squares the numbers that are squared: what float16 adds to them
    may be more than they are. Squares that are nothing at all are so in float16.
    """
    small, squared = set[Value](), set[Value]()
    for node in reversed(graph.nodes):
        operands = [value for value in node.inputs if value is not None and value.data is None]
        if not (small | squared).isdisjoint(node.outputs):
            lint.keep(node, "quotient", "a divisor or logarithm is made of it")
        if not small.isdisjoint(node.outputs):
            small.update(value for value in operands if 0 <= bounds[value][0] < SMALL)
            if isinstance(node.op, elementwise.Mul) and len({*operands}) == 1 and bounds[node.output][0] > 0:
                squared.update(operands)
        if isinstance(node.op, LINEAR) and not squared.isdisjoint(node.outputs):
            squared.update(operands)
        if _quotient(node, bounds):
            small.update(filter(None, [_divisor(node)]))


# ---- detectors: why a node has to stay in float32, or nothing ----


def _overflow(node: Node, bounds: Mapping[Value, Interval]) -> str:
    """Results or operands past the end of the range."""
    for value in (*node.outputs, *node.inputs):
        if value is None or value.data is not None or value.type.numpy.kind != "f":
            continue
        if LARGEST < largest(bounds[value]) < math.inf:
            return f"{value.name} reaches {largest(bounds[value]):.3g}"
    return ""


def _exponential(node: Node, bounds: Mapping[Value, Interval]) -> str:
    """exp past 11.09 is infinite, and what softplus and its like make of it as well."""
    for each in (node, *(value.producer for value in node.inputs if value is not None and value.producer)):
        if isinstance(each.op, activation.Exp) and bounds[each.output][1] > LARGEST:
            return f"exp of up to {bounds[each.input(0)][1]:.3g}"
    return ""


def _cube(node: Node, bounds: Mapping[Value, Interval]) -> str:
    """Gelu by tanh of a large number."""
    if isinstance(node.op, activation.Gelu) and node.op.approximate == "tanh":
        size = largest(bounds[node.input(0)])
        if CUBE_ROOT < size < math.inf:
            return f"the cube of up to {size:.3g}"
    return ""


def _product(node: Node, bounds: Mapping[Value, Interval]) -> str:
    """A product whose partial sums may overflow though its result does not; convolutions are summed in float32."""
    reach = 0.0
    if isinstance(node.op, linear.Linear):
        reach = largest(RULES[linear.Linear](node, [bounds[value] for value in node.inputs if value is not None]))
    elif isinstance(node.op, linear.MatMul):
        reach = largest(bounds[node.input(0)]) * largest(bounds[node.input(1)]) * node.input(0).shape[-1]
    elif isinstance(node.op, Attention):
        width = node.input(0).shape[-1] // node.op.heads
        reach = largest(bounds[node.input(0)]) * largest(bounds[node.input(1)]) * width * abs(node.op.scale)
    return f"its sums may reach {reach:.3g}" if LARGEST < reach < math.inf else ""


def _cancellation(node: Node, bounds: Mapping[Value, Interval]) -> str:
    """A sum that leaves a small number of large ones, and what makes these."""
    sums = (node, *(reader for value in node.outputs for reader in value.readers))
    return next(filter(None, (_cancels(each, bounds) for each in sums)), "")


def _cancels(node: Node, bounds: Mapping[Value, Interval]) -> str:
    if not isinstance(node.op, elementwise.Add | elementwise.Sub):
        return ""
    size, rest = max(largest(bounds[node.input(index)]) for index in (0, 1)), largest(bounds[node.output])
    lost = 0 < rest and size < math.inf and size * STEP > LOST * rest
    return f"numbers up to {size:.3g} cancel and leave {rest:.3g}" if lost else ""


def _offset(node: Node, bounds: Mapping[Value, Interval]) -> str:
    """A slice that begins further than older Neural Engines reach along the last axis; they compute no float32."""
    begin = 0
    if isinstance(node.op, shape.Slice):
        x = node.input(0)
        cuts = zip(node.op.index(x.type.rank), x.shape, strict=True)
        begin = max((each.indices(size)[0] for each, size in cuts), default=0)
    elif isinstance(node.op, shape.Split):
        begin = sum(node.op.sizes[:-1])
    return f"it begins at {begin}" if begin > FURTHEST else ""


def _sum(node: Node, bounds: Mapping[Value, Interval]) -> str:
    """A sum, or a mean of one axis, whose partial sums may overflow."""
    if isinstance(node.op, pool.Sum | pool.Mean | pool.AveragePool) and _sums_too_large(node, bounds):
        return f"a sum of numbers up to {largest(bounds[node.input(0)]):.3g}"
    return ""


def _constant(node: Node, bounds: Mapping[Value, Interval]) -> str:
    """Constants past the end of the range, or so small that much of them is lost."""
    for value in node.inputs:
        if value is None or value.data is None or value.data.dtype.kind != "f" or not value.data.size:
            continue
        if _sure_to_fit(value.data):
            continue
        data = value.data.astype(np.float64)
        finite = data[np.isfinite(data)]
        if np.abs(finite).max(initial=0.0) > LARGEST:
            return f"{value.name} holds {np.abs(finite).max():.3g}"
        lost = np.linalg.norm(finite - finite.astype(np.float16).astype(np.float64))
        if lost > 1e-2 * np.linalg.norm(finite):
            return f"{value.name} loses {lost / np.linalg.norm(finite):.0%} to rounding"
    return ""


def _sure_to_fit(data: Array) -> bool:
    """A proof in two passes that a constant stays in range and loses less than half of what `_constant` lets pass.

    Rounding is off by 2^-11 of a number at most, or by 2^-25 below the least that has all its digits.
    """
    if not -LARGEST <= data.min() <= data.max() <= LARGEST:
        return False
    flat = data.reshape(-1)
    length = math.sqrt(np.dot(flat, flat))
    return 2.0**-11 * length + 2.0**-25 * math.sqrt(data.size) <= 5e-3 * length


def _divisor(node: Node) -> Value | None:
    """What a node divides by, or takes the logarithm of, where that is computed."""
    index = {elementwise.Div: 1, activation.Reciprocal: 0, activation.Log: 0}.get(type(node.op))
    return None if index is None or node.input(index).data is not None else node.input(index)


def _quotient(node: Node, bounds: Mapping[Value, Interval]) -> str:
    """Division by what may be nothing in float16 but was not."""
    divisor = _divisor(node)
    low, high = (0.0, 0.0) if divisor is None else bounds[divisor]
    if 0 < low < SMALL or -SMALL < high < 0:
        return f"a divisor or logarithm of {min(abs(low), abs(high)):.1e}"
    return ""


HAZARDS: dict[str, Callable[[Node, Mapping[Value, Interval]], str]] = {
    "exponential": _exponential,
    "cube": _cube,
    "sum": _sum,
    "product": _product,
    "cancellation": _cancellation,
    "offset": _offset,
    "constant": _constant,
    "quotient": _quotient,
    "overflow": _overflow,
}
"""Detectors by name of what they find; repairs are named mask, scores, squares, epsilon and sum."""

MEASURED = {"product"}
"""Hazards looked for only where ranges were measured: the worst that intervals allow would accuse every product."""
