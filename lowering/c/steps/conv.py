"""Convolutions that see more than one pixel: windows through the dot-product core, depthwise ones by planes."""

from __future__ import annotations

import numpy as np

from ....ir.ops.integer_conv import QConv
from ..call import Call
from ..text import render
from .epilogue import bits, scale
from .window import window

BODY = """\
    const es_window g = {{ window }};
    const es_to_rows to = {out, {{ bits_out }}, {{ n }}, {{ scale }} };
{% if depthwise %}
    es_depthwise(x, {{ bits_in }}, &g, {{ w }}, {{ b }}, {{ planes }}, {{ tile }}, &to);
{% else %}
    es_conv(x, {{ bits_in }}, &g, {{ groups }}, {{ w }}, {{ b }}, {{ n }}, tile, {{ tile }}, &to);
{% endif %}
"""


def emit(call: Call) -> None:
    """Fill in a "conv" group."""
    node = call.group.roles["conv"]
    op, x, weight = node.op, node.input(0), node.input(1)
    assert isinstance(op, QConv)
    call.value("x", x)
    call.value("out", call.group.output)
    depthwise, planes = call.schedule.name != "windows", "NULL"
    w: object
    if depthwise:
        if call.schedule.rows:
            planes = call.scratch("planes")
        w = call.array("w", np.ascontiguousarray(weight.array[..., 0].transpose(1, 2, 0)), weight.name)
    else:
        call.scratch("tile")
        w = call.matrix("w", weight, call.schedule.weight_passes, op.groups)
    call.body = render(
        BODY, window=window(call, node), bits_in=bits(x), bits_out=bits(call.group.output), n=weight.shape[0], w=w,
        b=call.pairs("b", node.input(2)), scale=scale(call, "conv", node, call.group.roles.get("table")),
        groups=op.groups, tile=call.schedule.rows, depthwise=depthwise, planes=planes,
    )  # fmt: skip
