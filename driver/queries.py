"""Questions that need no compile: how a model looks, which devices there are, what works on this computer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir.errors import UsageError
from .figures import ports

if TYPE_CHECKING:
    from ..ir.graph import Graph
    from ..ir.passes.base import Pass
    from ..targets import Target

__all__ = ["compiler", "doctor", "dtypes", "find_target", "options", "own_file", "show", "targets"]


def compiler(name: str) -> AbstractContextManager[None]:
    """Build for devices with this compiler, within a block: zig, gcc, or the name or path of a GCC."""
    from ..lowering.c.compilers import chosen

    return chosen(name)


def passes() -> list[Pass]:
    """All passes that need no data, in order: recognition, then the exact ones."""
    from ..ir.passes.pipelines import EXACT
    from ..ir.passes.recognise import RECOGNISE

    return [*RECOGNISE, *EXACT]


def show(
    model: str | PathLike[str], shapes: Mapping[str, tuple[int, ...]] | None = None,
    values: Mapping[str, object] | None = None, after: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A model as the compiler sees it after a pass; without a name after recognition, with "import" before any.

    Raises:
        UsageError: No pass has that name.
    """
    from .. import frontend
    from ..ir.cost import cost
    from ..ir.text import show as text

    known = [each.name for each in passes()]
    if after not in (None, "import", *known):
        raise UsageError(f"there is no pass '{after}'", do=f"use import, {', '.join(dict.fromkeys(known))}")
    graph = frontend.imported(model, shapes, values)
    done = [_applied(each, graph) for each in _until(after)]
    graph.prune()
    total = cost(graph)
    return {
        "name": graph.name,
        "after": after,
        "inputs": ports(graph.inputs),
        "outputs": ports(graph.outputs),
        "passes": done,
        "macs": total.macs,
        "parameters": total.parameters,
        "ops": total.ops,
        "nodes": [{"name": n.name, "op": type(n.op).__name__, "sources": list(n.sources)} for n in graph.nodes],
        "text": text(graph),
    }


def _applied(each: Pass, graph: Graph) -> dict[str, Any]:
    """Apply a pass; say how often it changed the graph, and what kept its rules from doing so once more."""
    from ..ir.rewrite import Trace, tracing

    token = tracing.set(trace := Trace())
    try:
        rewrites = each.apply(graph)
    finally:
        tracing.reset(token)
    rules = sorted({miss[0] for miss in trace.misses})
    return {
        "pass": each.name,
        "exact": each.exact,
        "rewrites": rewrites,
        "nearest": [text for rule in rules if (text := trace.nearest(rule))],
    }


def _until(after: str | None) -> Iterator[Pass]:
    from ..ir.passes.recognise import RECOGNISE

    if after == "import":
        return
    for each in RECOGNISE if after is None else passes():
        yield each
        if each.name == after:
            return


def find_target(name: str | Target) -> Target:
    """A target by name or path, or as `targets.get` gave it.

    Raises:
        UsageError: No such target, or its file is wrong.
    """
    from .. import targets as devices

    try:
        found = devices.get(name.name if isinstance(name, devices.Target) else name)
    except ValueError as error:
        raise UsageError(str(error), do="see: edgesmith targets") from error
    if isinstance(name, devices.Target) and name != found:
        raise UsageError(f"the target '{name.name}' is not the one of that name", do="give the path of its .toml file")
    return found


def own_file(name: str | Target) -> Path | None:
    """The file of a target that is not one of ours: artifacts carry a copy, since no name leads to it."""
    return Path(name) if isinstance(name, str) and name.endswith(".toml") else None


def dtypes() -> tuple[str, ...]:
    """Every arithmetic that some back end has."""
    from .. import lowering

    return tuple(dict.fromkeys(dtype for name in ("c", *lowering.names()) for dtype in lowering.offer(name).dtypes))


def options() -> dict[str, tuple[tuple[str, ...], str, str, str]]:
    """Every option of every back end by name: its values (none: any text), its default, what it does, who has it."""
    from .. import lowering

    found: dict[str, tuple[tuple[str, ...], str, str, str]] = {}
    for backend in ("c", *lowering.names()):
        for name, option in lowering.offer(backend).options.items():
            values, default, text, whose = found.get(name, (option.values, option.default, option.help, ""))
            values = tuple(dict.fromkeys((*values, *option.values))) if values and option.values else ()
            found[name] = values, default, text, f"{whose}, {backend}" if whose else backend
    return found


def targets() -> dict[str, Any]:
    """Every device with its budgets, in bytes."""
    from .. import targets as devices

    return {"targets": [_target(devices.get(name)) for name in devices.names()]}


def _target(device: Target) -> dict[str, Any]:
    return {
        "name": device.name,
        "title": device.title,
        "backend": device.backend,
        "core": device.core.name,
        "clock_hz": device.clock_hz,
        "ram_budget": device.ram_budget,
        "flash_budget": device.flash_budget,
        "external_flash_budget": device.external_flash_budget,
    }


def doctor(build: bool = False) -> dict[str, Any]:
    """Every tool that some verb may need, and whether it works here."""
    from ..runtimes.doctor import examine

    return {"checks": [asdict(check) for check in examine(build=build)]}
