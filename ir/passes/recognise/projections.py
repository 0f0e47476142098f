"""One product that is cut into queries, keys and values becomes one product each, of rows that lie by window.

    Linear(x) -> Reshape, Transpose, Split or Slice   becomes   Linear(x; rows of q), ... -> Reshape, Transpose

Windows that are made of the product, not of x, are made of x instead: all parts then share the movement.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from ...graph import Graph, Node, Value, sources_of
from ...ops.linear import Linear
from ...ops.norm import BatchNorm
from ...ops.shape import Concat, Reshape
from ..base import Pass
from .heads import MOVES, Origin, narrowed, origin_of, shaped
from .rows import Grid, grid_of, laid_out, reordered

NAMES = {2: "kv", 3: "qkv"}


@dataclass(frozen=True)
class _Piece:
    """What movement makes of a product, at its end."""

    value: Value
    origin: Origin
    grid: Grid


@dataclass(frozen=True)
class RecogniseProjections(Pass):
    """Parts of a Linear that movement cuts out and turns are computed apart."""

    def apply(self, graph: Graph) -> int:
        """The parts of one product are named in the order of their channels."""
        found: dict[Value, list[_Piece]] = defaultdict(list)
        for node in graph.nodes:
            for value in node.outputs if isinstance(node.op, MOVES) else ():
                if (piece := _piece(graph, value)) is not None:
                    found[piece.origin.source].append(piece)
        windows: dict[tuple[Value, bytes], Value | None] = {}
        count = 0
        for pieces in found.values():
            pieces.sort(key=lambda piece: int(piece.grid.channels.min()))
            names = NAMES.get(len(pieces), [str(i) for i in range(len(pieces))])
            named = list(zip(pieces, names, strict=True))
            for piece, name in sorted(named, key=lambda each: -each[0].grid.rows.shape[-1]):  # others are views of it
                made = _part(graph, piece.origin, piece.grid, name, windows)
                if made is not None:
                    graph.replace(piece.value, made)
                    count += 1
        graph.prune()
        return count


def _piece(graph: Graph, value: Value) -> _Piece | None:
    readers = value.readers
    if not readers or all(isinstance(node.op, MOVES) for node in readers) or any(value is o for o in graph.outputs):
        return None
    if any(isinstance(node.op, Concat) for node in readers):
        return None  # pieces that change places are movement, too
    origin = origin_of(value, through_factors=False)
    turned = any(isinstance(node.op, Reshape) for node, _ in origin.moves)
    if not turned or value.type.size >= origin.source.type.size or not _is_product(origin.source.producer):
        return None
    grid = grid_of(origin)
    return _Piece(value, origin, grid) if grid is not None and grid.channel_axes else None


def _is_product(node: Node | None) -> bool:
    if node is None or not all(value is None or value.is_constant for value in node.inputs[1:]):
        return False
    if type(node.op) is BatchNorm and node.op.axis % len(node.output.shape) == len(node.output.shape) - 1:
        return _is_product(node.input(0).producer)
    return isinstance(node.op, Linear)


def _part(
    graph: Graph, origin: Origin, grid: Grid, part: str, windows: dict[tuple[Value, bytes], Value | None]
) -> Value | None:
    """The channels of a piece, of the rows in their order; `windows` holds the rows that are in order already."""
    sources = sources_of(*origin.nodes)
    source, channels = origin.source, grid.channels.reshape(-1)
    if grid.in_order:
        return laid_out(graph, narrowed(graph, source, channels, len(source.shape) - 1, part), grid, sources)
    node = source.producer
    assert node is not None
    if not isinstance(node.op, Linear):  # a norm between: its result is moved
        moved = reordered(graph, narrowed(graph, source, channels, len(source.shape) - 1, part), grid.rows, sources)
        return None if moved is None else laid_out(graph, moved, grid, sources)
    key = (node.input(0), grid.rows.tobytes())
    if key not in windows:
        windows[key] = reordered(graph, node.input(0), grid.rows, sources)
    rows = windows[key]
    if rows is None:
        return None
    last = grid.rows.shape[-1]
    rows = shaped(graph, rows, (grid.rows.size // last, last, rows.shape[-1]), sources)
    weights = [None if v is None else graph.constant(v.array[channels], f"{v.name}.{part}") for v in node.inputs[1:]]
    product = graph.add(node.op, rows, *weights, name=f"{source.name}.{part}", sources=node.sources)
    return laid_out(graph, product, grid, sources)
