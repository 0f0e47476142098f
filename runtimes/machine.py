"""An emulated microcontroller with the target's true memory map: calls a function, counts exactly, explains faults."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..ir.errors import InternalError, MachineError, UsageError
from ..lowering.c.toolchain import HARNESS_ORIGIN, HARNESS_SIZE
from ..targets import Target
from . import counting, elf, isa

__all__ = ["Fault", "Machine", "Result"]

# Regions of the harness, outside every device: images are read-only to the guest, buffers stand for the application's
# memory, and the stop page is where a call returns to. No budget and no high-water mark counts them.
CAMERA_ORIGIN, CAMERA_SIZE = 0x60000000, 0x2000000
BUFFER_ORIGIN, BUFFER_SIZE = 0x64000000, 0x2000000
STOP_ORIGIN, STOP_SIZE = 0x6F000000, 0x1000
PAGE = 0x1000  # the least that the emulator maps


class Fault(InternalError):  # noqa: N818 - the architecture's own word
    """The emulated core stopped: generated code did something the device forbids.

    Attributes:
        pc: Address of the instruction.
        function: Name of the function it lies in.
        address: What it accessed, None where it accessed nothing.
    """

    def __init__(self, what: str, *, pc: int, function: str, address: int | None, why: str) -> None:
        """Keep the place for programs, and tell the story for people."""
        self.pc, self.function, self.address = pc, function, address
        super().__init__(what, where=[function, f"pc {pc:#010x}"], why=why)


@dataclass(frozen=True)
class Result:
    """What one call did.

    Attributes:
        value: What it returned, as a signed integer.
        instructions: Executed instructions, exact (failed conditional ones count, as they take their slot); those of
            the harness are not among them.
        harness: Instructions in `.es_harness`, which stand for the application.
        per_function: The same by function.
        blocks: Executions by (address, bytes) of each basic block.
        stack: Bytes of stack that changed, from its top down, with the given paint.
        seconds: Time on this computer; says nothing about the device.
        traffic: Bytes (read, written) by region, caches ignored; strict mode only.
        called: Executions of blocks of shared functions, which are among `blocks`, by the address of the block that
            called them; only where `share` named such functions.
    """

    value: int
    instructions: int
    harness: int
    per_function: dict[str, int]
    blocks: dict[tuple[int, int], int] = field(repr=False)
    stack: int
    seconds: float
    traffic: dict[str, tuple[int, int]] = field(default_factory=dict)
    called: dict[int, dict[tuple[int, int], int]] = field(default_factory=dict, repr=False)


def pattern(size: int, paint: int) -> np.ndarray:
    """`size` bytes of paint; paints 2k and 2k + 1 differ in every bit, so no byte written alike escapes both."""
    noise = np.random.default_rng(paint // 2).integers(0, 256, size, dtype=np.uint8)
    return ~noise if paint % 2 else noise


class Machine:
    """A target with a program in its memory.

    Args:
        target: The device; its regions are mapped as they are: RAM cannot be executed, flash cannot be written.
        path: The linked file.
        native: Count through compiled callbacks; without, in Python, about twenty times slower.
        strict: Watch every access: traffic by region, and faults where LDRD, LDM and their kin are off a word boundary
            (the emulator itself lets them pass). About fifty times slower. Values computed in strict mode are not to be
            trusted: Unicorn 2.1 loses the condition of some stores in IT blocks while memory is watched.
    """

    def __init__(self, target: Target, path: Path, *, native: bool = True, strict: bool = False) -> None:
        """Map the device, load the file and install the counters."""
        self.target = target
        self.image = elf.load(path)
        if "fpu" in target.core.features and not self.image.has_fpu:
            raise MachineError(f"{path.name} was built without the FPU", why="no Tag_FP_arch in its attributes")
        self.isa = isa.of(target)
        self._engine = self.isa.engine(target.core.emulator)
        self._free = {CAMERA_ORIGIN: CAMERA_ORIGIN, BUFFER_ORIGIN: BUFFER_ORIGIN}
        self._invalid: tuple[int, int, int] | None = None
        self._map()
        self.reload()
        code = self.image.executable
        self._blocks = counting.NativeBlocks(self._engine, code) if native else counting.PythonBlocks(self._engine)
        watched = [(region.name, region.origin, region.size) for region in target.regions]
        self._accesses = counting.Accesses(self._engine, self.isa.program_counter, watched) if strict else None
        self._callers: counting.Callers | None = None

    def share(self, functions: Sequence[elf.Symbol]) -> None:
        """Count these functions by caller as well, from now on; before the first call, or the emulator misses some."""
        self._callers = counting.Callers(self._engine, [(f.address, f.address + f.size) for f in functions])

    def _map(self) -> None:
        from unicorn import UC_HOOK_MEM_INVALID, UC_PROT_ALL, UC_PROT_EXEC, UC_PROT_READ, UC_PROT_WRITE

        rights = {
            "ram": UC_PROT_READ | UC_PROT_WRITE, "code_ram": UC_PROT_ALL,
            "flash": UC_PROT_READ | UC_PROT_EXEC, "external_flash": UC_PROT_READ | UC_PROT_EXEC,
        }  # fmt: skip
        for region in self.target.regions:
            whole_pages = -(-region.size // PAGE) * PAGE
            self._engine.mem_map(region.origin, whole_pages, rights[region.kind])
        self._engine.mem_map(CAMERA_ORIGIN, CAMERA_SIZE, UC_PROT_READ)
        self._engine.mem_map(BUFFER_ORIGIN, BUFFER_SIZE, UC_PROT_READ | UC_PROT_WRITE)
        self._engine.mem_map(HARNESS_ORIGIN, HARNESS_SIZE, UC_PROT_ALL)
        self._engine.mem_map(STOP_ORIGIN, STOP_SIZE, UC_PROT_READ | UC_PROT_EXEC)
        self._engine.hook_add(UC_HOOK_MEM_INVALID, self._on_invalid)

    def _on_invalid(self, engine: Any, access: int, address: int, size: int, value: int, context: Any) -> bool:
        self._invalid = access, address, size
        return False

    def reload(self) -> None:
        """Put code, constants and initial data back as the file has them."""
        for address, data, zeros in self.image.segments:
            self._engine.mem_write(address, data + bytes(zeros))

    # -- memory ------------------------------------------------------------------------------------------------------

    def address(self, where: str | int) -> int:
        """Address of a symbol; an address stays itself."""
        return where if isinstance(where, int) else self.image.symbol(where).address

    def read(self, where: str | int, count: int, dtype: str = "uint8") -> np.ndarray:
        """`count` items of a numpy type from a symbol or address."""
        data = self._engine.mem_read(self.address(where), count * np.dtype(dtype).itemsize)
        return np.frombuffer(bytes(data), dtype)

    def write(self, where: str | int, array: np.ndarray | bytes) -> None:
        """Copy an array's bytes to a symbol or address, whatever the guest itself may write there."""
        data = np.ascontiguousarray(array).tobytes() if isinstance(array, np.ndarray) else array
        self._engine.mem_write(self.address(where), data)

    def place(self, array: np.ndarray) -> int:
        """Copy an array into the camera's region, which the guest can only read; its address."""
        address = self._take(CAMERA_ORIGIN, CAMERA_SIZE, array.nbytes)
        self.write(address, array)
        return address

    def buffer(self, size: int) -> int:
        """Address of `size` fresh bytes that the guest may write and that no budget counts."""
        return self._take(BUFFER_ORIGIN, BUFFER_SIZE, size)

    def release(self) -> None:
        """Give back everything that `place` and `buffer` took."""
        self._free = {origin: origin for origin in self._free}

    def _take(self, origin: int, size: int, wanted: int) -> int:
        address = self._free[origin]
        if address + wanted > origin + size:
            raise UsageError(f"the harness has no {wanted} bytes left", do="call release() between runs")
        self._free[origin] = (address + wanted + 63) // 64 * 64
        return address

    # -- high-water marks --------------------------------------------------------------------------------------------

    def paint(self, symbol: str, paint: int = 0) -> None:
        """Fill an object with a pattern."""
        found = self.image.symbol(symbol)
        self.write(found.address, pattern(found.size, paint))

    def touched(self, symbol: str, paint: int = 0) -> np.ndarray:
        """Which bytes of an object differ from the pattern, as booleans; take the union over paints 0 and 1."""
        found = self.image.symbol(symbol)
        differs: np.ndarray = self.read(found.address, found.size) != pattern(found.size, paint)
        return differs

    # -- running -----------------------------------------------------------------------------------------------------

    def call(self, function: str | int, *arguments: int, paint: int = 0, timeout_s: float = 300.0) -> Result:
        """Call a function with integer or pointer arguments on a freshly painted stack.

        Raises:
            Fault: The core stopped, did not return in time, or, in strict mode, accessed memory off a boundary.
        """
        low, high = self.address("es_stack_low"), self.address("es_stack_high")
        self.write(low, pattern(high - low, paint))
        start = self._enter(self.address(function), high, arguments)
        self._invalid = None
        for counter in (self._blocks, self._accesses, self._callers):
            if counter is not None:
                counter.reset()
        began = time.perf_counter()
        try:
            self._engine.emu_start(start, STOP_ORIGIN, timeout=int(timeout_s * 1e6))
        except isa.unicorn().UcError as error:
            raise self._fault(error) from error
        seconds = time.perf_counter() - began
        pc = self._engine.reg_read(self.isa.program_counter)
        if pc != STOP_ORIGIN:
            why = f"it ran for {timeout_s:g} s on this computer"
            raise Fault("the call did not return", pc=pc, function=self.image.function_at(pc), address=None, why=why)
        value = self._engine.reg_read(self.isa.result)
        return self._result(value, seconds, low, high, paint)

    def _enter(self, function: int, top: int, arguments: tuple[int, ...]) -> int:
        """Make the call ready: arguments in registers, the rest on the stack; where execution starts."""
        rest = arguments[self.isa.in_registers :]
        stack = top - (4 * len(rest) + 15) // 16 * 16
        if rest:
            self.write(stack, np.array([argument & 0xFFFFFFFF for argument in rest], np.uint32))
        self._engine.reg_write(self.isa.stack_pointer, stack)
        return self.isa.enter(self._engine, function, arguments[: self.isa.in_registers], STOP_ORIGIN)

    def _result(self, value: int, seconds: float, low: int, high: int, paint: int) -> Result:
        blocks = self._blocks.taken()
        per_function: dict[str, int] = {}
        harness = 0
        for (address, size), count in blocks.items():
            length = len(self.lengths(address, size))
            if self.is_harness(address):
                harness += count * length
                continue
            name = self.image.function_at(address)
            per_function[name] = per_function.get(name, 0) + count * length
        changed = np.flatnonzero(self.read(low, high - low) != pattern(high - low, paint))
        stack = high - low - int(changed[0]) if changed.size else 0
        traffic = {}
        if self._accesses is not None:
            self._check_alignment(self._accesses)
            traffic = self._accesses.traffic()
        ordered = dict(sorted(per_function.items(), key=lambda item: (-item[1], item[0])))
        signed = value - (1 << 32) if value >> 31 else value
        called = self._callers.taken() if self._callers is not None else {}
        return Result(signed, sum(ordered.values()), harness, ordered, blocks, stack, seconds, traffic, called)

    @staticmethod
    def is_harness(address: int) -> bool:
        """Whether code at an address stands for the application, which no count of the library includes."""
        return HARNESS_ORIGIN <= address < HARNESS_ORIGIN + HARNESS_SIZE

    def lengths(self, address: int, size: int) -> list[int]:
        """Lengths of the instructions of a block."""
        return self.isa.lengths(bytes(self._engine.mem_read(address, size)))

    def _check_alignment(self, accesses: counting.Accesses) -> None:
        for pc, address in accesses.suspects():
            if self.isa.must_align(self.read(pc, 4).tobytes()):
                what, function = f"misaligned access to {address:#010x}", self.image.function_at(pc)
                raise Fault(what, pc=pc, function=function, address=address, why=self.isa.aligned)

    def _fault(self, error: Any) -> Fault:
        """Turn the engine's error into a place, an address and the likely cause."""
        pc, stack = (self._engine.reg_read(which) for which in (self.isa.program_counter, self.isa.stack_pointer))
        function = self.image.function_at(pc)
        if self._invalid is None:
            why = f"{error}: an instruction that {self.target.core.name} does not have, or data run as code"
            return Fault("the core stopped", pc=pc, function=function, address=None, why=why)
        access, address, size = self._invalid
        verb, cause = self._cause(access, address, size, stack)
        what = f"{verb} of {size} bytes at {address:#010x} is not allowed"
        return Fault(what, pc=pc, function=function, address=address, why=cause)

    def _cause(self, access: int, address: int, size: int, stack: int) -> tuple[str, str]:
        from unicorn import UC_MEM_FETCH_PROT, UC_MEM_FETCH_UNMAPPED, UC_MEM_WRITE_PROT, UC_MEM_WRITE_UNMAPPED

        ram, low = self.target.ram, self.address("es_stack_low")
        verb = {UC_MEM_WRITE_UNMAPPED: "write", UC_MEM_WRITE_PROT: "write"}.get(access, "read")
        if access in (UC_MEM_FETCH_PROT, UC_MEM_FETCH_UNMAPPED):
            return "fetch", "a jump to something that is not code: a wrong function pointer or a smashed return address"
        if stack < low or low - 0x10000 <= address < low:
            return verb, f"stack overflow: the {self.address('es_stack_high') - low} bytes of stack are used up"
        if access == UC_MEM_WRITE_PROT:
            names = [region.name for region in self.target.regions if address in region] or ["the camera's image"]
            return verb, f"{names[0]} is read-only"
        if ram is not None and ram.end <= address < ram.end + 0x1000000:
            return verb, f"{address + size - ram.end} bytes past the end of the {ram.size} bytes of RAM"
        return verb, "no memory lies there: a wild pointer or index"
