"""Instructions as timing rules see them: what they read and write, what unit they need, how they branch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..isa import capstone
from . import helium

if TYPE_CHECKING:
    from ..isa import Isa

__all__ = ["DIVIDES", "SIMD", "SLOW_FLOATS", "Block", "Instruction", "Piece", "decoded"]

Piece = tuple[int, bytes, int]
"""Code that ran together: its address, its bytes, how often."""

LOADS = {"ldr", "ldrb", "ldrh", "ldrsb", "ldrsh", "vldr"}
STORES = {"str", "strb", "strh", "vstr"}
PAIRS = {"ldrd": 2, "strd": 2}
LISTS = {"ldm", "ldmdb", "pop", "vldmia", "vldmdb", "vpop", "stm", "stmdb", "push", "vstmia", "vstmdb", "vpush"}
MULTIPLIES = ("mul", "mla", "mls", "smla", "smml", "smul", "smu", "umul", "umla", "smull", "smlal", "sml", "uml")
ACCUMULATES = ("mla", "mls", "smla", "smmla", "smmls", "umla", "sml")
SHIFTS = {
    "lsl", "lsr", "asr", "ror", "rrx", "sxtb", "sxth", "uxtb", "uxth", "sxtb16", "uxtb16", "sxtab", "sxtah", "uxtab",
    "uxtah", "ubfx", "sbfx", "bfi", "bfc", "pkhbt", "pkhtb", "ssat", "usat", "rev", "rev16", "rbit",
}  # fmt: skip
SIMD = {"sxtb16", "uxtb16", "sxtab16", "pkhbt", "pkhtb", "ssat16", "usat16", "sadd16", "ssub16", "qadd16", "sel"}
DIVIDES = {"sdiv", "udiv"}
SLOW_FLOATS = {"vdiv", "vsqrt"}


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        name: Without condition and width.
        bytes: 2 or 4.
        reads, writes: Registers; "cpsr" holds the flags.
        accumulates: Registers that a product is added to.
        shifted: Registers that pass the shifter before the operation.
        words: Registers that a list or pair moves, else 0.
        jumps: Whether it may go elsewhere.
        conditional: Whether it may also not.
        target: Where to, if the code says so.
    """

    name: str
    bytes: int
    reads: frozenset[str]
    writes: frozenset[str]
    accumulates: frozenset[str] = frozenset()
    shifted: frozenset[str] = frozenset()
    words: int = 0
    jumps: bool = False
    conditional: bool = False
    target: int | None = None

    @property
    def loads(self) -> bool:
        """Reads memory."""
        return self.name in LOADS or self.name == "ldrd" or self.name.startswith(("ldm", "vldm", "pop", "vpop"))

    @property
    def stores(self) -> bool:
        """Writes memory."""
        return self.name in STORES or self.name == "strd" or self.name.startswith(("stm", "vstm", "push", "vpush"))

    @property
    def single(self) -> bool:
        """One register from or to memory."""
        return self.name in LOADS or self.name in STORES

    @property
    def multiplies(self) -> bool:
        """Uses the multiplier."""
        return self.name.startswith(MULTIPLIES)

    @property
    def shifts(self) -> bool:
        """Uses the shifter or extends."""
        return self.name in SHIFTS or bool(self.shifted)


@dataclass(frozen=True)
class Block:
    """Instructions that ran together `count` times.

    `taken` are the least and the most times that the jump at its end was taken, and `rare` the most times that it did
    not go its usual way.
    """

    instructions: tuple[Instruction, ...]
    count: int
    taken: tuple[int, int] = (0, 0)
    rare: int = 0


def decoded(isa: Isa, pieces: Iterable[Piece]) -> Iterator[Block]:
    """The blocks of a run; how often jumps were taken follows from what ran behind them."""
    engine, pieces = isa.disassembler(), tuple(pieces)
    engine.detail, engine.skipdata = True, False
    began: dict[int, int] = {}
    for address, _, count in pieces:
        began[address] = began.get(address, 0) + count
    for address, code, count in pieces:
        lines = tuple(_lines(isa, engine, code, address))
        yield Block(lines, count, *_taken(lines, count, began.get(address + len(code), 0), began))


def _lines(isa: Isa, engine: Any, code: bytes, address: int) -> Iterator[Instruction]:
    """What the disassembler cannot read, Helium and low-overhead loops, is told by its bits."""
    at = 0
    for length in isa.lengths(code):
        word, place = code[at : at + length], address + at
        at += length
        unit = helium.unit(word) if isa.machine == "EM_ARM" else ""
        line = next(engine.disasm(word, place, 1), None) if not unit else None
        if line is None:
            yield Instruction(unit or "unread", length, frozenset(), frozenset())
        elif isa.machine == "EM_ARM":
            yield _instruction(line)
        else:
            yield _riscv(isa, line)


def _taken(
    lines: tuple[Instruction, ...], count: int, behind: int, began: Mapping[int, int]
) -> tuple[tuple[int, int], int]:
    """A conditional jump was taken at least as often as what is behind did not run, at most as often as its target."""
    if not lines or not lines[-1].jumps:
        return (0, 0), 0
    last = lines[-1]
    if not last.conditional:
        return (count, count), 0
    there = count if last.target is None else began.get(last.target, 0)
    low, high = max(0, count - behind), min(count, there)
    return (low, max(low, high)), min(max(low, high), count - low)


def _instruction(line: Any) -> Instruction:
    api = capstone()
    arm = api.arm_const
    name = line.insn_name()
    reads, writes = ({line.reg_name(each) for each in registers} for registers in line.regs_access())
    operands = line.operands
    registers = [line.reg_name(each.reg) for each in operands if each.type == arm.ARM_OP_REG]
    shifted = {
        line.reg_name(each.reg) for each in operands
        if each.type == arm.ARM_OP_REG and each.shift.type != arm.ARM_SFT_INVALID and each.shift.value
    }  # fmt: skip
    jumps = line.group(api.CS_GRP_JUMP) or line.group(api.CS_GRP_CALL) or "pc" in writes
    target = next((each.imm & 0xFFFFFFFF for each in operands if jumps and each.type == arm.ARM_OP_IMM), None)
    words = len(registers) - (name in ("ldm", "stm", "ldmdb", "stmdb")) if name in LISTS else PAIRS.get(name, 0)
    conditional = line.cc not in (arm.ARM_CC_AL, arm.ARM_CC_INVALID)
    reads |= {"cpsr"} if conditional else set()
    return Instruction(
        name, line.size, frozenset(reads), frozenset(writes),
        frozenset(registers[-1:]) if name.startswith(ACCUMULATES) else frozenset(), frozenset(shifted), words, jumps,
        jumps and (conditional or name in ("cbz", "cbnz")), target,
    )  # fmt: skip


def _riscv(isa: Isa, line: Any) -> Instruction:
    """The same of RISC-V, whose rules ask for no registers."""
    name = line.mnemonic.removeprefix("c.")
    branches = name.startswith("b")
    target = isa.calls(line)[0] if branches or name in ("j", "jal") else None
    jumps = branches or name in ("j", "jal", "jr", "jalr", "ret")
    return Instruction(name, line.size, frozenset(), frozenset(), jumps=jumps, conditional=branches, target=target)
