"""Attention in lots of heads: keys and values packed for all tokens, queries in tiles, no map of N x M scores.

With all heads in one lot the projection follows each tile of queries and may overwrite the tokens; with fewer, the
heads' outputs gather for all rows and are projected at the end. Source: MCUFormer (NeurIPS 2023), section 3.3, and
Jung et al., arXiv 2404.02945, for the depth-first order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ....ir.graph import Node, Value
from ....ir.integer_layout import packed_bytes
from ....ir.ops.integer_attention import QAttention
from ..call import Call
from ..text import render, up
from .epilogue import bits, number, scale
from .fill import fill
from .rows import closing

BODY = """\
{% macro project(from) %}
            es_tile_rows(mixed_tile, mixed{{ from }}, 8, count, {{ p.k }}, {{ p.k }});
            const {{ p.store.struct }} to_out = {{ p.store.value }};
            es_matmul_of(mixed_tile, 8, first, count, {{ p.k }}, {{ p.w }}, {{ p.b }}, {{ p.n }}, \
{{ p.store.function }}, &to_out);
{% endmacro %}
{% if batch > 1 %}
    for (int sequence = 0; sequence < {{ batch }}; sequence++{{ advance }}) {
{% endif %}
    for (int lot = 0; lot < {{ heads }}; lot += {{ held }}) {
{% if d % 4 or m % 2 %}
        es_clear(keys, {{ held * keys_head }});
{% endif %}
{% for part in parts %}
        for (int first = 0; first < {{ m }}; first += {{ tile }}) {
            const int count = ES_MIN({{ tile }}, {{ m }} - first);
{{ part.fill | indent(12, true) }}            for (int h = 0; h < {{ held }}; h++) {
{% for side in part.sides %}
                const {{ side.struct }} to_{{ side.name }} = { {{ side.to }} + h * {{ side.head_bytes }}, \
{{ side.quads }}, {{ side.scale }} };
                es_matmul_of(tile, {{ side.bits }}, first, count, {{ side.k }}, {{ side.w.at("(lot + h)") }}, \
{{ side.b }} + (lot + h) * {{ side.n }}, {{ side.n }}, {{ side.store }}, &to_{{ side.name }});
{% endfor %}
            }
        }
{% endfor %}
{% for side in stored %}
        for (int h = 0; h < {{ held }}; h++)
            es_pack({{ side.to }} + h * {{ side.head_bytes }}, {{ side.x }} + (lot + h) * {{ side.n }}, \
{{ side.rows }}, {{ side.depth }}, {{ side.stride_n }}, {{ side.stride_k }});
{% endfor %}
        for (int first = 0; first < {{ n }}; first += {{ q_tile }}) {
            const int count = ES_MIN({{ q_tile }}, {{ n }} - first);
{{ q.fill | indent(12, true) }}            for (int h = 0; h < {{ held }}; h++) {
                const int head = lot + h;
{% if q.w %}
                const es_to_tile to_q = {queries, 16, {{ up(d, 4) // 4 }}, {{ q.scale }} };
                es_matmul_of(tile, {{ q.bits }}, 0, count, {{ q.k }}, {{ q.w.at("head") }}, \
{{ q.b }} + head * {{ d }}, {{ d }}, es_store_tile, &to_q);
{% else %}
                es_tile_rows_wide(queries, {{ q.x }} + first * {{ heads * d }} + head * {{ d }}, {{ q.bits }}, count, \
{{ heads * d }}, {{ d }});
{% endif %}
                const es_exponent exponent = { {{ mz }}[head], {{ pre }}, {{ table }}, {{ bias }}, {{ bias_shift }} };
                for (int row = 0; row < count; row += 3)
                    es_attention(queries + row / 3 * {{ up(d, 4) * 3 }}, row, ES_MIN(3, count - row), {{ d }}, \
keys + h * {{ keys_head }}, {{ m }}, values + h * {{ values_head }}, {{ dv }}, &exponent, \
{{ mult }} + head * {{ dv }}, {{ zero }}, attention, {{ out }} + head * {{ dv }}, 8, {{ heads * dv }});
            }
{% if p and not whole %}
{{ project("") }}
{%- endif %}
        }
    }
{% if p and whole %}
    for (int first = 0; first < {{ n }}; first += {{ q_tile }}) {
            const int count = ES_MIN({{ q_tile }}, {{ n }} - first);
{{ project(" + first * %d" % (heads * dv)) }}
    }
{% endif %}
{% if batch > 1 %}
    }
{% endif %}
"""


@dataclass(frozen=True)
class _Shape:
    """Sizes: n queries, m keys, `heads` of d and dv channels, `held` of them at a time."""

    n: int
    m: int
    heads: int
    held: int
    d: int
    dv: int


def emit(call: Call) -> None:
    """Fill in an "attention" group."""
    group, schedule = call.group, call.schedule
    node = group.roles["attention"]
    op = node.op
    assert isinstance(op, QAttention)
    q, k, v = (node.input(i) for i in range(3))
    s = _Shape(q.shape[1], k.shape[1], op.heads, schedule.heads, q.shape[-1] // op.heads, v.shape[-1] // op.heads)
    whole = s.held < s.heads
    q_tile = min(schedule.rows, up(s.n, 3))
    for name in ("keys", "values"):
        call.scratch(name, "int8_t")
    call.scratch("attention", "int32_t")
    call.scratch("queries")
    parts, stored = _keys_and_values(call, s, k, v)
    projection = _projection(call, s)
    gathered = f"mixed{f' + first * {s.heads * s.dv}' if whole else ''}"
    out = gathered if projection else f"{call.value('out', group.output)} + first * {s.heads * s.dv}"
    bias = node.optional(5)
    by_window = bias is not None and len(bias.shape) == 4 and q.shape[0] > 1
    head = f"(sequence * {s.heads} + head)" if by_window else "head"
    biased = "NULL" if bias is None else f"{call.array('bias', bias)} + ({head} * {s.n} + first) * {s.m}"
    queries = _queries(call, s, q)
    call.body = render(
        BODY, batch=q.shape[0], advance=_advance(call, q.shape[0]), n=s.n, m=s.m, heads=s.heads, held=s.held, d=s.d,
        dv=s.dv, up=up, tile=schedule.rows, q_tile=q_tile,
        parts=parts, stored=stored, q=queries, p=projection, whole=whole, out=out,
        keys_head=packed_bytes(s.m, s.d), values_head=packed_bytes(s.dv, s.m), bias=biased, bias_shift=op.bias_shift,
        mz=call.array("mz", np.asarray(op.mz, np.int32), f"{node.name} score multipliers"), pre=op.pre,
        table=call.array("table", node.input(4)), mult=call.pairs("mult", node.input(3)),
        zero=number(call, "zero", op.quant.zero_point),
    )  # fmt: skip


def _advance(call: Call, batch: int) -> str:
    """C text that moves every pointer to a value on by one sequence."""
    return "".join(f", {name} += {value.type.size // batch}" for name, value in call.values.items())


def _linear(call: Call, s: _Shape, side: str, node: Node, width: int) -> dict[str, Any]:
    weight = node.input(1)
    depth = weight.shape[-1]
    return {
        "name": side, "bits": bits(node.input(0)), "k": depth, "n": width,
        "w": call.matrix(f"{side}_w", weight, call.schedule.weight_passes, s.heads),
        "b": call.pairs(f"{side}_b", node.input(2)), "scale": scale(call, side, node, None, f" + (lot + h) * {width}"),
    }  # fmt: skip


def _keys_and_values(call: Call, s: _Shape, k: Value, v: Value) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Sides that a linear layer writes packed, joined where they read the same rows; and sides found in RAM."""
    roles = call.group.roles
    parts: dict[tuple[int, int], dict[str, Any]] = {}
    stored: list[dict[str, Any]] = []
    for side, value, width, struct in (("k", k, s.d, "es_to_packed"), ("v", v, s.dv, "es_to_transposed")):
        keys = side == "k"
        place = {
            "to": "keys" if keys else "values", "struct": struct, "store": struct.replace("_to_", "_store_"),
            "head_bytes": packed_bytes(s.m, s.d) if keys else packed_bytes(s.dv, s.m),
            "quads": up(s.d if keys else s.m, 4) // 4,
        }  # fmt: skip
        if side not in roles:
            across = {"rows": s.m, "depth": s.d, "stride_n": s.heads * s.d, "stride_k": 1}
            along = {"rows": s.dv, "depth": s.m, "stride_n": 1, "stride_k": s.heads * s.dv}
            stored.append({**place, **(across if keys else along), "x": call.value(f"{side}_x", value), "n": width})
            continue
        node, norm = roles[side], roles.get(f"norm_{side}")
        source = norm.input(0) if norm else node.input(0)
        key = (id(source), id(norm))
        if key not in parts:
            name = call.value(f"{side}_x", source)
            filled = fill(call, call.scratch("tile"), name, source, norm, f"norm_{side}")
            parts[key] = {"fill": filled, "sides": []}
        parts[key]["sides"].append({**place, **_linear(call, s, side, node, width)})
    return list(parts.values()), stored


def _queries(call: Call, s: _Shape, q: Value) -> dict[str, Any]:
    roles = call.group.roles
    if "q" not in roles:
        if not q.is_constant:
            return {"fill": "", "w": "", "x": call.value("q_x", q), "bits": bits(q)}
        learned = call.array("q_x", q)
        x = learned if q.shape[0] == 1 else f"({learned} + sequence * {q.type.size // q.shape[0]})"
        return {"fill": "", "w": "", "x": x, "bits": bits(q)}
    norm = roles.get("norm_q")
    source = norm.input(0) if norm else roles["q"].input(0)
    filled = fill(call, call.scratch("tile"), call.value("q_x", source), source, norm, "norm_q")
    return {**_linear(call, s, "q", roles["q"], s.d), "fill": filled}


def _projection(call: Call, s: _Shape) -> dict[str, Any] | None:
    roles = call.group.roles
    if "projection" not in roles:
        return None
    node = roles["projection"]
    call.scratch("mixed", "int8_t")
    call.scratch("mixed_tile")
    out = call.value("out", call.group.output)
    width = node.input(1).shape[0]
    store = closing(call, node.output, roles.get("add"), width, scale(call, "p", node), out)
    reads = call.schedule.weight_passes
    return {
        "k": s.heads * s.dv, "n": width, "w": call.matrix("p_w", node.input(1), reads),
        "b": call.pairs("p_b", node.input(2)), "store": store,
    }  # fmt: skip
