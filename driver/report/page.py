"""Fills the page's template from a manifest; the same manifest gives the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...targets import Target

__all__ = ["filled", "render"]

LAYERS = 24
"""Rows of the table of layers; the rest is summed up in one."""


def render(manifest: Mapping[str, Any], device: Target, picture: str = "") -> str:
    """The page.

    Args:
        manifest: What `manifest.json` will say.
        device: The target it speaks of.
        picture: An SVG element of memory over time; without, the page says nothing of memory.
    """
    return filled(
        "page.html",
        **{key: manifest.get(key) for key in KEYS},
        device=device,
        picture=picture,
        budgets=_budgets(manifest) if picture else [],
        layers=_layers(manifest["cost"]["layers"]),
    )


def filled(page: str, **data: Any) -> str:
    """A page of this folder with its data in place."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(size=size, count=lambda value: f"{value:,}")
    return environment.get_template(page).render(**data)


KEYS = (
    "name", "dtype", "stream", "notes", "calibration", "inputs", "outputs", "memory", "flash", "columns", "cost",
    "verification", "versions", "file", "reasons", "schedules",
)  # fmt: skip


def size(count: int | None) -> str:
    """Bytes in KiB."""
    return "-" if count is None else f"{count / 1024:,.1f} KiB"


def _budgets(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Used and available bytes of each kind of memory, with the share to draw; external flash only where it is used."""
    memory, flash = manifest["memory"], manifest["flash"]
    rows = [("RAM", memory["total"], memory["budget"]), ("internal flash", flash["internal"], flash["budget"])]
    if flash["external"]:
        rows.append(("external flash", flash["external"], flash["external_budget"]))
    return [
        {"name": name, "used": used, "budget": budget, "share": min(100.0, 100.0 * used / budget) if budget else 0.0}
        for name, used, budget in rows
    ]


def _layers(layers: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The layers that cost most, the rest as one row; `share` is in percent of all, `bar` of the largest row."""
    total = sum(layer["cost"] for layer in layers) or 1
    ranked = sorted(layers, key=lambda layer: -layer["cost"])
    rows = [dict(layer) for layer in ranked[:LAYERS]]
    if ranked[LAYERS:]:
        rest = sum(layer["cost"] for layer in ranked[LAYERS:])
        rows.append({"name": f"{len(ranked) - LAYERS} more", "kind": "", "cost": rest, "macs": 0, "sources": []})
    largest = max((row["cost"] for row in rows), default=0) or 1
    return [{**row, "share": 100 * row["cost"] / total, "bar": 100 * row["cost"] / largest} for row in rows]
