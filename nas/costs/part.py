"""What one part of a network takes, judged alone by the passes, the planner and the emitters of a compile.

A network is a chain: between two parts nothing but one value is alive. So the least RAM of the whole is the greatest of
any part, and flash and products are sums. The part stands between a probe that makes what it reads in the form that it
has in a network, and a sink that reads it; only steps that are the part's own count.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np

from ...ir.graph import Array, Graph, Node, Value
from ...ir.integer_layout import pack_pairs
from ...ir.memory import Group, Plan, plan
from ...ir.memory.network import Network
from ...ir.memory.order import order
from ...ir.passes.pipelines import INTEGER, run_pipeline
from ...ir.passes.quantise import QuantOptions, quantise
from ...ir.passes.quantise.legalise_integer import prepare
from ...ir.passes.quantise.outline import outline
from ...lowering.c.constants import Constants
from ...lowering.c.lower import emitted
from ...lowering.c.outline import Tally
from ...lowering.c.steps import joined
from ..families import Chain, Part
from ..families.net import Net

__all__ = ["PartCosts", "Place", "Work", "linked_bytes", "part_costs", "work"]

PROBE, PART, SINK = "probe", "part", "sink"
CHANNELS = 4
"""Of what the probe reads and the sink makes."""

SAMPLES = 2
"""Random inputs that scales are found from, where they matter."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """Where a part stands.

    Attributes:
        shape: Of what it reads.
        first: What it reads is the network's image.
        last: What it makes is the network's result.
        stream: "int8" or "int16", of the tokens between blocks.
        callback: The image comes pixel by pixel where it can.
    """

    shape: Shape
    first: bool = False
    last: bool = False
    stream: str = "int8"
    callback: bool = True


@dataclass(frozen=True)
class Work:
    """A part in its place as integers, planned.

    Attributes:
        graph: With probe and sink.
        plan: Its memory.
        own: The same plan with the part's own steps alone.
        output: Shape of what the part hands on.
    """

    graph: Graph
    plan: Plan
    own: Plan
    output: Shape


def work(part: Part, place: Place, real: bool = False, budget: int | None = None) -> Work:
    """Build a part in its place, quantise it and plan its memory.

    Args:
        part: Any part.
        place: Where it stands.
        real: Whether it runs on random data to find its scales; else they and its weights stand for any.
        budget: Bytes that the arena may have; by default as few as possible.

    Raises:
        EdgesmithError: It cannot be built, or has no integer form.
    """
    graph, output = _surrounded(part, place)
    run_pipeline(graph, INTEGER)
    if real:
        made = quantise(graph, _noise(graph), QuantOptions(stream=place.stream))
    else:
        made = outline(prepare(graph), place.stream)
    found = plan(made, budget, callback=place.callback, effort=0)
    return Work(made, found, _own(found, place, made), output)


def _noise(graph: Graph) -> dict[str, Array]:
    generator = np.random.default_rng(0)
    return {v.name: generator.standard_normal((SAMPLES, *v.shape[1:])).astype(v.dtype) for v in graph.inputs}


def _surrounded(part: Part, place: Place) -> tuple[Graph, Shape]:
    """The part between a probe and a sink, where it is not an end itself; and the shape of what it makes."""
    net = Net("part")
    x = net.input("image", *place.shape) if place.first else _probe(net, place.shape)
    with net.within(PART):
        x = part.add(net, x)
    return net.finish(x if place.last else _sink(net, x)), x.shape


def _probe(net: Net, shape: Shape) -> Value:
    """Makes tokens as the sum that they are between blocks, or an image as convolutions hand it on."""
    with net.within(PROBE):
        if len(shape) == 4:
            seen = net.input("image", shape[0], CHANNELS, *shape[2:])
            return net.relu(net.conv(seen, shape[1], "conv"), "end")
        seen = net.linear(net.input("tokens", *shape[:2], CHANNELS), shape[2], "fc")
        return net.plus(seen, net.parameter("position", shape), "end")


def _sink(net: Net, x: Value) -> Value:
    """Reads tokens through a norm, or an image by a convolution."""
    with net.within(SINK):
        if len(x.shape) == 4:
            return net.conv(x, CHANNELS, "conv", 3)
        return net.linear(net.norm(x, "LayerNorm", "norm"), CHANNELS, "fc")


def _own(found: Plan, place: Place, made: Graph) -> Plan:
    """Without the steps that make what the part reads, and without those of the sink."""
    strange = set() if place.first else _makers(made)
    own = (step for step in found.steps if not strange & set(step.group.nodes) and not _sinks(step.group))
    return replace(found, steps=tuple(own))


def _makers(made: Graph) -> set[Node]:
    """Everything that the probe's result comes from."""
    ends = [made.value(f"{PROBE}.end").producer]
    found: set[Node] = set()
    while ends:
        node = ends.pop()
        if node is not None:
            found.add(node)
            ends += [value.producer for value in node.inputs if value is not None]
    return found


def _sinks(group: Group) -> bool:
    return any(name.startswith(f"{SINK}.") for name in group.sources)


@dataclass(frozen=True)
class PartCosts:
    """What a part adds to a network.

    Attributes:
        output: Shape of what it hands on.
        macs: Multiply-accumulates.
        ram: Bytes of the arena in its neediest step, each step taking the schedule that needs least.
        constants: Bytes of flash of constants that are its own.
        common: Constants that are the same wherever they stand, as (contents, bytes): stored once in a network.
        calls: The signature of the C function of each step; equal ones are one function.
    """

    output: Shape
    macs: int
    ram: int
    constants: int
    common: frozenset[tuple[bytes, int]]
    calls: tuple[tuple[object, ...], ...]


def part_costs(part: Part, place: Place) -> PartCosts:
    """Judge a part in its place.

    Raises:
        EdgesmithError: It cannot be built, or has no integer form or kernel.
    """
    shared = _shares(part)
    found = work(part, place, real=shared)
    pool = _Numbers("pool") if shared else _Sizes("pool")
    calls, refused = emitted(found.own, pool)
    if refused:
        raise joined(refused)
    own = {step.name for step in found.own.steps}
    macs, ram = sum(step.group.macs for step in found.own.steps), _load(Network(found.graph, place.callback), own)
    common = frozenset(pool.common.items())
    return PartCosts(found.output, macs, ram, pool.nbytes, common, tuple(call.signature() for call in calls))


def linked_bytes(size: int) -> int:
    """Bytes that a constant of this size takes in flash: `constants.Constants` ends each with a zero and aligns it."""
    return size // 8 * 8 + 8


def _shares(part: Part) -> bool:
    """Whether weights stand twice in it: which of them are then one constant, only real numbers can tell."""
    names = [name for name, _ in part.parts] if isinstance(part, Chain) else []
    return len(set(names)) < len(names)


def _load(network: Network, own: set[str]) -> int:
    """The most that any of these steps needs, in an order of least peak, each with its leanest schedule."""
    most, done, everything = 0, 0, (1 << len(network.groups)) - 1
    for group in order(network):
        if network.groups[group].name in own:
            most = max(most, network.least_load(group, done, everything))
        done |= 1 << group
    return most


def _is_common(array: Array, what: str) -> bool:
    """Tables of exponentials depend on the number of keys alone; zeros (a shift of RMSNorm's) are always zeros."""
    return what.startswith("exp_table_") or not array.any()


def _digest(array: Array) -> bytes:
    return blake2b(array.dtype.name.encode() + array.tobytes(), digest_size=16).digest()


@dataclass
class _Sizes(Tally):
    """Bytes in flash of constants that nobody has seen, each its own but for those that are common."""

    common: dict[bytes, int] = field(default_factory=dict)

    def add(self, array: Array, what: str, reads: int = 1) -> str:
        """Count an array as it is."""
        if not _is_common(array, what):
            return super().add(array, what, reads)
        self.common[_digest(array)] = linked_bytes(array.nbytes)
        return f"{self.prefix}.values"

    def pairs(self, vector: Array, what: str) -> str:
        """Count an int32 [N] bias or multiplier."""
        return self.add(pack_pairs(vector), what)

    def _counted(self, size: int) -> str:
        return super()._counted(linked_bytes(size))


@dataclass
class _Numbers(Constants):
    """Bytes in flash of real constants, equal ones once."""

    common: dict[bytes, int] = field(default_factory=dict)

    def add(self, array: Array, what: str, reads: int = 1) -> str:
        """Keep an array as it is."""
        if _is_common(array, what):
            self.common[_digest(array)] = linked_bytes(array.nbytes)
            return f"{self.prefix}.values"
        return super().add(array, what, reads)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is not common."""
        return sum(linked_bytes(len(item.data)) for item in self.items.values())
