"""Printing of searches: where one stands while it runs, and the front it ends with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .console import Progress
from .terminal import ERR, OUT, Data, new_table, size

__all__ = ["Watch", "search", "watch"]

ROWS = 8
"""Rows of the front that are shown while a search runs; the last ones are left out."""

KIB = ("flash", "ram")
BAR = 24


class Watch:
    """Shows on stderr the stages of a search and, while it runs, its front; lines where there is no terminal."""

    def __init__(self, live: Live | None) -> None:
        """Draw into `live`, or print."""
        self._live, self._front, self._text = live, Table(), ""
        self._last: Any = None
        self._progress = Progress(self if live else None)

    def stage(self, stage: str) -> None:
        """Begin a stage; "" ends the last one."""
        if self._last and not self._live:
            ERR.print(f"    {_standing(self._last)}")
            self._last = None
        self._progress(stage)

    def update(self, text: str) -> None:
        """Say what is being done."""
        self._text = text
        self._draw()

    def round(self, standing: Any) -> None:
        """Take in where the search stands."""
        if self._live:
            self._front, self._last = _front(standing.front), standing
            self._draw()
            return
        if self._last and standing.number > self._last.number:
            ERR.print(f"    {_standing(self._last)}")
        self._last = standing

    def _draw(self) -> None:
        if self._live is None:
            return
        parts: list[Any] = [Text.from_markup(self._text)]
        if self._last:
            done = round(BAR * self._last.judged / self._last.of)
            bar = f"[green]{'━' * done}[/][dim]{'━' * (BAR - done)}[/]"
            parts = [self._front, Text.from_markup(f"  {bar} {_standing(self._last)}"), *parts]
        self._live.update(Group(*parts))


@contextmanager
def watch() -> Iterator[Watch]:
    """Show a search while the block runs."""
    if not ERR.is_terminal:
        shown = Watch(None)
        yield shown
        shown.stage("")
        return
    with Live(console=ERR, transient=True, refresh_per_second=4) as live:
        shown = Watch(live)
        yield shown
        shown.stage("")


def search(data: Data) -> None:
    """The front, what was compiled of it, and where the files are."""
    front = data["front"]
    counts = f"{data['judged']} networks judged, {data['illegal']} over a budget, {len(data['failed'])} failed"
    OUT.print(f"[bold]{escape(data['name'])}[/] searched for {escape(data['target'])}: {counts}")
    known = [name for name, value in front[0]["costs"].items() if value is not None]
    table = new_table("network", "quality", *known, title=f"Front; quality is {data['quality']}")
    for row in front:
        table.add_row(row["name"], f"{row['quality']:.4f}", *(_cost(name, row["costs"][name]) for name in known))
    OUT.print(table)
    compiled(front)
    folder = escape(data["folder"])
    OUT.print(f"\n  {folder}/report.html  the whole story\n  {folder}/front        every network of the front, ONNX")


def compiled(front: Sequence[Data]) -> None:
    """What compiles made of the finalists."""
    done = [row for row in front if row["compiled"]]
    columns = ("network", "RAM", "flash", "instructions", "latency", "held-out accuracy", "artifact")
    table = new_table(*columns, title="Compiled")
    for row in done:
        found = row["compiled"]
        count = "-" if found["instructions"] is None else f"{found['instructions']:,}"
        latency = found["latency_ms"]
        told = f"{latency[0]:,.2f} to {latency[1]:,.2f} ms" if latency else "-"
        flash = found["flash"] if found["file"] is None else found["file"]
        right = "-" if found["accuracy"] is None else f"{found['accuracy']:.2%}"
        table.add_row(row["name"], size(found["ram"]), size(flash), count, told, right, row["artifact"])
    if done:
        OUT.print(table)
    for row in front:
        if row["refused"]:
            OUT.print(f"  [yellow]{row['name']} does not compile[/]: {escape(row['refused']['what'])}")


def _front(front: Sequence[Any]) -> Table:
    """The first rows of a front that is still growing."""
    costs = vars(front[0].costs) if front else {}
    names = [name for name in ("ram", "flash", "macs", "latency") if costs.get(name) is not None]
    table = new_table("quality", *names)
    for each in front[:ROWS]:
        table.add_row(f"{each.quality:.4f}", *(_cost(name, getattr(each.costs, name)) for name in names))
    if len(front) > ROWS:
        table.add_row(f"and {len(front) - ROWS} more", *("" for _ in names))
    return table


def _standing(standing: Any) -> str:
    best = f", best {standing.front[0].quality:.4f}" if standing.front else ""
    failed = f", {standing.failed} failed" if standing.failed else ""
    counts = f"{standing.judged} of {standing.of} judged, {standing.illegal} over a budget{failed}"
    return f"round {standing.number}: {counts}, {len(standing.front)} on the front{best}"


def _cost(name: str, value: Any) -> str:
    if value is None:
        return "-"
    return size(value) if name in KIB else f"{value:,.2f} ms" if name == "latency" else f"{value:,}"
