"""What tells processor architectures apart: how a call is made, how code reads, what must be aligned; one file each."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ...ir.errors import MachineError, UsageError

if TYPE_CHECKING:
    from ...targets import Target

__all__ = ["Isa", "capstone", "knows", "of", "of_machine", "unicorn"]


class Isa(Protocol):
    """An instruction set as the emulator and the disassembler need to know it.

    Attributes:
        machine: Name of the architecture in the header of ELF files.
        cores: Names that targets give to its cores (`[core] emulator`).
        program_counter: The emulator's number of that register.
        stack_pointer: Likewise.
        result: Likewise of the register that a function returns its value in.
        in_registers: How many arguments of a call travel in registers; the rest lies on the stack.
        saved: Bytes of all integer registers that a function may have to save, in a frame that is aligned.
        aligned: Which accesses have to be on a word boundary, as a sentence.
    """

    machine: str
    cores: tuple[str, ...]
    program_counter: int
    stack_pointer: int
    result: int
    in_registers: int
    saved: int
    aligned: str

    def engine(self, core: str) -> Any:
        """A fresh emulator of a core."""

    def enter(self, engine: Any, function: int, arguments: Sequence[int], back: int) -> int:
        """Put arguments and the return address into registers; where execution has to start."""

    def length(self, code: bytes) -> int:
        """Length of the instruction that these bytes, two at least, begin with."""

    def lengths(self, code: bytes) -> list[int]:
        """Lengths of the instructions in a stretch of code.

        Raises:
            InternalError: It ends inside an instruction.
        """

    def must_align(self, code: bytes) -> bool:
        """Whether the instruction that these four bytes begin with needs its words on a word boundary."""

    def disassembler(self) -> Any:
        """Capstone for it."""

    def lowers(self, line: Any) -> int:
        """Bytes by which an instruction lowers the stack pointer."""

    def calls(self, line: Any) -> tuple[int | None, bool]:
        """Where an instruction goes, if it names a place, and whether it comes back or leads through a pointer."""

    def varies(self, lines: Sequence[Any]) -> str:
        """The instruction that moves the stack pointer by an amount known at run time only; "" without one."""


def of(target: Target) -> Isa:
    """The architecture of a target's core.

    Raises:
        UsageError: No emulator knows it.
    """
    for isa in _every():
        if target.core.emulator in isa.cores:
            return isa
    raise UsageError(f"no emulator knows the core of {target.name}", where=[target.core.name])


def knows(target: Target) -> bool:
    """Whether the emulator has the target's core."""
    return any(target.core.emulator in isa.cores for isa in _every())


def of_machine(machine: str) -> Isa:
    """The architecture that an ELF file names in its header.

    Raises:
        UsageError: It is for another kind of processor.
    """
    for isa in _every():
        if machine == isa.machine:
            return isa
    raise UsageError("the file is for a processor that cannot be emulated here", where=[machine])


def _every() -> tuple[Isa, ...]:
    from . import riscv, thumb

    return thumb.ISA, thumb.SMALL, riscv.ISA, riscv.EMBEDDED


def unicorn() -> Any:
    """The emulator's module, which carries no usable types; imported late because it loads a large library."""
    try:
        return importlib.import_module("unicorn")
    except ImportError as error:
        raise MachineError("the emulator is not installed", do="pip install unicorn pyelftools") from error


def capstone() -> Any:
    """The disassembler's module."""
    try:
        return importlib.import_module("capstone")
    except ImportError as error:
        raise MachineError("the disassembler is not installed", do="pip install capstone") from error
