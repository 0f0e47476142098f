"""The board in QEMU: a second opinion that agrees to the instruction, and the only one on Helium."""

import json
import shutil

import numpy as np
import pytest

import edgesmith
from edgesmith import runtimes, targets
from edgesmith.ir.errors import InternalError, UsageError
from edgesmith.runtimes import artifact as artifacts
from edgesmith.runtimes import qemu

pytest.importorskip("ziglang")
pytestmark = [
    pytest.mark.compiler,
    pytest.mark.emulator,
    pytest.mark.skipif(not shutil.which(qemu.COMMAND), reason="needs qemu-system-arm"),
]
BOTH = [name for name in targets.names() if targets.get(name).core.emulator in qemu.BOARDS]
KNOWN = [name for name in BOTH if runtimes.of_target(targets.get(name)) == "emulator"]


@pytest.fixture
def built(tiny, tmp_path):
    def build(target):
        return edgesmith.compile(tiny, target, out=tmp_path / target, check=target not in KNOWN).folder

    return build


def inputs(folder):
    noise = np.random.default_rng(1)
    library = artifacts.load(folder)
    return {each.name: noise.integers(-128, 128, each.shape).astype(each.dtype) for each in library.inputs}


@pytest.mark.parametrize("target", ["stm32f207", "stm32f427", "stm32f746", "stm32u575", "esp32c3", "ch32v003"])
def test_both_emulators_agree_to_the_instruction(built, target):
    command = qemu.BOARDS[targets.get(target).core.emulator].command
    if not shutil.which(command):
        pytest.skip(f"needs {command}")
    folder = built(target)
    feeds = inputs(folder)
    ours, other = (runtimes.load(name).run(folder, feeds) for name in ("emulator", "qemu"))
    for name, array in ours.raw.items():
        np.testing.assert_array_equal(other.raw[name], array)
    assert other.instructions == ours.instructions > 1000
    assert other.per_function == ours.per_function
    assert other.arena_high_water == ours.arena_high_water > 0
    assert 0 < other.stack_high_water <= ours.stack_high_water + 64


def test_helium_runs_and_equals_the_reference(built):
    folder = built("corstone300")
    manifest = json.loads((folder / "manifest.json").read_text())
    rungs = [rung for rung in manifest["verification"] if "emulated corstone300" in rung["rung"]]
    assert rungs and rungs[0]["equal"] is True
    assert runtimes.of_target(targets.get("corstone300")) == "qemu"


def test_steps_leave_what_the_whole_run_makes(built):
    folder = built("corstone300")
    firmware = qemu.Firmware(artifacts.load(folder))
    arrays = firmware.library.arrays(inputs(folder))
    host = runtimes.host.Program(folder)
    assert list(firmware.steps(arrays)) == [list(made) for made in host.steps(arrays)]


def test_a_core_without_a_board(built):
    with pytest.raises(UsageError, match="no board"):
        runtimes.load("qemu").open(built("rp2040"))


def test_a_library_that_faults_or_fails_is_told(built):
    folder = built("stm32f746")
    harness = folder / "test" / "harness.c"
    whole = harness.read_text()
    for wrong, told in (("return *(volatile int *)0x70000000;", "faulted"), ("return 7;", "returned an error")):
        harness.write_text(whole.replace("return 0;", wrong))
        with pytest.raises(InternalError, match=told):
            runtimes.load("qemu").run(folder, inputs(folder))
