"""Where a tile's rows come from: plain rows in RAM, or the same rows through a norm."""

from __future__ import annotations

from ....ir.graph import Node, Value
from ....ir.ops.integer_norm import QLayerNorm, QRMSNorm
from ..call import Call
from ..text import render
from .epilogue import bits

PLAIN = """\
es_tile_rows({{ tile }}, {{ x }} + first * {{ width }}, {{ bits }}, count, {{ width }}, {{ width }});
"""

NORM = """\
es_norm_tile({{ x }} + first * {{ width }}, {{ bits }}, count, {{ width }}, {{ width }}, {{ centred }}, {{ zero }}, \
{{ eps }}, {{ tile }});
"""

AFFINE = """\
for (int r = 0; r < count; r++) {
    es_norm({{ x }} + (first + r) * {{ width }}, {{ bits }}, {{ width }}, {{ centred }}, {{ zero }}, {{ eps }}, row, 4);
    es_affine(row, 16, 1, {{ width }}, {{ mult }}, {{ bias }}, {{ lift }}, {{ out_zero }}, row, 16);
    es_tile_fill_row(es_tile_row({{ tile }}, 16, r, {{ (width + 3) // 4 }}), 12, row, 16, {{ width }});
}
"""


def fill(call: Call, tile: str, x: str, value: Value, norm: Node | None, name: str) -> str:
    """Statements that fill `tile` with rows [first, first + count) of `value`, which C knows as `x`."""
    width = value.shape[-1]
    if norm is None:
        return render(PLAIN, tile=tile, x=x, width=width, bits=bits(value))
    op = norm.op
    assert isinstance(op, QLayerNorm | QRMSNorm)
    centred = isinstance(op, QLayerNorm)
    context = {
        "tile": tile, "x": x, "width": width, "bits": bits(value), "centred": int(centred),
        "zero": 0 if centred else call.scalar(f"{name}_x_zero", getattr(op, "x_zero", 0)),
        "eps": call.scalar(f"{name}_eps", op.eps_q),
    }  # fmt: skip
    if norm.optional(1) is None:
        return render(NORM, **context)
    call.scratch("row")
    return render(
        AFFINE, **context, lift=op.lift, mult=call.array(f"{name}_scale", norm.input(1)),
        bias=call.array(f"{name}_shift", norm.input(2)), out_zero=op.quant.zero_point,
    )  # fmt: skip
