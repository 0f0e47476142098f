"""Where the instructions of an inference go: by layer, by kind of work, by function and by basic block, all exact."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from .kinds import kind

if TYPE_CHECKING:
    import numpy as np

    from .elf import Symbol
    from .emulator import Program
    from .inlining import Inlining
    from .machine import Machine, Result

__all__ = ["Block", "Breakdown", "Layer", "profile"]


@dataclass(frozen=True)
class Block:
    """Instructions that always run together: `executions` times in one inference."""

    address: int
    bytes: int
    instructions: int
    function: str
    executions: int


@dataclass(frozen=True)
class Layer:
    """A step of the program: its instructions, and the same by kind of work."""

    name: str
    kind: str
    instructions: int
    kinds: Mapping[str, int]
    blocks: Mapping[tuple[int, int], int]


@dataclass(frozen=True)
class Breakdown:
    """One inference, step by step.

    Attributes:
        layers: In order of execution.
        blocks: All basic blocks that ran, those that took most instructions first.
        code: Bytes of code by kind of work, the largest first.
        sizes: Bytes of code by function.
    """

    layers: tuple[Layer, ...]
    blocks: tuple[Block, ...]
    code: Mapping[str, int]
    sizes: Mapping[str, int]

    @property
    def instructions(self) -> int:
        """Of all layers."""
        return sum(layer.instructions for layer in self.layers)

    @property
    def kinds(self) -> dict[str, int]:
        """Instructions by kind of work, the largest first."""
        return _ranked(layer.kinds for layer in self.layers)

    @property
    def functions(self) -> dict[str, tuple[int, int]]:
        """Instructions and executed basic blocks by function, the largest first."""
        found: dict[str, tuple[int, int]] = {}
        for block in self.blocks:
            instructions, executions = found.get(block.function, (0, 0))
            more = block.instructions * block.executions
            found[block.function] = instructions + more, executions + block.executions
        return dict(sorted(found.items(), key=lambda item: (-item[1][0], item[0])))

    def json(self, macs: Sequence[int]) -> dict[str, Any]:
        """Plain data; `macs` has the multiply-accumulates of each layer."""
        return {
            "instructions": self.instructions,
            "macs": sum(macs),
            "per_mac": _ratio(self.instructions, sum(macs)),
            "kinds": self.kinds,
            "code": dict(self.code),
            "layers": [
                {
                    "name": layer.name, "kind": layer.kind, "macs": count, "instructions": layer.instructions,
                    "per_mac": _ratio(layer.instructions, count), "kinds": dict(layer.kinds),
                }
                for layer, count in zip(self.layers, macs, strict=True)
            ],
            "functions": [
                {"name": name, "instructions": count, "blocks": blocks, "bytes": self.sizes.get(name, 0)}
                for name, (count, blocks) in self.functions.items()
            ],
            "blocks": [
                {key: getattr(block, key) for key in Block.__dataclass_fields__} for block in self.blocks
            ],
        }  # fmt: skip


def _ratio(instructions: int, macs: int) -> float | None:
    return instructions / macs if macs else None


def profile(program: Program, arrays: Sequence[np.ndarray]) -> Breakdown:
    """Run every step of a program that was built with `debug`, and attribute each instruction.

    Counts are exact. What an instruction is for is what the compiler says of the function that it was inlined from;
    where it moved instructions of two functions together, it names one of them.
    """
    machine = program.machine
    whose = _Attribution(machine, program.inlining)
    layers = []
    total: Counter[tuple[int, int]] = Counter()
    for step, (_, result) in zip(program.library.steps, program.steps(arrays), strict=True):
        kinds = whose.kinds(result)
        blocks = {place: count for place, count in result.blocks.items() if not machine.is_harness(place[0])}
        layers.append(Layer(step.name, step.kind, result.instructions, kinds, blocks))
        total.update(blocks)
    ran = [
        Block(address, size, len(machine.lengths(address, size)), machine.image.function_at(address), count)
        for (address, size), count in total.items()
    ]
    ran.sort(key=lambda block: (-block.instructions * block.executions, block.address))
    functions = {each.address: each for each in machine.image.functions if not machine.is_harness(each.address)}
    sizes = {each.name: each.size for each in functions.values()}
    return Breakdown(tuple(layers), tuple(ran), _code(functions.values(), program.inlining), sizes)


def _code(functions: Iterable[Symbol], known: Inlining) -> dict[str, int]:
    """Bytes by kind of work: each stretch of code is for what the kernel is for that it was inlined from."""
    found: Counter[str] = Counter()
    for each in functions:
        begins, ends = each.address, each.address + each.size
        inside = known.starts[bisect_right(known.starts, begins) : bisect_left(known.starts, ends)]
        for begin, end in pairwise((begins, *inside, ends)):
            found[kind(known.chain(begin))] += end - begin
    return _ranked([found])


class _Attribution:
    """From counts of blocks to counts by kind; remembers what each block is made of."""

    def __init__(self, machine: Machine, known: Inlining) -> None:
        self._machine, self._known = machine, known
        self._parts: dict[tuple[int, int, tuple[str, ...]], Counter[str]] = {}

    def kinds(self, result: Result) -> dict[str, int]:
        """Instructions of a call by kind, the largest first."""
        found: Counter[str] = Counter()
        own = {place: count for place, count in result.blocks.items() if not self._machine.is_harness(place[0])}
        sizes = dict(own.keys())
        for site, blocks in result.called.items():
            caller = self._known.chain(site + sizes.get(site, 2) - 2)
            for place in blocks.keys() & own.keys():
                own[place] -= blocks[place]
                self._add(found, place, blocks[place], caller)
        for place, count in own.items():
            self._add(found, place, count, ())
        return _ranked([found])

    def _add(self, found: Counter[str], place: tuple[int, int], count: int, caller: tuple[str, ...]) -> None:
        key = (*place, caller)
        if key not in self._parts:
            at, parts = place[0], Counter[str]()
            for length in self._machine.lengths(*place):
                parts[kind((*caller, *self._known.chain(at)))] += 1
                at += length
            self._parts[key] = parts
        for name, instructions in self._parts[key].items():
            found[name] += count * instructions


def _ranked(counts: Any) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return {name: count for name, count in sorted(total.items(), key=lambda item: (-item[1], item[0])) if count}
