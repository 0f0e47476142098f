"""Chooses tile sizes by measuring: product by product, in child processes, and goes on where it was interrupted."""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...ir.errors import InternalError, MachineError, UsageError
from ...ir.graph import Graph
from .. import zig
from ..artifact import digest
from . import child
from .kernels.spec import Tile
from .lower import lower
from .machine import Machine
from .measure import TIMES, Trial
from .program import Program
from .site import Tiles

__all__ = ["Journal", "address", "tuned"]

VARIANTS = 10
"""Tiles that are tried for each product, those which should be soonest first."""

TRIAL_SECONDS = 120.0
"""Limit of one product's child process."""

Times = Mapping[str, float]


def tuned(graph: Graph, machine: Machine, known: Tiles, minutes: float, device: str = "") -> dict[str, Sequence[int]]:
    """Tiles for as many products of the graph as the time allows, the known ones among them.

    Args:
        graph: What is going to be lowered.
        machine: The target's processor.
        known: Tiles that are settled: they are not measured again.
        minutes: When to stop; a product that is being measured is given up.
        device: Where to measure if not on this computer: "HOST:PORT/KEY".

    Raises:
        UsageError: The target is not this computer and no device is given.
        MachineError: No product could be measured: TVM crashes, or the device is gone.
    """
    machine = machine.shared("1")  # a tile is one core's; a thread computes several
    place = address(device)
    if place is None and not _here(machine):
        what = f"code for {machine.triple} does not run on this computer"
        raise UsageError(what, do="give device=HOST:PORT/KEY of an RPC tracker, or tune=0")
    end = time.monotonic() + 60 * minutes
    journal = Journal(_file(machine, device))
    programs, choices = _variants(graph, machine, known)
    found: dict[str, Sequence[int]] = dict(known)
    failed: MachineError | InternalError | None = None
    for product in _by_work(programs[0], choices, known):
        tiles = choices[product][:VARIANTS]
        if product not in journal.times:
            left = end - time.monotonic()
            if left <= 0:
                break
            trial = _trial(product, programs[: len(tiles)], machine, place)
            try:
                measured = _seconds(trial, min(left, TRIAL_SECONDS))
            except (MachineError, InternalError) as error:
                failed = error
                continue
            journal.add(product, {_text(tile): each for tile, each in zip(tiles, measured, strict=True)})
        times = {text: each for text, each in journal.times[product].items() if text in map(_text, tiles)}
        if times:
            found[product] = [int(each) for each in min(times, key=lambda text: times[text]).split("x")]
    if failed is not None and len(found) == len(known):
        raise failed
    return found


class Journal:
    """Times of all products measured so far, in a file that is complete after each of them."""

    def __init__(self, path: Path) -> None:
        """Read what an earlier run left; a file that is damaged counts as none."""
        self.path = path
        self.times: dict[str, Times] = {}
        if path.is_file():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
                self.times = {str(k): {str(t): float(s) for t, s in v.items()} for k, v in found.items()}
            except (ValueError, AttributeError, TypeError):
                self.times = {}

    def add(self, product: str, times: Times) -> None:
        """Keep one product's times."""
        self.times[product] = dict(times)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(self.times, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        part.replace(self.path)


def address(device: str) -> tuple[str, int, str] | None:
    """Host, port and key of "HOST:PORT/KEY"; None of an empty text.

    Raises:
        UsageError: It is something else.
    """
    if not device:
        return None
    match = re.fullmatch(r"([\w.-]+):(\d{1,5})/(\S+)", device)
    if match is None:
        raise UsageError(f"device={device} is no HOST:PORT/KEY", do="give a tracker's address and a device's key")
    return match[1], int(match[2]), match[3]


def _here(machine: Machine) -> bool:
    return machine.architecture == platform.machine() and machine.triple.split("-")[1:2] == ["linux"]


def _file(machine: Machine, device: str) -> Path:
    """The journal for a processor, and for the computer that stands for it."""
    place = device or platform.node()
    name = digest(json.dumps([machine.tvm(), place], sort_keys=True).encode())
    return zig.cache_folder() / "tvm" / f"tiles-{name}.json"


def _variants(graph: Graph, machine: Machine, known: Tiles) -> tuple[list[Program], dict[str, list[Tile]]]:
    """The program with every product's first tile, with every product's second one, and so on."""
    program, choices = lower(graph, machine, known)
    programs = [program]
    for rank in range(1, min(VARIANTS, max(map(len, choices.values()), default=1))):
        each = {product: tiles[rank] for product, tiles in choices.items() if rank < len(tiles)}
        programs.append(lower(graph, machine, {k: (t.rows, t.vectors) for k, t in each.items()})[0])
    return programs, choices


def _by_work(program: Program, choices: Mapping[str, Sequence[Tile]], known: Tiles) -> list[str]:
    """Products with a choice that nobody made yet, those with most operands' bytes first."""
    work: dict[str, int] = {}
    for call in program.calls:
        if call.product and call.product not in known and len(choices[call.product]) > 1:
            size = sum(program.buffers[slot].size for slot in (*call.operands, call.result))
            work[call.product] = work.get(call.product, 0) + size
    return sorted(work, key=lambda product: (-work[product], product))


def _trial(product: str, programs: Sequence[Program], machine: Machine, place: tuple[str, int, str] | None) -> Trial:
    """The first call of a product, in each of the programs."""
    variants = []
    for program in programs:
        call = next(call for call in program.calls if call.product == product)
        variants.append((call.kernel, program.kinds(call)))
    link = (*zig.command(), *machine.link) if place else ()
    return Trial(machine, tuple(variants), link, place)


def _seconds(trial: Trial, limit: float) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        child.run(trial, Path(folder), limit)
        return [float(each) for each in json.loads((Path(folder) / TIMES).read_text(encoding="utf-8"))]


def _text(tile: Tile) -> str:
    return f"{tile.rows}x{tile.vectors}"
