"""From a planned group to the C function that runs it: one file per family of groups, each with its templates.

A family offers `emit(call)`, which fills in operands and body. `EMITTERS` says which kinds and ops it answers for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ....ir.errors import Unsupported
from ....ir.memory import Group
from ..call import Call
from ..constants import C_TYPES
from . import attention, conv, elementwise, embed, float_elementwise, float_image, float_rows, layout, pool, rows

Emitter = Callable[[Call], None]

KINDS: dict[str, Emitter] = {
    "attention": attention.emit,
    "conv": conv.emit,
    "embed": embed.emit,
    "ffn": rows.emit,
    "rows": rows.emit,
}
OPS: dict[str, Emitter] = {
    **elementwise.OPS, **layout.OPS, **pool.OPS, **rows.OPS,
    **float_elementwise.OPS, **float_image.OPS, **float_rows.OPS,
}  # fmt: skip


def emitter(group: Group) -> Emitter | None:
    """The function that writes a group's code, or None when there is none."""
    if group.kind in KINDS:
        return KINDS[group.kind]
    return OPS.get(type(group.nodes[0].op).__name__)


def unknown(groups: Sequence[Group]) -> list[Unsupported]:
    """What makes groups impossible to write before any emitter looks at them: no emitter, or a foreign element type."""
    found = []
    foreign = [group for group in groups if group.kind != "view" and emitter(group) is None]
    if foreign:
        kinds = sorted({type(group.nodes[0].op).__name__ for group in foreign})
        where = [source for group in foreign for source in group.sources or (group.name,)]
        do = "see which operators the C back end knows in docs/compile.md; other back ends may know these"
        found.append(Unsupported(f"c: no kernel for {', '.join(kinds)}", where=where, do=do))
    values = [value for group in groups for value in (*group.inputs, *group.outputs) if value.dtype not in C_TYPES]
    if values:
        dtypes = sorted({value.dtype for value in values})
        where = list(dict.fromkeys(value.name for value in values))
        do = "export the model in float32"
        found.append(Unsupported(f"c: no C type for {', '.join(dtypes)}", where=where, do=do))
    return found


def joined(refused: Sequence[Unsupported]) -> Unsupported:
    """One error for all that was refused: every place, and each reason once; a single refusal stays as it is."""
    if len(refused) == 1:
        return refused[0]
    where = list(dict.fromkeys(name for each in refused for name in each.where))
    reasons = [each.what.removeprefix("c: ") + (f" ({each.why})" if each.why else "") for each in refused]
    advice = dict.fromkeys(each.do for each in refused if each.do)
    what = f"c: {len(where)} operators or values cannot be written in C"
    return Unsupported(what, where=where, why="; ".join(dict.fromkeys(reasons)), do="; ".join(advice))
