"""The ways a group can run: scratch, what the output may overwrite, and work done beyond once; bits never differ.

A row is a token or a pixel. Work moves between RAM and flash: a tile of t rows reads the weights ceil(rows / t) times,
and attention that holds fewer heads at a time normalises its tokens again for each lot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod

from ..graph import Node, Value
from ..ops.attention import Attention
from ..ops.integer import QMatMul
from ..ops.integer_attention import QAttention
from ..ops.integer_conv import QConv
from ..ops.norm import LayerNorm, RMSNorm
from .group import Group, bytes_of, is_rowwise_linear, row_bytes, row_count
from .scratch import (
    Need,
    Piece,
    attention_bytes,
    extent,
    keys_bytes,
    line_bytes,
    pack,
    packed_bytes,
    planes_bytes,
    tile_need,
    touched,
    values_bytes,
)

LADDER = (3, 6, 12, 24, 48)
"""Row tiles worth having: beyond 48 rows, reading the weights costs 2 % of the multiply-accumulates at most."""

TALL = (96, 192, 384)
"""Further ones, where weights come from so far that these percents are multiples."""

BANDS = (2, 4, 7, 14, 28)
"""Rows of output worth making from one set of planes, beside all: the rows that two bands share are filled twice."""

ROW_TAPS = 15
"""ES_ROW_TAPS: taps in a row of a depthwise kernel, at most, that planes are made for."""

NORM_WORK, COPY_WORK = 12, 2
"""Multiply-accumulates that take as long as one more element of a norm (two passes over it), or of a plain row copied
into a tile: instructions counted in the kernels' inner loops, where a multiply-accumulate costs about one."""

LINEARS = ("q", "k", "v", "projection")
"""Roles of an attention that have weights."""

OVER_FIRST = (Attention, LayerNorm, RMSNorm)
"""Ops in single precision that are not element-wise, yet whose kernels may write over their first operand."""


@dataclass(frozen=True)
class Schedule:
    """One way to run a group.

    Attributes:
        name: "pixels", "image", "all_heads", "head_by_head", "rows", "windows", "planes" or "whole".
        rows: Rows in a tile (a multiple of 3), or rows of output made from one set of planes; 0 where there is neither.
            Attention has it for keys and values; its query tiles are no larger than its queries, rounded up to 3.
        heads: Heads whose keys and values are held at a time (attention only, else 0).
        scratch: The pieces, with offsets from the scratch's own start. "tile" (embed, conv), "planes" (four channels of
            a depthwise convolution's input, with their border, and the taps of one) or "tile0", "tile1" ...
            (one before each linear layer of a chain); "line" (pixels of a patch line); "row" (int16 row of a norm
            with a scale per channel); "packed" (right side of a matrix product); for attention "tile" (tokens),
            "queries" (tile of one head), "keys", "values" (packed, `heads` of them), "attention" (the kernel's own),
            "mixed" (int8 results of the heads, side by side: of a tile, or of all rows when not all heads are
            held) and "mixed_tile" (the projection's operand); "scores" (of one row: attention in single precision).
        overwrites: (output, input) names: storage the output may take over, best first, if nobody reads it later.
        streams: Names of inputs that come through a callback and are never in RAM.
        extra_macs: Work done beyond once, as the multiply-accumulates that would take as long.
        weight_passes: How often the group's weights are read from flash, the most often read ones.
        weight_bytes: Bytes of weights read from flash, all passes together.
    """

    name: str
    rows: int = 0
    heads: int = 0
    scratch: tuple[Piece, ...] = ()
    overwrites: tuple[tuple[str, str], ...] = ()
    streams: tuple[str, ...] = ()
    extra_macs: int = 0
    weight_passes: int = 1
    weight_bytes: int = 0

    @property
    def scratch_bytes(self) -> int:
        """Bytes of the whole scratch."""
        return extent(self.scratch)

    @property
    def scratch_touched(self) -> int:
        """Bytes of it up to the last that is written: fewer only if its top is a tile of one or two rows."""
        return touched(self.scratch)

    @property
    def work(self) -> int:
        """What a plan keeps low: reading a weight byte from flash again costs about as much as a multiply."""
        return self.extra_macs + self.weight_bytes

    def piece(self, name: str) -> Piece:
        """A piece of scratch by name.

        Raises:
            KeyError: The schedule has no such piece.
        """
        for piece in self.scratch:
            if piece.name == name:
                return piece
        raise KeyError(name)


def schedules(group: Group, callback: bool = True, tall: bool = False) -> tuple[Schedule, ...]:
    """Every legal schedule of a group.

    Args:
        group: Any group of `form_groups`.
        callback: Whether an embedding asks for its pixels instead of reading an image from RAM.
        tall: Whether tiles of a hundred rows and more are among them.
    """
    ladder = LADDER + TALL if tall else LADDER
    if group.kind == "embed":
        return tuple(_embed(group, callback, ladder))
    makers: dict[str, Callable[[Group, tuple[int, ...]], Iterable[Schedule]]] = {
        "attention": _attention, "ffn": _chain, "rows": _chain, "conv": _conv, "single": _single,
    }
    return tuple(makers[group.kind](group, ladder))


def tiles(rows: int, ladder: tuple[int, ...] = LADDER) -> list[int]:
    """Row tiles for this many rows: none that would never be full, or its last bytes would stay unwritten."""
    most = max(3, rows // 3 * 3)
    return sorted({min(tile, most) for tile in ladder})


def passes(rows: int, tile: int) -> int:
    """How often the weights are read."""
    return -(-rows // tile)


def _weight_bytes(node: Node) -> int:
    return node.input(1).type.nbytes


def _embed(group: Group, callback: bool, ladder: tuple[int, ...]) -> Iterable[Schedule]:
    node = group.roles["embed"]
    weight, tokens = node.input(1), row_count(node.output)
    _, height, width, channels = weight.shape
    depth = height * width * channels
    line = line_bytes(width, channels)
    streams: tuple[str, ...] = ()
    for tile in tiles(tokens, ladder):
        count = passes(tokens, tile)
        need = tile_need("tile", tile, tokens, depth, 0, 0)
        if callback:
            pieces = pack([need, Need("line", line, 0, 0)])
            streams = (node.input(0).name,)
        else:
            pieces, streams = pack([need]), ()
        name, read = "pixels" if callback else "image", count * weight.type.nbytes
        yield Schedule(name, tile, scratch=pieces, streams=streams, weight_passes=count, weight_bytes=read)


def _chain(group: Group, ladder: tuple[int, ...]) -> Iterable[Schedule]:
    """Tiles follow each other through the chain: each layer reads one and writes the next."""
    linears = [node for node in group.nodes if is_rowwise_linear(node)]
    source, rows = group.nodes[0].input(0), row_count(group.output)
    weights = sum(map(_weight_bytes, linears))
    last = len(linears) - 1
    for tile in tiles(rows, ladder) if linears else [0]:
        depths = enumerate(node.input(1).shape[-1] for node in linears)
        needs = [
            tile_need(f"tile{i}", tile, rows, depth, max(0, i - 1), i, cleared=i > 0 and depth % 4 > 0)
            for i, depth in depths
        ]
        if (norm := group.roles.get("norm")) is not None and linears:
            needs += _affine_row(norm, 0, 0)
        overwrites = _overwrites(group.output, [_residual(group), source])
        yield Schedule(
            "rows", tile, scratch=pack(needs), overwrites=overwrites,
            weight_passes=passes(rows, tile) if last >= 0 else 1, weight_bytes=weights * passes(rows, max(tile, 1)),
        )


def _affine_row(norm: Node, first: int, last: int) -> list[Need]:
    """A norm with a scale per channel makes a plain row of int16 before the tile."""
    affine = norm.optional(1) is not None
    return [Need("row", 2 * norm.output.shape[-1], first, last)] if affine else []


def _residual(group: Group) -> Value | None:
    """What the closing sum adds: the operand that the group does not make."""
    add = group.roles.get("add")
    if add is None:
        return None
    return next(value for value in add.inputs if value is not None and value.producer not in group.nodes)


def _overwrites(output: Value, candidates: Iterable[Value | None]) -> tuple[tuple[str, str], ...]:
    """Rows go out after they came in, so they may take the place of rows that are as many and no shorter."""
    fits = (
        value for value in candidates
        if value is not None and not value.is_constant
        and row_count(value) == row_count(output) and row_bytes(value) >= row_bytes(output)
    )
    return tuple((output.name, value.name) for value in dict.fromkeys(fits))


def _attention(group: Group, ladder: tuple[int, ...]) -> Iterable[Schedule]:
    """Keys and values of `heads` heads are packed for all tokens; queries then pass in tiles, three rows at a time.

    The sequences of a batch run one after the other through the same scratch.
    """
    op = group.roles["attention"].op
    assert isinstance(op, QAttention)
    heads = op.heads
    rows = max(group.roles["attention"].input(i).shape[-2] for i in (0, 1))
    for held in (n for n in range(heads, 0, -1) if heads % n == 0):
        for tile in tiles(rows, ladder):
            yield _attention_schedule(group, heads, held, tile)


def _attention_schedule(group: Group, heads: int, held: int, tile: int) -> Schedule:
    roles = group.roles
    node = roles["attention"]
    q, k, v = node.input(0), node.input(1), node.input(2)
    queries, keys, depth, width = q.shape[-2], k.shape[-2], q.shape[-1] // heads, v.shape[-1] // heads
    q_tile = min(tile, -(-queries // 3) * 3)
    # Phases: 0 pack keys and values, 1 queries, 2 projection. With all heads held, 1 and 2 alternate tile by tile; with
    # fewer, 0 and 1 alternate, and the projection waits until the heads of all rows have gathered.
    loop = 2 if held == heads else 1
    needs = [
        Need("keys", keys_bytes(keys, depth, held), 0, loop),
        Need("values", values_bytes(keys, width, held), 0, loop, untouched=8 if keys % 4 or width % 2 else 0),
        Need("attention", attention_bytes(keys), 1, 1, untouched=-keys % 4 * 4),
        tile_need("queries", q_tile, queries, depth, 1, 1),
        *_sources(roles, {"q": (q_tile, queries), "k": (tile, keys), "v": (tile, keys)}),
    ]
    if "projection" in roles:
        gathered, since = (queries, 0) if held < heads else (min(q_tile, queries), 1)
        needs.append(Need("mixed", gathered * heads * width, since, 2))
        needs.append(tile_need("mixed_tile", q_tile, queries, heads * width, 2, 2))
    # Without a projection a row goes out head by head, which is safe only over tokens that a tile holds by then.
    safe = "projection" in roles or (held == heads and "q" in roles)
    source = roles["q"].input(0) if "q" in roles else q
    if "norm_q" in roles:
        source = roles["norm_q"].input(0)
    often = {"k": passes(keys, tile), "v": passes(keys, tile)}
    read = [(roles[name], often.get(name, passes(queries, q_tile))) for name in LINEARS if name in roles]
    return Schedule(
        "all_heads" if held == heads else "head_by_head", tile, held, pack(needs),
        overwrites=_overwrites(group.output, [_residual(group), source] if safe else []),
        extra_macs=(heads // held - 1) * _refill(roles),
        weight_passes=q.shape[0] * max((count for _, count in read), default=1),
        weight_bytes=q.shape[0] * sum(_weight_bytes(node) * count for node, count in read),
    )


def _sources(roles: dict[str, Node], sides: dict[str, tuple[int, int]]) -> list[Need]:
    """The tile of (normalised) tokens that the projections read, one side at a time, and a norm's plain row.

    `sides` holds (tile rows, all rows) of each side.
    """
    projected = [(side, *rows, roles[side].input(1).shape[-1]) for side, rows in sides.items() if side in roles]
    needs = [tile_need("tile", tile, count, depth, 0, 1) for _, tile, count, depth in projected]
    norms = [roles[f"norm_{side}"] for side in sides if f"norm_{side}" in roles]
    rows = [need for norm in norms for need in _affine_row(norm, 0, 1)]
    return [max(group, key=lambda need: need.bytes) for group in (needs, rows) if group]


def _refill(roles: dict[str, Node]) -> int:
    """Work to fill all source tiles of an attention once: keys and values share theirs, queries do not."""
    fills = {(roles[side].input(0), side == "q"): f"norm_{side}" in roles for side in ("q", "k", "v") if side in roles}
    return sum(value.type.size * (NORM_WORK if normed else COPY_WORK) for (value, _), normed in fills.items())


def _conv(group: Group, ladder: tuple[int, ...]) -> Iterable[Schedule]:
    node = group.roles["conv"]
    weight, pixels = node.input(1), row_count(node.output)
    assert isinstance(node.op, QConv)
    if node.op.groups == weight.shape[0] and weight.shape[3] == 1:
        yield from _depthwise(group, node, node.op)
        return
    for tile in tiles(pixels, ladder):
        count = passes(pixels, tile)
        piece = pack([tile_need("tile", tile, pixels, prod(weight.shape[1:]), 0, 0)])
        yield Schedule("windows", tile, scratch=piece, weight_passes=count, weight_bytes=count * weight.type.nbytes)


def _depthwise(group: Group, node: Node, op: QConv) -> Iterable[Schedule]:
    """Bands of output rows, from planes of four channels; in place where one band is all rows of the same image."""
    x, weight = node.input(0), node.input(1)
    _, height, width, channels = node.output.shape
    kernel = (weight.shape[1], weight.shape[2])
    fits = x.dtype == "int8" and channels % 4 == 0 and kernel[1] <= ROW_TAPS and tuple(op.dilations) == (1, 1)
    if not fits:
        yield Schedule("whole", weight_bytes=weight.type.nbytes)
        return
    alike = (x.shape, x.dtype) == (group.output.shape, group.output.dtype) and op.strides == (1, 1)
    for rows in sorted({*(band for band in BANDS if band < height), height}):
        bands = passes(height, rows)
        filled = height * op.strides[0] + bands * (kernel[0] - op.strides[0])
        yield Schedule(
            "planes", rows, scratch=pack([Need("planes", planes_bytes(rows, kernel, op.strides, width), 0, 0)]),
            overwrites=_overwrites(group.output, [x]) if alike and bands == 1 else (),
            extra_macs=COPY_WORK * channels * x.shape[2] * max(0, filled - x.shape[1]),
            weight_passes=bands, weight_bytes=bands * weight.type.nbytes,
        )


def _single(group: Group, ladder: tuple[int, ...]) -> Iterable[Schedule]:
    (node,) = group.nodes
    if isinstance(node.op, QMatMul):
        depth, columns = node.input(1).shape[-2:]
        packed, rows = Need("packed", packed_bytes(columns, depth), 0, 0), node.output.shape[-2]
        for tile in tiles(rows, ladder):
            yield Schedule("rows", tile, scratch=pack([packed, tile_need("tile", tile, rows, depth, 0, 0)]))
        return
    scores = Need("scores", 4 * node.input(1).shape[1] if isinstance(node.op, Attention) else 0, 0, 0)
    output, places = node.outputs[0], (0,) if isinstance(node.op, OVER_FIRST) else node.op.inplace
    inputs = (value for value in map(node.optional, places) if value is not None and not value.is_constant)
    alike = [value for value in inputs if (value.shape, value.dtype) == (output.shape, output.dtype)]
    if isinstance(node.op, Attention) and bytes_of(node.input(0)) in map(bytes_of, (node.input(1), node.input(2))):
        alike = []  # every row needs all keys and values, which are the queries' own bytes here
    overwrites = tuple((output.name, value.name) for value in dict.fromkeys(alike))
    yield Schedule("whole", scratch=pack([scores]), overwrites=overwrites)
