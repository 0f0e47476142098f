"""Data movement squeezed: chains of Reshape and Transpose in their shortest form, nothing moved for nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...graph import Graph, Node, Value, sources_of
from ...op import Op
from ...ops.pool import Mean, ReduceMax, Sum
from ...ops.shape import Concat, Expand, Gather, Pad, Reshape, Slice, Split, Transpose
from ..base import Pass

MOVES = (Concat, Expand, Gather, Pad, Reshape, Slice, Split, Transpose)
Atom = tuple[int, int]
"""A factor of an axis: (size, stride in the source)."""


@dataclass(frozen=True)
class SimplifyShapes(Pass):
    """Removes identities, computes movements of constants, and shortens chains of Reshape and Transpose.

    What reduces axes of one entry is a Reshape.
    """

    def apply(self, graph: Graph) -> int:
        """Repeat until nothing gets shorter."""
        total = 0
        while True:
            count = sum(_simplify(graph, node) for node in graph.nodes if node in graph)
            graph.prune()
            total += count
            if not count:
                return total


def _simplify(graph: Graph, node: Node) -> int:
    if isinstance(node.op, (Mean, ReduceMax, Sum)) and node.input(0).type.size == node.output.type.size > 0:
        return _replace(graph, node.output, graph.add(Reshape(node.output.shape), node.input(0), sources=node.sources))
    if not isinstance(node.op, MOVES):
        return 0
    if all(value is not None and value.is_constant for value in node.inputs):
        return _compute(graph, node)
    source = node.input(0)
    if len(node.outputs) == 1 and _is_identity(node):
        return _replace(graph, node.output, source)
    return _shorten(graph, node) if isinstance(node.op, (Reshape, Transpose)) else 0


def _replace(graph: Graph, old: Value, new: Value) -> int:
    """Replace unless an output would lose the storage of its own."""
    public = any(old is out for out in graph.outputs)
    if public and (new.producer is None or any(new is out for out in graph.outputs)):
        return 0
    graph.replace(old, new)
    return 1


def _compute(graph: Graph, node: Node) -> int:
    if any(value is out for value in node.outputs for out in graph.outputs):
        return 0
    results = node.op.reference(*(value.array for value in node.inputs if value is not None))
    for value, array in zip(node.outputs, results if isinstance(results, tuple) else (results,), strict=True):
        graph.replace(value, graph.constant(array.copy(), value.name))
    return 1


def _is_identity(node: Node) -> bool:
    x, y, op = node.input(0), node.output, node.op
    if isinstance(op, Transpose):
        return op.perm == tuple(range(len(op.perm)))
    if isinstance(op, Slice) and any(step != 1 for step in op.steps):
        return False
    if isinstance(op, Pad):
        return not any(op.pads)
    if isinstance(op, Concat):
        return len(node.inputs) == 1
    return x.shape == y.shape and isinstance(op, (Reshape, Expand, Slice, Split))


def _shorten(graph: Graph, node: Node) -> int:
    """Replace the chain that ends here by a shorter one, if it is the end of its chain."""
    readers = node.output.readers
    if len(readers) == 1 and isinstance(readers[0].op, (Reshape, Transpose)) and readers[0].output.readers:
        return 0
    chain = [node]
    while (above := chain[0].input(0).producer) is not None and isinstance(above.op, (Reshape, Transpose)):
        chain.insert(0, above)
    for start in range(len(chain) - 1):
        part = chain[start:]
        source = part[0].input(0)
        better = shortest(source.shape, [each.op for each in part])
        if better is None or not _pays(graph, part, better):
            continue
        value = source
        for op in better:
            value = graph.add(op, value, name=node.name, sources=sources_of(*part))
        return _replace(graph, node.output, value)
    return 0


def _pays(graph: Graph, chain: Sequence[Node], better: Sequence[Op]) -> bool:
    """Whether fewer nodes remain (those that others read stay), or as many and nearer to the source, or of lower rank.

    Phones have few axes: windows of an image are moved with 4 where exporters write 6.
    """
    length = len(better)
    dying = 1
    for node in reversed(chain[:-1]):
        if len(node.output.readers) > 1 or any(node.output is out for out in graph.outputs):
            break
        dying += 1
    if length == dying == len(chain):
        return _rank(better) < _rank([node.op for node in chain])
    return length < dying or (length == dying and dying < len(chain))


def _rank(ops: Sequence[Op]) -> int:
    return max(len(op.perm) if isinstance(op, Transpose) else 0 for op in ops)


def shortest(shape: tuple[int, ...], ops: Sequence[Op]) -> list[Op] | None:
    """The fewest Reshapes and Transposes that equal `ops` on a tensor of that shape; None when it mixes factors."""
    axes = composed(shape, ops)
    if axes is None:
        return None
    target = tuple(math.prod(size for size, _ in axis) for axis in axes)
    forms = (_by_axis(shape, axes, target), _by_source(shape, axes, target), _by_atom(shape, axes, target))
    return min((form for form in forms if form is not None), key=len)


def composed(shape: tuple[int, ...], ops: Sequence[Op]) -> list[list[Atom]] | None:
    """The axes of the result, each as its factors in the source, ones left out."""
    axes: list[list[Atom]] | None = [[(n, s)] if n != 1 else [] for n, s in zip(shape, _strides(shape), strict=True)]
    for op in ops:
        if axes is None:
            break
        if isinstance(op, Transpose):
            axes = [axes[i] for i in op.perm]
        elif isinstance(op, Reshape):
            axes = _cut(_joined([atom for axis in axes for atom in axis]), op.shape)
    return None if axes is None else [_joined(axis) for axis in axes]


def _strides(shape: Sequence[int]) -> list[int]:
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


def _joined(atoms: Sequence[Atom]) -> list[Atom]:
    """Neighbours that are one run in the source become one factor."""
    result: list[Atom] = []
    for size, stride in atoms:
        if result and result[-1][1] == size * stride:
            result[-1] = (result[-1][0] * size, stride)
        else:
            result.append((size, stride))
    return result


def _cut(atoms: Sequence[Atom], shape: Sequence[int]) -> list[list[Atom]] | None:
    """The factors dealt out to the axes of a shape; None when an axis would need a part that is no factor."""
    rest, result = list(atoms), []
    for wanted in shape:
        axis: list[Atom] = []
        while wanted > 1:
            size, stride = rest.pop(0)
            if wanted % size == 0:
                axis.append((size, stride))
                wanted //= size
            elif size % wanted == 0:
                axis.append((wanted, stride * (size // wanted)))
                rest.insert(0, (size // wanted, stride))
                wanted = 1
            else:
                return None
        result.append(axis)
    return result


def _steps(shape: tuple[int, ...], first: Sequence[int], perm: Sequence[int], last: tuple[int, ...]) -> list[Op]:
    """Reshape, Transpose, Reshape without those that do nothing."""
    ops: list[Op] = []
    turned = tuple(first[i] for i in perm)
    if list(perm) == sorted(perm):
        return [Reshape(last)] if last != shape else []
    if tuple(first) != shape:
        ops.append(Reshape(tuple(first)))
    ops.append(Transpose(tuple(perm)))
    if turned != last:
        ops.append(Reshape(last))
    return ops


def _by_axis(shape: tuple[int, ...], axes: list[list[Atom]], target: tuple[int, ...]) -> list[Op] | None:
    """One Reshape to the axes of the result, then a Transpose."""
    if any(len(axis) > 1 for axis in axes):
        return None
    leading = next((i for i, axis in enumerate(axes) if axis), len(axes))
    following = 0.0
    keys: list[float] = [0.0] * len(axes)
    for i in reversed(range(len(axes))):  # axes of one pixel travel with the axis after them
        following = float(axes[i][0][1]) if axes[i] else following
        keys[i] = math.inf if i < leading else following
    order = sorted(range(len(axes)), key=lambda i: (-keys[i], i))
    return _steps(shape, [target[i] for i in order], [order.index(i) for i in range(len(axes))], target)


def _by_source(shape: tuple[int, ...], axes: list[list[Atom]], target: tuple[int, ...]) -> list[Op] | None:
    """A Transpose of the source's own axes, then a Reshape."""
    position = {(n, s): i for i, (n, s) in enumerate(zip(shape, _strides(shape), strict=True)) if n != 1}
    perm = [i for i, n in enumerate(shape) if n == 1]
    for size, stride in _joined([atom for axis in axes for atom in axis]):
        run = sorted((i for (_, s), i in position.items() if stride <= s < size * stride))
        if math.prod(shape[i] for i in run) != size or not run or _strides(shape)[run[-1]] != stride:
            return None
        perm += run
    return _steps(shape, shape, perm, target)


def _by_atom(shape: tuple[int, ...], axes: list[list[Atom]], target: tuple[int, ...]) -> list[Op]:
    """The general form: Reshape to factors, Transpose, Reshape."""
    atoms = _joined([atom for axis in axes for atom in axis])
    batch = [(1, 0)] if shape[:1] == target[:1] == (1,) else []
    order = sorted(atoms, key=lambda atom: -atom[1])
    first = [size for size, _ in [*batch, *order]]
    perm = [*range(len(batch)), *(len(batch) + order.index(atom) for atom in atoms)]
    return _steps(shape, first, perm, target)
