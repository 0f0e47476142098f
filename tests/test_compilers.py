"""A second compiler for devices: the same bits as from zig, and a probe that no compiler's claims deceive."""

import os
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

import edgesmith
from edgesmith import runtimes, targets
from edgesmith.ir.errors import MachineError, UsageError
from edgesmith.lowering.c import compilers, toolchain
from edgesmith.runtimes import artifact as artifacts

pytest.importorskip("ziglang")
pytestmark = pytest.mark.compiler
F746 = targets.get("stm32f746")
ONE_OF_EACH = ["rp2040", "stm32f207", "stm32f427", "stm32f746", "stm32u575", "esp32c3", "ch32v003", "corstone300"]


def needs_gcc(target):
    command, package = compilers.GCC[targets.get(target).core.zig_target.partition("-")[0]]
    if not shutil.which(command):
        pytest.skip(f"needs {command} ({package})")


def needs_runner(target):
    name = runtimes.of_target(targets.get(target))
    if why := runtimes.load(name).why_not():
        pytest.skip(why)
    return runtimes.load(name)


@pytest.mark.parametrize("target", ONE_OF_EACH)
def test_gcc_has_every_promised_feature(target):
    needs_gcc(target)
    assert toolchain.probe(targets.get(target), compilers.find(targets.get(target), "gcc"))


@pytest.mark.emulator
@pytest.mark.parametrize("target", ONE_OF_EACH)
def test_both_compilers_give_the_same_bits(tiny, tmp_path, target, monkeypatch):
    needs_gcc(target)
    runner = needs_runner(target)
    folder = edgesmith.compile(tiny, target, out=tmp_path / "out", check=False).folder
    noise = np.random.default_rng(1)
    feeds = {
        each.name: noise.integers(-128, 128, each.shape).astype(each.dtype) for each in artifacts.load(folder).inputs
    }
    by_zig = runner.run(folder, feeds)
    monkeypatch.setenv(compilers.CHOICE, "gcc")
    by_gcc = runner.run(folder, feeds)
    for name, array in by_zig.raw.items():
        np.testing.assert_array_equal(by_gcc.raw[name], array)
    assert by_gcc.instructions != by_zig.instructions  # another compiler made this code
    assert by_gcc.instructions < 2 * by_zig.instructions


def test_the_choice_is_the_callers_then_the_environments(monkeypatch):
    monkeypatch.delenv(compilers.CHOICE, raising=False)
    assert compilers.find(F746).name == "zig"
    monkeypatch.setenv(compilers.CHOICE, sys.executable)
    assert compilers.find(F746) == compilers.Compiler("gcc", (sys.executable,))
    assert compilers.find(F746, "zig").name == compilers.find().name == "zig"
    with pytest.raises(UsageError, match="no compiler 'tcc'"):
        compilers.find(F746, "tcc")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MachineError, match="apt install gcc-riscv64-unknown-elf"):
        compilers.find(targets.get("esp32c3"), "gcc")


def test_the_command_line_chooses_for_one_command(tiny, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from edgesmith.cli import commands

    monkeypatch.setenv(compilers.CHOICE, "zig")
    wanted = ["compile", str(tiny), "--target", "stm32f746", "-o", str(tmp_path / "out"), "--no-check"]
    refused = CliRunner().invoke(commands, [*wanted, "--compiler", "tcc"])
    assert refused.exit_code == UsageError.exit_code and "no compiler 'tcc'" in refused.output
    assert os.environ[compilers.CHOICE] == "zig" and not (tmp_path / "out").exists()
    with compilers.chosen(sys.executable):
        assert compilers.find(F746).command == (sys.executable,)
    monkeypatch.delenv(compilers.CHOICE)
    with compilers.chosen("gcc"):
        assert os.environ[compilers.CHOICE] == "gcc"
    assert compilers.CHOICE not in os.environ


@pytest.mark.parametrize(
    ("target", "lost", "cpu", "claims"),
    [
        ("stm32f746", "fpu", "cortex_m7", ["__ARM_FP=4"]),
        ("stm32u575", "dsp", "cortex_m33+fp_armv8d16sp", ["__ARM_FEATURE_DSP=1"]),
        ("corstone300", "mve", "cortex_m55+dsp+fp_armv8d16-mve-mve_fp", ["__ARM_FEATURE_MVE=3"]),
        ("esp32c3", "mul", "generic_rv32+c-m", ["__riscv_mul=1"]),
    ],
)
def test_a_toolchain_that_lies_about_features_is_found_out(tmp_path, target, lost, cpu, claims):
    """It defines every macro that is asked for, and builds for a lesser core."""
    wrapper = tmp_path / "cc"
    given = " ".join(f"-D{claim}" for claim in claims)
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ziglang cc -Wno-everything {given} "$@"\n')
    wrapper.chmod(0o755)
    device = targets.get(target)
    device = replace(device, core=replace(device.core, zig_cpu=cpu))
    with pytest.raises(MachineError, match=lost) as caught:
        toolchain.probe(device, compilers.Compiler("zig", (str(wrapper),)))
    assert caught.value.exit_code  # not a warning
    honest = toolchain.probe(targets.get(target), compilers.find())
    assert honest
