"""The emulated device: counts that a person can check, memory that ends where the device's does, exact marks."""

import json

import numpy as np
import pytest

from edgesmith import targets
from edgesmith.ir.errors import InternalError, MachineError, UsageError
from edgesmith.lowering.c import toolchain
from edgesmith.runtimes import load, names
from edgesmith.runtimes.isa import thumb
from edgesmith.runtimes.machine import Fault, Machine

pytestmark = [pytest.mark.compiler, pytest.mark.emulator]
F746 = targets.get("stm32f746")

PROGRAM = r"""
#include <stdint.h>
__attribute__((section(".es_arena"))) uint8_t arena[4096];
__attribute__((naked)) int loop(int n) {
    __asm__ volatile("movs r1, #0\n1: adds r1, #3\n subs r0, #1\n bne 1b\n mov r0, r1\n bx lr");
}
__attribute__((naked)) int skipped(int n) {
    __asm__ volatile("cmp r0, #0\n itte eq\n addeq r0, #1\n addeq r0, #1\n addne.w r0, r0, #5\n bx lr");
}
__attribute__((naked)) int pair(int *p) { __asm__ volatile("ldrd r2, r3, [r0]\n mov r0, r3\n bx lr"); }
int word(volatile int *p) { return *p; }
void touch(int n, int value) { arena[n] = value; }
void poke(volatile int *p) { *p = 3; }
int deep(int n) { volatile int x[50]; x[n % 50] = n; return n ? deep(n - 1) + x[n % 50] : 0; }
__attribute__((naked)) void push(int bytes) {
    __asm__ volatile("sub sp, r0\n movs r1, #0\n str r1, [sp]\n add sp, r0\n bx lr");
}
int six(int a, int b, int c, int d, int e, int f) { return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f; }
void forever(void) { for (;;) __asm__ volatile(""); }
int sort(uint8_t *a, int n) {
    int swaps = 0;
    for (int i = 1; i < n; i++)
        for (int j = i; j > 0 && a[j - 1] > a[j]; j--, swaps++) { uint8_t t = a[j]; a[j] = a[j - 1]; a[j - 1] = t; }
    return swaps;
}
__attribute__((section(".es_harness"), noinline)) int outside(int n) { return n + 1; }
int both(int n) { return outside(n) * 3; }
"""
ENTRIES = ["loop", "skipped", "pair", "word", "touch", "poke", "deep", "push", "six", "forever", "sort", "both"]


@pytest.fixture(scope="module")
def elf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    (folder / "program.c").write_text(PROGRAM)
    return toolchain.compile_elf(folder, F746, folder / "program.elf", ENTRIES)


@pytest.fixture(params=[True, False], ids=["native", "python"])
def machine(elf, request):
    return Machine(F746, elf, native=request.param)


def test_counts_equal_a_loop_counted_by_hand(machine):
    result = machine.call("loop", 1000)
    assert result.value == 3000
    assert result.instructions == 1 + 3 * 1000 + 2
    assert result.per_function == {"loop": 3003}


@pytest.mark.parametrize(("argument", "value"), [(0, 2), (1, 6)])
def test_skipped_conditional_instructions_count(machine, argument, value):
    result = machine.call("skipped", argument)
    assert (result.value, result.instructions) == (value, 6)


def test_the_harness_is_counted_apart(machine):
    result = machine.call("both", 4)
    assert result.value == 15
    assert result.harness == 2  # an addition and the return
    assert "outside" not in result.per_function
    assert result.instructions == sum(result.per_function.values())


def test_counts_start_afresh_with_each_call(machine):
    assert [machine.call("loop", n).instructions for n in (5, 5, 7)] == [18, 18, 24]


def test_block_sums_equal_a_count_of_single_instructions(machine):
    from unicorn import UC_HOOK_CODE

    array = np.random.default_rng(1).integers(0, 256, 60, dtype=np.uint8)
    place = machine.buffer(60)
    machine.write(place, array)
    result = machine.call("sort", place, 60)
    assert np.array_equal(machine.read(place, 60), np.sort(array))
    seen = [0]
    machine._engine.hook_add(UC_HOOK_CODE, lambda *_: seen.__setitem__(0, seen[0] + 1))
    machine._engine.ctl_flush_tb()
    machine.write(place, array)
    assert machine.call("sort", place, 60).value == result.value
    assert seen[0] == result.instructions


def test_arguments_beyond_the_fourth_go_by_the_stack(machine):
    assert machine.call("six", 1, 2, 3, 4, 5, -6).value == 1 + 4 + 9 + 16 + 25 - 36


def test_writing_past_ram_faults_with_the_distance(machine):
    machine.call("poke", 0x2004FFFC)
    with pytest.raises(Fault, match="4 bytes past the end of the 327680 bytes of RAM") as caught:
        machine.call("poke", 0x20050000)
    assert (caught.value.function, caught.value.address) == ("poke", 0x20050000)


@pytest.mark.parametrize(
    ("function", "argument", "cause"),
    [
        ("poke", 0x08000100, "flash is read-only"),
        ("poke", 0x90000000, "qspi is read-only"),
        ("poke", 0x60000000, "camera's image is read-only"),
        ("word", 0x70000000, "wild pointer"),
        ("deep", 100_000, "stack overflow: the 8192 bytes"),
    ],
)
def test_faults_name_their_likely_cause(machine, function, argument, cause):
    with pytest.raises(Fault, match=cause) as caught:
        machine.call(function, argument)
    assert caught.value.function == function


def test_jump_to_data_is_a_fetch_fault(machine):
    with pytest.raises(Fault, match="not code"):
        machine.call(0x20000100)


def test_a_call_that_never_returns_is_stopped(machine):
    with pytest.raises(Fault, match="did not return"):
        machine.call("forever", timeout_s=0.2)


def test_high_water_of_the_arena_is_exact_to_the_byte(machine):
    # 256 values cover every paint: whichever equals one pattern there, the opposite pattern shows it.
    for value in range(0, 256, 5):
        touched = np.zeros(4096, bool)
        for paint in (0, 1):
            machine.paint("arena", paint)
            machine.call("touch", 3210, value)
            touched |= machine.touched("arena", paint)
        assert np.flatnonzero(touched).tolist() == [3210]


@pytest.mark.parametrize("size", [8, 64, 1000, 8192])
def test_high_water_of_the_stack_is_exact(machine, size):
    assert max(machine.call("push", size, paint=paint).stack for paint in (0, 1)) == size


def test_stack_past_its_end_faults(machine):
    with pytest.raises(Fault, match="stack overflow"):
        machine.call("push", 8196)


def test_strict_mode_tells_legal_misalignment_from_the_other(elf):
    lenient, strict = Machine(F746, elf), Machine(F746, elf, strict=True)
    place = strict.buffer(16)
    lenient.buffer(16)
    assert lenient.call("pair", place + 2).value == 0
    assert strict.call("word", place + 2).value == 0
    assert strict.call("pair", place + 4).value == 0
    with pytest.raises(Fault, match="misaligned") as caught:
        strict.call("pair", place + 2)
    assert caught.value.function == "pair"


def test_strict_mode_counts_traffic_by_region(elf):
    strict = Machine(F746, elf, strict=True)
    assert strict.call("word", 0x90000000).traffic["qspi"] == (4, 0)
    assert strict.call("poke", 0x20020000).traffic["sram"] == (0, 4)


def test_unknown_symbol_suggests_near_ones(machine):
    with pytest.raises(UsageError, match="loop"):
        machine.call("lop")


def test_a_program_without_fpu_is_refused(tmp_path):
    from dataclasses import replace

    (tmp_path / "a.c").write_text("int f(void) { return 1; }\n")
    core = replace(F746.core, zig_cpu="cortex_m7", features=("dsp",))
    path = toolchain.compile_elf(tmp_path, replace(F746, core=core), tmp_path / "a.elf", ["f"])
    with pytest.raises(MachineError, match="without the FPU"):
        Machine(F746, path)


def test_instruction_lengths_tell_halves_from_words():
    assert thumb.ISA.lengths(bytes.fromhex("7047" "d0e90023" "00bf")) == [2, 4, 2]
    with pytest.raises(InternalError):
        thumb.ISA.lengths(bytes.fromhex("d0e9"))


NET = """
#include <stdint.h>
__attribute__((section(".es_arena"))) int16_t tiny_arena[64];
int tiny_run(const int8_t *in, int8_t *out) {
    for (int i = 0; i < 10; i++) tiny_arena[i] = in[i] * 3;
    for (int i = 0; i < 10; i++) out[i] = (int8_t)((tiny_arena[i] + LEAK) >> 2);
    return 0;
}
"""


def artifact(folder, leak="0"):
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "net.c").write_text(NET.replace("LEAK", leak))
    tensor = {"dtype": "int8", "shape": [1, 10], "zero_point": 0}
    manifest = {
        "name": "tiny", "target": "stm32f746", "symbols": {"run": "tiny_run", "arena": "tiny_arena"},
        "inputs": [{"name": "x", "scale": 0.5, **tensor}], "outputs": [{"name": "y", "scale": 2.0, **tensor}],
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("name", ["emulator", "host"])
def test_runners_agree_with_the_arithmetic(tmp_path, name):
    stored = np.arange(-20, 20, 4, dtype=np.int8).reshape(1, 10)
    expected = (stored.astype(int) * 3) >> 2
    runner = load(name)
    assert runner.why_not() is None
    folder = artifact(tmp_path / "net")
    measured = runner.run(folder, {"x": stored})
    assert np.array_equal(measured.raw["y"], expected)
    assert np.array_equal(measured.outputs["y"], expected * 2.0)
    again = runner.run(folder, {"x": stored.astype(np.float32) * 0.5})
    assert np.array_equal(again.raw["y"], expected)


def test_emulated_measurement_says_what_is_exact_and_what_is_estimated(tmp_path):
    measured = load("emulator").run(artifact(tmp_path / "net"), {"x": np.ones((1, 10), np.int8)})
    assert measured.kind == "emulated" and measured.latency_kind == "estimated"
    assert measured.arena_high_water == 20
    assert measured.instructions == sum(measured.per_function.values()) > 20
    low, high = measured.latency_ms
    assert (low, high) == pytest.approx([cycles / 216e3 for cycles in measured.estimate.cycles])
    assert 0.5 * measured.instructions <= measured.estimate.core[0] < measured.estimate.core[1]
    assert low < high and "not calibrated" in measured.latency_because


def test_reading_the_arena_before_writing_it_is_found(tmp_path):
    with pytest.raises(InternalError, match="what memory held before"):
        load("emulator").run(artifact(tmp_path / "net", leak="tiny_arena[50]"), {"x": np.ones((1, 10), np.int8)})


def test_wrong_inputs_are_usage_errors(tmp_path):
    folder = artifact(tmp_path / "net")
    for inputs in ({}, {"z": np.ones((1, 10), np.int8)}, {"x": np.ones((1, 9), np.int8)}, {"x": np.ones((1, 10), int)}):
        with pytest.raises(UsageError):
            load("emulator").run(folder, inputs)
    with pytest.raises(UsageError, match=r"manifest\.json"):
        load("emulator").run(tmp_path, {})


def test_runners_are_found_by_file():
    assert set(names()) >= {"emulator", "host", "ort"}
    with pytest.raises(UsageError, match="emulator"):
        load("abacus")


def test_one_build_serves_many_images_on_both_sides(tmp_path):
    from edgesmith.runtimes import emulator, host

    folder = artifact(tmp_path / "net")
    device, here = emulator.Program(folder), host.Program(folder)
    random = np.random.default_rng(3)
    for _ in range(5):
        image = random.integers(-128, 128, (1, 10), dtype=np.int8)
        (emulated,), _ = device.call([image])
        assert np.array_equal(emulated, here.call([image])[0])
