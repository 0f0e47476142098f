"""Single precision on rows: products, norms, softmax, attention without a map of scores, and reductions."""

from __future__ import annotations

from ....ir.op import Op
from ....ir.ops.activation import Softmax
from ....ir.ops.attention import Attention
from ....ir.ops.norm import LayerNorm, RMSNorm
from ....ir.ops.number import ReduceMin
from ....ir.ops.pool import Mean, ReduceMax, Sum
from ..call import Call
from ..text import render
from .float_elementwise import literal, operand, steps
from .layout import strides_of

ATTENTION = """\
    for (int batch = 0; batch < {{ batches }}; batch++)
        for (int h = 0; h < {{ heads }}; h++)
            es_attention_f32({{ q }} + batch * {{ n * heads * d }} + h * {{ d }}, {{ heads * d }}, {{ n }}, {{ d }}, \
{{ k }} + batch * {{ m * heads * d }} + h * {{ d }}, {{ heads * d }}, \
{{ v }} + batch * {{ m * heads * dv }} + h * {{ dv }}, {{ heads * dv }}, {{ m }}, {{ dv }}, {{ scale }}, \
{{ bias }}, {{ step_n }}, {{ step_m }}, scores, out + batch * {{ n * heads * dv }} + h * {{ dv }}, {{ heads * dv }});
"""


REDUCTION = """\
{% for axis, size in kept %}
    for (int i{{ axis }} = 0; i{{ axis }} < {{ size }}; i{{ axis }}++)
{% endfor %}
    {
        float total = {{ start }};
{% for axis, size in over %}
        for (int i{{ axis }} = 0; i{{ axis }} < {{ size }}; i{{ axis }}++)
{% endfor %}
            {{ step }};
        {{ out }}[{{ place }}] = total{{ share }};
    }
"""


def linear(call: Call) -> None:
    """A product of each row with a weight."""
    (node,) = call.group.nodes
    x, weight, bias = node.input(0), node.input(1), node.optional(2)
    n, k = weight.shape
    given = "NULL" if bias is None else operand(call, "b", bias)
    call.body = (
        f"    es_linear_f32({operand(call, 'x', x)}, {x.type.size // k}, {k}, {k}, "
        f"{operand(call, 'w', weight)}, {k}, 1, {given}, {n}, {call.value('out', node.output)}, {n});\n"
    )


def product(call: Call) -> None:
    """A product of two activations, the batch axes broadcast."""
    (node,) = call.group.nodes
    a, b = node.input(0), node.input(1)
    (m, k), n = a.shape[-2:], b.shape[-1]
    batch = node.output.shape[:-2]
    axes = [axis for axis, size in enumerate(batch) if size > 1]
    places = []
    for shape, count in ((a.shape, m * k), (b.shape, k * n), (node.output.shape, m * n)):
        own = steps(batch, shape[:-2])
        places.append("".join(f" + i{axis} * {own[axis] * count}" for axis in axes if own[axis]))
    head = "".join(f"    for (int i{axis} = 0; i{axis} < {batch[axis]}; i{axis}++)\n" for axis in axes)
    call.body = (
        f"{head}        es_linear_f32({operand(call, 'a', a)}{places[0]}, {m}, {k}, {k}, "
        f"{operand(call, 'b', b)}{places[1]}, 1, {n}, NULL, {n}, {call.value('out', node.output)}{places[2]}, {n});\n"
    )


def normal(call: Call) -> None:
    """LayerNorm and RMSNorm."""
    (node,) = call.group.nodes
    op, x = node.op, node.input(0)
    assert isinstance(op, LayerNorm | RMSNorm)
    width = x.shape[-1]
    vectors = [node.optional(1), node.optional(2)]
    gamma, beta = (
        "NULL" if value is None else operand(call, name, value) for name, value in zip("gb", vectors, strict=True)
    )
    call.body = (
        f"    es_norm_f32({operand(call, 'x', x)}, {x.type.size // width}, {width}, {int(isinstance(op, LayerNorm))}, "
        f"{gamma}, {beta}, {literal(op.eps)}, {call.value('out', node.output)});\n"
    )


def softmax(call: Call) -> None:
    """Probabilities along one axis."""
    (node,) = call.group.nodes
    op, x = node.op, node.input(0)
    assert isinstance(op, Softmax)
    width, step = x.shape[op.axis], strides_of(x.shape)[op.axis]
    call.body = (
        f"    es_softmax_f32({operand(call, 'x', x)}, {x.type.size // width}, {width}, {step}, "
        f"{call.value('out', node.output)});\n"
    )


def attention(call: Call) -> None:
    """Head by head and row by row: the scores of one row are all that is held."""
    (node,) = call.group.nodes
    op, bias = node.op, node.optional(3)
    assert isinstance(op, Attention)
    q, k, v = (operand(call, name, node.input(i)) for i, name in enumerate("qkv"))
    (batches, n, width), m = node.input(0).shape, node.input(1).shape[1]
    given, step_n, step_m = "NULL", 0, 0
    if bias is not None:
        *outer, step_n, step_m = steps((batches, op.heads, n, m), bias.shape)
        given = operand(call, "bias", bias) + "".join(
            f" + {name} * {step}" for name, step in zip(("batch", "h"), outer, strict=True) if step
        )
    call.scratch("scores", "float")
    call.value("out", node.output)
    call.body = render(
        ATTENTION, batches=batches, heads=op.heads, n=n, m=m, d=width // op.heads, q=q, k=k, v=v, bias=given,
        dv=node.input(2).shape[2] // op.heads, scale=literal(op.scale), step_n=step_n, step_m=step_m,
    )  # fmt: skip


EXTREMES: dict[type[Op], tuple[str, str]] = {
    ReduceMax: ("-__builtin_inff()", "ES_MAX(total, {element})"),
    ReduceMin: ("__builtin_inff()", "ES_MIN(total, {element})"),
}
"""Where a reduction starts, and its next total; others are sums."""


def reduce(call: Call) -> None:
    """Sum, mean or an extreme over some axes."""
    (node,) = call.group.nodes
    op, x = node.op, node.input(0)
    assert isinstance(op, Mean | Sum | ReduceMax | ReduceMin)
    gone = {axis % len(x.shape) for axis in op.axes}
    kept = [axis for axis, size in enumerate(x.shape) if axis not in gone and size > 1]
    over = [axis for axis in sorted(gone) if x.shape[axis] > 1]
    by = strides_of(x.shape)
    out_by = strides_of(tuple(x.shape[axis] for axis in kept))
    source, out = operand(call, "x", x), call.value("out", node.output)
    element = f"{source}[" + (" + ".join(f"i{axis} * {by[axis]}" for axis in [*kept, *over]) or "0") + "]"
    place = " + ".join(f"i{axis} * {step}" for axis, step in zip(kept, out_by, strict=True)) or "0"
    start, step = EXTREMES.get(type(op), ("0.0f", "total + {element}"))
    count = x.type.size // max(1, node.output.type.size)
    call.body = render(
        REDUCTION, kept=[(axis, x.shape[axis]) for axis in kept], over=[(axis, x.shape[axis]) for axis in over],
        start=start, place=place, step=f"total = {step.format(element=element)}",
        out=out, share=f" / {literal(count)}" if isinstance(op, Mean) else "",
    )  # fmt: skip


OPS = {
    "Attention": attention, "LayerNorm": normal, "Linear": linear, "MatMul": product, "Mean": reduce, "RMSNorm": normal,
    "ReduceMax": reduce, "ReduceMin": reduce, "Softmax": softmax, "Sum": reduce,
}  # fmt: skip
