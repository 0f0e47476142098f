"""The memory plan: an order, a schedule for every group, and an address for every buffer, under a budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..graph import Graph
from .advice import too_large
from .group import Group
from .network import Network, stacked
from .offsets import EFFORT, Rectangle, place
from .order import order
from .rates import Rates
from .schedule import Schedule
from .scratch import align
from .traffic import streams

ATTEMPTS = 6
"""How often schedules are chosen again for less memory when gaps between buffers take a plan over its budget."""

TRIFLE = 1 / 32
"""Weights are read less often only where that saves more than this share of a group's multiply-accumulates."""


@dataclass(frozen=True)
class Buffer:
    """Bytes of the arena from step `first` to step `last`, both included.

    Attributes:
        name: The value's name, or that of the step's output with ".scratch".
        kind: "input" (written before step 0), "value" or "scratch".
        over: The buffer whose bytes it takes over during step `first`; both have the same offset.
    """

    name: str
    kind: str
    bytes: int
    offset: int
    first: int
    last: int
    over: str = ""

    @property
    def end(self) -> int:
        """First address behind it."""
        return self.offset + self.bytes


@dataclass(frozen=True)
class Step:
    """A group, how it runs, and where its scratch starts in the arena."""

    group: Group
    schedule: Schedule
    scratch: int = 0

    @property
    def name(self) -> str:
        """The group's name."""
        return self.group.name

    def piece(self, name: str) -> int:
        """The arena offset of a piece of scratch."""
        return self.scratch + self.schedule.piece(name).offset


@dataclass(frozen=True)
class Plan:
    """Where everything lies, and when.

    Attributes:
        steps: In order of execution.
        buffers: Inputs, values and scratch, by first step and offset.
        views: Values that are other names for a buffer: view -> buffer.
        streamed: Graph inputs that come through a callback and have no buffer.
        arena_bytes: First address behind the highest buffer.
        lower_bound: No plan of this graph, with whatever order, schedules and offsets, can be smaller (`network`).
        gap: How far the arena may be above the least that these steps need, as a fraction; 0 is proven optimal.
        budget: What was asked for, or None.
    """

    steps: tuple[Step, ...]
    buffers: tuple[Buffer, ...]
    views: dict[str, str]
    streamed: tuple[str, ...]
    arena_bytes: int
    lower_bound: int
    gap: float
    budget: int | None

    def buffer(self, name: str) -> Buffer:
        """The buffer behind a value, views resolved.

        Raises:
            KeyError: The value has none: it is streamed, a constant, or inside a group.
        """
        wanted = self.views.get(name, name)
        for buffer in self.buffers:
            if buffer.name == wanted and buffer.kind != "scratch":
                return buffer
        raise KeyError(name)

    def alive(self, step: int) -> tuple[Buffer, ...]:
        """Buffers in use during a step, highest address first."""
        found = (buffer for buffer in self.buffers if buffer.first <= step <= buffer.last)
        return tuple(sorted(found, key=lambda buffer: (-buffer.end, buffer.name)))

    def load(self, step: int) -> int:
        """Bytes in use during a step, alignment included; a buffer and the one it takes over count once."""
        return stacked(b.bytes for b in self.alive(step) if not (b.over and b.first == step))

    @property
    def peak_step(self) -> int:
        """The first step of greatest load."""
        return max(range(len(self.steps)), key=self.load, default=0)

    @property
    def high_water(self) -> int:
        """What a painted arena must show: `arena_bytes`, unless a tile of one or two rows lies on top."""
        spare = {i: step.schedule.scratch_bytes - step.schedule.scratch_touched for i, step in enumerate(self.steps)}
        return max((b.end - (spare[b.first] if b.kind == "scratch" else 0) for b in self.buffers), default=0)

    @property
    def extra_macs(self) -> int:
        """Products done beyond once, over all steps."""
        return sum(step.schedule.extra_macs for step in self.steps)

    @property
    def work(self) -> int:
        """What planning keeps low, over all steps."""
        return sum(step.schedule.work for step in self.steps)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights read from flash in one inference."""
        return sum(step.schedule.weight_bytes for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """Plain data: everything but the nodes."""
        steps = [
            {
                "name": step.name,
                "kind": step.group.kind,
                "ops": [type(node.op).__name__ for node in step.group.nodes],
                "schedule": step.schedule.name,
                "rows": step.schedule.rows,
                "heads": step.schedule.heads,
                "extra_macs": step.schedule.extra_macs,
                "weight_passes": step.schedule.weight_passes,
                "operand_bytes": sum(stream.read for stream in streams(step.group, step.schedule)),
                "scratch": {piece.name: [step.piece(piece.name), piece.bytes] for piece in step.schedule.scratch},
                "load": self.load(number),
            }
            for number, step in enumerate(self.steps)
        ]
        return {
            "arena_bytes": self.arena_bytes,
            "lower_bound": self.lower_bound,
            "gap": self.gap,
            "budget": self.budget,
            "peak_step": self.peak_step,
            "extra_macs": self.extra_macs,
            "weight_bytes": self.weight_bytes,
            "streamed": list(self.streamed),
            "views": dict(self.views),
            "steps": steps,
            "buffers": [{key: getattr(b, key) for key in Buffer.__dataclass_fields__} for b in self.buffers],
        }


def plan(
    graph: Graph,
    budget: int | None = None,
    progress: Callable[[str], None] | None = None,
    *,
    callback: bool = True,
    effort: float = EFFORT,
    rates: Rates | None = None,
) -> Plan:
    """Plan an integer graph's memory.

    Order first (least peak), then for each step the schedule of least work that keeps the step within the budget, then
    offsets. Work is what `Rates.work` counts; where it hardly differs (`TRIFLE`) the smaller schedule wins. Without
    a budget the arena becomes as small as it can, and steps that are not at the peak use what the peak needs anyway.

    Args:
        graph: Integer ops, channels last.
        budget: Bytes the arena may have.
        progress: Called with a line of text per stage.
        callback: Whether the image comes pixel by pixel through a callback where the graph allows it.
        effort: Deterministic seconds for the offset solver.
        rates: What reading memory costs the device.

    Raises:
        BudgetError: No plan found keeps within the budget.
    """
    say = progress or (lambda text: None)
    rates = rates or Rates()
    planner = _Planner(Network(graph, callback, rates.far), effort, rates)
    say(f"{len(planner.network.groups)} steps, least peak {planner.least} bytes, lower bound {planner.bound}")
    smallest = planner.attempt(planner.least, None)
    if smallest.arena_bytes > planner.least:
        smallest = min(smallest, planner.attempt(0, None), key=lambda found: found.arena_bytes)
    say(f"smallest arena {smallest.arena_bytes} bytes")
    if budget is None:
        return smallest
    if smallest.arena_bytes > budget:
        raise too_large(smallest, budget)
    limit = budget
    for _ in range(ATTEMPTS):
        found = planner.attempt(limit, budget)
        say(f"limit {limit} per step: arena {found.arena_bytes} bytes, gap {found.gap:.2%}")
        if found.arena_bytes <= budget:
            return found
        limit = max(planner.least, limit - (found.arena_bytes - budget))
    return dataclasses.replace(smallest, budget=budget)


class _Planner:
    """What all attempts share: the order, and what each step finds in RAM."""

    def __init__(self, network: Network, effort: float, rates: Rates) -> None:
        self.network, self.effort, self.rates = network, effort, rates
        self.order = order(network)
        self.bound = network.lower_bound()
        self.done = [sum(1 << group for group in self.order[:step]) for step in range(len(self.order))]
        self.everything = (1 << len(self.order)) - 1
        states = zip(self.order, self.done, strict=True)
        self.least = max((network.least_load(group, done, self.everything) for group, done in states), default=0)

    def _later(self, step: int) -> int:
        return self.everything & ~self.done[step] & ~(1 << self.order[step])

    def attempt(self, limit: int, budget: int | None) -> Plan:
        """The plan of least work per step within `limit`; a step that cannot keep it takes what it needs least of."""
        chosen = [self._choose(step, limit) for step in range(len(self.order))]
        return self._place(chosen, budget)

    def _choose(self, step: int, limit: int) -> Schedule:
        group, later = self.order[step], self._later(step)
        alive = self.network.alive(group, self.done[step])
        loads = [(self.network.load(group, s, alive, later), s) for s in self.network.schedules[group]]
        fitting = [pair for pair in loads if pair[0] <= limit]
        work = {s: self.rates.work(self.network.groups[group], s) for _, s in loads}
        if fitting:
            best = min((s for _, s in fitting), key=lambda s: (work[s], s.extra_macs))
            enough = work[best] + self.network.groups[group].macs * TRIFLE
            loads = [pair for pair in fitting if pair[1].extra_macs <= best.extra_macs and work[pair[1]] <= enough]
        return min(loads, key=lambda pair: (pair[0], work[pair[1]]))[1]

    def _lifetimes(self) -> dict[int, tuple[int, int]]:
        """First and last step of every storage."""
        when = {group: step for step, group in enumerate(self.order)}
        lives = {}
        for i, storage in enumerate(self.network.storages):
            first = when.get(storage.maker, 0)
            reads = [when[group] for group in self.order if storage.readers >> group & 1]
            reads += [max(first, len(self.order) - 1)] if storage.public else []
            lives[i] = first, max(reads, default=first)
        return lives

    def _place(self, chosen: list[Schedule], budget: int | None) -> Plan:
        """Values and scratch become blocks, blocks get offsets, and offsets make the plan."""
        over: dict[int, int] = {}
        for step, schedule in enumerate(chosen):
            over |= self.network.taken_over(self.order[step], schedule, self._later(step))
        lives = self._lifetimes()
        blocks, block_of = self._blocks(lives, over)
        needing = [step for step, schedule in enumerate(chosen) if schedule.scratch_bytes]
        scratch_of = {step: len(blocks) + i for i, step in enumerate(needing)}
        blocks += [[_scratch(chosen[step], step)] for step in scratch_of]
        groups = [self.network.groups[group] for group in self.order]

        def waits(offsets: tuple[int, ...]) -> float:
            return sum(self.rates.waiting(groups[i], chosen[i], offsets[block]) for i, block in scratch_of.items())

        near = scratch_of.values() if self.rates.operand else ()
        placed = place(
            [tuple(block) for block in blocks], _load(blocks, len(chosen)), self.effort, waits if near else None, near
        )
        steps = tuple(
            Step(group, schedule, placed.offsets[scratch_of[step]] if step in scratch_of else 0)
            for step, (group, schedule) in enumerate(zip(groups, chosen, strict=True))
        )
        buffers = [
            Buffer(f"{steps[i].name}.scratch", "scratch", chosen[i].scratch_bytes, steps[i].scratch, i, i)
            for i in scratch_of
        ]
        for i, storage in enumerate(self.network.storages):
            kind, below = "input" if storage.maker < 0 else "value", self._name(over.get(i))
            buffers.append(
                Buffer(storage.value.name, kind, storage.bytes, placed.offsets[block_of[i]], *lives[i], below)
            )
        buffers.sort(key=lambda b: (b.first, b.offset, b.last, b.name))
        gap = align(placed.bytes) / align(placed.bound) - 1 if placed.bound else 0.0
        views, streamed = dict(self.network.views), tuple(sorted(self.network.streamed))
        return Plan(steps, tuple(buffers), views, streamed, placed.bytes, self.bound, gap, budget)

    def _blocks(
        self, lives: dict[int, tuple[int, int]], over: dict[int, int]
    ) -> tuple[list[list[Rectangle]], dict[int, int]]:
        """Storages that take over each other's bytes, as rectangles of one block; and the block of each storage."""
        blocks: list[list[Rectangle]] = []
        block_of: dict[int, int] = {}
        for i in sorted(lives, key=lambda i: (lives[i][0], i)):
            first, last = lives[i]
            if i in over:
                block_of[i] = block_of[over[i]]
                first += 1  # during its first step the buffer below covers it
            else:
                block_of[i] = len(blocks)
                blocks.append([])
            if first <= last:
                blocks[block_of[i]].append(Rectangle(self.network.storages[i].bytes, first, last))
        return blocks, block_of

    def _name(self, storage: int | None) -> str:
        return "" if storage is None else self.network.storages[storage].value.name


def _scratch(schedule: Schedule, step: int) -> Rectangle:
    size = schedule.scratch_bytes
    return Rectangle(size, step, step, size - schedule.scratch_touched)


def _load(blocks: list[list[Rectangle]], steps: int) -> int:
    """The greatest number of bytes in use at once: no placement goes below it."""
    rectangles = [rectangle for block in blocks for rectangle in block]
    return max(stacked(r.bytes for r in rectangles if r.first <= t <= r.last) for t in range(max(1, steps)))
