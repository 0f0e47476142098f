"""Chains of row-wise layers in tiles: norm, linear layers with tables between them, the closing sum with the stream."""

from __future__ import annotations

import numpy as np

from ....ir.errors import Unsupported
from ....ir.graph import Node, Value
from ....ir.memory.group import NORMS, TABLES, is_rowwise_linear, row_count
from ....ir.ops.integer import QMatMul
from ....ir.ops.integer_norm import QLayerNorm, QRMSNorm
from ..call import Call
from ..text import render, up
from .epilogue import addition, bits, scale
from .fill import fill

CHAIN = """\
{% for layer in layers if layer.ragged %}
    es_clear({{ layer.next }}, {{ layer.next_bytes }});
{% endfor %}
    for (int first = 0; first < {{ rows }}; first += {{ tile }}) {
        const int count = ES_MIN({{ tile }}, {{ rows }} - first);
{{ fill | indent(8, true) }}
{%- for layer in layers %}
        const {{ layer.store.struct }} to_{{ loop.index0 }} = {{ layer.store.value }};
        es_matmul_of({{ layer.tile }}, {{ layer.bits }}, {{ layer.first }}, count, {{ layer.k }}, {{ layer.w }}, \
{{ layer.b }}, {{ layer.n }}, {{ layer.store.function }}, &to_{{ loop.index0 }});
{% endfor %}
    }
"""

NORM_ONLY = """\
    for (int first = 0; first < {{ rows }}; first++) {
        es_norm(x + first * {{ width }}, {{ bits }}, {{ width }}, {{ centred }}, {{ zero }}, {{ eps }}, \
out + first * {{ width }}, 4);
{% if mult %}
        es_affine(out + first * {{ width }}, 16, 1, {{ width }}, {{ mult }}, {{ bias }}, {{ lift }}, 0, \
out + first * {{ width }}, 16);
{% endif %}
    }
"""

PRODUCT = """\
    for (int batch = 0; batch < {{ batches }}; batch++) {
        es_pack(packed, b + batch * {{ step_b }}, {{ n }}, {{ k }}, 1, {{ n }});
        const es_to_rows to = {out + batch * {{ m * n }}, {{ bits_out }}, {{ n }}, \
{ {{ mult }}, {{ pre }}, {{ zero }}, {{ low }}, {{ high }}, NULL, NULL, NULL}};
        es_linear(a + batch * {{ step_a }}, {{ bits_a }}, {{ m }}, {{ k }}, {{ k }}, packed, NULL, {{ n }}, tile, \
{{ tile }}, es_store_rows, &to);
    }
"""


def emit(call: Call) -> None:
    """Fill in a "rows" or "ffn" group."""
    group = call.group
    linears = [node for node in group.nodes if is_rowwise_linear(node)]
    if not linears:
        _norm_only(call)
        return
    head = group.nodes[0]
    norm = head if isinstance(head.op, NORMS) else None
    source = head.input(0)
    x = call.value("x", source)
    call.value("out", group.output)
    tile = call.schedule.rows
    filled = fill(call, call.scratch("tile0"), x, source, norm, "norm")
    layers = [_layer(call, linears, index, tile) for index in range(len(linears))]
    call.body = render(CHAIN, layers=layers, rows=row_count(group.output), tile=tile, fill=filled)


def _layer(call: Call, linears: list[Node], index: int, tile: int) -> dict[str, object]:
    node, group, name = linears[index], call.group, f"l{index}"
    weight = node.input(1)
    k, n = weight.shape[-1], weight.shape[0]
    after = [reader for reader in node.output.readers if reader in group.nodes]
    table = next((reader for reader in after if isinstance(reader.op, TABLES)), None)
    made = table.output if table is not None else node.output
    scaled = scale(call, name, node, table)
    layer: dict[str, object] = {
        "tile": f"tile{index}", "bits": bits(node.input(0)), "k": k, "n": n, "first": "first", "ragged": False,
        "w": call.matrix(f"{name}_w", weight, call.schedule.weight_passes), "b": call.pairs(f"{name}_b", node.input(2)),
    }  # fmt: skip
    if index + 1 < len(linears):
        following = call.scratch(f"tile{index + 1}")
        layer |= {"first": 0, "ragged": n % 4 != 0, "next": following, "next_bytes": 2 * up(tile, 3) * up(n, 4)}
        layer["store"] = {
            "struct": "es_to_tile", "function": "es_store_tile",
            "value": f"{{{following}, {bits(made)}, {up(n, 4) // 4}, {scaled}}}",
        }  # fmt: skip
    else:
        layer["store"] = closing(call, made, group.roles.get("add"), n, scaled, "out")
    return layer


def closing(call: Call, made: object, add: Node | None, n: int, scaled: str, out: str) -> dict[str, str]:
    """The store of a group's last layer: plain rows, or a sum with the stream (which it may overwrite)."""
    output = call.group.output
    if add is None:
        value = f"{{{out}, {bits(output)}, {n}, {scaled}}}"
        return {"struct": "es_to_rows", "function": "es_store_rows", "value": value}
    (other,) = (value for value in add.inputs if value is not None and value is not made)
    (inner,) = (value for value in add.inputs if value is not None and value is made)
    stream = call.value("stream", other)
    value = f"{{{out}, {stream}, {bits(output)}, {bits(other)}, {n}, {scaled}, {addition(call, 'add', add, inner)}}}"
    return {"struct": "es_to_sum", "function": "es_store_sum", "value": value}


def _norm_only(call: Call) -> None:
    (node,) = call.group.nodes
    op, source = node.op, node.input(0)
    assert isinstance(op, QLayerNorm | QRMSNorm)
    call.value("x", source)
    call.value("out", node.output)
    affine = node.optional(1) is not None
    call.body = render(
        NORM_ONLY, rows=row_count(source), width=source.shape[-1], bits=bits(source),
        centred=int(isinstance(op, QLayerNorm)), eps=call.scalar("eps", op.eps_q), lift=op.lift,
        zero=call.scalar("x_zero", op.x_zero) if isinstance(op, QRMSNorm) else 0,
        mult=call.array("mult", node.input(1)) if affine else "",
        bias=call.array("bias", node.input(2)) if affine else "",
    )  # fmt: skip


def product(call: Call) -> None:
    """A product of two activations; a batch axis of one operand may be absent or of length one as a whole.

    Raises:
        Unsupported: Some batch axes repeat and others do not.
    """
    (node,) = call.group.nodes
    op, a, b = node.op, node.input(0), node.input(1)
    assert isinstance(op, QMatMul)
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    batches = node.output.type.size // (m * n)
    steps = [_batch_step(node, value, batches) for value in (a, b)]
    call.value("a", a)
    call.value("b", b)
    call.value("out", node.output)
    call.scratch("packed", "int8_t")
    call.scratch("tile")
    info = np.iinfo(op.dtype)
    call.body = render(
        PRODUCT, batches=batches, m=m, n=n, k=k, bits_a=bits(a), bits_out=bits(node.output), tile=call.schedule.rows,
        step_a=steps[0], step_b=steps[1],
        mult=call.array("mult", np.full(up(n, 2), op.mult, np.int32), f"{node.name} multiplier"), pre=op.pre,
        zero=op.zero, low=info.min, high=info.max,
    )  # fmt: skip


def _batch_step(node: Node, value: Value, batches: int) -> int:
    """Elements from one matrix of an operand to the next; 0 where one serves all batches."""
    size = value.shape[-1] * value.shape[-2]
    count = value.type.size // size
    if count not in (1, batches):
        why = f"{count} matrices for {batches} products"
        raise Unsupported("c: a product repeats part of a batch", where=node.sources, why=why, do="expand the operand")
    return size if count > 1 else 0


OPS = {"QMatMul": product}
