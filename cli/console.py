"""Printing for people: one printer a verb, of the same name, from the same data that --json gives to programs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.markup import escape

from ..ir.errors import EdgesmithError
from .profile import code, cycles, profile, schedules
from .terminal import ERR, OUT, Data, band, new_table, size

__all__ = ["Progress", "bench", "check", "compile", "doctor", "error", "progress", "run", "show", "targets"]

LAYERS, KINDS, OPERATIONS = 5, 12, 20
FAULTS = ("precision", "meaning")
"""Verdicts on an operation that spoils the numbers by itself."""

NAME = 72
"""Letters of a layer's name that are shown: long ones tell their place at the end."""

QUIET_SECONDS = 10
"""How long a stage may be silent where nothing can be animated."""


class Shown(Protocol):
    """What shows a text until it is given the next."""

    def update(self, text: str, /) -> None:
        """Show this."""
        ...


class Progress:
    """Says on stderr which stage runs, and when it has ended how long it took."""

    def __init__(self, status: Shown | None) -> None:
        """Animate `status` where there is a terminal; without, print a line a stage, and now and then how it goes."""
        self._status, self._stage = status, ""
        self._began = self._said = time.perf_counter()

    def __call__(self, stage: str) -> None:
        """Begin a stage, or update its text when only the part after ': ' differs; "" ends the last one."""
        now = time.perf_counter()
        if stage.split(": ")[0] != self._stage.split(": ")[0]:
            if self._stage:
                ERR.print(f"  [green]✓[/] {escape(self._stage)} [dim]{now - self._began:.1f} s[/]")
            self._began = self._said = now
        elif not self._status and now - self._said > QUIET_SECONDS:
            ERR.print(f"    {escape(stage)} ...")
            self._said = now
        self._stage = stage
        if self._status:
            self._status.update(f"{escape(stage)} ...")


@contextmanager
def progress(animated: bool = True) -> Iterator[Progress]:
    """Show stages while the block runs; what draws an animation would disturb times that are taken."""
    if not ERR.is_terminal or not animated:
        shown = Progress(None)
        yield shown
        shown("")
        return
    with ERR.status("") as status:
        shown = Progress(status)
        yield shown
        shown("")


def error(error: EdgesmithError) -> None:
    """An error of the contract, on stderr."""
    ERR.print(f"[bold red]error:[/] {escape(error.text())}")


def fit(data: Data) -> None:
    """The four columns, each beside its budget."""
    memory, flash, columns = data["memory"], data["flash"], data["columns"]
    table = new_table("activation RAM", "runtime RAM", "weights flash", "code flash", title="Fit")
    table.columns[0].justify = "right"
    table.add_row(*(size(columns[key]) for key in ("activation_ram", "runtime_ram", "weights_flash", "code_flash")))
    OUT.print(table)
    OUT.print(f"  RAM             {size(memory['total'])} of {size(memory['budget'])}"
              f"   planned arena {size(memory['arena_bytes'])}, measured {size(memory['arena_measured'])},"
              f" proven lower bound {size(memory['lower_bound'])}")  # fmt: skip
    OUT.print(f"  internal flash  {size(flash['internal'])} of {size(flash['budget'])}")
    if flash["external"]:
        OUT.print(f"  [yellow]external flash[/]  {size(flash['external'])} of {size(flash['external_budget'])}:"
                  " this model needs it")  # fmt: skip
    if flash["functions"]:
        code(data)


def file(data: Data) -> None:
    """What a translation is made of."""
    found = data["file"]
    ranked = sorted(found["operators"].items(), key=lambda each: -each[1])
    kinds = ", ".join(f"{times} {kind}" for kind, times in ranked)
    OUT.print("[bold]File[/]")
    OUT.print(f"  {found['name']}      {size(found['bytes'])}, {sum(found['operators'].values())} operators: {kinds}")


def truth(data: Data) -> None:
    """The ladder."""
    table = new_table("rung", "samples", "largest error", "cosine", "top-1 agreement", "", title="Truth")
    for rung in data["verification"]:
        top1 = "" if rung["top1"] is None else f"{rung['top1']:.1%}"
        cosine = "" if rung["cosine"] is None else f"{rung['cosine']:.6f}"
        largest = "" if rung["max_error"] is None else f"{rung['max_error']:.2e}"
        note = "reference" if rung["rung"] == data["verification"][0]["rung"] else ""
        note = {True: "[green]bit for bit[/]", False: "[red]differs[/]", None: note}[rung["equal"]]
        table.add_row(escape(rung["rung"]), str(rung["samples"]), largest, cosine, top1, note)
    OUT.print(table)
    if data["calibration"]["source"] == "noise" and data["dtype"] == "int8":
        OUT.print("  [yellow]calibrated on noise[/]: accuracy on real data is unknown; give --calibration")
    for note in data["notes"]:
        OUT.print(f"  [yellow]note[/]: {escape(note)}")


def cost(data: Data) -> None:
    """Work and time, and where they go."""
    found = data["cost"]
    OUT.print("[bold]Cost[/]")
    OUT.print(f"  MACs            {found['macs']:,}")
    if found.get("instructions") is not None:
        OUT.print(f"  instructions    {found['instructions']:,} (emulated, exact)")
    if found.get("instructions") is not None or found.get("latency_ms"):
        OUT.print(f"  latency         {band(found)}")
        if found.get("estimate"):
            cycles(found["estimate"])
        elif found.get("latency_because"):
            OUT.print(f"    [dim]{escape(found['latency_because'])}[/]")
    total = sum(layer["cost"] for layer in found["layers"]) or 1
    for layer in sorted(found["layers"], key=lambda layer: -layer["cost"])[:LAYERS]:
        share = f"{layer['cost'] / total:6.1%} of {found['unit']}"
        OUT.print(f"    {share}  {escape(layer['name'])} [dim]{escape(layer['kind'])}[/]")


def compile(data: Data) -> None:
    """What every compile shows: fit, truth, cost, and where the files are."""
    OUT.print(f"[bold]{escape(data['name'])}[/] for {escape(data['target'])}")
    if "file" in data:
        file(data)
    else:
        fit(data)
    truth(data)
    cost(data)
    if data.get("schedules"):
        schedules(data["schedules"])
    folder = escape(data["folder"])
    result, what = (data["file"]["name"], "the model") if "file" in data else ("src", "the C library")
    OUT.print(f"\n  {folder}/report.html  the whole story\n  {folder}/{result:<11}  {what}")


def run(data: Data) -> None:
    """A measurement."""
    OUT.print(f"[bold]{escape(data['artifact'])}[/] on {escape(data['device'])}, {data['samples']} samples")
    OUT.print(f"  latency         {band(data)}")
    if data.get("estimate"):
        cycles(data["estimate"])
    if data["runner"] == "board":
        OUT.print(f"  time, stack     {escape(data['latency_because'])}; {size(data['stack_bytes'])}")
    if data["instructions"] is not None:
        OUT.print(f"  instructions    {data['instructions']:,} (exact, first sample)")
        OUT.print(f"  RAM             arena {size(data['arena_bytes'])}, stack {size(data['stack_bytes'])} (measured)")
    if data["equal"] is not None:
        agreed = "bit for bit" if data["dtype"] == "int8" else "within the rounding of float32"
        agreed = f"within {data['bound']}" if data["bound"] else agreed
        verdict = f"[green]{agreed}[/]" if data["equal"] == data["samples"] else "[red]different[/]"
        against = {"host": "the same C on this computer"}.get(data["against"], "the reference")
        OUT.print(f"  check           {data['equal']} of {data['samples']} equal to {against}: {verdict}")
    if found := data["divergence"]:
        ends = dict.fromkeys((*found["sources"][:1], *found["sources"][-1:]))
        origin = f" [dim](from {escape(' to '.join(ends))})[/]" if ends else ""
        OUT.print(f"  first to differ  step {found['step']}, {found['kind']} '{escape(found['name'])}'{origin}")
    for name, output in data["outputs"].items():
        OUT.print(f"  {escape(name)} {output['shape']}: {escape(output['summary'])}")
    if found := data["comparison"]:
        comparison(found)
    if found := data["profile"]:
        profile(found)


def comparison(data: Data) -> None:
    """The operations that err most by themselves, in the program's order, and the first that is at fault."""
    rows = data["rows"]
    shares = [float(row["own"]) / (float(row["peak"]) or 1.0) for row in rows]
    ranked = sorted(range(len(rows)), key=lambda i: (rows[i]["verdict"] not in FAULTS, -shares[i]))[:OPERATIONS]
    title = f"Operations that err most, {len(ranked)} of {len(rows)}; shares of the reference's largest element"
    table = new_table("operation", "from", "largest", "so far", "by itself", "rounding explains", "", title=title)
    table.columns[1].justify = table.columns[-1].justify = "left"
    for row in (rows[i] for i in sorted(ranked)):
        peak = float(row["peak"]) or 1.0
        errors = (f"{float(row[key]) / peak:.1e}" for key in ("error", "own", "rounding"))
        mark = f"[red]{row['verdict']}[/]" if row["verdict"] in FAULTS else row["verdict"]
        name = f"{row['kind']} {escape(row['name'][-NAME // 2 :])}"
        table.add_row(name, escape(", ".join(row["sources"][:1])[-NAME // 2 :]), f"{peak:.3g}", *errors, mark)
    OUT.print(table)
    first = next((row for row in rows if row["name"] == data["culprit"]), None)
    verdict = f"[red]{first['kind']} '{escape(first['name'])}'[/]" if first else "[green]none[/]"
    OUT.print(f"  first at fault  {verdict}")


def bench(data: Data) -> None:
    """Times or counts of one or two, what is between them, and where the time goes."""
    sides, alike = data["sides"], len({side["name"] for side in data["sides"]}) == 1
    sides = [{**side, "name": side["path"]} if alike and len(sides) > 1 else side for side in sides]
    for side, word in zip(sides, ("", "against "), strict=False):
        OUT.print(f"{word}[bold]{escape(side['name'])}[/] on {escape(side['device'])} ({side['kind']})")
        if side["instructions"] is not None:
            low, high = side["estimate_ms"] or (None, None)
            OUT.print(f"  instructions    {side['instructions']:,} (emulated, exact)")
            OUT.print(f"  latency         {'unknown' if low is None else f'{low:,.2f} to {high:,.2f} ms (estimated)'}")
        elif side["because"]:
            OUT.print(f"  time            {escape(side['because'])}")
    if sides[0]["wall_ms"]:
        times(sides, data["warm_ups"])
    for name, found in data["ratios"].items():
        between = f", {data['confidence']:.0%} interval {found['low']:.3f} to {found['high']:.3f}: {verdict(found)}"
        clock = {"cpu": "CPU time", "wall": "wall time"}.get(name)
        OUT.print(f"  ratio           {found['value']:.3f} of {clock or name}{between if clock else ''}")
    if found := data["difference"]:
        error, share = f"{found['max_error']:.2e}", f"{found['relative']:.1e}"
        OUT.print(f"  outputs         differ by {error} at most, {share} of the largest; cosine {found['cosine']:.6f}")
    if sides[0]["wall_ms"]:
        operators(sides)
    if stopped := data["stopped"]:
        stop(stopped)


def verdict(ratio: Data) -> str:
    """What an interval for a ratio of two times says."""
    if ratio["low"] <= 1 <= ratio["high"]:
        return "no difference shown"
    return "[green]faster[/]" if ratio["high"] < 1 else "[yellow]slower[/]"


def times(sides: Sequence[Data], warm_ups: int) -> None:
    """Medians and outer tenths."""
    title = f"Milliseconds, {sides[0]['runs']} runs after {warm_ups} to warm up"
    table = new_table("", "CPU median", "p10", "p90", "wall median", "p10", "p90", title=title)
    for side in sides:
        figures = [side[clock][key] for clock in ("cpu_ms", "wall_ms") for key in ("median", "p10", "p90")]
        table.add_row(escape(side["name"]), *(f"{figure:,.3f}" for figure in figures))
    OUT.print(table)


def operators(sides: Sequence[Data]) -> None:
    """Time by kind of operator, of both sides next to each other, and the slowest of the first."""
    sums: list[dict[str, float]] = [{} for _ in sides]
    for side, total in zip(sides, sums, strict=True):
        if side["why_no_layers"]:
            OUT.print(f"  [dim]no times by operator of {escape(side['name'])}: {escape(side['why_no_layers'])}[/]")
        for layer in side["layers"]:
            total[layer["kind"]] = total.get(layer["kind"], 0.0) + layer["ms"]
    kinds = sorted({kind for total in sums for kind in total}, key=lambda kind: -max(t.get(kind, 0.0) for t in sums))
    if not kinds:
        return
    names = (escape(side["name"]) for side in sides)
    table = new_table("kind of operator", *names, title="Milliseconds by operator, wall time")
    for kind in kinds[:KINDS]:
        table.add_row(escape(kind), *(f"{total[kind]:,.3f}" if kind in total else "" for total in sums))
    if rest := kinds[KINDS:]:
        table.add_row(f"{len(rest)} more", *(f"{sum(total.get(kind, 0.0) for kind in rest):,.3f}" for total in sums))
    OUT.print(table)
    for layer in sorted(sides[0]["layers"], key=lambda layer: -layer["ms"])[:LAYERS]:
        OUT.print(f"    {layer['ms']:8.3f} ms  {escape(layer['name'][-NAME:])} [dim]{escape(layer['kind'])}[/]")


def check(data: Data) -> None:
    """What is recognised; then a line for each way to compile, and all that is missing, each reason once."""
    if not data["imports"]:
        OUT.print(f"[bold]{escape(data['name'])}[/] [red]does not import[/]")
        OUT.print(f"  where: {escape(', '.join(data['stopped']['where']))}")
        stop(data["stopped"])
        return
    OUT.print(f"[bold]{escape(data['name'])}[/] imports: {data['nodes']} nodes, {data['macs']:,} MACs,"
              f" {data['parameters']:,} parameters")  # fmt: skip
    for family, kinds in data["blocks"].items():
        OUT.print(f"  {family:<12} {counts(kinds)}")
    table = new_table("back end", "takes it", "RAM", "flash or file", "operators", "targets", title="Targets")
    table.columns[1].justify = table.columns[5].justify = "left"
    for way in data["ways"]:
        name = f"{way['backend']} {way['dtype']}" + (f", {way['stream']} stream" if way["stream"] else "")
        ram, flash = (size(way[key]["bytes"]) if way[key] else "-" for key in ("memory", "size"))
        count = str(sum(way["operators"].values())) if way["operators"] else "-"
        good = [each["name"] for each in way["targets"] if each["takes"]]
        bad = [_refused(each) for each in way["targets"] if not each["takes"]]
        mark = "[yellow]?[/]" if way["why_not"] and not way["operators"] else "[green]yes[/]" if good else "[red]no[/]"
        table.add_row(escape(name), mark, ram, flash, count, escape(", ".join(good)))
        if bad and good:
            table.add_row("", "[red]no[/]", "", "", "", escape(", ".join(bad)))
        elif bad:
            table.add_row("", "", "", "", "", escape(", ".join(bad)))
    OUT.print(table)
    for text, names in _legend(data["ways"]).items():
        OUT.print(f"  [dim]{escape(', '.join(names))}: {escape(text)}[/]")
    for way in data["ways"]:
        _details(way)
    if data["stopped"]:
        stop(data["stopped"])


def counts(kinds: Mapping[str, int]) -> str:
    """The most frequent first."""
    ranked = sorted(kinds.items(), key=lambda each: -each[1])
    return ", ".join(f"{times} {kind}" for kind, times in ranked)


def _refused(target: Data) -> str:
    """A target that does not take the model, and which budget is too small."""
    over = ", ".join(f"{row['what']} {size(row['budget'])}" for row in target["over"])
    return f"{target['name']} ({over})" if over else target["name"]


def _legend(ways: Sequence[Data]) -> dict[str, list[str]]:
    """What the figures of the table are, and the back ends for which they are that, in one arithmetic or in all."""
    found: dict[str, list[Data]] = {}
    for way in ways:
        texts = [f"RAM is {way['memory']['is']}", f"the size is {way['size']['is']} this"] if way["size"] else []
        for text in (*texts, *way["notes"]):
            found.setdefault(text, []).append(way)
    whole = [way for way in ways if way["size"]]
    return {text: _names(those, [way for way in whole if way not in those]) for text, those in found.items()}


def _names(those: Sequence[Data], others: Sequence[Data]) -> list[str]:
    apart = {way["backend"] for way in others}
    names = (f"{way['backend']} {way['dtype']}" if way["backend"] in apart else way["backend"] for way in those)
    return list(dict.fromkeys(names))


def _details(way: Data) -> None:
    """The operators of one way, what is missing for it, and its notes."""
    stream = f", {way['stream']} stream" if way["stream"] else ""
    OUT.print(f"[bold]{escape(way['backend'])}[/] {way['dtype']}{stream}: [dim]{escape(counts(way['operators']))}[/]")
    for lack in way["lacks"]:
        why = f": {lack['why']}" if lack["why"] else " is not known"
        OUT.print(f"  [red]missing[/] {escape(lack['op'] + why)}\n    where: {escape(', '.join(lack['where']))}")
        if lack["do"]:
            OUT.print(f"    do: {escape(lack['do'])}")
    if way["why_not"]:
        OUT.print(f"  [yellow]to compile it here[/]: {escape(way['why_not'])}")


def stop(error: Data) -> None:
    """Why a verb that told something ends in an error's code."""
    lines = [error["what"], *(f"  {part}: {error[part]}" for part in ("why", "do") if error[part])]
    ERR.print("[bold red]error:[/]", escape("\n".join(lines)))


def show(data: Data) -> None:
    """A graph's text, with what ran before it."""
    OUT.print(escape(data["text"]))
    done = [f"{entry['pass']} ({entry['rewrites']})" for entry in data["passes"] if entry["rewrites"]]
    rewrites = escape(", ".join(done)) or "none"
    OUT.print(f"\n[dim]{len(data['nodes'])} nodes, {data['macs']:,} MACs; rewrites: {rewrites}[/]")
    if data["after"] and data["passes"]:
        for nearest in data["passes"][-1]["nearest"]:
            OUT.print(f"[dim]nearest miss: {escape(nearest)}[/]")


def targets(data: Data) -> None:
    """Devices and budgets."""
    table = new_table("target", "RAM budget", "flash budget", "external flash", "clock", "device")
    table.columns[-1].justify = "left"
    for each in data["targets"]:
        clock = f"{each['clock_hz'] / 1e6:g} MHz" if each["clock_hz"] else "-"
        budgets = (each["ram_budget"], each["flash_budget"], each["external_flash_budget"])
        table.add_row(each["name"], *map(size, budgets), clock, escape(each["title"]))
    OUT.print(table)


def doctor(data: Data) -> None:
    """Tools, and what their lack costs."""
    table = new_table("", "tool", "version", "needed for", "what to do")
    for column in table.columns:
        column.justify = "left"
    for check in data["checks"]:
        mark = "[green]✓[/]" if check["works"] else "[yellow]-[/]"
        todo = "" if check["works"] else f"{check['why']}: {check['do']}".strip(": ")
        table.add_row(mark, *map(escape, (check["name"], check["version"][:40], check["needed_for"], todo)))
    OUT.print(table)
