"""What a back end would write of a graph, and all that it lacks for it: known before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..ir.errors import Unsupported

if TYPE_CHECKING:
    from ..ir.graph import Node, Value

__all__ = ["Lack", "Outline", "form", "idle", "refuse", "sources", "unknown"]


@dataclass(frozen=True)
class Lack:
    """One thing that a back end would need to write a graph.

    Attributes:
        op: The kind of op, or "input" or "output".
        where: Names in the user's model: nodes, or values.
        why: Which form of it is missing; empty where no form is known.
        do: What the user can do about it.
    """

    op: str
    where: tuple[str, ...]
    why: str = ""
    do: str = ""

    def json(self) -> dict[str, Any]:
        """The parts for programs."""
        return {"op": self.op, "where": list(self.where), "why": self.why, "do": self.do}


@dataclass(frozen=True)
class Outline:
    """What would be written.

    Attributes:
        operators: How often each operator of the format would stand in it, constants apart; those of the ops that are
            lacking are missing.
        size: Bytes that it would take on a disk or in flash.
        size_is: What `size` is to the bytes in the end: "about", "at least" or "at most" so many.
        lacks: All that is missing; empty where it can be written.
        notes: What the user should know of these figures.
    """

    operators: Mapping[str, int]
    size: int
    size_is: str = "about"
    lacks: tuple[Lack, ...] = ()
    notes: tuple[str, ...] = ()


def sources(nodes: Iterable[Node]) -> tuple[str, ...]:
    """Names of nodes in the user's model, each once."""
    return tuple(dict.fromkeys(name for node in nodes for name in node.sources or (node.name,)))


def unknown(nodes: Sequence[Node], known: Iterable[type]) -> list[Lack]:
    """Ops that are not among those known, by kind."""
    table = set(known)
    found: dict[str, list[Node]] = {}
    for node in nodes:
        if type(node.op) not in table:
            found.setdefault(type(node.op).__name__, []).append(node)
    do = "replace these layers before the export, or choose a target of another back end"
    return [Lack(kind, sources(found[kind]), do=do) for kind in sorted(found)]


def form(node: Node, why: object) -> Lack:
    """A form of an op that the format does not have."""
    return Lack(type(node.op).__name__, sources([node]), str(why), "change this layer before the export")


def idle(outputs: Iterable[Value]) -> list[Lack]:
    """Outputs that no operator makes, where the format cannot hand on anything else."""
    return [Lack("output", (value.name,), "it is not computed", "remove this output") for value in outputs]


def refuse(backend: str, lacks: Sequence[Lack]) -> None:
    """Raise one error that names all that is lacking.

    Raises:
        Unsupported: Something is.
    """
    if not lacks:
        return
    kinds = [each.op for each in lacks if not each.why]
    formless = [each for each in lacks if each.why]
    what = [f"no spelling for {', '.join(dict.fromkeys(kinds))}"] if kinds else []
    what += ["forms of ops without a spelling"] if formless else []
    raise Unsupported(
        f"{backend}: {'; '.join(what)}",
        where=dict.fromkeys(name for each in lacks for name in each.where),
        why="; ".join(f"{each.op} '{each.where[0]}': {each.why}" for each in formless),
        do="; ".join(dict.fromkeys(each.do for each in lacks if each.do)),
    )
