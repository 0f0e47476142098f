"""In what order to run groups so that the neediest moment needs least: dynamic programming over what is finished."""

from __future__ import annotations

from dataclasses import dataclass, field

from .network import Network, bits
from .scratch import align

BEAM = 256
"""States kept per number of finished groups. Graphs of real networks, a few branches wide, stay far below it."""


@dataclass(order=True)
class _State:
    """A way to have finished some groups: peak and sum of the steps' bytes, and the groups in order."""

    peak: int
    total: int
    path: tuple[int, ...]
    alive: int = field(compare=False)  # bytes that wait for groups still to come
    ready: int = field(compare=False)  # groups whose inputs are there


def order(network: Network) -> list[int]:
    """An order of least peak, each group taken with its smallest schedule.

    The set of finished groups holds everything the future depends on, so one best way to each set is enough: exact
    unless more than `BEAM` sets have the same size, then the best ones go on. Ties: order of the graph.
    """
    search = _Search(network)
    states = {0: _State(0, 0, (), search.start(), search.ready())}
    for _ in network.groups:
        found: dict[int, _State] = {}
        for done, state in states.items():
            for group in bits(state.ready):
                following = search.step(state, group, done)
                after = done | 1 << group
                if after not in found or following < found[after]:
                    found[after] = following
        best = sorted(found.items(), key=lambda item: item[1])[:BEAM]
        states = dict(best)
    (last,) = states.values()
    return list(last.path)


class _Search:
    """What the search asks of a network again and again, computed once; sizes are aligned."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.sizes = [align(storage.bytes) for storage in network.storages]
        self.reads: list[list[int]] = [[] for _ in network.groups]
        self.makes: list[list[int]] = [[] for _ in network.groups]
        for i, storage in enumerate(network.storages):
            if storage.maker >= 0:
                self.makes[storage.maker].append(i)
            for reader in bits(storage.readers):
                self.reads[reader].append(i)
        self.waiting: list[list[int]] = [[] for _ in network.groups]
        for group, before in enumerate(network.before):
            for maker in bits(before):
                self.waiting[maker].append(group)
        self.leanest = [
            {s.overwrites: s for s in sorted(options, key=lambda s: -s.scratch_bytes)} for options in network.schedules
        ]

    def ready(self) -> int:
        """Groups that wait for no other."""
        return sum(1 << group for group, before in enumerate(self.network.before) if not before)

    def freed(self, group: int, after: int) -> int:
        """Groups that waited for this one last."""
        return sum(1 << g for g in self.waiting[group] if not self.network.before[g] & ~after)

    def start(self) -> int:
        """Bytes of the graph's inputs that something waits for."""
        inputs = (i for i, s in enumerate(self.network.storages) if s.maker < 0 and (s.public or s.readers))
        return sum(self.sizes[i] for i in inputs)

    def step(self, state: _State, group: int, done: int) -> _State:
        """The state after one more group."""
        network, sizes = self.network, self.sizes
        after = done | 1 << group
        later = (1 << len(network.groups)) - 1 & ~after
        made = sum(sizes[i] for i in self.makes[group])
        needs = []
        for schedule in self.leanest[group].values():
            saved = sum(sizes[i] for i in network.taken_over(group, schedule, later))
            needs.append(align(schedule.scratch_bytes) - saved)
        load = state.alive + made + min(needs)
        storages = network.storages
        gone = sum(sizes[i] for i in self.reads[group] if not storages[i].public and not storages[i].readers & later)
        unread = sum(sizes[i] for i in self.makes[group] if not storages[i].public and not storages[i].readers)
        return _State(
            max(state.peak, load), state.total + load, (*state.path, group), state.alive + made - gone - unread,
            state.ready & ~(1 << group) | self.freed(group, after),
        )  # fmt: skip
