"""The toolchain: right sections in right regions, and the silent traps of compilers turned into errors."""

import ctypes
from dataclasses import replace

import pytest

from edgesmith import targets
from edgesmith.ir.errors import BudgetError, MachineError, UsageError
from edgesmith.lowering.c import toolchain

pytestmark = pytest.mark.compiler
F746 = targets.get("stm32f746")

SOURCE = """
#include <stdint.h>
__attribute__((section(".es_arena"))) int8_t net_arena[1000];
__attribute__((section(".es_external"))) const int8_t weights[300] = {1, 2, 3};
static volatile int started = 7;
int net_run(int n) { net_arena[n] = weights[n]; return net_arena[n] + started; }
int unused(int n) { return n * 77; }
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "net.c").write_text(SOURCE)
    return tmp_path


def build(folder, target=F746, **options):
    return toolchain.compile_elf(folder / "src", target, folder / "net.elf", ["net_run"], **options)


def test_sections_land_in_their_regions(folder):
    sizes = toolchain.section_sizes(build(folder, stack=4096), F746)
    assert sizes.sections[".es_stack"] == (0x20000000, 4096)
    assert sizes.sections[".es_external"] == (0x90000000, 300)
    assert sizes.sections[".es_arena"] == (0x20000000 + 4096, 1000)
    assert sizes.sections[".text"][0] == 0x08000000
    assert sizes.regions["qspi"] == 300
    assert sizes.regions["dtcm"] == 4096 + 4 + 1000
    # The image of the initialised variable lies in flash too.
    assert sizes.regions["flash"] == sizes.code + 4


def test_code_nobody_reaches_is_dropped(folder):
    assert b"unused" not in build(folder).read_bytes()


def test_without_external_flash_constants_go_to_flash(folder):
    target = targets.get("stm32f427")
    sizes = toolchain.section_sizes(build(folder, target), target)
    assert 0x08000000 <= sizes.sections[".es_external"][0] < 0x08200000


@pytest.mark.parametrize("name", [name for name in targets.names() if targets.get(name).core.zig_target])
def test_probe_finds_every_promised_feature(name):
    target = targets.get(name)
    macros = toolchain.probe(target)
    assert ("__ARM_FP" in macros) == ("fpu" in target.core.features)
    assert ("__ARM_FEATURE_DSP" in macros) == ("dsp" in target.core.features)


@pytest.mark.parametrize(
    ("cpu", "lost"), [("cortex_m7", "fpu"), ("cortex_m33+fp_armv8d16sp", "dsp")], ids=["soft float", "no DSP"]
)
def test_probe_refuses_cpu_strings_that_lose_a_feature_in_silence(folder, cpu, lost):
    target = replace(F746, core=replace(F746.core, zig_cpu=cpu))
    with pytest.raises(MachineError, match=lost):
        build(folder, target)


def test_changed_incbin_data_change_the_result(folder):
    (folder / "src" / "net.c").write_text(
        '__asm__(".section .rodata.w\\n.global w\\nw: .incbin \\"w.bin\\"\\n");\n'
        "extern const unsigned char w[];\nint net_run(int n) { return w[n]; }\n"
    )
    images = []
    for content in (b"\x11" * 64, b"\x22" * 64):
        (folder / "src" / "w.bin").write_bytes(content)
        images.append(build(folder, flags=[f"-I{folder / 'src'}"]).read_bytes())
    assert b"\x11" * 64 in images[0]
    assert b"\x22" * 64 in images[1]


def test_same_sources_same_bytes(folder):
    assert build(folder).read_bytes() == build(folder).read_bytes()


def test_overflowing_ram_is_a_budget_error_with_the_figure(folder):
    (folder / "src" / "net.c").write_text(SOURCE.replace("net_arena[1000]", "net_arena[400000]"))
    with pytest.raises(BudgetError, match=f"RAM is too small by {8192 + 4 + 400000 - 327680} bytes"):
        build(folder)


def test_software_arithmetic_is_named(folder):
    (folder / "src" / "net.c").write_text("double net_run(double a) { return a * 3; }\n")
    with pytest.raises(MachineError, match="__aeabi_dmul"):
        build(folder)


def test_broken_sources_show_the_compilers_message(folder):
    (folder / "src" / "net.c").write_text("int net_run(int n) { return m; }\n")
    with pytest.raises(MachineError, match="undeclared identifier 'm'"):
        build(folder)


def test_missing_sources_and_unoptimised_builds_are_usage_errors(folder):
    with pytest.raises(UsageError, match="no C sources"):
        toolchain.compile_elf(folder / "nowhere", F746, folder / "x.elf", ["net_run"])
    with pytest.raises(UsageError, match="-O0"):
        build(folder, optimise="-O0")
    with pytest.raises(UsageError, match="memory map"):
        build(folder, targets.get("host"))


def test_shared_object_computes_the_same(folder):
    library = ctypes.CDLL(str(toolchain.compile_shared(folder / "src", folder / "net.so")))
    assert [library.net_run(n) for n in range(4)] == [8, 9, 10, 7]
