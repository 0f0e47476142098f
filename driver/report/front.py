"""The page of a search: the front as pictures and rows, what was compiled, the budgets, how it went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...targets import Target
from .page import filled, size
from .scatter import Plot

__all__ = ["render"]

TITLES = {"ram": "RAM", "flash": "flash", "macs": "MACs", "instructions": "instructions", "latency": "latency"}
KIB = ("ram", "flash")


def render(result: Mapping[str, Any], device: Target) -> str:
    """The page.

    Args:
        result: What `result.json` says.
        device: The target it speaks of.
    """
    known = [name for name in TITLES if result["front"][0]["costs"][name] is not None]
    budgets = {name: result["plan"]["budgets"][name] for name in known}
    return filled(
        "front.html",
        **{key: result[key] for key in ("name", "quality", "plan", "judged", "illegal", "failed", "front", "history")},
        device=device,
        axes=known,
        titles=TITLES,
        cost=cost,
        genes=genes,
        plots=[_plot(result, axis).svg() for axis in known if axis in result["plan"]["axes"] or budgets[axis]],
        course=_course(result["history"]),
        budgets={name: most for name, most in budgets.items() if most is not None},
        compiled=[row for row in result["front"] if row["compiled"]],
    )


def cost(name: str, value: float | None) -> str:
    """A cost for people."""
    if value is None:
        return "-"
    return size(int(value)) if name in KIB else f"{value:,.2f} ms" if name == "latency" else f"{value:,}"


def genes(genome: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Decisions as text; of those taken several times, each."""
    return [(name, ", ".join(map(str, each)) if isinstance(each, list | tuple) else str(each))
            for name, each in genome.items()]  # fmt: skip


def _plot(result: Mapping[str, Any], axis: str) -> Plot:
    """Quality over a cost."""
    unit = 1024 if axis in KIB else 1
    most = result["plan"]["budgets"][axis]

    def point(row: Mapping[str, Any]) -> tuple[float, float]:
        return row["costs"][axis] / unit, row["quality"]

    title = TITLES[axis] + (", KiB" if axis in KIB else ", ms" if axis == "latency" else "")
    return Plot(
        title, "quality", [point(row) for row in result["candidates"]],
        [(row["name"], point(row)) for row in result["front"]], budget=most / unit if most is not None else None,
    )  # fmt: skip


def _course(history: Sequence[Mapping[str, Any]]) -> str:
    """The best quality over how many networks had been judged; nothing to see in fewer than two rounds."""
    points = [(each["judged"], each["best"]) for each in history if each["best"] is not None]
    return Plot("networks judged", "best quality", course=points).svg() if len(points) > 1 else ""
