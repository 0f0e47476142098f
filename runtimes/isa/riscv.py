"""32-bit RISC-V code, compressed or not, with a multiplier or without."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ...ir.errors import InternalError
from . import Isa, capstone, unicorn

A0, RA, SP, PC = 11, 2, 3, 190
"""The emulator's numbers; `tests/test_isa.py` holds them against its own names."""


class Riscv:
    """RV32I and its extensions. The emulator runs all of them: that a core lacks one is the compiler's to mind."""

    machine: str = "EM_RISCV"
    cores: tuple[str, ...] = ("rv32",)
    program_counter: int = PC
    stack_pointer: int = SP
    result: int = A0
    in_registers: int = 8
    saved: int = 64  # s0 to s11 and ra
    aligned: str = "words need word alignment: many cores trap, others take a slow path in software"

    def engine(self, core: str) -> Any:
        """A fresh emulator."""
        api = unicorn()
        return api.Uc(api.UC_ARCH_RISCV, api.UC_MODE_RISCV32)

    def enter(self, engine: Any, function: int, arguments: Sequence[int], back: int) -> int:
        """Arguments in a0 to a7, the return address in ra."""
        for index, argument in enumerate(arguments):
            engine.reg_write(A0 + index, argument & 0xFFFFFFFF)
        engine.reg_write(RA, back)
        return function

    def length(self, code: bytes) -> int:
        """4 bytes where the two lowest bits are set, else 2."""
        return 4 if code[0] & 3 == 3 else 2

    def lengths(self, code: bytes) -> list[int]:
        """One after the other."""
        found, at = [], 0
        while at < len(code):
            found.append(self.length(code[at : at + 2]))
            at += found[-1]
        if at != len(code):
            raise InternalError("a basic block ends inside an instruction", where=[code.hex()])
        return found

    def must_align(self, code: bytes) -> bool:
        """All of them."""
        return True

    def disassembler(self) -> Any:
        """Capstone for it."""
        api = capstone()
        return api.Cs(api.CS_ARCH_RISCV, api.CS_MODE_RISCV32 | api.CS_MODE_RISCVC)

    def lowers(self, line: Any) -> int:
        """The stack pointer only moves by additions."""
        constant = re.fullmatch(r"sp, (?:sp, )?-(0x[0-9a-f]+|\d+)", line.op_str)
        return int(constant[1], 0) if constant and line.mnemonic.startswith(("addi", "c.addi")) else 0

    def calls(self, line: Any) -> tuple[int | None, bool]:
        """Jumps and branches name an offset; JAL with ra comes back, JALR leads through a pointer unless it returns."""
        stem = line.mnemonic.removeprefix("c.")
        place = re.search(r"(-?(?:0x[0-9a-f]+|\d+))$", line.op_str)
        if stem in ("j", "jal") or (stem.startswith("b") and place):
            offset = int(place[1], 0) if place else 0
            return line.address + offset, stem == "jal" and "zero" not in line.op_str
        returns = line.op_str in ("ra", "zero, ra", "zero, ra, 0", "zero, 0(ra)")
        return None, stem in ("jr", "jalr") and not returns

    def varies(self, lines: Sequence[Any]) -> str:
        """An addition or subtraction of a register; moves from the frame pointer restore what was there before."""
        for line in lines:
            stem = line.mnemonic.removeprefix("c.")
            if stem in ("add", "sub") and re.match(r"sp,", line.op_str):
                return f"{line.mnemonic} {line.op_str}"
            if stem == "mv" and re.match(r"sp, (?!s0)", line.op_str):
                return f"{line.mnemonic} {line.op_str}"
        return ""


class Embedded(Riscv):
    """RV32E: half as many registers."""

    cores: tuple[str, ...] = ("rv32e",)
    in_registers: int = 6
    saved: int = 16  # s0, s1 and ra


ISA: Isa = Riscv()
EMBEDDED: Isa = Embedded()
