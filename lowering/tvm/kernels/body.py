"""The few words in which kernels are written: loops, loads, stores and registers of TVM's TIR, vectors explicit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

__all__ = ["Body", "Buffer", "Expr"]

Expr = Any
"""An expression of TIR, or a Python number that will become one."""

Buffer = Any
"""A flat buffer of TIR."""

LEAST_WORK = 1 << 18
"""Multiply-adds that take as long as waking threads does, some ten microseconds."""


class Body:
    """The body of the function that is being built; TVM is imported with the first one."""

    def __init__(self, threads: int = 1) -> None:
        """Bind TVM's builders; work is shared among so many threads."""
        from tvm import tirx
        from tvm.tirx.script import builder

        self.threads = threads
        self.tir: Any = tirx
        self._build: Any = builder

    # Control flow.

    @contextmanager
    def loop(self, count: Expr) -> Iterator[Expr]:
        """Run the block `count` times with the counter given; once needs no loop."""
        if isinstance(count, int) and count == 1:
            yield 0
            return
        with self._build.serial(0, count) as at:
            yield at

    @contextmanager
    def loops(self, counts: tuple[int, ...]) -> Iterator[tuple[Expr, ...]]:
        """Loops one inside the other."""
        if not counts:
            yield ()
            return
        with self.loop(counts[0]) as at, self.loops(counts[1:]) as rest:
            yield (at, *rest)

    @contextmanager
    def team(self, count: Expr, work: int) -> Iterator[Callable[[], AbstractContextManager[Expr]]]:
        """Share `count` runs of a block among the threads, where all of them are so many multiply-adds.

        Gives a function that loops over a thread's own part. What is stored between the two is the thread's own, and so
        must be whatever the block writes, or else it writes what every other thread would.
        """
        threads = min(self.threads, count) if isinstance(count, int) else self.threads
        if threads <= 1 or work < LEAST_WORK:
            yield lambda: self.loop(count)
            return
        with self._build.parallel(0, threads) as thread:
            first = self.tir.floordiv(thread * count, threads)
            size: Expr = self.tir.floordiv((thread + 1) * count, threads) - first
            if isinstance(count, int) and count % threads == 0:
                first, size = thread * (count // threads), count // threads
            yield lambda: self._part(first, size)

    @contextmanager
    def _part(self, first: Expr, size: Expr) -> Iterator[Expr]:
        with self.loop(size) as at:
            yield first + at

    @contextmanager
    def teams(
        self, counts: tuple[int, ...], work: int
    ) -> Iterator[Callable[[], AbstractContextManager[tuple[Expr, ...]]]]:
        """`team` for loops one inside the other, of which the longest is shared."""
        axis = counts.index(max(counts)) if counts else 0
        with self.team(counts[axis] if counts else 1, work) as share:
            yield lambda: self._nest(counts, axis, share)

    @contextmanager
    def _nest(
        self, counts: tuple[int, ...], axis: int, share: Callable[[], AbstractContextManager[Expr]]
    ) -> Iterator[tuple[Expr, ...]]:
        if not counts:
            yield ()
            return
        with self.loops(counts[:axis]) as before, share() as at, self.loops(counts[axis + 1 :]) as after:
            yield (*before, at, *after)

    def sweep(self, count: int, lanes: int, visit: Callable[[Expr, int], None], work: int = 0) -> None:
        """Visit 0 to `count`: whole vectors first, then the rest one by one; `visit` gets the place and the lanes.

        With `work` (see `team`), threads share the vectors.
        """
        whole = count // lanes if lanes > 1 else 0
        if whole:
            with self.team(whole, work) as share, share() as at:
                visit(at * lanes, lanes)
        if rest := count - whole * lanes:
            with self.loop(rest) as at:
                visit(at + whole * lanes, 1)

    def strip(self, count: int, lanes: int, visit: Callable[[Expr, int], None]) -> None:
        """Visit 0 to `count` by whole vectors, of which the last reaches back; for what may be done twice."""
        if count < lanes:
            self.sweep(count, 1, visit)
            return
        with self.loop(-(-count // lanes)) as at:
            visit(self.least(at * lanes, count - lanes), lanes)

    @contextmanager
    def provided(self, condition: Expr) -> Iterator[None]:
        """Run the block if a condition holds."""
        with self._build.If(condition), self._build.Then():
            yield

    # Storage.

    def scratch(self, size: int, dtype: str = "float32") -> Buffer:
        """A flat buffer that lives as long as the block."""
        return self._build.alloc_buffer((size,), dtype)

    def registers(self, count: int, lanes: int, dtype: str = "float32") -> Buffer:
        """So many vectors, indexed by Python numbers only, so that LLVM keeps them in registers."""
        return self._build.alloc_buffer((count,), self.kind(dtype, lanes), scope="local")

    def load(self, buffer: Buffer, place: Expr, lanes: int = 1, stride: int = 1) -> Expr:
        """`lanes` elements from a place on; with stride 0 the same one in all lanes."""
        if lanes == 1:
            return self.tir.BufferLoad(buffer, [place])
        if stride == 0:
            return self.tir.Broadcast(self.tir.BufferLoad(buffer, [place]), lanes)
        return self.tir.BufferLoad(buffer, [self.tir.Ramp(place, stride, lanes)])

    def real(self, buffer: Buffer, place: Expr, lanes: int = 1, stride: int = 1) -> Expr:
        """`load` as float32, whatever is stored; truth values are 0 and 1."""
        value = self.load(buffer, place, lanes, stride)
        return value if buffer.dtype == "float32" else self.cast(value, "float32", lanes)

    def store(self, buffer: Buffer, value: Expr, place: Expr, lanes: int = 1, stride: int = 1) -> None:
        """Write `lanes` elements from a place on, as whatever the buffer holds."""
        if "int" in buffer.dtype:
            value = self.cast(value, buffer.dtype, lanes)
        self._build.buffer_store(buffer, value, [self.tir.Ramp(place, stride, lanes) if lanes > 1 else place])

    def get(self, registers: Buffer, index: int) -> Expr:
        """The content of a register."""
        return self.tir.BufferLoad(registers, [index])

    def put(self, registers: Buffer, index: int, value: Expr) -> None:
        """Write a register."""
        self._build.buffer_store(registers, value, [index])

    # Expressions.

    def number(self, value: float, lanes: int = 1, dtype: str = "float32") -> Expr:
        """A constant, the same in all lanes."""
        scalar = self.tir.const(value, dtype)
        return scalar if lanes == 1 else self.tir.Broadcast(scalar, lanes)

    def spread(self, scalar: Expr, lanes: int) -> Expr:
        """A scalar in all lanes."""
        return scalar if lanes == 1 else self.tir.Broadcast(scalar, lanes)

    def cast(self, value: Expr, dtype: str, lanes: int = 1) -> Expr:
        """Convert each lane."""
        return self.tir.Cast(self.kind(dtype, lanes), value)

    def bits(self, value: Expr, dtype: str, lanes: int = 1) -> Expr:
        """The same bits read as another type."""
        return self.tir.reinterpret(self.kind(dtype, lanes), value)

    def least(self, a: Expr, b: Expr) -> Expr:
        """The lesser one."""
        return min(a, b) if isinstance(a, int) and isinstance(b, int) else self.tir.Min(a, b)

    def most(self, a: Expr, b: Expr) -> Expr:
        """The greater one."""
        return self.tir.Max(a, b)

    def choose(self, condition: Expr, yes: Expr, no: Expr) -> Expr:
        """One of two values, lane by lane."""
        return self.tir.Select(condition, yes, no)

    @staticmethod
    def kind(dtype: str, lanes: int) -> str:
        """A vector type's name."""
        return dtype if lanes == 1 else f"{dtype}x{lanes}"

    def total(self, vector: Expr, lanes: int, combine: Callable[[Expr, Expr], Expr]) -> Expr:
        """All lanes of a vector combined into one scalar, in the order of a tree."""
        if lanes == 1:
            return vector
        room = self.scratch(lanes)
        self.store(room, vector, 0, lanes)
        parts = [self.load(room, lane) for lane in range(lanes)]
        while len(parts) > 1:
            parts = [combine(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]
