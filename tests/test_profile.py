"""Profiles: every instruction is attributed once, to what it is for, and building with debug information moves none."""

import re
import runpy
from pathlib import Path

import pytest

import edgesmith
from edgesmith.cli import console
from edgesmith.driver import execution
from edgesmith.ir.errors import UsageError
from edgesmith.lowering.c import toolchain
from edgesmith.lowering.c.lower import KERNELS
from edgesmith.runtimes import elf, kinds

vit = runpy.run_path(str(Path(__file__).with_name("build.py")))["vit"]


@pytest.fixture(scope="module", params=["stm32f746", "rp2040", "esp32c3"])
def compiled(request, tmp_path_factory):
    place = tmp_path_factory.mktemp(request.param)
    return edgesmith.compile(vit("float32", depth=1), request.param, out=place / "out", check=False)


@pytest.fixture(scope="module")
def outcome(compiled):
    return execution.run(compiled, profile=True)


def test_every_kernel_header_has_a_kind():
    headers = {path.stem for path in KERNELS.glob("*.h")} - {"kernels"}
    assert headers == set(kinds.HEADERS)


def test_every_function_of_the_kernels_is_known():
    defined = set()
    for header in KERNELS.glob("*.h"):
        text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)
        defined |= set(re.findall(r"^(?:ES_INLINE|static)\b[^;{}#=]*?\b(es_\w+)\([^;{}]*\)\s*\{", text, re.MULTILINE))
    assert len(defined) > 100
    assert defined <= set(kinds.kernels())
    assert {name for name in kinds.APART if name.startswith("es_")} <= defined


@pytest.mark.parametrize(
    ("chain", "kind"),
    [
        (("ffn_2", "es_matmul_of", "es_store_tile", "es_value", "es_requant", "es_high"), "linear layers"),
        (("ffn_2", "es_matmul_of", "es_store_tile", "es_value", "es_tabled", "es_curve"), "activations"),
        (("ffn_2", "es_matmul_of", "es_store_sum", "es_value"), "linear layers"),
        (("ffn_2", "es_matmul_of", "es_store_sum", "es_put"), "residual sums"),
        (("attention_1", "es_attention", "es_matmul", "es_dot"), "attention products"),
        (("attention_1", "es_attention", "es_exponentials", "es_high"), "softmax"),
        (("attention_1", "es_matmul_of", "es_dot"), "linear layers"),
        (("conv_1", "es_conv", "es_matmul_of", "es_dot"), "convolutions"),
        (("net_step", "es_softmax_f32", "es_expf"), "softmax"),
        (("net_step",), "loops and calls"),
        ((), "loops and calls"),
    ],
)
def test_an_instruction_is_for_what_the_innermost_kernel_is_for(chain, kind):
    assert kinds.kind(chain) == kind


@pytest.mark.compiler
@pytest.mark.emulator
def test_every_instruction_is_attributed_once(compiled, outcome):
    found, counted = outcome.json()["profile"], outcome.measurement.instructions
    steps = sum(outcome.measurement.per_step)
    assert found["instructions"] == steps == pytest.approx(counted, rel=0.01)  # the loop over steps is called anew
    for share in (found["kinds"], *(layer["kinds"] for layer in found["layers"])):
        assert all(count > 0 for count in share.values())
    assert sum(found["kinds"].values()) == steps
    for layer, count in zip(found["layers"], outcome.measurement.per_step, strict=True):
        assert sum(layer["kinds"].values()) == layer["instructions"] == count
    assert sum(each["instructions"] for each in found["functions"]) == steps
    assert sum(block["instructions"] * block["executions"] for block in found["blocks"]) == steps
    assert [layer["macs"] for layer in found["layers"]] == [step["macs"] for step in compiled.manifest["steps"]]


@pytest.mark.compiler
@pytest.mark.emulator
def test_kinds_are_those_of_the_layers(outcome):
    found = outcome.json()["profile"]
    attention = next(layer for layer in found["layers"] if layer["kind"] == "attention")
    others = [layer for layer in found["layers"] if layer["kind"] != "attention"]
    assert {"attention products", "softmax", "linear layers", "norms", "residual sums"} <= set(attention["kinds"])
    assert all(not {"attention products", "softmax"} & set(layer["kinds"]) for layer in others)
    assert found["kinds"].get("loops and calls", 0) < 0.1 * found["instructions"]


@pytest.mark.compiler
@pytest.mark.emulator
def test_debug_information_moves_no_instruction(compiled, tmp_path):
    from edgesmith import targets
    from edgesmith.runtimes import artifact

    library = artifact.load(compiled.folder)
    target, entries = targets.get(library.target), [library.run, library.arena]
    images = [
        elf.load(toolchain.compile_elf(library.sources, target, tmp_path / f"{len(flags)}.elf", entries, flags=flags))
        for flags in ([], ["-g1"])
    ]
    assert images[0].segments == images[1].segments


@pytest.mark.compiler
@pytest.mark.emulator
def test_a_profile_is_printed_and_asked_for_only_where_instructions_are_counted(compiled, outcome):
    with console.OUT.capture() as said:
        console.run(outcome.json())
    assert "attention products" in said.get() and "per MAC" in said.get() and "executed blocks" in said.get()
    with pytest.raises(UsageError, match="does not count instructions"):
        execution.run(compiled, on="host", profile=True)


@pytest.mark.compiler
@pytest.mark.emulator
def test_code_is_told_by_kernel_and_by_function(compiled, outcome):
    flash, found = compiled.manifest["flash"], outcome.profile
    functions = flash["functions"]
    assert 0 <= flash["code"] - sum(functions.values()) <= 4 * len(functions)  # padding between them
    assert {step["function"] for step in compiled.manifest["steps"]} <= set(functions)
    ran = {each["name"]: each["bytes"] for each in found["functions"]}
    assert {name: size for name, size in ran.items() if name in functions} == {
        name: functions[name] for name in ran if name in functions
    }
    idle = {name for name in set(functions) - set(ran) if not name.startswith("__")}  # the compiler's own have aliases
    assert idle <= {f"{compiled.manifest['name']}_run", *kinds.kernels()}
    assert sum(ran.values()) <= sum(found["code"].values()) < 1.1 * flash["code"]
    assert {"linear layers", "attention products", "softmax", "norms"} <= set(found["code"])
    with console.OUT.capture() as said:
        console.compile({"folder": "", **compiled.manifest})
    assert "bytes" in said.get() and next(iter(functions)) in said.get()
