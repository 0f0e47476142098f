"""A device is data: one TOML file per target in this folder, and the typed loader that refuses the unknown."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from .estimate import Estimate

__all__ = ["Board", "Core", "Estimate", "Latency", "Region", "Reserve", "Target", "TargetError", "get", "names"]

KINDS = ("ram", "code_ram", "flash", "external_flash")
FOLDER = Path(__file__).parent


class TargetError(ValueError):
    """A target's name is unknown, or its file does not say what a target must say."""


@dataclass(frozen=True)
class Region:
    """One stretch of a device's address space; `size` in bytes, `wait_states` in core cycles per access that misses.

    `line` bytes come at once where a cache or buffer misses, and the core waits `fill` cycles for them, at least and at
    most; a region without lines never lets it wait.
    """

    name: str
    origin: int
    size: int
    kind: str
    wait_states: int = 0
    line: int = 0
    fill: tuple[float, float] = (0, 0)

    @property
    def end(self) -> int:
        """First address past the region."""
        return self.origin + self.size

    def __contains__(self, address: int) -> bool:
        """Whether an address lies inside."""
        return self.origin <= address < self.end


@dataclass(frozen=True)
class Core:
    """A processor core: what it can do (`features`), how each compiler spells it, and the emulator's model of it.

    Features: "dsp" (pairs of 16-bit products), "fpu", "mve" (Helium), and "soft" for a core whose long products and
    divisions are functions of the compiler's run-time library. `data_cache` is in bytes.
    """

    name: str
    features: tuple[str, ...] = ()
    zig_target: str = ""
    zig_cpu: str = ""
    gcc_flags: tuple[str, ...] = ()
    emulator: str = ""
    data_cache: int = 0


@dataclass(frozen=True)
class Latency:
    """Band of core cycles per instruction and the reasons for its ends; what comes out is always called an estimate."""

    cycles_low: float
    cycles_high: float
    because: str


@dataclass(frozen=True)
class Reserve:
    """Bytes kept back for the application around the network, and why that many."""

    ram: int = 0
    flash: int = 0
    because: str = ""


@dataclass(frozen=True)
class Board:
    """How firmware talks to a computer from a board with the device, and how it gets there.

    Attributes:
        title: The board and the pins of its serial line, for people.
        uart: The driver, `runtimes/firmware/uart_<name>.c`.
        base: Address of the serial port.
        clock_hz: The core's clock after a reset, which the firmware leaves alone.
        uart_hz: What feeds the serial port then; the core's clock if 0.
        baud: Bits per second.
        setup: Registers to change before the port is opened, as (address, bits to clear, bits to set): clocks and pins.
        openocd: Scripts of OpenOCD for the probe and the part.
        emulated: Whether it is no board but an emulator's: figures from it are never called measured.
    """

    title: str
    uart: str
    base: int
    clock_hz: int
    uart_hz: int = 0
    baud: int = 115_200
    setup: tuple[tuple[int, int, int], ...] = ()
    openocd: tuple[str, ...] = ()
    emulated: bool = False


@dataclass(frozen=True)
class Target:
    """A device that models are compiled for. A target without regions (the host) has no budgets: they are None.

    `format` holds what the target's back end needs to know of it, such as the oldest system a package has to run on.
    """

    name: str
    title: str
    backend: str
    clock_hz: int
    core: Core
    regions: tuple[Region, ...] = ()
    reserve: Reserve = Reserve()
    latency: Latency | None = None
    format: Mapping[str, Any] = field(default_factory=dict, hash=False)
    board: Board | None = None
    estimates: tuple[Estimate, ...] = field(default=(), hash=False)

    def estimate(self, dtype: str) -> Estimate | None:
        """The model of its latency for an arithmetic; None where nobody has fitted one."""
        return next((each for each in self.estimates if dtype in each.dtypes), None)

    def region(self, name: str) -> Region:
        """The region of that name; raises `TargetError` for an unknown one."""
        for region in self.regions:
            if region.name == name:
                return region
        raise TargetError(f"{self.name} has no region '{name}'; it has {', '.join(r.name for r in self.regions)}")

    def of_kind(self, kind: str) -> tuple[Region, ...]:
        """All regions of one kind, by address."""
        return tuple(region for region in self.regions if region.kind == kind)

    @property
    def ram(self) -> Region | None:
        """The largest stretch of data RAM without a gap: regions that touch count as one. None without any."""
        runs: list[Region] = []
        for region in self.of_kind("ram"):
            if runs and runs[-1].end == region.origin:
                last = runs.pop()
                states = max(last.wait_states, region.wait_states)
                name, slower = f"{last.name}_{region.name}", max(last, region, key=lambda r: r.fill)
                region = Region(name, last.origin, last.size + region.size, "ram", states, slower.line, slower.fill)
            runs.append(region)
        return max(runs, key=lambda run: run.size, default=None)

    @property
    def ram_budget(self) -> int | None:
        """Bytes of RAM for arena, statics and stack together."""
        return None if self.ram is None else self.ram.size - self.reserve.ram

    @property
    def flash_budget(self) -> int | None:
        """Bytes of internal flash for code and weights."""
        inside = self.of_kind("flash")
        return sum(region.size for region in inside) - self.reserve.flash if inside else None

    @property
    def external_flash_budget(self) -> int | None:
        """Bytes of memory-mapped flash outside the chip for weights; None on a board without."""
        outside = self.of_kind("external_flash")
        return sum(region.size for region in outside) if outside else None

    def estimate_ms(self, instructions: int) -> tuple[float, float] | None:
        """Estimated latency band in milliseconds for an exact instruction count; None without a cycle model."""
        if self.latency is None or not self.clock_hz:
            return None
        per_cycle = 1000.0 / self.clock_hz
        return instructions * self.latency.cycles_low * per_cycle, instructions * self.latency.cycles_high * per_cycle


def names() -> tuple[str, ...]:
    """Names of all targets that lie in this folder."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def get(name: str) -> Target:
    """The target of that name, or the one a path to a `.toml` file of your own describes (read anew each time)."""
    if name.endswith(".toml") and Path(name).is_file():
        return _read(Path(name))
    if name not in names():
        raise TargetError(f"unknown target '{name}'; known: {', '.join(names())} (or a path to a .toml file)")
    return _ours(name)


@cache
def _ours(name: str) -> Target:
    return _read(FOLDER / f"{name}.toml")


def _read(path: Path) -> Target:
    return _target(path.stem, tomllib.loads(path.read_text(encoding="utf-8")))


def _target(name: str, table: Mapping[str, Any]) -> Target:
    """Build and check one target from its parsed file."""
    known = {"title", "backend", "clock_hz", "core", "region", "reserve", "latency", "format", "board", "estimate"}
    if unknown := sorted(set(table) - known):
        raise TargetError(f"{name}.toml: unknown keys {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    try:
        core: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in table["core"].items()
        }
        regions = tuple(sorted(map(_region, table.get("region", ())), key=lambda r: r.origin))
        target = Target(
            name, table["title"], table["backend"], table.get("clock_hz", 0), Core(**core), regions,
            Reserve(**table.get("reserve", {})), Latency(**table["latency"]) if "latency" in table else None,
            dict(table.get("format", {})), _board(table["board"]) if "board" in table else None,
            tuple(map(Estimate.of, table.get("estimate", {}).values())),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise TargetError(f"{name}.toml: {error}") from error
    _check(target)
    return target


def _region(table: Mapping[str, Any]) -> Region:
    """The region, with its band as a tuple."""
    low, high = table.get("fill", (0, 0))
    return Region(**{**table, "fill": (low, high)})


def _board(table: Mapping[str, Any]) -> Board:
    """The board, with its lists as tuples."""
    setup = tuple((address, clear, bits) for address, clear, bits in table.get("setup", ()))
    return Board(**{**table, "setup": setup, "openocd": tuple(table.get("openocd", ()))})


def _check(target: Target) -> None:
    """Refuse overlapping regions, unknown kinds, an empty budget and a band that is upside down."""
    for region in target.regions:
        if region.kind not in KINDS:
            raise TargetError(f"{target.name}: region {region.name} is '{region.kind}'; kinds: {', '.join(KINDS)}")
        if region.size <= 0:
            raise TargetError(f"{target.name}: region {region.name} has {region.size} bytes")
        if not 0 <= region.fill[0] <= region.fill[1] or (region.fill[1] > 0) != (region.line > 0):
            raise TargetError(f"{target.name}: region {region.name} fills {region.line} bytes in {region.fill} cycles")
    for below, above in zip(target.regions, target.regions[1:], strict=False):
        if below.end > above.origin:
            raise TargetError(f"{target.name}: regions {below.name} and {above.name} overlap")
    for budget in (target.ram_budget, target.flash_budget):
        if budget is not None and budget <= 0:
            raise TargetError(f"{target.name}: the reserve leaves no memory")
    if target.latency and not 0 < target.latency.cycles_low <= target.latency.cycles_high:
        raise TargetError(f"{target.name}: latency band {target.latency.cycles_low}..{target.latency.cycles_high}")
