"""From a planned group to the C function that runs it: one file per family of groups, each with its templates.

A family offers `emit(call)`, which fills in operands and body. `EMITTERS` says which kinds and ops it answers for.
"""

from __future__ import annotations

from collections.abc import Callable

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


def require_known(groups: list[Group]) -> None:
    """Check that every group can be written.

    Raises:
        Unsupported: Some cannot; all are named at once with their source nodes. Or values have a foreign element type.
    """
    unknown = [group for group in groups if group.kind != "view" and emitter(group) is None]
    if unknown:
        kinds = sorted({type(group.nodes[0].op).__name__ for group in unknown})
        where = [source for group in unknown for source in group.sources or (group.name,)]
        do = "see which operators the C back end knows in docs/compile.md; other back ends may know these"
        raise Unsupported(f"c: no kernel for {', '.join(kinds)}", where=where, do=do)
    values = [value for group in groups for value in (*group.inputs, *group.outputs) if value.dtype not in C_TYPES]
    if values:
        dtypes = sorted({value.dtype for value in values})
        where = list(dict.fromkeys(value.name for value in values))
        raise Unsupported(f"c: no C type for {', '.join(dtypes)}", where=where, do="export the model in float32")
