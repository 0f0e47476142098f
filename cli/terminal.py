"""Where text for people goes, and the shapes it takes: tables, sizes, bands of time."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import rich.box
from rich.console import Console
from rich.table import Table

__all__ = ["ERR", "OUT", "Data", "band", "new_table", "size"]

Data = Mapping[str, Any]
PIPE_WIDTH = 160
"""Columns for tables where no terminal says how many there are."""

OUT = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_WIDTH)
ERR = Console(stderr=True, highlight=False, soft_wrap=True)


def size(count: int | None) -> str:
    """Bytes, with KiB beside them from 1024 on."""
    if count is None:
        return "-"
    return f"{count:,} B" if count < 1024 else f"{count / 1024:,.1f} KiB"


def band(data: Data) -> str:
    """A latency with its kind; one number where both ends agree."""
    if not data.get("latency_ms"):
        return "unknown"
    low, high = data["latency_ms"]
    return f"{low:,.2f} to {high:,.2f} ms ({data['latency_kind']})"


def new_table(*columns: str, title: str = "") -> Table:
    """A table with these columns: the first for words, the others for figures."""
    made = Table(*columns, title=title or None, title_justify="left", title_style="bold", box=rich.box.SIMPLE_HEAD)
    for column in made.columns[1:]:
        column.justify = "right"
    return made
