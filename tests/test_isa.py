"""Every core that a shipped target has: code for it runs in the emulator, is counted, bounded and held to its rules."""

from dataclasses import replace

import numpy as np
import pytest

from edgesmith import targets
from edgesmith.ir.errors import InternalError, UsageError
from edgesmith.lowering.c import toolchain
from edgesmith.runtimes import isa
from edgesmith.runtimes.isa import riscv, thumb
from edgesmith.runtimes.machine import Fault, Machine
from edgesmith.runtimes.stack import stack_bound

pytest.importorskip("capstone")
unicorn = pytest.importorskip("unicorn")

CORES = {targets.get(name).core.emulator: name for name in targets.names() if isa.knows(targets.get(name))}

PROGRAM = r"""
#include <stdint.h>
#define NOINLINE __attribute__((noinline))
NOINLINE int32_t leaf(int32_t n) { volatile int32_t x[10]; for (int i = 0; i < 10; i++) x[i] = n; return x[n & 7]; }
int32_t many(int a, int b, int c, int d, int e, int f, int g, int h, int i, int j) {
    return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * i + 10 * j;
}
int32_t deep(int32_t n) { volatile int32_t x[20]; for (int i = 0; i < 20; i++) x[i] = n; return leaf(n) + x[n & 7]; }
void dot(const int8_t *a, const int8_t *b, int32_t n, int32_t *out) {
    int32_t sum = 0;
    for (int32_t i = 0; i < n; i++) sum += a[i] * b[i];
    out[0] = sum;
    out[1] = (int32_t)(((int64_t)sum * 0x12345678) >> 32);
    out[2] = (int32_t)(0xFFFFFFFFu / (uint32_t)(n + 2));
}
int32_t empty(void) { return 0; }
int32_t word(const int32_t *p) { return *p; }
int32_t recursive(int32_t n) { volatile int32_t x = n; return n ? recursive(n - 1) + x : 0; }
"""
ENTRIES = ["leaf", "many", "deep", "dot", "empty", "word", "recursive"]


@pytest.fixture(scope="module", params=sorted(CORES))
def built(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("isa")
    (folder / "program.c").write_text(PROGRAM)
    target = targets.get(CORES[request.param])
    elf = toolchain.compile_elf(folder, target, folder / "program.elf", ENTRIES, stack=512)
    return target, elf


def test_registers_have_the_emulators_numbers():
    from unicorn import arm_const, riscv_const

    arm = [getattr(arm_const, f"UC_ARM_REG_{name}") for name in ("R0", "SP", "LR", "PC")]
    assert [thumb.R0, thumb.SP, thumb.LR, thumb.PC] == arm
    risc = [getattr(riscv_const, f"UC_RISCV_REG_{name}") for name in ("A0", "RA", "SP", "PC")]
    assert [riscv.A0, riscv.RA, riscv.SP, riscv.PC] == risc


def test_lengths_of_compressed_code():
    assert riscv.ISA.lengths(bytes.fromhex("130101ff" "0100" "23261100")) == [4, 2, 4]
    with pytest.raises(InternalError):
        riscv.ISA.lengths(bytes.fromhex("1301"))


@pytest.mark.compiler
@pytest.mark.emulator
def test_arithmetic_arguments_and_exact_counts(built):
    target, elf = built
    machine = Machine(target, elf)
    noise = np.random.default_rng(0)
    a, b = noise.integers(-128, 128, (2, 50)).astype(np.int8)
    out = machine.buffer(12)
    result = machine.call("dot", machine.place(a), machine.place(b), 50, out)
    total = int(a.astype(np.int32) @ b.astype(np.int32))
    assert machine.read(out, 3, "int32").tolist() == [total, total * 0x12345678 >> 32, 0xFFFFFFFF // 52]
    assert machine.call("many", *range(1, 11)).value == sum(n * n for n in range(1, 11))
    # What fifty more elements cost is the same however often it is asked, and no fewer than one instruction each.
    again = machine.call("dot", machine.place(a), machine.place(b), 50, out)
    assert again.instructions == result.instructions > 50 * 3
    assert machine.call("empty").instructions == 2


@pytest.mark.compiler
@pytest.mark.emulator
def test_the_stack_bound_holds(built):
    target, elf = built
    machine = Machine(target, elf)
    bound = stack_bound(elf, "deep")
    seen = max(machine.call("deep", 3, paint=paint).stack for paint in (0, 1))
    assert bound.chain == ("deep", "leaf") and not bound.indirect
    assert 30 * 4 <= seen <= bound.bytes <= seen + 16
    with pytest.raises(InternalError, match="recursion"):
        stack_bound(elf, "recursive")


@pytest.mark.compiler
@pytest.mark.emulator
def test_strict_mode_minds_words_off_their_boundary_where_the_core_does(built):
    target, elf = built
    machine = Machine(target, elf, strict=True)
    where = machine.buffer(16)
    assert machine.call("word", where).value == 0
    if target.core.emulator.startswith("rv32"):
        with pytest.raises(Fault, match="misaligned"):
            machine.call("word", where + 1)


def test_a_core_that_no_emulator_knows():
    target = targets.get("stm32f746")
    with pytest.raises(UsageError, match="no emulator"):
        isa.of(replace(target, core=replace(target.core, emulator="z80")))
    with pytest.raises(UsageError, match="processor"):
        isa.of_machine("EM_Z80")
