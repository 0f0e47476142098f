"""Tile sizes as a file: what a tuned compile found, for which processor, and how another compile takes it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...ir.errors import UsageError
from .kernels.spec import Tile
from .machine import Machine
from .site import Tiles

__all__ = ["minutes", "read", "record"]


def minutes(text: str) -> float:
    """The option `tune` as a number.

    Raises:
        UsageError: It is none.
    """
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise UsageError(f"tune={text} is no number of minutes", do="give 0 or more")
    return found


def read(text: str, machine: Machine) -> Tiles:
    """The option `tiles`: what is in that file, for the same processor.

    Raises:
        UsageError: It cannot be read, is no such file, or was measured on another processor.
    """
    if not text:
        return {}
    do = "give the manifest.json of a tuned compile for this target"
    try:
        whole = json.loads(Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError("the file of tile sizes cannot be read", where=[text], why=str(error), do=do) from error
    found = whole.get("details", whole) if isinstance(whole, dict) else {}
    tiles, processor = found.get("tiles"), found.get("processor")
    if not isinstance(tiles, dict) or not all(_sound(tile) for tile in tiles.values()):
        raise UsageError("the file holds no tile sizes", where=[text], do=do)
    if processor != machine.tvm():
        raise UsageError("the tile sizes are for another processor", where=[text], why=f"{processor}", do=do)
    return {str(key): tuple(tile) for key, tile in tiles.items()}


def record(machine: Machine, tiles: Tiles, choices: Mapping[str, Sequence[Tile]]) -> dict[str, Any]:
    """What the manifest keeps: the processor, the measured tiles, and all that were used."""
    used = {key: [tile.rows, tile.vectors] for key, (tile, *_) in sorted(choices.items())}
    used.update({key: list(tile) for key, tile in tiles.items() if key in used})
    return {"processor": machine.tvm(), "tiles": {key: list(tiles[key]) for key in sorted(tiles)}, "used": used}


def _sound(tile: object) -> bool:
    return isinstance(tile, list) and len(tile) == 2 and all(type(each) is int and 0 < each < 99 for each in tile)
