"""The static stack bound: never below what a run shows, equal to it on straight chains, silent about nothing."""

import pytest

from edgesmith import targets
from edgesmith.ir.errors import InternalError
from edgesmith.lowering.c import toolchain
from edgesmith.runtimes.machine import Machine
from edgesmith.runtimes.stack import stack_bound

pytest.importorskip("capstone")
pytestmark = [pytest.mark.compiler, pytest.mark.emulator]
F746 = targets.get("stm32f746")

PROGRAM = r"""
#include <stdint.h>
#define NOINLINE __attribute__((noinline))
static NOINLINE int inner(int n) { volatile int x[100]; for (int i = 0; i < 100; i++) x[i] = n; return x[n] + 1; }
static NOINLINE int small(int n) { volatile int x[4]; for (int i = 0; i < 4; i++) x[i] = n; return x[n & 3] + 1; }
NOINLINE int chain(int n) {
    volatile int x[20];
    for (int i = 0; i < 20; i++) x[i] = n;
    return inner(n) + small(n) + x[n];
}
int aligned(int n) {
    __attribute__((aligned(32))) volatile int x[8];
    for (int i = 0; i < 8; i++) x[i] = n;
    return x[n];
}
int branch(int n) { return n ? small(n) + 1 : inner(n) + 2; }
__attribute__((naked)) int assembly(int n) {
    __asm__ volatile("push {r4-r7, lr}\n vpush {d8-d9}\n str r0, [sp, #-8]!\n"
                     "add sp, #8\n vpop {d8-d9}\n pop {r4-r7, pc}");
}
/* Its literals, read as instructions, would be pushes of eight registers. */
__attribute__((naked)) int literals(int n) {
    __asm__ volatile("ldr r0, 1f\n bx lr\n .p2align 2\n1: .word 0xb4ffb4ff\n .word 0xb4ffb4ff");
}
int recursive(int n) { volatile int x = n; return n ? recursive(n - 1) + x : 0; }
int pointer(int (*f)(int)) { return f(3) + 1; }
int dynamic(int n) { volatile int x[n]; x[n - 1] = 1; return x[n - 1]; }
"""
ENTRIES = ["chain", "aligned", "branch", "assembly", "literals", "recursive", "pointer", "dynamic"]


@pytest.fixture(scope="module")
def elf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stack")
    (folder / "program.c").write_text(PROGRAM)
    return toolchain.compile_elf(folder, F746, folder / "program.elf", ENTRIES)


@pytest.mark.parametrize(("name", "argument"), [("chain", 3), ("branch", 0), ("assembly", 1), ("literals", 1)])
def test_the_bound_is_what_the_deepest_run_shows(elf, name, argument):
    machine = Machine(F746, elf)
    seen = max(machine.call(name, argument, paint=paint).stack for paint in (0, 1))
    bound = stack_bound(elf, name)
    assert seen <= bound.bytes
    # Frames may end in a slot that nothing writes: a register saved for alignment, or padding.
    assert bound.bytes - seen <= 8


def test_the_chain_names_the_deepest_path(elf):
    assert stack_bound(elf, "branch").chain == ("branch", "inner")
    assert stack_bound(elf, "assembly").bytes == 5 * 4 + 2 * 8 + 8
    assert stack_bound(elf, "literals").bytes == 0
    # What rounding down costs depends on the caller's stack: the bound holds the worst case.
    assert stack_bound(elf, "aligned").bytes >= 16 + 32 + 16


def test_recursion_and_sizes_known_at_run_time_have_no_bound(elf):
    with pytest.raises(InternalError, match="recursive -> recursive"):
        stack_bound(elf, "recursive")
    with pytest.raises(InternalError, match="run time"):
        stack_bound(elf, "dynamic")


def test_calls_through_pointers_are_named(elf):
    assert stack_bound(elf, "pointer").indirect == ("pointer",)
    assert stack_bound(elf, "chain").indirect == ()
