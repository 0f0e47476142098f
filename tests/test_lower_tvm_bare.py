"""Runs what the TVM back end compiles for Cortex-M in the emulator of the device, against the reference."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgesmith import targets
from edgesmith.ir.graph import Graph, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Relu
from edgesmith.ir.ops.shape import Reshape
from edgesmith.lowering.c import toolchain
from edgesmith.lowering.tvm import bare
from edgesmith.lowering.tvm.lower import lower
from edgesmith.lowering.tvm.machine import Machine
from edgesmith.runtimes.machine import Machine as Chip

SHARED = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tvm_libraries.py"))))
SUPPORT = Path(__file__).with_name("tvm_bare.c")
CORES = {"stm32f746": ("cortex-m7", ["-fp64"]), "stm32f427": ("cortex-m4", [])}
pytestmark = [pytest.mark.tvm, pytest.mark.compiler, pytest.mark.emulator]


def executed(graph, feeds, device, folder):
    """What a graph's library computes on a device, and the library."""
    SHARED.needs_tvm()
    cpu, features = CORES[device]
    machine = Machine.of({"mtriple": "thumbv7em-none-eabihf", "mcpu": cpu, "features": features})
    program = lower(graph, machine)[0]
    made, target = bare.library(program, folder, "1 net"), targets.get(device)
    toolchain.compile_elf([made.source, made.object, SUPPORT], target, folder / "net.elf", [made.entry])
    chip = Chip(target, folder / "net.elf")
    given = [chip.place(feeds[port.name]) for port in program.inputs]
    taken = [chip.buffer(int(np.prod(port.shape)) * np.dtype(port.dtype).itemsize) for port in program.outputs]
    chip.call(made.entry, *given, *taken)
    return {port.name: chip.read(at, int(np.prod(port.shape)), port.dtype).reshape(port.shape)
            for port, at in zip(program.outputs, taken, strict=True)}, made  # fmt: skip


@pytest.mark.parametrize("device", CORES)
def test_microcontrollers_compute_the_same(device, tmp_path):
    graph, feeds = SHARED.network()
    found, made = executed(graph, feeds, device, tmp_path)
    for name, wanted in run(graph, feeds).items():
        bound = 0 if name == "sums" else SHARED.BOUND * np.abs(wanted).max()
        assert np.abs(found[name] - wanted).max() <= bound, name
    assert 0 < made.arena <= 64 * 1024 and made.weights % 16 == 0


def test_an_output_that_is_given_twice_is_copied(tmp_path):
    graph = Graph("twice")
    y = graph.add(Relu(), graph.input("x", Type("float32", (2, 6))))
    graph.output(y, "one")
    graph.output(graph.add(Reshape((3, 4)), y), "other")
    feeds = {"x": np.linspace(-1, 1, 12, dtype=np.float32).reshape(2, 6)}
    found, _ = executed(graph, feeds, "stm32f746", tmp_path)
    for name, array in found.items():
        assert np.array_equal(array.ravel(), feeds["x"].clip(0).ravel()), name


def test_the_same_program_gives_the_same_bytes(tmp_path):
    SHARED.needs_tvm()
    graph, _ = SHARED.network()
    program = lower(graph, Machine.of({"mtriple": "thumbv7em-none-eabihf", "mcpu": "cortex-m4"}))[0]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        bare.library(program, tmp_path / name, "net")
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
