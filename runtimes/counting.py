"""Exact execution counts of basic blocks: by a native callback built at first use, by a Python one where that fails."""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..ir.errors import InternalError, MachineError
from ..lowering.c import toolchain

__all__ = ["Accesses", "Blocks", "Callers", "NativeBlocks", "PythonBlocks", "library"]

SOURCE = Path(__file__).with_name("hooks.c")
WINDOWS, OTHERS, REGIONS, SUSPECTS, RANGES, CALLED = 2, 1024, 16, 256, 64, 8192
WINDOW_LIMIT = 1 << 21
U64 = ctypes.c_uint64


def library() -> ctypes.CDLL:
    """The callbacks as a shared object, compiled once per version of their source.

    Raises:
        MachineError: No compiler.
    """
    key = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    path = toolchain.cache_folder() / f"hooks-{key}.so"
    if not path.is_file():
        # Built under another name first: two processes may come here at once.
        built = toolchain.compile_shared([SOURCE], path.with_suffix(f".{os.getpid()}.so"), optimise="-O3")
        built.replace(path)
    return ctypes.CDLL(str(path))


class Window(ctypes.Structure):
    """One range of guest code with its counters, as `hooks.c` lays it out."""

    _fields_ = [("base", U64), ("span", U64), ("count", ctypes.c_void_p), ("size", ctypes.c_void_p)]


class Block(ctypes.Structure):
    """A block counted outside the windows."""

    _fields_ = [("address", U64), ("count", U64), ("size", ctypes.c_uint32), ("_", ctypes.c_uint32)]


class BlocksStruct(ctypes.Structure):
    """All block counters, as `hooks.c` lays them out."""

    _fields_ = [("window", Window * WINDOWS), ("other", Block * OTHERS), ("others", U64), ("lost", U64)]


class Traffic(ctypes.Structure):
    """Bytes moved in one region."""

    _fields_ = [(name, U64) for name in ("base", "span", "read", "written")]


class AccessesStruct(ctypes.Structure):
    """All access counters, as `hooks.c` lays them out."""

    _fields_ = [
        ("region", Traffic * REGIONS), ("regions", U64), ("register_read", ctypes.c_void_p),
        ("program_counter", U64), ("suspects", U64), ("at", U64 * SUSPECTS), ("address", U64 * SUSPECTS),
    ]  # fmt: skip


class Called(ctypes.Structure):
    """A block of a shared function, counted for one block that called."""

    _fields_ = [
        ("site", U64), ("address", U64), ("count", U64), ("size", ctypes.c_uint32), ("_", ctypes.c_uint32),
    ]  # fmt: skip


class CallersStruct(ctypes.Structure):
    """Counters of shared functions by caller, as `hooks.c` lays them out."""

    _fields_ = [
        ("low", U64 * RANGES), ("high", U64 * RANGES), ("ranges", U64), ("site", U64), ("used", U64), ("lost", U64),
        ("called", Called * CALLED),
    ]  # fmt: skip


def _add(engine: Any, kind: int, callback: Any, context: ctypes.Structure) -> None:
    """Register a native callback; the binding's public interface only takes Python functions."""
    from unicorn.unicorn_py3 import unicorn as binding

    handle = ctypes.c_size_t(0)
    status = binding.uclib.uc_hook_add(
        engine._uch, ctypes.byref(handle), ctypes.c_int(kind), ctypes.cast(callback, ctypes.c_void_p),
        ctypes.c_void_p(ctypes.addressof(context)), ctypes.c_uint64(1), ctypes.c_uint64(0),
    )  # fmt: skip
    if status:
        raise MachineError("the emulator refused a native callback", why=f"uc_hook_add returned {status}")


class Blocks:
    """Counts executions of basic blocks; `taken` maps (address, bytes) to how often the block ran."""

    def reset(self) -> None:
        """Start again from zero."""
        raise NotImplementedError

    def taken(self) -> dict[tuple[int, int], int]:
        """Blocks that ran since the last reset."""
        raise NotImplementedError


class NativeBlocks(Blocks):
    """The fast way: the emulator calls compiled code."""

    def __init__(self, engine: Any, code: tuple[tuple[int, int], ...]) -> None:
        """Count in `engine` with an array over each of the largest ranges of `code`."""
        from unicorn import UC_HOOK_BLOCK

        self._library = library()
        self._struct = BlocksStruct()
        self._counts: list[np.ndarray] = []
        self._sizes: list[np.ndarray] = []
        largest = sorted(code, key=lambda span: span[0] - span[1])[:WINDOWS]
        for window, (low, high) in zip(self._struct.window, largest, strict=False):
            slots = min(high - low, WINDOW_LIMIT) // 2 + 1
            self._counts.append(np.zeros(slots, np.uint64))
            self._sizes.append(np.zeros(slots, np.uint32))
            window.base, window.span = low, slots * 2
            window.count, window.size = self._counts[-1].ctypes.data, self._sizes[-1].ctypes.data
        _add(engine, UC_HOOK_BLOCK, self._library.on_block, self._struct)

    def reset(self) -> None:
        """Start again from zero."""
        for array in (*self._counts, *self._sizes):
            array[:] = 0
        self._struct.others = self._struct.lost = 0

    def taken(self) -> dict[tuple[int, int], int]:
        """Blocks that ran since the last reset."""
        if self._struct.lost:
            raise InternalError("too many blocks outside the known code for an exact count")
        found: Counter[tuple[int, int]] = Counter()
        for window, counts, sizes in zip(self._struct.window, self._counts, self._sizes, strict=False):
            for index in counts.nonzero()[0].tolist():
                found[window.base + 2 * index, int(sizes[index])] += int(counts[index])
        for block in self._struct.other[: self._struct.others]:
            found[block.address, block.size] += block.count
        return dict(found)


class PythonBlocks(Blocks):
    """The slow way, for a computer without a compiler: about twenty times slower, the same counts."""

    def __init__(self, engine: Any) -> None:
        """Count in `engine`."""
        from unicorn import UC_HOOK_BLOCK

        self._taken: Counter[tuple[int, int]] = Counter()
        engine.hook_add(UC_HOOK_BLOCK, self._on_block)

    def _on_block(self, engine: Any, address: int, size: int, context: Any) -> None:
        self._taken[address, size] += 1

    def reset(self) -> None:
        """Start again from zero."""
        self._taken.clear()

    def taken(self) -> dict[tuple[int, int], int]:
        """Blocks that ran since the last reset."""
        return dict(self._taken)


class Callers:
    """Counts blocks of functions that many call, apart for each block that called one (native only)."""

    def __init__(self, engine: Any, shared: Sequence[tuple[int, int]]) -> None:
        """Count in `engine` the functions at these addresses, [low, high) each."""
        from unicorn import UC_HOOK_BLOCK

        if len(shared) > RANGES:
            raise InternalError(f"{len(shared)} shared functions are more than the {RANGES} that can be told apart")
        self._library = library()
        self._struct = CallersStruct(ranges=len(shared))
        for index, (low, high) in enumerate(shared):
            self._struct.low[index], self._struct.high[index] = low, high
        _add(engine, UC_HOOK_BLOCK, self._library.on_shared_block, self._struct)

    def reset(self) -> None:
        """Start again from zero."""
        ctypes.memset(self._struct.called, 0, ctypes.sizeof(self._struct.called))
        self._struct.site = self._struct.used = self._struct.lost = 0

    def taken(self) -> dict[int, dict[tuple[int, int], int]]:
        """By the address of the block that called: executions by (address, bytes) of each block of what it called."""
        if self._struct.lost:
            raise InternalError("too many callers of shared functions for an exact count")
        found: dict[int, dict[tuple[int, int], int]] = {}
        for called in self._struct.called:
            if called.count:
                found.setdefault(called.site, {})[called.address, called.size] = called.count
        return found


class Accesses:
    """Bytes read and written by region, and words accessed across an alignment boundary (strict mode, native only)."""

    def __init__(self, engine: Any, program_counter: int, regions: list[tuple[str, int, int]]) -> None:
        """Watch `regions` of (name, origin, bytes) in `engine`, which knows its program counter by that number."""
        from unicorn import UC_HOOK_MEM_READ, UC_HOOK_MEM_WRITE
        from unicorn.unicorn_py3 import unicorn as binding

        self._library = library()
        self._names = [name for name, _, _ in regions]
        self._struct = AccessesStruct(regions=len(regions), program_counter=program_counter)
        self._struct.register_read = ctypes.cast(binding.uclib.uc_reg_read, ctypes.c_void_p).value
        for traffic, (_, origin, size) in zip(self._struct.region, regions, strict=False):
            traffic.base, traffic.span = origin, size
        _add(engine, UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, self._library.on_access, self._struct)

    def reset(self) -> None:
        """Start again from zero."""
        self._struct.suspects = 0
        for traffic in self._struct.region[: len(self._names)]:
            traffic.read = traffic.written = 0

    def traffic(self) -> dict[str, tuple[int, int]]:
        """Bytes (read, written) by region name."""
        return {name: (t.read, t.written) for name, t in zip(self._names, self._struct.region, strict=False)}

    def suspects(self) -> list[tuple[int, int]]:
        """(Instruction address, accessed address) of each instruction's first word access off a word boundary."""
        return list(zip(self._struct.at, self._struct.address, strict=True))[: self._struct.suspects]
