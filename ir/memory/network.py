"""Groups as a data-flow network: which storages each step reads and makes, and how many bytes it needs.

A storage is the bytes behind one value and all its views. Sets of groups and of storages are bit masks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import networkx

from ..graph import Graph, Value
from .group import form_groups
from .schedule import Schedule, schedules
from .scratch import align


@dataclass(frozen=True)
class Storage:
    """Bytes that live in RAM: who makes them (-1: there from the start), who reads them (masks count groups)."""

    value: Value
    maker: int
    readers: int
    public: bool
    bytes: int


def bits(mask: int) -> Iterable[int]:
    """The positions of the ones, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def stacked(sizes: Iterable[int]) -> int:
    """Least bytes that buffers alive together need: all start aligned, and only the topmost needs no padding."""
    sizes = list(sizes)
    return sum(map(align, sizes)) - max((align(size) - size for size in sizes), default=0)


class Network:
    """The executable groups of a graph (views need no code), their storages and their schedules.

    A graph input that comes through a callback is `streamed` and has no storage.
    """

    def __init__(self, graph: Graph, callback: bool = True, tall: bool = False) -> None:
        """Form the groups; `callback` and `tall` as in `schedules`."""
        groups = form_groups(graph)
        self.graph = graph
        self.views: dict[str, str] = {}
        roots = {value: value for value in graph.inputs}
        for group in groups:
            for value in group.outputs:
                roots[value] = roots[group.inputs[0]] if group.kind == "view" else value
                if group.kind == "view":
                    self.views[value.name] = roots[value].name
        self.groups = [group for group in groups if group.kind != "view"]
        public = {roots[value] for value in graph.outputs if not value.is_constant}
        maker = {value: i for i, group in enumerate(self.groups) for value in group.outputs}
        readers: dict[Value, int] = {}
        for i, group in enumerate(self.groups):
            for value in group.inputs:
                readers[roots[value]] = readers.get(roots[value], 0) | 1 << i
        camera = self._camera() if callback else None
        self.schedules = [schedules(group, camera in group.inputs, tall) for group in self.groups]
        self.streamed = {name for options in self.schedules for option in options for name in option.streams}
        self.storages = [
            Storage(value, maker.get(value, -1), readers.get(value, 0), value in public, value.type.nbytes)
            for value in dict.fromkeys(roots.values()) if value.name not in self.streamed
        ]
        self.index = {storage.value.name: i for i, storage in enumerate(self.storages)}

    def _camera(self) -> Value | None:
        """The one graph input that a callback can stand for: the largest image that an embedding alone reads."""
        given, kept = self.graph.inputs, self.graph.outputs
        images = [group.inputs[0] for group in self.groups if group.kind == "embed"]
        alone = [image for image in images if image in given and len(image.uses) == 1 and image not in kept]
        return max(alone, key=lambda image: image.type.nbytes, default=None)

    def storage_of(self, name: str) -> int:
        """The storage of a value, by the value's name."""
        return self.index[self.views.get(name, name)]

    @cached_property
    def before(self) -> list[int]:
        """Per group: the groups whose outputs it reads."""
        masks = [0] * len(self.groups)
        for storage in self.storages:
            if storage.maker >= 0:
                for reader in bits(storage.readers):
                    masks[reader] |= 1 << storage.maker
        return masks

    @cached_property
    def ancestors(self) -> list[int]:
        """Per group: the groups that run before it in every order."""
        edges = networkx.DiGraph()
        edges.add_nodes_from(range(len(self.groups)))
        edges.add_edges_from((maker, group) for group, mask in enumerate(self.before) for maker in bits(mask))
        masks = [0] * len(self.groups)
        for group in networkx.topological_sort(edges):
            for maker in bits(self.before[group]):
                masks[group] |= masks[maker] | 1 << maker
        return masks

    def alive(self, group: int, done: int) -> set[int]:
        """Storages in RAM while `group` runs after exactly the groups in `done`."""
        return {
            i for i, s in enumerate(self.storages)
            if s.maker == group or ((s.maker < 0 or done >> s.maker & 1) and (s.public or s.readers & ~done))
        }

    def taken_over(self, group: int, schedule: Schedule, later: int) -> dict[int, int]:
        """Output storage -> input storage whose bytes it takes, `later` being the groups that run afterwards."""
        taken: dict[int, int] = {}
        for output, source in schedule.overwrites:
            new, old = self.storage_of(output), self.storage_of(source)
            storage = self.storages[old]
            free = not storage.public and not storage.readers & later and storage.bytes >= self.storages[new].bytes
            if new not in taken and old not in taken.values() and free:
                taken[new] = old
        return taken

    def load(self, group: int, schedule: Schedule, alive: set[int], later: int) -> int:
        """Bytes in use during a step."""
        held = alive - set(self.taken_over(group, schedule, later))
        return stacked([self.storages[i].bytes for i in held] + [schedule.scratch_bytes])

    # ---- what holds for every order ----

    def lower_bound(self) -> int:
        """A size that no plan can go below, whatever its order, schedules and offsets.

        Proof. Take any plan and any group g, and let s be g's schedule in it. While g runs, these lie in RAM and do
        not overlap: the storages g reads, those it makes (but for those that overwrite an input), s's scratch; and
        every storage that a group before g in *every* order has made, or that is there from the start, and that is
        public or read by a group after g in *every* order. An output can overwrite an input at best if no group that
        comes after g in every order reads it. So the step needs at least `stacked` of these sizes with the best s; the
        arena is at least as large as its neediest step. Before the first step all inputs of the graph lie there.
        """
        start = stacked(storage.bytes for storage in self.storages if storage.maker < 0)
        return max([start, *(self._least(group, self._descendants(group)) for group in range(len(self.groups)))])

    def _least(self, group: int, after: int) -> int:
        done = self.ancestors[group]
        alive = {
            i for i, s in enumerate(self.storages)
            if s.maker == group or s.readers >> group & 1
            or ((s.maker < 0 or done >> s.maker & 1) and (s.public or s.readers & after))
        }
        return min(self.load(group, schedule, alive, after) for schedule in self.schedules[group])

    def _descendants(self, group: int) -> int:
        return sum(1 << other for other, mask in enumerate(self.ancestors) if mask >> group & 1)

    def least_load(self, group: int, done: int, everything: int) -> int:
        """Bytes of a step with the schedule that needs least."""
        later = everything & ~done & ~(1 << group)
        alive = self.alive(group, done)
        return min(self.load(group, schedule, alive, later) for schedule in self.schedules[group])

