"""Printing of where instructions and code go: by kind of work, layer and function, and by the schedules RAM buys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.markup import escape

from .terminal import OUT, Data, new_table, size

__all__ = ["code", "cycles", "profile", "schedules"]

LAYERS, FUNCTIONS, NAME = 24, 10, 60


def profile(data: Data) -> None:
    """Shares by kind of work, then layers in order of execution, then functions."""
    total = data["instructions"] or 1
    per_mac = f", {data['per_mac']:.3f} per MAC" if data["per_mac"] else ""
    title = f"Instructions, {data['instructions']:,} for {data['macs']:,} MACs{per_mac}"
    table = new_table("for", "instructions", "share", "bytes of code", title=title)
    for name in {**data["kinds"], **data["code"]}:
        count = data["kinds"].get(name, 0)
        table.add_row(escape(name), f"{count:,}", f"{count / total:.2%}", f"{data['code'].get(name, 0):,}")
    OUT.print(table)
    layers(data)
    table = new_table("function", "instructions", "share", "executed blocks", "bytes of code", title="By function")
    for each in data["functions"][:FUNCTIONS]:
        count = each["instructions"]
        cells = (f"{count:,}", f"{count / total:.2%}", f"{each['blocks']:,}", f"{each['bytes']:,}")
        table.add_row(escape(each["name"]), *cells)
    OUT.print(table)


def code(data: Data) -> None:
    """Bytes of code by function, and how many layers share each."""
    functions, total = data["flash"]["functions"], data["flash"]["code"]
    layers = Counter(step["function"] for step in data["steps"])
    table = new_table("function", "bytes", "share", "layers", title="Code")
    for name, count in list(functions.items())[:FUNCTIONS]:
        shared = str(layers[name]) if name in layers else "-"
        table.add_row(escape(name), f"{count:,}", f"{count / total:.1%}", shared)
    rest = dict(list(functions.items())[FUNCTIONS:])
    if count := total - sum(functions.values()) + sum(rest.values()):
        table.add_row(f"{len(rest)} more, padding" if rest else "padding", f"{count:,}", f"{count / total:.1%}", "")
    OUT.print(table)


def cycles(data: Data) -> None:
    """What an estimated latency is made of."""
    core, stalls = (f"{data[key][0] / 1e6:,.2f} to {data[key][1] / 1e6:,.2f}" for key in ("core", "stalls"))
    waits = f", waiting for memory {stalls}" if data["stalls"][1] else ""
    because = data["because"] or "by stated rules, not calibrated on a board"
    OUT.print(f"  M cycles        core {core}{waits} ({escape(because)})")


def layers(data: Data) -> None:
    """The layers that take most, in order of execution, each with its two greatest kinds of work; the rest summed."""
    total = data["instructions"] or 1
    ranked = sorted(data["layers"], key=lambda layer: -layer["instructions"])
    least = ranked[:LAYERS][-1]["instructions"] if ranked else 0
    shown = [layer for layer in data["layers"] if layer["instructions"] >= least][:LAYERS]
    table = new_table("layer", "instructions", "share", "MACs", "per MAC", "mostly", title="By layer")
    table.columns[-1].justify = "left"
    for layer in shown:
        count = layer["instructions"]
        mostly = ", ".join(f"{name} {n / (count or 1):.0%}" for name, n in list(layer["kinds"].items())[:2])
        per_mac = f"{layer['per_mac']:.3f}" if layer["per_mac"] else "-"
        name = f"{escape(layer['name'][-NAME:])} [dim]{escape(layer['kind'])}[/]"
        table.add_row(name, f"{count:,}", f"{count / total:.2%}", f"{layer['macs']:,}", per_mac, escape(mostly))
    if rest := len(data["layers"]) - len(shown):
        count = data["instructions"] - sum(layer["instructions"] for layer in shown)
        table.add_row(f"{rest} more", f"{count:,}", f"{count / total:.2%}", "", "", "")
    OUT.print(table)


def schedules(rows: Sequence[Data]) -> None:
    """RAM beside instructions, the largest first; schedules that another beats in both are dim."""
    table = new_table("RAM", "instructions", "over the fewest", "weights read", "schedules", title="Schedules")
    table.columns[0].justify, table.columns[-1].justify = "right", "left"
    for row in rows:
        cells = (size(row["ram"]), f"{row['instructions']:,}", f"{row['over']:.2%}", size(row["weight_bytes"]))
        table.add_row(*cells, escape(row["schedules"]), style=None if row["best"] else "dim")
    OUT.print(table)
