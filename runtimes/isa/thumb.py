"""Thumb code of Cortex-M cores, from the M0 to the M33."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ...ir.errors import InternalError
from . import Isa, capstone, unicorn

MODELS = {"cortex-m0": "M0", "cortex-m3": "M3", "cortex-m4": "M4", "cortex-m7": "M7", "cortex-m33": "M33"}
R0, SP, LR, PC = 66, 12, 10, 11
"""The emulator's numbers; `tests/test_isa.py` holds them against its own names."""

HELIUM = {0xEC, 0xED, 0xEE, 0xEF, 0xFC, 0xFD, 0xFE, 0xFF}
UNREAD = ".helium"
NO_BRANCHES = {"bfc", "bfi", "bic", "bics", "bkpt"}
FRAME_POINTERS = {"r7", "r11", "fp"}


class Thumb:
    """Armv7-M and Armv8-M without Helium."""

    machine: str = "EM_ARM"
    cores: tuple[str, ...] = tuple(core for core in MODELS if core != "cortex-m0")
    program_counter: int = PC
    stack_pointer: int = SP
    result: int = R0
    in_registers: int = 4
    saved: int = 40  # r4 to r11 and lr
    aligned: str = "LDRD, STRD, LDM, STM, PUSH, POP and VLDR need word alignment on the device"

    def engine(self, core: str) -> Any:
        """A fresh emulator of a core."""
        api = unicorn()
        engine = api.Uc(api.UC_ARCH_ARM, api.UC_MODE_THUMB | api.UC_MODE_MCLASS)
        engine.ctl_set_cpu_model(getattr(api.arm_const, f"UC_CPU_ARM_CORTEX_{MODELS[core]}"))
        return engine

    def enter(self, engine: Any, function: int, arguments: Sequence[int], back: int) -> int:
        """Arguments in r0 to r3, the return address in lr with the bit that says Thumb."""
        for index, argument in enumerate(arguments):
            engine.reg_write(R0 + index, argument & 0xFFFFFFFF)
        engine.reg_write(LR, back | 1)
        return function | 1

    def length(self, code: bytes) -> int:
        """2 or 4 bytes: the top five bits of the first half tell."""
        return 4 if code[1] >> 3 in (0b11101, 0b11110, 0b11111) else 2

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
        """Plain loads and stores may cross word boundaries; pairs and lists of registers, and the FPU's, may not."""
        half = int.from_bytes(code[:2], "little")
        pairs_and_lists = half >> 9 in (0b1110100, 0b1110110) or half >> 8 in (0xEC, 0xED)
        return pairs_and_lists or half >> 12 == 0xC or half & 0xF600 == 0xB400

    def disassembler(self) -> Any:
        """Capstone for it, which steps over Helium and its loops: it cannot read them."""
        api = capstone()
        engine = api.Cs(api.CS_ARCH_ARM, api.CS_MODE_THUMB | api.CS_MODE_MCLASS)
        engine.skipdata = True
        engine.skipdata_setup = (UNREAD, _helium, None)
        return engine

    def lowers(self, line: Any) -> int:
        """PUSH and its kin, stores that decrement first, and subtractions."""
        name, operands = re.sub(r"\.w$", "", line.mnemonic), line.op_str
        if name in ("push", "vpush") or (name in ("stmdb", "vstmdb") and operands.startswith("sp!")):
            return _registers(operands[operands.index("{") :])
        if name.startswith("str") and (pre := re.search(r"\[sp, #-(0x[0-9a-f]+|\d+)\]!", operands)):
            return int(pre[1], 0)
        if name in ("sub", "subw") and operands.startswith("sp,"):
            constant = re.search(r"#(0x[0-9a-f]+|\d+)$", operands)
            return int(constant[1], 0) if constant else 0
        return 0

    def calls(self, line: Any) -> tuple[int | None, bool]:
        """Branches to a place; BL comes back, BLX and BX lead through a pointer unless they return."""
        stem = re.sub(r"\.w$", "", line.mnemonic)
        place = re.search(r"#(0x[0-9a-f]+|\d+)$", line.op_str)
        if place and stem[0] == "b" and stem not in NO_BRANCHES:
            return int(place[1], 0), stem == "bl"
        return None, stem.startswith("blx") or (stem.startswith("bx") and line.op_str != "lr")

    def varies(self, lines: Sequence[Any]) -> str:
        """A subtraction of a register, or a move from anything but a frame pointer and a constant."""
        for index, line in enumerate(lines):
            if line.mnemonic.startswith("sub") and re.fullmatch(r"sp(, sp)?, [a-z]\w*", line.op_str):
                return f"{line.mnemonic} {line.op_str}"
            source = re.fullmatch(r"sp, (\w+)", line.op_str) if line.mnemonic.startswith("mov") else None
            if source is None or source[1] in FRAME_POINTERS:
                continue
            makers = [earlier for earlier in lines[:index] if earlier.op_str.startswith(f"{source[1]},")]
            made_by, operands = (makers[-1].mnemonic, makers[-1].op_str) if makers else ("", "")
            restored = made_by.startswith(("add", "sub")) and re.search(r", (r7|fp|r11), #", operands)
            if not restored and not made_by.startswith(("bfc", "bic")):
                return f"{line.mnemonic} {line.op_str}"
        return ""


class Small(Thumb):
    """Armv6-M."""

    cores: tuple[str, ...] = ("cortex-m0",)
    aligned: str = "on Armv6-M every word needs word alignment"

    def must_align(self, code: bytes) -> bool:
        """All of them."""
        return True


def _helium(code: Any, size: int, at: int, context: Any) -> int:
    """Bytes to step over: an instruction of the coprocessors' space, where Helium lives, or of a low-overhead loop.

    Neither moves the stack pointer, and such a loop only leads back into its function. Anything else is not known.
    """
    half = int.from_bytes(code[at] + code[at + 1], "little")
    return 4 if half >> 8 in HELIUM or half & 0xFF80 == 0xF000 else 0


def _registers(text: str) -> int:
    """Bytes of a register list as the disassembler prints it: every register by name, ranges never."""
    return sum(8 if name.strip().startswith("d") else 4 for name in text.strip("{}").split(","))


ISA: Isa = Thumb()
SMALL: Isa = Small()
