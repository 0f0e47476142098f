"""Patch embedding: one patch at a time from a callback or an image in RAM, straight into the token stream.

Constant tokens and position tables never pass through RAM: constant rows are copied from flash with everything already
added, and the position of a patch is read from flash by the sum that stores its token. Source: MCUFormer (NeurIPS
2023), section 3.3, patch embedding decomposition.
"""

from __future__ import annotations

import numpy as np

from ....ir.errors import InternalError
from ....ir.graph import Array, Node, Value
from ....ir.ops.integer_conv import QPatchEmbed
from ..call import Call
from ..text import render, up
from .epilogue import addition, bits, scale
from .window import window

BODY = """\
{% if fixed %}
    es_copy({{ fixed }}, 1, {{ fixed_bytes }}, 0, out + {{ fixed_at }}, 0);
{% endif %}
    static const es_window g = {{ window }};
    for (int first = 0; first < {{ tokens }}; first += {{ tile }}) {
        const int count = ES_MIN({{ tile }}, {{ tokens }} - first);
        for (int row = 0; row < count; row++) {
            const int top = (first + row) / {{ grid }}, left = (first + row) % {{ grid }};
            int16_t *const at = es_tile_row(tile, 8, row, {{ up(k, 4) // 4 }});
{% if image %}
            es_tile_window(at, image, 8, &g, top, left, 0, {{ channels }});
{% else %}
            es_tile_patch(at, pixels, user, &g, top, left, line);
{% endif %}
        }
        const {{ struct }} to = {{ store }};
        es_matmul_of(tile, 8, first, count, {{ k }}, {{ w }}, {{ b }}, {{ n }}, {{ function }}, &to);
    }
"""


def emit(call: Call) -> None:
    """Fill in an "embed" group."""
    node, output = call.group.roles["embed"], call.group.output
    op, weight, image = node.op, node.input(1), node.input(0)
    assert isinstance(op, QPatchEmbed)
    before, offset = _constant_rows(call, node)
    call.value("out", output)
    streamed = call.schedule.name == "pixels"
    if streamed:
        call.pixels = True
        call.scratch("line", "int8_t")
    else:
        call.value("image", image)
    call.scratch("tile")
    width, tokens = weight.shape[0], node.output.shape[1]
    wide = _grid(op, image)
    store = _store(call, node, before * width)
    fixed = "" if offset is None else call.array("fixed", offset, f"{output.name} constant rows")
    call.body = render(
        BODY, up=up, image=not streamed, channels=weight.shape[3], grid=wide, tokens=tokens,
        tile=call.schedule.rows, k=int(np.prod(weight.shape[1:])), n=width, fixed=fixed, window=window(call, node),
        fixed_bytes=0 if offset is None else offset.nbytes, fixed_at=0 if before else tokens * width,
        w=call.matrix("w", weight, call.schedule.weight_passes), b=call.pairs("b", node.input(2)), **store,
    )  # fmt: skip


def _grid(op: QPatchEmbed, image: Value) -> int:
    """Patches per row of the image."""
    return (image.shape[2] + op.pads[1] + op.pads[3] - op.patch[1]) // op.patch[1] + 1


def _constant_rows(call: Call, node: Node) -> tuple[int, Array | None]:
    """How many constant rows precede the patches, and the constant rows' final values (before or behind, not both)."""
    concat = call.group.roles.get("concat")
    if concat is None:
        return 0, None
    fixed = [value for value in concat.inputs if value is not None and value.is_constant]
    order = list(concat.inputs)
    embedded = next(i for i, value in enumerate(order) if value is not None and not value.is_constant)
    if embedded not in (0, len(order) - 1):
        raise InternalError("constant tokens on both sides of the patches", where=call.group.sources)
    rows = np.concatenate([value.array for value in fixed], axis=1)
    before = rows.shape[1] if embedded else 0
    add = call.group.roles.get("add")
    if add is not None and add.input(0 if add.inputs[1] is _stream(add) else 1).shape[1] > 1:
        table = next(value for value in add.inputs if value is not None and value.is_constant).array
        part = table[:, : rows.shape[1]] if before else table[:, -rows.shape[1] :]
        operands = (rows, part) if add.inputs[0] is _stream(add) else (part, rows)
        rows = np.asarray(add.op.reference(*operands))
    return before, rows


def _stream(add: Node) -> Value:
    """The operand of a sum that is not constant."""
    return next(value for value in add.inputs if value is not None and not value.is_constant)


def _store(call: Call, node: Node, skip: int) -> dict[str, str]:
    """The epilogue: token rows as they are, or with their position added from flash; `skip` values lie before them."""
    add, output = call.group.roles.get("add"), call.group.output
    width = node.output.shape[-1]
    scaled = scale(call, "patch", node)
    out = f"out + {skip}" if skip else "out"
    if add is None:
        value = f"{{{out}, {bits(output)}, {width}, {scaled}}}"
        return {"struct": "es_to_rows", "function": "es_store_rows", "store": value}
    stream = _stream(add)
    table = next(value for value in add.inputs if value is not None and value.is_constant)
    whole = np.broadcast_to(table.array, output.shape)
    positions = whole[:, skip // width : skip // width + node.output.shape[1]]
    other = call.array("positions", np.ascontiguousarray(positions), f"{output.name} positions")
    terms = addition(call, "add", add, stream)
    value = f"{{{out}, {other}, {bits(output)}, {bits(table)}, {width}, {scaled}, {terms}}}"
    return {"struct": "es_to_sum", "function": "es_store_sum", "store": value}
